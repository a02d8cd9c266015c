//! The checked-in types under `src/gen` are what the `.proto` files say.
//!
//! `BLESS=1 cargo test -p loggregator-proto` writes them anew after a change of the definitions.

#![allow(clippy::expect_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

const FILES: [&str; 5] = [
    "loggregator/v2/envelope.proto",
    "loggregator/v2/ingress.proto",
    "loggregator/v2/egress.proto",
    "plumbing/doppler.proto",
    "dropsonde/events/envelope.proto",
];

const GENERATED: [&str; 3] = ["loggregator.v2.rs", "plumbing.rs", "events.rs"];

/// Generates into a folder of this test run and returns it.
fn generate() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("generated");
    fs::create_dir_all(&out).expect("a folder for the generated files");
    let descriptors = protox::compile(FILES, [root]).expect("the definitions compile");
    prost_build::Config::new()
        .out_dir(&out)
        .bytes(["."])
        .btree_map(["."])
        .compile_fds(descriptors)
        .expect("types are generated");
    out
}

#[test]
fn checked_in_types_match_the_definitions() {
    let out = generate();
    let checked_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gen");
    let bless = std::env::var_os("BLESS").is_some_and(|v| v == "1");
    for name in GENERATED {
        let new = fs::read_to_string(out.join(name)).expect("a generated file");
        let path = checked_in.join(name);
        if bless {
            fs::write(&path, &new).expect("the checked-in file is written");
        }
        let old = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            old == new,
            "src/gen/{name} is stale; run `BLESS=1 cargo test -p loggregator-proto`"
        );
    }
}
