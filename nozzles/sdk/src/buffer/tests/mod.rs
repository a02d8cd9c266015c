//! Tests of the buffer.

mod damage;
mod disk;
mod faults;
mod memory;
mod model;

use loggregator_envelope::{Frame, FrameBuilder};
use loggregator_proto::v2::Envelope;

/// A frame of envelopes of one source with these payloads as instance ids.
fn frame(source: &str, payloads: &[String]) -> Frame {
    let mut builder = FrameBuilder::new();
    for payload in payloads {
        let envelope = Envelope {
            source_id: source.to_owned(),
            instance_id: payload.clone(),
            ..Envelope::default()
        };
        builder.push_message(&envelope).unwrap();
    }
    let (bytes, index) = builder.finish();
    Frame::from_parts(bytes, index)
}

/// A frame of `n` envelopes numbered from `first` on, each with `pad` bytes more.
fn numbered(source: &str, first: u64, n: u64, pad: usize) -> Frame {
    let payload = |i| format!("{i} {}", "x".repeat(pad));
    let payloads: Vec<_> = (first..first + n).map(payload).collect();
    frame(source, &payloads)
}
