//! `loggregator nozzle`, and nozzles in the process of `up`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use crate::running::{Reader, Up, loggregator, stdout};

/// A file with this text in a folder of its own.
pub fn file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn nozzle(args: &[&str], dir: &Path) -> Output {
    let mut command = loggregator(["nozzle"]);
    command.args(args).current_dir(dir).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A nozzle that writes the lines of `seq` to a file, as text.
pub fn to_file(path: &Path) -> String {
    format!(
        "[nozzle]\nname = \"lines\"\n\n[[destination]]\nname = \"lines\"\nfilter = 'kind == \"log\" and source_id == \"seq\"'\n\
         [destination.file]\npath = \"{}\"\nformat = \"text\"\n",
        path.display()
    )
}

/// The last words of the lines of a file.
pub fn last_words(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| line.rsplit(' ').next().unwrap_or_default().to_owned())
        .collect()
}

pub fn numbers(last: u32) -> Vec<String> {
    (1..=last).map(|number| number.to_string()).collect()
}

pub fn emit_numbers(up: &Up, numbers: std::ops::RangeInclusive<u32>) {
    let mut emit = up
        .command(["emit", "-s", "seq", "--stdin", "-q"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = emit.stdin.take().unwrap();
    for number in numbers {
        writeln!(lines, "{number}").unwrap();
    }
    drop(lines);
    assert!(emit.wait().unwrap().success());
}

pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("it did not come true: {what}");
}

/// Scenario: `up --nozzle` with a file; lines, then Ctrl-C while they are on their way; then the same again.
/// Guarantee: every line is in the file, in order; the nozzle is in the banner, in `endpoints.json` and in `status`.
#[test]
fn up_takes_every_line_through_a_nozzle_in_order() {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("lines.txt");
    let config = file(temp.path(), "lines.toml", &to_file(&out));
    let mut up = Up::start(&["--nozzle", config.to_str().unwrap()]);
    let endpoints = up.endpoints();
    let of_nozzle = &endpoints["nozzles"][0];
    assert_eq!(of_nozzle["name"], "lines");
    assert_eq!(of_nozzle["destinations"][0], "lines (file)");
    let row = format!(
        "  nozzle lines        {}  (to lines (file))\n",
        of_nozzle["admin"].as_str().unwrap()
    );
    assert!(up.banner().contains(&row), "{}", up.banner());

    emit_numbers(&up, 1..=2_000);
    wait_until("2,000 lines are in the file", || {
        last_words(&out).len() >= 2_000
    });
    let status = stdout(&mut up.command(["status", "--json"]));
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    let reports = status["components"].as_array().unwrap();
    let report = reports
        .iter()
        .find(|report| report["component"] == "nozzle")
        .unwrap();
    assert_eq!(report["instance"], "lines");
    assert_eq!(report["ingress"]["accepted"], 2_000);

    emit_numbers(&up, 2_001..=5_000);
    let (code, said) = up.interrupt();
    assert_eq!(code, Some(0), "{said}");
    assert!(
        last_words(&out) == numbers(5_000),
        "{}",
        last_words(&out).len()
    );

    up.start_again();
    emit_numbers(&up, 5_001..=6_000);
    wait_until("6,000 lines are in the file", || {
        last_words(&out).len() >= 6_000
    });
    assert!(last_words(&out) == numbers(6_000));
}

/// Scenario: a file without an intake, while an `up` runs; then without one.
/// Guarantee: it reads from that `up`, says so, says what it promises; SIGTERM ends it with 0; without an `up` it says what to do.
#[test]
fn run_reads_from_the_up_of_this_machine() {
    let temp = tempfile::tempdir().unwrap();
    let config = file(temp.path(), "lines.toml", &to_file(Path::new("-")));
    let up = Up::start(&[]);
    let run = Reader::start(up.command(["nozzle", "run", config.to_str().unwrap()]));
    let mut sent = 0;
    wait_until("a line arrives", || {
        sent += 1;
        emit_numbers(&up, sent..=sent);
        run.output().contains(" seq/0 out ")
    });
    let said = run.errors();
    for needed in [
        &*format!(
            "no [intake] in the file: reading from the `up` of {}\n",
            up.dir().display()
        ),
        "nozzle lines\n",
        "  buffer      64MiB in memory\n",
        "  destination lines (file)\n    At least once: ",
    ] {
        assert!(said.contains(needed), "{needed} is missing in\n{said}");
    }
    run.signal("TERM");
    let (output, said, code) = run.finish();
    assert_eq!(code, Some(0), "{said}");
    assert!(
        output.lines().all(|line| line.contains(" seq/0 out ")),
        "{output}"
    );

    drop(up);
    let alone = loggregator(["nozzle", "run", config.to_str().unwrap(), "--state-dir"])
        .arg(temp.path().join("none"))
        .output()
        .unwrap();
    let said = text(&alone.stderr);
    assert_eq!(alone.status.code(), Some(3), "{said}");
    assert!(
        said.contains("the file has no [intake]") && said.contains("loggregator up"),
        "{said}"
    );
}

/// Scenario: a file with errors, and one without.
/// Guarantee: every error with its place, exactly; the exit codes; the same as JSON.
#[test]
fn check_tells_every_error_with_its_place() {
    let temp = tempfile::tempdir().unwrap();
    let wrong = "[nozzle]\nname = \"a\"\nmax_silence = \"soon\"\n\n[[destination]]\nname = \"x\"\nfilter = 'kind = \"log\"'\n\
                 [destination.file]\npth = \"-\"\nformat = \"jsn\"\n";
    file(temp.path(), "wrong.toml", wrong);
    for command in ["check", "run", "test"] {
        let output = nozzle(&[command, "wrong.toml"], temp.path());
        assert_eq!(output.status.code(), Some(64));
        assert_eq!(text(&output.stdout), "");
        assert_eq!(
            text(&output.stderr),
            "\
wrong.toml:3:15: nozzle.max_silence: expected a time with its unit, such as \"250ms\" or \"1m30s\", found the text \"soon\"
wrong.toml:7:16: destination.x.filter: write `==` to compare
wrong.toml:8:1: destination.x.file.path: is missing
wrong.toml:9:1: destination.x.file.pth: unknown key; did you mean `path`?
wrong.toml:10:10: destination.x.file.format: `jsn` is none of `json`, `envelope`, `logfmt`, `text`; did you mean `json`?
"
        );
    }
    let output = nozzle(&["check", "--json", "wrong.toml"], temp.path());
    assert_eq!(output.status.code(), Some(64));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["ok"], false);
    assert_eq!(json["errors"][3]["key"], "destination.x.file.pth");
    assert_eq!(json["errors"][3]["line"], 9);
    assert_eq!(json["errors"][3]["column"], 1);

    let right = "[nozzle]\nname = \"a\"\nadmin_addr = \"127.0.0.1:0\"\n\n[[destination]]\nname = \"x\"\n\
                 filter = 'source_id == \"a\"'\n[destination.file]\npath = \"-\"\n";
    file(temp.path(), "right.toml", right);
    let output = loggregator(["nozzle", "check", "right.toml"])
        .current_dir(temp.path())
        .env("NOZZLE__SELECT__KINDS", "['log']")
        .env("NOZZLE__DESTINATION__X__BATCH__EVENTS", "7")
        .output()
        .unwrap();
    assert_eq!(
        text(&output.stdout),
        "\
nozzle a
  intake      the pipeline in the same process, or a running `up`
  select      log, as shard `a`
  buffer      64MiB in memory
  admin       http://127.0.0.1:0
  destination x (file)
    At least once: an event counts as delivered when the reader of standard output has taken it.
    filter   source_id == \"a\"
    takes    log
    backlog  the whole buffer; beyond that the newest is dropped
    batch    7 events or 1MiB, after 50ms; 1 at a time
    retry    for ever, after 100ms to 30s; each attempt at most 1m
right.toml can be run
"
    );
    assert_eq!(output.status.code(), Some(0));
    let output = loggregator(["nozzle", "check", "right.toml"])
        .current_dir(temp.path())
        .env("NOZZLE__SELECT__KIND", "['log']")
        .output()
        .unwrap();
    assert_eq!(
        text(&output.stderr),
        "NOZZLE__SELECT__KIND: select.kind: unknown key; did you mean `kinds`?\n"
    );
}

