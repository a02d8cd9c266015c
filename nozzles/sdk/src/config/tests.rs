//! Whole files, and exactly what is said about them.

use std::path::Path;

use serde::Deserialize;

use super::*;
use crate::destination::{BoxFuture, Context, DynDestination, Reason, StartError};
use crate::event::Event;
use crate::kind::{Kind, Kinds, Limits, Plan, Rendered};

/// A kind with something to get wrong.
struct Wire;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WirePlan {
    url: String,
    topic: String,
    #[serde(default)]
    tries: u8,
    password: Option<Secret>,
}

impl Kind for Wire {
    fn name(&self) -> &'static str {
        "wire"
    }
    fn about(&self) -> &'static str {
        "for tests"
    }
    fn example(&self) -> &'static str {
        ""
    }
    fn plan(&self, section: &Section) -> Result<Box<dyn Plan>, ConfigErrors> {
        let plan: WirePlan = section.read()?;
        let mut wrong = Vec::new();
        if !plan.url.contains("://") {
            wrong.push(("url", format!("`{}` is no URL", plan.url)));
        }
        if plan.tries == 0 {
            wrong.push(("tries", "must not be 0".to_owned()));
        }
        section.errors(wrong)?;
        if let Some(at) = plan.topic.find('!') {
            return Err(section.error_at("topic", at + 1, "`!` cannot stand in a topic"));
        }
        Ok(Box::new(plan))
    }
}

impl Plan for WirePlan {
    fn guarantee(&self) -> String {
        String::new()
    }
    fn limits(&self) -> Limits {
        Limits::default()
    }
    fn render(&self, _: &Event) -> Result<Vec<Rendered>, Reason> {
        Ok(Vec::new())
    }
    fn start(
        &self,
        context: Context,
    ) -> BoxFuture<'_, Result<std::sync::Arc<dyn DynDestination>, StartError>> {
        Box::pin(async move {
            Err(StartError {
                destination: context.name,
                what: "is for tests".to_owned(),
                source: None,
            })
        })
    }
}

fn load(text: &str, variables: &[(&str, &str)]) -> Result<NozzleConfig, ConfigErrors> {
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    NozzleConfig::load(
        Path::new("audit.toml"),
        text,
        variables,
        &Kinds::new().with(Wire),
    )
}

fn said(text: &str, variables: &[(&str, &str)]) -> String {
    load(text, variables).unwrap_err().to_string()
}

const GOOD: &str = r#"[nozzle]
name = "audit"

[intake.rlp]
addrs = ["rlp.internal:8082"]
ca_file = "ca.crt"
cert_file = "nozzle.crt"
key_file = "nozzle.key"

[buffer.disk]
path = "/var/lib/audit"

[[destination]]
name = "siem"
[destination.wire]
url = "tls://siem:6514"
topic = "a"
tries = 3
"#;

#[test]
fn a_file_has_defaults_where_it_is_silent() {
    let config = load(GOOD, &[]).unwrap();
    assert_eq!(config.nozzle.name, "audit");
    assert_eq!(config.nozzle.max_silence.to_string(), "1m");
    let BufferConfig::Disk(disk) = &config.buffer else {
        panic!("{:?}", config.buffer)
    };
    assert_eq!(disk.max_bytes.to_string(), "1GiB");
    let siem = &config.destinations[0];
    assert_eq!((siem.name.as_str(), siem.kind.as_str()), ("siem", "wire"));
    assert_eq!(siem.section.key(), "destination.siem.wire");
    assert_eq!(siem.retry.max.to_string(), "30s");
    assert!(matches!(config.intake, IntakeConfig::Rlp(_)));
    assert_eq!(load(GOOD, &[]).unwrap(), config);
}

