//! Pages and examples that speak of the programs' variables.

use crate::process::{Vars, run};
use crate::{rlp, rlp_gateway, router, traffic_controller};
use std::path::Path;

/// Set `UPDATE_DOCS=1` to write the page instead of comparing it.
#[test]
fn the_reference_page_is_rendered_from_the_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/programs.md");
    let rendered = loggregator_cli::drop_in::reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &rendered).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == rendered,
        "docs/programs.md is out of date; run: UPDATE_DOCS=1 cargo test -p loggregator --test drop_in pages"
    );
}

/// Guarantee: every variable in the examples for systemd is one that the program knows.
#[test]
fn examples_set_variables_that_exist() {
    for (program, file) in [
        (router::ROUTER, "router.env"),
        (
            traffic_controller::TRAFFIC_CONTROLLER,
            "trafficcontroller.env",
        ),
        (rlp::RLP, "rlp.env"),
        (rlp_gateway::GATEWAY, "rlp-gateway.env"),
    ] {
        let help = run(program, &Vars::new(), &["--help"]).output;
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../deploy/systemd")
            .join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        let names = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, _)| name);
        let names: Vec<_> = names.filter(|name| !name.starts_with('#')).collect();
        assert!(!names.is_empty(), "{file}");
        for name in names {
            let known = help.lines().any(|line| {
                line.strip_prefix("  ")
                    .is_some_and(|line| line.split(' ').next() == Some(name))
            });
            assert!(known, "{file}: {name}");
        }
    }
}