/// Scenario: `check --connect` with an `up` that runs, and against an address where nobody is.
/// Guarantee: it says who answered; exit code 3 when somebody did not.
#[test]
fn check_connects_when_asked_to() {
    let temp = tempfile::tempdir().unwrap();
    let config = file(temp.path(), "lines.toml", &to_file(Path::new("-")));
    let up = Up::start(&[]);
    let check = ["nozzle", "check", "--connect", config.to_str().unwrap()];
    let output = up.command(check).output().unwrap();
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("\nreached: intake: subscribed\n"), "{said}");
    assert!(said.contains("\nreached: destination lines: "), "{said}");

    let nobody = up
        .command(check)
        .env("NOZZLE__INTAKE__RLP__ADDRS", "['127.0.0.1:1']")
        .env("NOZZLE__INTAKE__RLP__CA_FILE", up.dir().join("ca.crt"))
        .env(
            "NOZZLE__INTAKE__RLP__CERT_FILE",
            up.dir().join("client.crt"),
        )
        .env("NOZZLE__INTAKE__RLP__KEY_FILE", up.dir().join("client.key"))
        .output()
        .unwrap();
    let said = text(&nobody.stdout);
    assert_eq!(
        nobody.status.code(),
        Some(3),
        "{said}{}",
        text(&nobody.stderr)
    );
    assert!(said.contains("\nnot reached: intake: "), "{said}");
}

