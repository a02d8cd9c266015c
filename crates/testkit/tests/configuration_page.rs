//! The reference page of the settings is what the components' own tables say.
#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

use std::path::Path;

use loggregator_service::config::{Setting, markdown};
use loggregator_service::logging;

/// Title, introduction and table of each section.
fn sections() -> Vec<(&'static str, &'static str, &'static [Setting])> {
    vec![
        (
            "agent",
            "`loggregator agent`. Names that the Go agents know are kept.",
            loggregator_agent::SETTINGS,
        ),
        (
            "doppler",
            "`loggregator doppler`. Names that the Go router knows are kept.",
            doppler::SETTINGS,
        ),
        (
            "traffic-controller",
            "`loggregator traffic-controller`. Names that the Go traffic controller knows are kept.",
            traffic_controller::SETTINGS,
        ),
        (
            "rlp",
            "The reverse log proxy. Names that the Go reverse log proxy knows are kept.",
            traffic_controller::rlp::SETTINGS,
        ),
        (
            "rlp-gateway",
            "The HTTP gateway of the reverse log proxy. Names that the Go gateway knows are kept.",
            traffic_controller::gateway::SETTINGS,
        ),
        ("Process log", "Every component.", logging::SETTINGS),
    ]
}

fn page() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         Components are configured by environment variables; each has a flag of the same meaning, see `--help`. An empty\n\
         value is the same as an unset one. A switch is on for exactly `true` or `1`. Sizes are written `64KiB` or\n\
         `256MiB`, durations `250ms`, `60s` or `1h30m`, lists with commas. Everything that is wrong is reported at once,\n\
         before any port is bound, with exit code 64.\n\n\
         This page is rendered from the components' tables; a test compares the two.\n",
    );
    for (title, intro, settings) in sections() {
        page.push('\n');
        page.push_str(&markdown(title, intro, settings));
    }
    page
}

/// Set `UPDATE_DOCS=1` to write the page instead of comparing it.
#[test]
fn the_reference_page_is_rendered_from_the_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let rendered = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &rendered).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == rendered,
        "docs/configuration.md is out of date; run: \
         UPDATE_DOCS=1 cargo test -p loggregator-testkit --test configuration_page"
    );
}

/// A variable stands once per component, and says something.
#[test]
fn tables_have_no_duplicates() {
    for (title, _, settings) in sections() {
        let mut names: Vec<_> = settings.iter().map(|setting| setting.name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all, "{title} has a variable twice");
        for setting in settings {
            assert!(
                setting.help.ends_with('.'),
                "{title}: {}: {}",
                setting.name,
                setting.help
            );
        }
    }
}
