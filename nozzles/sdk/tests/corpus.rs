//! The seeds of the fuzz target `segment`, as a plain test: what must hold for any bytes holds for these.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, path::Path};

use loggregator_nozzle::buffer::format;

#[path = "../../../fuzz/src/buffer.rs"]
mod buffer;

#[test]
fn segment() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/segment");
    if std::env::var_os("UPDATE_CORPUS").is_some() {
        for (name, bytes) in seeds() {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
    let mut found = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let data = fs::read(entry.unwrap().path()).unwrap();
        buffer::segment(&data);
        for cut in 0..data.len() {
            buffer::segment(&data[..cut]);
        }
        // And with every bit of the records flipped.
        let Some(records) = data.get(4..) else {
            continue;
        };
        for bit in 0..u32::try_from(records.len() * 8).unwrap() {
            buffer::segment(&[&bit.to_le_bytes(), records].concat());
        }
        found += 1;
    }
    assert!(found > 2, "the seeds are there");
}

/// Four bytes that say which bit is flipped, and records.
fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let seed = format::Seed::new(buffer::SEED.0, buffer::SEED.1);
    let records = |bodies: &[&[u8]]| {
        let mut out = vec![0; 4];
        for (seq, body) in (0..).zip(bodies) {
            format::encode(seed, seq, 7, body, &mut out);
        }
        out
    };
    let mut gaps = records(&[b"one"]);
    format::encode_gap(seed, 1, 1000, &mut gaps);
    format::encode(seed, 1001, 7, b"two", &mut gaps);
    let mut middle = records(&[b"one", b"two", b"three", b"four"]);
    middle[4 + 31 + 30] ^= 4;
    let mut header = records(&[b"one", b"two", b"three", b"four"]);
    header[4 + 31 + 13] ^= 4;
    // A record in an event, of a number to come, with the right checksums.
    let mut inner = Vec::new();
    format::encode(seed, 5, 7, b"forged", &mut inner);
    vec![
        ("records", records(&[b"one", b"", &[0; 40]])),
        ("gap", gaps),
        ("damaged-body", middle),
        ("damaged-header", header),
        ("record-in-record", records(&[b"one", &inner, b"three"])),
        ("zeros", [&records(&[b"one"])[..], &[0; 60]].concat()),
    ]
}
