//! The reference page of the metrics is what the table says.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

use std::path::Path;

use loggregator_service::metrics::names;

/// Set `UPDATE_DOCS=1` to write the page instead of comparing it.
#[test]
fn the_reference_page_is_rendered_from_the_table() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let rendered = names::markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&page, &rendered).unwrap();
    }
    let stored = std::fs::read_to_string(&page).unwrap();
    assert!(
        stored == rendered,
        "docs/metrics.md is out of date; run: UPDATE_DOCS=1 cargo test -p loggregator-service --test metrics_page"
    );
}

/// Everything that Rust files below `dir` say, the table itself left out.
fn sources(dir: &Path, text: &mut String) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && name != "tests" && !name.starts_with('.') {
            sources(&path, text);
        } else if name.ends_with(".rs") && !path.ends_with("metrics/names.rs") {
            text.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// A metric that nobody emits would be a promise in the reference page that is not kept.
#[test]
fn every_metric_of_the_table_is_emitted_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let table = std::fs::read_to_string(root.join("crates/service/src/metrics/names.rs")).unwrap();
    let rows = table
        .lines()
        .filter_map(|line| line.strip_prefix("        ")?.split_once(": "));
    let names: Vec<&str> = rows
        .map(|(name, _)| name)
        .filter(|name| {
            name.bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        })
        .collect();
    assert_eq!(names.len(), names::all().count(), "rows of the table");
    let mut text = String::new();
    sources(&root, &mut text);
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !text.contains(&format!("names::{name}")))
        .collect();
    assert!(
        missing.is_empty(),
        "in the table and emitted nowhere: {missing:?}"
    );
}