/// All errors of a file, each with its place, in the order of the file.
#[test]
fn every_error_is_told_at_once() {
    let text = r##"[nozzle]
nam = "audit"
max_silence = 5
drain_timeout = "2 fortnights"

[intake.rlp]
adrs = ["rlp.internal:8082"]
ca_file = 7
key_file = "k"

[select]
kinds = ["log", "gouge"]
shard_id = "#1"
filter = 'kind == "log" and orgg == "x"'

[buffr.disk]
path = "x"

[[destination]]
name = "a/b"
filtre = "true"
dry_run = "yes"
[destination.batch]
events = -1
[destination.wire]
url = "siem"
tries = 256
topic = "x"

[[destination]]
name = "two"
[destination.retry]
min = "5m"
[destination.backlog]
full = "drop_newst"
max_bytes = "65MiB"
[destination.wier]
url = "a://b"

[[destination]]
name = "two"
[destination.wire]
url = "nowhere"
topic = "a!b"

[[test]]
name = "t"
envelope = { source_id = "a", txt = "hello" }

[[test.expect]]
destination = "three"
"##;
    let expected = "\
audit.toml:1:1: nozzle.name: is missing
audit.toml:2:1: nozzle.nam: unknown key; did you mean `name`?
audit.toml:3:15: nozzle.max_silence: expected a time with its unit, such as \"250ms\" or \"1m30s\", found the number 5
audit.toml:4:17: nozzle.drain_timeout: expected a time with its unit, such as \"250ms\" or \"1m30s\", found the text \"2 fortnights\"
audit.toml:6:1: intake.rlp.addrs: is missing
audit.toml:6:1: intake.rlp.cert_file: is missing
audit.toml:7:1: intake.rlp.adrs: unknown key; did you mean `addrs`?
audit.toml:8:11: intake.rlp.ca_file: expected a text, found the number 7
audit.toml:12:17: select.kinds[1]: `gouge` is none of `log`, `counter`, `gauge`, `timer`, `event`; did you mean `gauge`?
audit.toml:13:12: select.shard_id: `#1` cannot name a subscription: it becomes a part of an address and may have none of # / ? % \\
audit.toml:14:29: select.filter: `orgg` is no field; there are kind, source_id, instance_id, org, org_id, space, space_id, app, app_id, source_type, stream, deployment, job, index, ip, origin, name, text and tag.NAME; numbers are duration_ms, delta, total, value, bytes
audit.toml:16:2: buffr: unknown key; did you mean `buffer`?
audit.toml:20:8: destination.a/b.name: `a/b` cannot be the name of a file: write letters, digits, `-`, `_` and `.`, at most 64, a letter or digit first
audit.toml:21:1: destination.a/b.filtre: unknown key; did you mean `filter`?
audit.toml:22:11: destination.a/b.dry_run: expected true or false, found the text \"yes\"
audit.toml:24:10: destination.a/b.batch.events: expected a whole number, not below 0, found the number -1
audit.toml:27:9: destination.a/b.wire.tries: expected a whole number from 0 to 255, found the number 256
audit.toml:35:8: destination.two.backlog.full: `drop_newst` is none of `drop_newest`, `drop_oldest`; did you mean `drop_newest`?
audit.toml:37:14: destination.two.wier: unknown key; did you mean `wire`?
audit.toml:41:8: destination.two.name: the destination in line 30 has this name already
audit.toml:43:7: destination.two.wire.url: `nowhere` is no URL
audit.toml:42:1: destination.two.wire.tries: must not be 0
audit.toml:48:31: test[0].envelope.txt: unknown key; did you mean `text`?";
    let found = said(text, &[]);
    let mut expected: Vec<&str> = expected.lines().collect();
    expected.sort_by_key(|line| {
        let mut parts = line.split(':').skip(1);
        let mut number = || parts.next().unwrap().parse::<usize>().unwrap();
        (number(), number())
    });
    assert_eq!(found, expected.join("\n"));
}

