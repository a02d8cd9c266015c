//! The program as people and scripts use it: real processes, real files, exit codes.

// Helpers of tests may unwrap as tests do: a panic is the report.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod nozzles;
mod reload;
mod running;

use running::{Up, loggregator, stdout};
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A log file of this machine, or lines that look like one.
fn some_log() -> Vec<u8> {
    let candidates = [
        "/var/log/dpkg.log",
        "/var/log/apt/history.log",
        "/var/log/alternatives.log",
    ];
    let real = candidates
        .iter()
        .find_map(|path| std::fs::read(path).ok().filter(|text| !text.is_empty()));
    let made_up = |number: u32| {
        format!(
            "2026-01-01 00:00:{:02} status installed package-{number}\n",
            number % 60
        )
    };
    let text = real.unwrap_or_else(|| (0..2_000).map(made_up).collect::<String>().into_bytes());
    // Whole lines, and not more than a debug build swallows in a few seconds.
    let cut = text.len().min(600_000);
    let end = text[..cut]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(cut, |at| at + 1);
    text[..end].to_vec()
}

fn count_in_status(up: &Up, component: &str, pick: impl Fn(&serde_json::Value) -> u64) -> u64 {
    let status: serde_json::Value =
        serde_json::from_slice(&stdout(&mut up.command(["status", "--json"]))).unwrap();
    assert_eq!(status["balanced"], true, "{status:#}");
    status["components"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|report| report["component"] == component)
        .map(pick)
        .sum()
}

/// Scenario: a real log file is replayed at a rate through `emit --stdin` while a `tail` reads.
/// Guarantee: every line comes out, in order, byte by byte; `status` has the same counts; all exit with 0.
#[test]
fn a_log_file_comes_out_as_it_went_in() {
    let up = Up::start(&[]);
    let log = some_log();
    let lines = log.iter().filter(|byte| **byte == b'\n').count() as u64;
    let tail = up.reader(&["tail", "replay", "--json", "--idle-exit", "4s"]);

    let mut emit = up
        .command([
            "emit",
            "--source-id",
            "replay",
            "--stdin",
            "--rate",
            "10000/s",
        ])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    emit.stdin.take().unwrap().write_all(&log).unwrap();
    let emitted = emit.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&emitted.stderr).replace(',', "");
    assert!(emitted.status.success(), "{said}");
    assert!(
        said.contains(&format!(
            "{lines} envelopes sent {lines} envelopes accepted"
        )),
        "{lines} lines: {said}"
    );

    let (output, errors, code) = tail.finish();
    assert_eq!(code, Some(0), "{errors}");
    let mut read = Vec::new();
    for line in output.lines() {
        let envelope: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(envelope["source_id"], "replay");
        read.extend(running::base64(
            envelope["log"]["payload"].as_str().unwrap(),
        ));
        read.push(b'\n');
    }
    assert!(
        read == log,
        "{} bytes in, {} bytes out",
        log.len(),
        read.len()
    );

    assert_eq!(
        count_in_status(&up, "agent", |report| report["ingress"]["accepted"]
            .as_u64()
            .unwrap()),
        lines
    );
    let of_replay = |report: &serde_json::Value| -> u64 {
        let rows = report["subscriptions"].as_array().unwrap().iter();
        rows.filter(|row| row["selector"].as_str().unwrap().contains("replay"))
            .map(|row| row["delivered"].as_u64().unwrap())
            .sum()
    };
    assert_eq!(count_in_status(&up, "doppler", of_replay), lines);
}

