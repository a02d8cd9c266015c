//! The reference page of the metrics is what the table says.

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
