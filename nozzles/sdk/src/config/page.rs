//! The section "Configuration" of the users' page says what the types say.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::de::{Reader, Why};
use super::document::{Common, parse};
use super::model::{
    Backlog, BatchConfig, BreakerConfig, DeadLetterConfig, DiskBuffer, EnrichmentConfig, Expect,
    GatewayIntake, InProcessIntake, MemoryBuffer, NozzleSection, OauthConfig, QuotaConfig,
    RateConfig, RetryConfig, RlpIntake, SelectConfig, TestCase, WebSocketIntake,
};
use super::source::Source;
use super::tree::Node;

/// Key, default.
type Rows = Vec<(String, String)>;

/// The tables of the page, by their headings.
fn tables() -> BTreeMap<String, Rows> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/nozzles.md");
    let page = std::fs::read_to_string(path).unwrap();
    let start = page.find("\n## Configuration\n").unwrap();
    let end = page.find("\n## Commands\n").unwrap();
    let mut tables = BTreeMap::new();
    let mut heading = String::new();
    for line in page[start..end].lines() {
        if let Some(name) = line.strip_prefix("### ") {
            heading = name.trim_matches('`').to_owned();
            tables.insert(heading.clone(), Rows::new());
        } else if let Some(row) = line.strip_prefix("| `") {
            let mut cells = row.split(" | ");
            let key = cells.next().unwrap().trim_end_matches('`');
            let default = cells.next().unwrap().trim_matches('`');
            let row = (key.to_owned(), default.to_owned());
            tables.get_mut(&heading).unwrap().push(row);
        }
    }
    tables
}

fn node(text: &str) -> Node {
    let source = std::sync::Arc::new(Source::new(Path::new("page.toml"), text));
    match parse(&source, text) {
        Ok(node) => node,
        Err(errors) => panic!("{errors}\n{text}"),
    }
}

/// The keys that a type knows, as it tells who asks for another.
fn keys<T: DeserializeOwned>() -> Vec<&'static str> {
    match T::deserialize(Reader(&node("no-such-key = 1"))) {
        Err(failure) => match failure.why {
            Why::UnknownKey { known, .. } => known.to_vec(),
            other => panic!("{other:?}"),
        },
        Ok(_) => panic!("unknown keys are taken"),
    }
}

/// `least` is the shortest text of such a table.
fn check<T: DeserializeOwned + PartialEq + std::fmt::Debug>(rows: &Rows, least: &str) {
    let documented: std::collections::BTreeSet<&str> =
        rows.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(documented, keys::<T>().into_iter().collect());
    let read = |text: &str| T::deserialize(Reader(&node(text)));
    let plain = read(least).unwrap();
    for (key, default) in rows {
        match default.as_str() {
            "required" => {
                let mut without = node(least);
                assert!(without.remove(&super::tree::steps(key)), "{key}");
                let failure = T::deserialize(Reader(&without)).unwrap_err();
                assert!(
                    matches!(failure.why, Why::Missing(name) if name == key),
                    "{key}"
                );
            }
            "–" => {}
            default => {
                let with = read(&format!("{key} = {default}\n{least}"));
                assert_eq!(with.unwrap(), plain, "{key}");
            }
        }
    }
}

#[test]
fn the_page_has_every_key_with_its_default() {
    let tables = tables();
    let mut seen = Vec::new();
    let mut table = |heading: &'static str| {
        seen.push(heading);
        tables
            .get(heading)
            .unwrap_or_else(|| panic!("no `### {heading}`"))
    };
    let oauth = "url = 'u'\nclient = 'c'\nsecret = 's'";
    let inline = "oauth = { url = 'u', client = 'c', secret = 's' }";
    check::<NozzleSection>(table("[nozzle]"), "name = 'n'");
    let files = "addrs = []\nca_file = 'a'\ncert_file = 'b'\nkey_file = 'c'";
    check::<RlpIntake>(table("[intake.rlp]"), files);
    check::<WebSocketIntake>(table("[intake.websocket]"), "url = 'u'");
    check::<GatewayIntake>(table("[intake.gateway]"), "url = 'u'");
    check::<InProcessIntake>(table("[intake.in_process]"), "");
    check::<OauthConfig>(table("oauth"), oauth);
    check::<SelectConfig>(table("[select]"), "");
    check::<MemoryBuffer>(table("[buffer.memory]"), "");
    check::<DiskBuffer>(table("[buffer.disk]"), "path = 'p'");
    check::<Common>(table("[[destination]]"), "name = 'n'");
    check::<BatchConfig>(table("[destination.batch]"), "");
    check::<Backlog>(table("[destination.backlog]"), "");
    check::<RetryConfig>(table("[destination.retry]"), "");
    check::<BreakerConfig>(table("[destination.breaker]"), "");
    check::<RateConfig>(table("[destination.rate]"), "");
    check::<QuotaConfig>(table("[destination.quota]"), "events = 1");
    check::<DeadLetterConfig>(table("[destination.dead_letter]"), "");
    check::<EnrichmentConfig>(table("[enrichment]"), &format!("url = 'u'\n{inline}"));
    check::<TestCase>(table("[[test]]"), "name = 'n'\nenvelope = {}");
    check::<Expect>(table("[[test.expect]]"), "destination = 'd'");
    seen.sort_unstable();
    assert_eq!(tables.keys().map(String::as_str).collect::<Vec<_>>(), seen);
}