#[test]
fn what_does_not_fit_together_is_told() {
    let text = format!(
        "{}{}",
        GOOD.replace("path = ", "segment_bytes = \"2GiB\"\npath = "),
        "[destination.backlog]\nmax_bytes = \"2GiB\"\n[destination.retry]\nmin = \"1m\"\nmax = \"1s\"\n[destination.wire.more]\n"
    );
    assert_eq!(
        said(&text, &[]),
        "\
audit.toml:11:17: buffer.disk.segment_bytes: 2GiB is more than the whole buffer (1GiB, buffer.disk.max_bytes)
audit.toml:21:13: destination.siem.backlog.max_bytes: 2GiB is not from 1 to what the whole buffer has (1GiB, buffer.disk.max_bytes)
audit.toml:24:7: destination.siem.retry.max: 1s is shorter than `min` (1m)
audit.toml:25:19: destination.siem.wire.more: unknown key; known here: `url`, `topic`, `tries`, `password`"
    );
    let text = format!(
        "{GOOD}\n[[test]]\nname = \"t\"\nenvelope = {{ text = \"a\", log = {{}} }}\nnames = {{ orgg = \"x\" }}\n\
         [[test.expect]]\ndestination = \"siem2\"\nbody = []\nrejected = \"x\"\n"
    );
    assert_eq!(
        said(&text, &[]),
        "\
audit.toml:22:32: test[0].envelope.log: there is `text` already; an envelope holds one thing
audit.toml:23:18: test[0].names.orgg: unknown key; did you mean `org`?
audit.toml:25:15: test[0].expect[0].destination: `siem2` is none of `siem`; did you mean `siem`?
audit.toml:27:12: test[0].expect[0].rejected: what is rejected has neither `body` nor `fields`"
    );
    let both = GOOD.replace("[[destination]]", "[buffer.memory]\n\n[[destination]]");
    assert_eq!(
        said(&both, &[]),
        "audit.toml:13:1: buffer.memory: there is a [buffer.disk] already; only one may stand here"
    );
    assert_eq!(
        said("[nozzle]\nname = \"x\"\n[intake]\n", &[]),
        "\
audit.toml: destination: is missing: at least one [[destination]] is needed
audit.toml:3:1: intake: needs one of [intake.rlp], [intake.websocket], [intake.gateway], [intake.in_process]"
    );
    assert_eq!(
        said("[nozzle]\nname = \"x\"\n[destination]\nname = \"y\"\n", &[]),
        "audit.toml:3:1: destination: write [[destination]]: there may be several"
    );
    assert_eq!(
        said(
            "[nozzle]\nname = \"x\"\n[[destination]]\nname = \"y\"\n",
            &[]
        ),
        "audit.toml:3:1: destination.y: needs the table of a kind, such as [destination.wire]; kinds are `wire`"
    );
}

#[test]
fn a_character_of_a_text_has_its_column() {
    let text = GOOD.replace("topic = \"a\"", "topic = \"a\\\"b!\"");
    assert_eq!(
        said(&text, &[]),
        "audit.toml:17:14: destination.siem.wire.topic: `!` cannot stand in a topic"
    );
}

#[test]
fn syntax_errors_have_their_place() {
    let errors = load("[nozzle]\nname = \n[x\na = \"b\n", &[]).unwrap_err();
    let places: Vec<_> = errors.errors.iter().map(|error| error.place).collect();
    assert!(places.contains(&Some((2, 8))), "{errors}");
    assert!(places.iter().all(Option::is_some), "{errors}");
    assert!(
        errors.to_string().starts_with("audit.toml:2:8: "),
        "{errors}"
    );
    // Twice the same key.
    let twice = said("[nozzle]\nname = \"a\"\nname = \"b\"\n", &[]);
    assert_eq!(twice, "audit.toml:3:1: duplicate key");
}