/// Scenario: a file with tests that pass and tests that do not.
/// Guarantee: what differs is shown; exit code 1; the same as JSON.
#[test]
fn test_shows_what_differs() {
    let temp = tempfile::tempdir().unwrap();
    let config = r#"
[nozzle]
name = "t"

[select]
kinds = ["log"]

[[destination]]
name = "acme"
filter = 'org == "acme"'
[destination.file]
path = "-"
format = "text"

[[test]]
name = "a line of acme"
envelope = { source_id = "web", instance_id = "0", timestamp = 1700000000000000000, text = "hello" }
names = { org = "acme" }
[[test.expect]]
destination = "acme"
body = "2023-11-14T22:13:20.000000000Z web/0 out hello"

[[test]]
name = "a line of others"
envelope = { source_id = "web", text = "hello" }

[[test]]
name = "a counter"
envelope = { source_id = "web", counter = { name = "c", delta = "1" } }
names = { org = "acme" }
"#;
    file(temp.path(), "t.toml", config);
    let output = nozzle(&["test", "t.toml"], temp.path());
    assert_eq!(
        text(&output.stdout),
        "ok      a line of acme\nok      a line of others\nok      a counter\n3 tests, all passed\n"
    );
    assert_eq!(output.status.code(), Some(0));

    let wrong = config.replace("out hello\"", "out hallo\"").replace(
        "source_id = \"web\", text = \"hello\" }",
        "source_id = \"web\", text = \"x\" }\nnames = { org = \"acme\" }",
    ) + "[[test.expect]]\ndestination = \"acme\"\nrejected = \"oversize\"\n";
    file(temp.path(), "t.toml", &wrong);
    let output = nozzle(&["test", "t.toml"], temp.path());
    let shown = text(&output.stdout);
    let shown = shown.replace("1970-01-01T00:00:00.000000000Z", "EPOCH");
    assert_eq!(
        shown,
        "\
FAILED  a line of acme
        acme: body
          - 2023-11-14T22:13:20.000000000Z web/0 out hallo
          + 2023-11-14T22:13:20.000000000Z web/0 out hello
FAILED  a line of others
        acme
          - nothing: no [[test.expect]] names it
          + EPOCH web out x
FAILED  a counter
        acme
          - rejected: oversize
          + left out by [select]
3 tests, 3 failed
"
    );
    assert_eq!(output.status.code(), Some(1));
    let output = nozzle(&["test", "--json", "t.toml"], temp.path());
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["passed"], &json["failed"]), (&0.into(), &3.into()));
    assert_eq!(json["tests"][0]["failures"][0]["what"], "body");
}

