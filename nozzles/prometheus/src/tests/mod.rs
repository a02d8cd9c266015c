//! Events in, pages out, compared in full.

mod clean;
mod events;
mod exporter;
mod grammar;
mod limits;
mod properties;

use std::path::Path;
use std::sync::Arc;

use loggregator_nozzle::Event;
use loggregator_nozzle::config::Section;
use parking_lot::Mutex;

use self::grammar::Dialect;
use crate::config::{Config, Mapping};
use crate::page::accept::{Format, Version};
use crate::page::{self};
use crate::store::{Folded, Store};

const OPENMETRICS: Format = Format::OpenMetrics(Version::V1_0_0);

/// What this section means.
fn mapping(section: &str) -> Arc<Mapping> {
    let section = Section::from_text(section).unwrap();
    Arc::new(Config::read(&section).unwrap().mapping())
}

fn store(section: &str) -> Mutex<Store> {
    Mutex::new(Store::new(mapping(section)))
}

/// A store that has taken in all of these.
fn fed(section: &str, events: &[Event]) -> Mutex<Store> {
    let store = store(section);
    for event in events {
        assert_eq!(store.lock().fold(event, 0), Folded::Taken);
    }
    store
}

/// The page, which the grammar accepts.
fn text(store: &Mutex<Store>, format: Format, now: u64) -> String {
    let page = String::from_utf8(page::render(store, format, now)).unwrap();
    let dialect = match format {
        Format::OpenMetrics(_) => Dialect::OpenMetrics,
        _ => Dialect::Text,
    };
    if let Err(error) = grammar::check(&page, dialect) {
        panic!("{error}\n{page}");
    }
    page
}

/// Compares with the file; `UPDATE_GOLDEN=1` writes it instead.
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert!(text == expected, "{} differs:\n{text}", path.display());
}
