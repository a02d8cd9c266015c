//! The seeds of the fuzz targets, as plain tests: what must hold for any bytes holds for these.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, path::Path};

#[path = "../../../fuzz/src/checks.rs"]
mod checks;

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target);
    let seeds: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(seeds.len() > 2, "the seeds of {target} are there");
    for seed in seeds {
        let data = fs::read(&seed).unwrap();
        check(&data);
        // And the seed cut off at every place.
        for cut in 0..data.len() {
            check(&data[..cut]);
        }
    }
}

#[test]
fn scan() {
    replay("scan", checks::scan);
}

#[test]
fn v1_parse() {
    replay("v1_parse", checks::v1_parse);
}

#[test]
fn v2_to_v1() {
    replay("v2_to_v1", checks::v2_to_v1);
}

#[test]
fn splice() {
    replay("splice", checks::splice);
}

#[test]
fn json() {
    replay("json", checks::json);
}

#[test]
fn json_read() {
    replay("json_read", checks::json_read);
}