/// Scenario: the `curl` line of the banner, typed as it stands, while something is sent.
/// Guarantee: it prints what was sent as JSON; `status` has the reverse log proxy's and the gateway's ledgers.
#[test]
fn the_banner_s_curl_line_works_as_it_stands() {
    let up = Up::start(&[]);
    let line = up
        .banner()
        .lines()
        .find(|line| line.contains("curl "))
        .unwrap()
        .trim()
        .to_owned();
    let mut curl = match Command::new("curl").arg("--version").output() {
        Ok(_) => Command::new("sh")
            .args(["-c", &format!("exec {line}")])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
        Err(error) => {
            return skipped(
                "the_banner_s_curl_line_works_as_it_stands",
                &format!("no curl: {error}"),
            );
        }
    };
    let mut lines = BufReader::new(curl.stdout.take().unwrap());
    let (found, read) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|count| count > 0) {
            if line.starts_with("data: {") {
                return found.send(line).unwrap();
            }
            line.clear();
        }
    });
    // Until its subscription stands, what is sent is not for it.
    let data = loop {
        assert!(
            up.command(["emit", "-s", "app", "--log", "hello", "--quiet"])
                .status()
                .unwrap()
                .success()
        );
        if let Ok(line) = read.recv_timeout(Duration::from_millis(200)) {
            break line;
        }
    };
    let json: serde_json::Value =
        serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(json["batch"][0]["source_id"], "app", "{json}");
    assert_eq!(json["batch"][0]["log"]["payload"], "aGVsbG8=", "{json}");
    for component in ["rlp", "rlp-gateway"] {
        let delivered = |report: &serde_json::Value| -> u64 {
            let rows = report["subscriptions"].as_array().unwrap().iter();
            rows.map(|row| row["delivered"].as_u64().unwrap()).sum()
        };
        assert!(
            count_in_status(&up, component, delivered) >= 1,
            "{component}"
        );
    }
    curl.kill().unwrap();
    curl.wait().unwrap();
    reader.join().unwrap();
}

/// Says that a test could not run on this machine; in CI that is a failure.
#[expect(clippy::print_stderr, reason = "loudly")]
fn skipped(name: &str, reason: &str) {
    eprintln!("SKIPPED {name}: {reason}");
    if let Some(list) = std::env::var_os("LOGGREGATOR_TEST_SKIPS") {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(list)
            .unwrap();
        writeln!(file, "{name}: {reason}").unwrap();
    }
}

/// Scenario: each kind of envelope from flags, shown as text.
/// Guarantee: one readable line each, logs in the form of `cf logs`.
#[test]
fn everything_that_emit_can_send_tail_can_show() {
    let up = Up::start(&[]);
    let tail = up.reader(&["tail", "app", "--count", "5"]);
    let sent = up
        .command([
            "emit",
            "-s",
            "app",
            "--log",
            "hello there",
            "--source-type",
            "APP/PROC/WEB",
            "--counter",
            "hits=3",
        ])
        .args([
            "--gauge",
            "memory=3e8:bytes",
            "--timer",
            "http=23ms",
            "--event",
            "deployed",
            "--body",
            "v2",
            "--quiet",
        ])
        .status()
        .unwrap();
    assert!(sent.success());
    let (output, errors, code) = tail.finish();
    assert_eq!(code, Some(0), "{errors}");
    let texts: BTreeSet<&str> = output
        .lines()
        .map(|line| line.split_once(" [APP/PROC/WEB/0] ").expect(line).1)
        .collect();
    let expected = [
        "OUT hello there",
        "COUNTER hits:3 (+3)",
        "GAUGE memory:286.1 MiB",
        "TIMER http 23.0ms",
        "EVENT deployed: v2",
    ];
    assert_eq!(texts, expected.into_iter().collect(), "{output}");
    let line = output.lines().find(|line| line.contains("hello")).unwrap();
    let stamp = &line[3..31];
    assert!(
        line.starts_with("   20") && stamp.as_bytes()[10] == b'T' && stamp.as_bytes()[22] == b'+',
        "{line}"
    );
}

