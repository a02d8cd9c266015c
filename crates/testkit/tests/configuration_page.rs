//! The reference page of the settings is what the components' own tables say.
#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use loggregator_service::config::{Setting, markdown};
use loggregator_service::logging;

/// A section of the page.
struct Section {
    title: &'static str,
    intro: &'static str,
    prefix: &'static str,
    settings: &'static [Setting],
}

fn sections() -> Vec<Section> {
    vec![
        Section {
            title: "agent",
            intro: "`loggregator agent`. Names that the Go agents know are kept.",
            prefix: loggregator_agent::PREFIX,
            settings: loggregator_agent::SETTINGS,
        },
        Section {
            title: "doppler",
            intro: "`loggregator doppler`. Names that the Go router knows are kept.",
            prefix: doppler::PREFIX,
            settings: doppler::SETTINGS,
        },
        Section {
            title: "traffic-controller",
            intro: "`loggregator traffic-controller`. Names that the Go traffic controller knows are kept.",
            prefix: traffic_controller::PREFIX,
            settings: traffic_controller::SETTINGS,
        },
        Section {
            title: "rlp",
            intro: "The reverse log proxy. Names that the Go reverse log proxy knows are kept.",
            prefix: traffic_controller::rlp::PREFIX,
            settings: traffic_controller::rlp::SETTINGS,
        },
        Section {
            title: "rlp-gateway",
            intro: "The HTTP gateway of the reverse log proxy. Names that the Go gateway knows are kept.",
            prefix: traffic_controller::gateway::PREFIX,
            settings: traffic_controller::gateway::SETTINGS,
        },
        Section {
            title: "Process log",
            intro: "Every component.",
            prefix: "",
            settings: logging::SETTINGS,
        },
    ]
}

fn page() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         Components are configured by environment variables; each has a flag of the same meaning, but for secrets:\n\
         everybody on a machine sees its command lines. A flag wins over its variable. An empty value is the same as an\n\
         unset one. A switch is on for exactly `true` or `1`; its flag may stand alone, or be followed by `=true` or\n\
         `=false`. Sizes are written `64KiB` or `256MiB`, durations `250ms`, `60s` or `1h30m`, lists with commas.\n\
         Everything that is wrong is reported at once, before any port is bound, with exit code 64.\n\n\
         This page is rendered from the components' tables; a test compares the two.\n",
    );
    for section in sections() {
        page.push('\n');
        page.push_str(&markdown(
            section.title,
            section.intro,
            Some(section.prefix),
            section.settings,
        ));
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

/// Variables and flags stand once per component; each says something, and what it takes.
#[test]
fn tables_are_sound() {
    for Section {
        title,
        prefix,
        settings,
        ..
    } in sections()
    {
        let mut names = BTreeSet::new();
        for setting in settings {
            let name = setting.name;
            assert!(names.insert(name.to_owned()), "{title}: {name} twice");
            if let Some(flag) = setting.flag_name(prefix) {
                assert!(!setting.secret, "{title}: --{flag} is a secret");
                assert!(
                    setting.placeholder() != "VALUE",
                    "{title}: --{flag} takes what?"
                );
                assert!(names.insert(flag.clone()), "{title}: --{flag} twice");
            }
            if let Some(other) = setting.covered_by {
                let covers = settings.iter().any(|setting| setting.name == other);
                assert!(covers, "{title}: {name} is covered by nothing");
            }
            assert!(
                setting.help.ends_with('.'),
                "{title}: {name}: {}",
                setting.help
            );
        }
    }
}

/// A variable that several components have has the same flag in all of them.
#[test]
fn a_variable_has_the_same_flag_everywhere() {
    let mut flags = BTreeMap::new();
    for section in sections() {
        for setting in section.settings {
            let flag = setting.flag_name(section.prefix);
            let known = flags.entry(setting.name).or_insert_with(|| flag.clone());
            assert_eq!(*known, flag, "{}: {}", section.title, setting.name);
        }
    }
}
