//! The format is that of the platform's agents, byte for byte.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{plan, vectors};

#[test]
fn every_golden_vector_is_written_byte_for_byte() {
    for vector in vectors::all() {
        let plan = plan(&vector.settings("syslog://receiver"));
        let rendered = plan.render(&vector.event());
        if vector.error {
            let reason = rendered.unwrap_err();
            assert!(
                reason.code.starts_with("invalid_"),
                "{}: {reason}",
                vector.name
            );
            continue;
        }
        let rendered = rendered.unwrap_or_else(|reason| panic!("{}: {reason}", vector.name));
        let mut lines: Vec<Vec<u8>> = rendered.iter().map(|one| one.body.to_vec()).collect();
        let mut expected = vector.lines();
        if vector.any_order {
            lines.sort();
            expected.sort();
        }
        let text = |lines: &[Vec<u8>]| -> Vec<String> {
            lines.iter().map(|l| l.escape_ascii().to_string()).collect()
        };
        assert_eq!(text(&lines), text(&expected), "{}", vector.name);
    }
}