/// Scenario: the WebSocket address with token and CA, as for a deployment elsewhere; then with a wrong token.
/// Guarantee: the same lines; exit code 4 and a hint for the wrong token.
#[test]
fn another_deployment_is_reached_by_url() {
    let up = Up::start(&[]);
    let endpoints = up.endpoints();
    let url = endpoints["traffic_controller"]["url"]
        .as_str()
        .unwrap()
        .to_owned();
    let (ca, token) = (
        endpoints["ca_file"].as_str().unwrap().to_owned(),
        endpoints["token_file"].as_str().unwrap().to_owned(),
    );
    let tail = running::Reader::start(loggregator([
        "firehose",
        "--kind",
        "log",
        "--count",
        "2",
        "--url",
        &url,
        "--ca-file",
        &ca,
        "--token-file",
        &token,
    ]));
    // The controller has answered; its subscription at the doppler stands a moment later.
    let mut sent = 0;
    while !tail.is_done() {
        assert!(sent < 200, "nothing arrives");
        assert!(
            up.command(["emit", "-s", "far", "--log", "x", "-q"])
                .status()
                .unwrap()
                .success()
        );
        sent += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    let (output, errors, code) = tail.finish();
    assert_eq!(
        (code, output.lines().count()),
        (Some(0), 2),
        "{output}{errors}"
    );
    assert!(
        output
            .lines()
            .all(|line| line.contains(" far [APP/0] OUT x")),
        "{output}"
    );

    let wrong = up.dir().join("wrong-token");
    std::fs::write(&wrong, "not-the-token").unwrap();
    let denied = loggregator([
        "tail",
        "far",
        "--url",
        &url,
        "--ca-file",
        &ca,
        "--token-file",
        wrong.to_str().unwrap(),
    ])
    .output()
    .unwrap();
    let said = String::from_utf8_lossy(&denied.stderr);
    assert_eq!(denied.status.code(), Some(4), "{said}");
    assert!(
        said.contains("--token-file") && !said.contains("not-the-token"),
        "{said}"
    );
}

/// Scenario: a second `up` on the same folder, clients without any `up`, an `up` that was killed.
/// Guarantee: each says what is wrong and what to do, with its exit code; a killed one's folder can be used again.
#[test]
fn what_is_wrong_is_said_and_coded() {
    let mut up = Up::start(&[]);
    let second = up.command(["up"]).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(
        said.contains("in use") && said.contains("--state-dir"),
        "{said}"
    );

    up.kill();
    let ended = up.command(["tail", "x"]).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(3), "{said}");
    assert!(
        said.contains("not running any more") && said.contains("loggregator up"),
        "{said}"
    );

    let usage = loggregator(["tail"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
    up.start_again();
    assert!(
        up.command(["status"])
            .stdout(Stdio::null())
            .status()
            .unwrap()
            .success()
    );
}

/// Scenario: what lies in the state folder.
/// Guarantee: only its owner can read it; `endpoints.json` names files that exist; ports that are taken are replaced
/// and named (two run side by side here).
#[test]
fn two_run_side_by_side_and_their_secrets_are_private() {
    let first = Up::start(&[]);
    let second = Up::start(&["--dopplers", "2"]);
    for up in [&first, &second] {
        let mode =
            |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(up.dir()), 0o700);
        for file in std::fs::read_dir(up.dir()).unwrap() {
            let path = file.unwrap().path();
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
        let endpoints = up.endpoints();
        for member in [
            "ca_file",
            "client_cert_file",
            "client_key_file",
            "token_file",
        ] {
            assert!(
                std::path::Path::new(endpoints[member].as_str().unwrap()).is_file(),
                "{member}"
            );
        }
        assert!(
            up.banner()
                .contains(endpoints["traffic_controller"]["url"].as_str().unwrap()),
            "{}",
            up.banner()
        );
        let token = std::fs::read_to_string(endpoints["token_file"].as_str().unwrap()).unwrap();
        assert!(
            up.banner().contains(token.trim()),
            "the token is for the one who started it"
        );
    }
    assert_eq!(second.endpoints()["doppler"].as_array().unwrap().len(), 2);
    // Which of the two had to take others depends on who else runs on this machine; both cannot have the usual ones.
    let moved = |up: &Up| up.banner().contains("The usual port");
    assert!(
        moved(&first) || moved(&second),
        "{}{}",
        first.banner(),
        second.banner()
    );
}

/// Scenario: Ctrl-C while lines are on their way to a reader.
/// Guarantee: everything accepted is delivered before the end; exit code 0; the addresses are gone.
#[test]
fn ctrl_c_drains() {
    let mut up = Up::start(&[]);
    let tail = up.reader(&[
        "tail",
        "app",
        "--json",
        "--idle-exit",
        "20s",
        "--count",
        "3000",
    ]);
    let mut emit = up
        .command(["emit", "-s", "app", "--stdin", "-q"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = emit.stdin.take().unwrap();
    for number in 0..3_000 {
        writeln!(lines, "line {number}").unwrap();
    }
    drop(lines);
    assert!(emit.wait().unwrap().success());
    let (code, said) = up.interrupt();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("drained"), "{said}");
    assert!(!up.dir().join("endpoints.json").exists());
    let (output, errors, _) = tail.finish();
    assert_eq!(output.lines().count(), 3_000, "{errors}");
}

/// Scenario: the pipeline is stopped and started again while a `tail` reads.
/// Guarantee: `tail` says so, finds the new one by itself, and reads on.
#[test]
fn tail_survives_a_restart_of_everything() {
    let mut up = Up::start(&[]);
    let tail = up.reader(&["tail", "app", "--kind", "log", "--count", "2"]);
    assert!(
        up.command(["emit", "-s", "app", "--log", "before", "-q"])
            .status()
            .unwrap()
            .success()
    );
    tail.wait_for("before");
    up.interrupt();
    up.start_again();
    let mut tries = 0;
    while !tail.is_done() {
        tries += 1;
        assert!(tries < 200, "it does not come back: {}", tail.errors());
        assert!(
            up.command(["emit", "-s", "app", "--log", "after", "-q"])
                .status()
                .unwrap()
                .success()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let (output, errors, code) = tail.finish();
    assert_eq!(code, Some(0), "{errors}");
    assert!(
        output.contains("before") && output.contains("after"),
        "{output}"
    );
    assert!(
        errors.contains("lost") && errors.contains("again"),
        "{errors}"
    );
}

/// Scenario: files followed and standard input taken by `up` itself; a glob and a text filter at the reader.
/// Guarantee: the lines arrive under their source ids, and only those asked for are shown.
#[test]
fn inputs_of_up_and_filters_of_firehose() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("service.log");
    std::fs::write(&path, "old\n").unwrap();
    let follow = format!("{}=file-app", path.display());
    let mut up = Up::start(&["--follow", &follow, "--stdin", "pipe-app"]);
    let reader = up.reader(&[
        "firehose", "--source", "*-app", "--text", "^wanted", "--count", "2",
    ]);
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap();
    let mut round = 0;
    let both = || reader.output().contains("file-app") && reader.output().contains("pipe-app");
    while !(both() || reader.is_done()) {
        round += 1;
        assert!(round < 200, "{} {}", reader.output(), reader.errors());
        if !reader.output().contains("file-app") {
            writeln!(file, "unwanted\nwanted from the file").unwrap();
        }
        if !reader.output().contains("pipe-app") && round == 1 {
            up.stdin()
                .write_all(b"unwanted\nwanted from the pipe\n")
                .unwrap();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let (output, _, _) = reader.finish();
    assert!(
        output
            .lines()
            .all(|line| line.contains("OUT wanted from the")),
        "{output}"
    );
}

/// Scenario: `loggregator firehose | head -1`, and a demo.
/// Guarantee: no error on either side when the reader of the pipe leaves.
#[test]
fn a_closed_pipe_ends_quietly() {
    let up = Up::start(&["--demo"]);
    let mut firehose = up
        .command(["firehose", "-q"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(firehose.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.starts_with("   20"), "{line}");
    // The other end of the pipe is closed now.
    let code = firehose.wait().unwrap().code();
    let mut said = String::new();
    firehose
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!((code, said.as_str()), (Some(0), ""));
}

/// Scenario: completion scripts, version, help.
/// Guarantee: they are there, on standard output, with exit code 0.
#[test]
fn help_version_and_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let script = String::from_utf8(stdout(&mut loggregator(["completions", shell]))).unwrap();
        assert!(
            script.contains("firehose") && script.contains("traffic-controller"),
            "{shell}"
        );
    }
    assert!(
        String::from_utf8(stdout(&mut loggregator(["--version"])))
            .unwrap()
            .starts_with("loggregator 0.")
    );
    let help = String::from_utf8(stdout(&mut loggregator(["--help"]))).unwrap();
    assert!(
        help.contains("Exit codes:") && help.contains("loggregator up --demo"),
        "{help}"
    );
}