/// Scenario: two files of the same name, and a wrong one, given to `up`.
/// Guarantee: both are refused before anything starts.
#[test]
fn up_refuses_wrong_nozzles_before_it_starts() {
    let temp = tempfile::tempdir().unwrap();
    let a = file(temp.path(), "a.toml", &to_file(Path::new("-")));
    let b = file(temp.path(), "b.toml", &to_file(Path::new("-")));
    let state = temp.path().join("state");
    let up = |files: [&Path; 2]| {
        let mut command = loggregator(["up", "--state-dir", state.to_str().unwrap()]);
        for file in files {
            command.arg("--nozzle").arg(file);
        }
        command.output().unwrap()
    };
    let twice = up([&a, &b]);
    assert_eq!(twice.status.code(), Some(1));
    assert!(
        text(&twice.stderr).contains("are both called `lines`"),
        "{}",
        text(&twice.stderr)
    );
    std::fs::write(&b, "[nozzle]\nname = 1\n").unwrap();
    let wrong = up([&a, &b]);
    assert_eq!(wrong.status.code(), Some(64));
    assert_eq!(
        text(&wrong.stderr),
        format!(
            "{0}: destination: is missing: at least one [[destination]] is needed\n\
             {0}:2:8: nozzle.name: expected a text, found the number 1\n",
            b.display()
        )
    );
}

/// Scenario: `nozzle --help`, `list`, `example`.
/// Guarantee: the destinations are named; an example is a file that can be run.
#[test]
fn kinds_are_named_and_have_examples() {
    let help = text(&stdout(&mut loggregator(["nozzle", "--help"])));
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let kinds: serde_json::Value =
        serde_json::from_slice(&stdout(&mut loggregator(["nozzle", "list", "--json"]))).unwrap();
    let kinds = kinds.as_array().unwrap();
    assert!(!kinds.is_empty());
    let temp = tempfile::tempdir().unwrap();
    for kind in kinds {
        let name = kind["name"].as_str().unwrap();
        let row = format!(" {name} {} ", kind["about"].as_str().unwrap());
        assert!(words.contains(&row), "{row} is missing in\n{help}");
        let example = stdout(&mut loggregator(["nozzle", "example", name]));
        file(temp.path(), "example.toml", &text(&example));
        let output = nozzle(&["check", "example.toml"], temp.path());
        // All that may be missing are files that are not of this machine.
        let said = text(&output.stderr);
        assert!(
            said.lines().all(|line| line.contains("No such file")),
            "{said}"
        );
    }
    let output = nozzle(&["example", "carrier-pigeon"], temp.path());
    assert_eq!(output.status.code(), Some(2));
}

/// Scenario: `tap` at two edges of a nozzle of `up`, with a filter; at an edge that there is not.
/// Guarantee: it shows the events that pass there, as JSON; what is wrong is said.
#[test]
fn tap_shows_what_flows() {
    let temp = tempfile::tempdir().unwrap();
    let config = file(
        temp.path(),
        "lines.toml",
        &to_file(&temp.path().join("lines")),
    );
    let up = Up::start(&["--nozzle", config.to_str().unwrap()]);
    let config = config.to_str().unwrap();
    let tap = up.reader(&[
        "nozzle",
        "tap",
        config,
        "--count",
        "2",
        "--filter",
        "text contains \"2\"",
    ]);
    let sent = up.reader(&[
        "nozzle",
        "tap",
        config,
        "--count",
        "1",
        "--edge",
        "lines/rendered",
    ]);
    emit_numbers(&up, 1..=12);
    let (output, errors, code) = tap.finish();
    assert_eq!(code, Some(0), "{errors}");
    let texts: Vec<serde_json::Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(texts.len(), 2);
    assert!(output.contains("\"seq\""), "{output}");
    let (output, errors, code) = sent.finish();
    assert_eq!(code, Some(0), "{errors}");
    assert!(output.contains(" seq/0 out 1"), "{output}");

    let nowhere = up
        .command(["nozzle", "tap", config, "--edge", "siem"])
        .output()
        .unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
    assert_eq!(
        text(&nowhere.stderr),
        "error: there is no edge `siem/out`; there are intake, lines/in, lines/out, lines/rendered\n"
    );
    let nobody = loggregator(["nozzle", "tap", "--admin", "http://127.0.0.1:1"])
        .output()
        .unwrap();
    assert_eq!(nobody.status.code(), Some(3), "{}", text(&nobody.stderr));
}

