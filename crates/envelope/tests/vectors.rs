//! Both conversions against golden vectors, compared as decoded messages with the presence of fields.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use loggregator_envelope::{FrameBuilder, V1Builder};
use loggregator_proto::{events, v2};
use prost::Message;
use serde::Deserialize;

#[derive(Deserialize)]
struct Vector {
    name: String,
    v2_hex: String,
    v1_hex: Vec<String>,
    direction: String,
}

fn vectors(direction: &str) -> Vec<Vector> {
    let all: Vec<Vector> = serde_json::from_str(include_str!("data/vectors.json")).unwrap();
    assert_eq!(all.len(), 21);
    all.into_iter()
        .filter(|vector| vector.direction == direction)
        .collect()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn v2_becomes_v1() {
    let vectors = vectors("v2_to_v1");
    assert_eq!(vectors.len(), 14);
    for vector in vectors {
        let mut builder = FrameBuilder::new();
        builder.push_envelope(&hex(&vector.v2_hex)).unwrap();
        let (bytes, index) = builder.finish();
        let frame = loggregator_envelope::Frame::from_parts(bytes, index);
        let v1 = frame.v1();
        let decode = |payload: &[u8]| events::Envelope::decode(payload).unwrap();
        let mut got: Vec<_> = (0..v1.len()).map(|i| decode(&v1.payload(i))).collect();
        got.sort_by_key(|envelope| {
            envelope
                .value_metric
                .as_ref()
                .map(|metric| metric.name.clone())
        });
        let want: Vec<_> = vector
            .v1_hex
            .iter()
            .map(|payload| decode(&hex(payload)))
            .collect();
        assert_eq!(got, want, "{}", vector.name);
        // What must be present is compared by the decoded options; the order of fields is the original's too.
        if want.len() == 1 && want[0].tags.len() < 2 {
            assert_eq!(v1.payload(0)[..], hex(&vector.v1_hex[0]), "{}", vector.name);
        }
        let incomplete = vector.name.contains("undeliverable");
        assert_eq!(v1.undeliverable(), u32::from(incomplete), "{}", vector.name);
    }
}

#[test]
fn v1_becomes_v2() {
    let vectors = vectors("v1_to_v2");
    assert_eq!(vectors.len(), 7);
    for vector in vectors {
        let payload = hex(&vector.v1_hex[0]);
        let mut builder = V1Builder::new();
        builder.push(&payload).unwrap();
        let frame = builder.finish();
        assert_eq!(frame.len(), 1);
        let decode = |body: &[u8]| v2::Envelope::decode(body).unwrap();
        let got = decode(frame.envelope(&frame.entries()[0]).bytes());
        assert_eq!(got, decode(&hex(&vector.v2_hex)), "{}", vector.name);
        // The v1 form is the one that came in.
        assert_eq!(
            frame.v1_if_made().unwrap().payload(0)[..],
            payload,
            "{}",
            vector.name
        );
    }
}