#[test]
fn variables_replace_keys() {
    let config = load(
        GOOD,
        &[
            ("NOZZLE__INTAKE__RLP__ADDRS", "['a:1', 'b:2']"),
            ("NOZZLE__NOZZLE__NAME", "42"),
            ("NOZZLE__SELECT__SHARD_ID", "two"),
            ("NOZZLE__DESTINATION__SIEM__WIRE__URL", "x://y"),
            ("NOZZLE__DESTINATION__SIEM__WIRE__PASSWORD", "12345"),
            ("NOZZLE__DESTINATION__SIEM__RETRY", "{ min = '1s' }"),
            ("PATH", "/bin"),
        ],
    )
    .unwrap();
    let IntakeConfig::Rlp(rlp) = &config.intake else {
        panic!("{:?}", config.intake)
    };
    assert_eq!(rlp.addrs, ["a:1", "b:2"]);
    // A number where a text is wanted is that text.
    assert_eq!(config.nozzle.name, "42");
    assert_eq!(config.select.shard_id.as_deref(), Some("two"));
    let siem = &config.destinations[0];
    assert_eq!(siem.retry.min.to_string(), "1s");
    let wire: WirePlan = siem.section.read().unwrap();
    assert_eq!(wire.url, "x://y");
    assert_eq!(wire.password.unwrap().read().unwrap(), "12345");
}

#[test]
fn a_variable_that_fits_nothing_is_named() {
    let found = said(
        GOOD,
        &[
            ("NOZZLE__INTAKE__RLP__ADRS", "['a:1']"),
            ("NOZZLE__NOZZEL__NAME", "x"),
            ("NOZZLE__DESTINATION__SIEN__WIRE__URL", "x"),
            ("NOZZLE__DESTINATION__SIEM", "{}"),
            ("NOZZLE__DESTINATION__SIEM__WIRE__TRIES", "many"),
            ("NOZZLE__BUFFER__DISK__PATH__X", "1"),
            ("NOZZLE__", "1"),
            ("NOZZLE__SELECT__FILTER", "kind == "),
        ],
    );
    assert_eq!(
        found,
        "\
NOZZLE__: names no key; write NOZZLE__TABLE__KEY
NOZZLE__BUFFER__DISK__PATH__X: stands inside a value that is no table
NOZZLE__DESTINATION__SIEM: names no key of a destination; write NOZZLE__DESTINATION__NAME__KEY
NOZZLE__DESTINATION__SIEM__WIRE__TRIES: destination.siem.wire.tries: expected a whole number from 0 to 255, found the text \"many\"
NOZZLE__DESTINATION__SIEN__WIRE__URL: no such destination: `SIEN` is none of `SIEM`; did you mean `SIEM`?
NOZZLE__INTAKE__RLP__ADRS: intake.rlp.adrs: unknown key; did you mean `addrs`?
NOZZLE__NOZZEL__NAME: nozzel: unknown key; did you mean `nozzle`?
NOZZLE__SELECT__FILTER: select.filter: a text in quotes is expected"
    );
}

#[test]
fn secrets_are_in_no_error_and_in_no_debug_output() {
    let text = format!("{GOOD}password = 12345678\n");
    let found = said(&text, &[]);
    assert_eq!(
        found,
        "audit.toml:19:12: destination.siem.wire.password: a secret is a text, { file = \"…\" } or { env = \"…\" }"
    );
    let text = format!("{GOOD}password = \"hunter2\"\n");
    let config = load(&text, &[]).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    let wrong = format!("{GOOD}pasword = \"hunter2\"\n");
    let errors = load(&wrong, &[]).unwrap_err();
    assert!(!errors.to_string().contains("hunter2"), "{errors}");
    let excerpt = errors.errors[0].excerpt(&wrong).unwrap();
    assert_eq!(excerpt.text, "pasword = …");
}

#[test]
fn a_section_of_its_own_has_places_too() {
    let section = Section::from_text("url = 1\nmore = 2\n").unwrap();
    let errors = section.read::<WirePlan>().unwrap_err();
    assert_eq!(
        errors.to_string(),
        "\
section.toml: topic: is missing
section.toml:1:7: url: expected a text, found the number 1
section.toml:2:1: more: unknown key; known here: `url`, `topic`, `tries`, `password`"
    );
    assert!(Section::from_text("x = ").is_err());
    let error = section.error("nothing.here", "is wrong");
    assert_eq!(error.to_string(), "section.toml: nothing.here: is wrong");
}