/// Scenario: a receiver is away and attempts are limited; then it is there and the dead letters are replayed.
/// Guarantee: every line is kept with its reason and comes to the receiver by the replay; then there are none left.
#[test]
fn dead_letters_are_replayed() {
    let temp = tempfile::tempdir().unwrap();
    let config = format!(
        "[nozzle]\nname = \"letters\"\n[buffer.disk]\npath = \"{}\"\n[[destination]]\nname = \"siem\"\n\
         filter = 'source_id == \"seq\"'\nretry = {{ attempts = 1 }}\nbreaker = {{ failures = 0 }}\n\
         [destination.syslog]\nurl = \"syslog://127.0.0.1:1\"\n",
        temp.path().join("state").display()
    );
    let config = file(temp.path(), "letters.toml", &config);
    let config = config.to_str().unwrap();
    let up = Up::start(&["--nozzle", config]);
    emit_numbers(&up, 1..=5);
    let dry =
        || stdout(&mut up.command(["nozzle", "replay", config, "siem", "--dry-run", "--json"]));
    wait_until("there are five dead letters", || {
        text(&dry()).lines().count() == 5
    });
    let letters = text(&dry());
    let letter: serde_json::Value = serde_json::from_str(letters.lines().next().unwrap()).unwrap();
    assert_eq!(letter["source_id"], "seq");
    let reason = letter["reason"].as_str().unwrap().to_owned();
    let shown = text(&stdout(&mut up.command([
        "nozzle",
        "replay",
        config,
        "siem",
        "--dry-run",
    ])));
    assert!(
        shown.contains(&format!("  {reason}: ")) && shown.ends_with("5 dead letters\n"),
        "{shown}"
    );

    let receiver = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("syslog://{}", receiver.local_addr().unwrap());
    let replay = |reason: &str| {
        let mut command = up.command(["nozzle", "replay", config, "siem", "--reason", reason]);
        command.env("NOZZLE__DESTINATION__SIEM__SYSLOG__URL", &url);
        command.stderr(Stdio::piped()).spawn().unwrap()
    };
    let other = replay("no_such_reason").wait_with_output().unwrap();
    assert!(
        text(&other.stderr).ends_with("0 dead letters delivered\n"),
        "{}",
        text(&other.stderr)
    );
    assert_eq!(text(&dry()).lines().count(), 5);

    let running = replay(&reason);
    let received = std::thread::spawn(move || {
        let mut received = String::new();
        // A run that delivers nothing connects as well and leaves at once.
        while received.matches(" seq ").count() < 5 {
            let (mut stream, _) = receiver.accept().unwrap();
            std::io::Read::read_to_string(&mut stream, &mut received).unwrap();
        }
        received
    });
    let done = running.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert!(
        text(&done.stderr).ends_with("5 dead letters delivered\n"),
        "{}",
        text(&done.stderr)
    );
    let received = received.join().unwrap();
    assert_eq!(received.matches(" seq ").count(), 5, "{received}");
    assert_eq!(text(&dry()), "");
}

/// Scenario: a plain `up`; a counter and a gauge of an app. Then one with `--no-prometheus`.
/// Guarantee: the page that the banner names has them; without, there is no page.
#[test]
fn up_serves_the_metrics_of_apps_to_prometheus() {
    let up = Up::start(&[]);
    let endpoints = up.endpoints();
    let url = endpoints["prometheus"]["url"].as_str().unwrap().to_owned();
    let row = format!("  prometheus          {url}  (the apps' metrics, to scrape)\n");
    assert!(up.banner().contains(&row), "{}", up.banner());
    let page = |url: &str| {
        let rest = url.strip_prefix("http://").unwrap();
        let (addr, path) = rest.split_once('/').unwrap();
        let mut stream = std::net::TcpStream::connect(addr).unwrap();
        write!(
            stream,
            "GET /{path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut answer).unwrap();
        text(&answer)
    };
    wait_until("the page has the counter and the gauge", || {
        let sent = up
            .command([
                "emit",
                "-s",
                "shop",
                "--counter",
                "orders=3",
                "--gauge",
                "load=0.5:percent",
                "-q",
            ])
            .status()
            .unwrap();
        assert!(sent.success());
        let page = page(&url);
        page.contains("orders") && page.contains("load") && page.contains("\"shop\"")
    });
    // The nozzle of the page is one of those that `status` shows.
    let of_page = |report: &serde_json::Value| u64::from(report["instance"] == "prometheus");
    assert_eq!(crate::count_in_status(&up, "nozzle", of_page), 1);

    let without = Up::start(&["--no-prometheus"]);
    assert!(without.endpoints()["prometheus"].is_null());
    assert!(
        !without.banner().contains("  prometheus  "),
        "{}",
        without.banner()
    );
}
