//! What must hold for any bytes, one function per decoder. The fuzz targets call these, and the tests of
//! `crates/envelope` call them with the seeds.

use bytes::Bytes;
use loggregator_envelope::{
    EnvelopeRef, Flags, Frame, FrameBuilder, V1Builder, json,
    splice::{DefaultTags, Edit, move_to_deprecated_tags, move_to_tags},
    survey, v1,
};
use loggregator_proto::{plumbing, v2};
use prost::Message;

fn frame(data: &[u8]) -> Option<Frame> {
    Frame::parse(Bytes::copy_from_slice(data))
        .ok()
        .map(|parsed| parsed.frame)
}

/// What a scan accepts decodes, and the index tells the truth about it.
pub fn scan(data: &[u8]) {
    let shorter = survey(data, Flags::HAS_TAGS);
    let Some(frame) = frame(data) else {
        assert!(
            shorter.is_err(),
            "the shorter pass finds the same framing broken"
        );
        return;
    };
    assert!(
        shorter.is_ok(),
        "the shorter pass finds the same framing whole"
    );
    let accepted = survey(frame.bytes(), Flags::HAS_TAGS).expect("what was accepted is whole");
    assert!(accepted.sound && accepted.envelopes == frame.len());
    let tagged = frame.index().flags().contains(Flags::HAS_TAGS);
    assert_eq!(accepted.found, tagged);
    let decoded = v2::EnvelopeBatch::decode(&frame.bytes()[..])
        .expect("what was accepted decodes everywhere");
    assert_eq!(decoded.batch.len(), frame.len());
    let mut end = 0;
    for (entry, envelope) in frame.entries().iter().zip(&decoded.batch) {
        assert_eq!(entry.record().start, end);
        end = entry.record().end;
        assert_eq!(frame.source_id(entry), envelope.source_id);
        assert_eq!(frame.envelope(entry).kind(), entry.kind());
    }
    assert_eq!(end, frame.bytes().len());
}

/// What is accepted as v1 has a v2 form that decodes, and a canonical form that is stable.
pub fn v1_parse(data: &[u8]) {
    let mut builder = V1Builder::new();
    if builder.push(data).is_err() {
        return;
    }
    let frame = builder.finish();
    v2::EnvelopeBatch::decode(&frame.bytes()[..]).expect("the v2 form decodes");
    let mut batch = Vec::new();
    v1::append_v2(data, &mut batch).expect("what a builder takes, a reader takes");
    assert_eq!(batch, frame.bytes()[..]);
    let canonical = frame.v1().payload(0);
    builder
        .push(&canonical)
        .expect("the canonical form is accepted");
    let again = builder.finish();
    assert_eq!(again.v1().payload(0), canonical);
    assert_eq!(
        again.v1().app_id(0).as_deref(),
        frame.v1().app_id(0).as_deref()
    );
}

/// Every v1 form that is made is accepted as v1.
pub fn v2_to_v1(data: &[u8]) {
    let Some(frame) = frame(data) else { return };
    let v1 = frame.v1();
    let joined = plumbing::BatchResponse::decode(v1.bytes().clone()).expect("records are a batch");
    assert_eq!(joined.payload.len(), v1.len());
    let mut builder = V1Builder::new();
    for (i, payload) in joined.payload.iter().enumerate() {
        builder.push(payload).expect("made to be accepted");
        assert_eq!(*payload, v1.payload(i));
    }
    let again = builder.finish();
    assert_eq!(again.v1().bytes(), v1.bytes());
}

/// Edits equal edits of the decoded envelope.
pub fn splice(data: &[u8]) {
    let Some(frame) = frame(data) else { return };
    let tags = DefaultTags::new([("origin", "agent"), ("deployment", "")]);
    let edit = Edit {
        defaults: Some(&tags),
        source_id: Some("spliced"),
        copy_deprecated: true,
        counter_total: None,
    };
    let mut builder = FrameBuilder::new();
    let mut out = Vec::new();
    for entry in frame.entries() {
        builder
            .push_edited(frame.bytes(), entry, &edit)
            .expect("far from full");
        let body = frame.envelope(entry).bytes();
        let before = v2::Envelope::decode(body).expect("scanned");
        out.clear();
        move_to_tags(body, &mut out);
        let moved = v2::Envelope::decode(&out[..]).expect("an edit of an envelope is one");
        assert!(moved.deprecated_tags.is_empty());
        out.clear();
        move_to_deprecated_tags(body, &mut out);
        let moved = v2::Envelope::decode(&out[..]).expect("an edit of an envelope is one");
        assert!(moved.tags.is_empty());
        assert!(
            before
                .tags
                .keys()
                .all(|key| moved.deprecated_tags.contains_key(key))
        );
    }
    let (bytes, index) = builder.finish();
    let scanned = loggregator_envelope::scan(&bytes).expect("edits keep the framing");
    assert_eq!(scanned.index, index);
    let decoded = v2::EnvelopeBatch::decode(&bytes[..]).expect("edits of envelopes are envelopes");
    for envelope in decoded.batch {
        assert_eq!(envelope.source_id, "spliced");
        assert!(envelope.tags.contains_key("origin") && envelope.tags.contains_key("deployment"));
    }
}

/// Whatever the bytes, what is written is JSON.
pub fn json(data: &[u8]) {
    let mut out = Vec::new();
    json::write_envelope(&mut out, EnvelopeRef::new(data));
    serde_json::from_slice::<serde_json::Value>(&out).expect("an envelope as JSON");
    if let Some(frame) = frame(data) {
        out.clear();
        json::write_batch(&mut out, &frame);
        let value: serde_json::Value = serde_json::from_slice(&out).expect("a batch as JSON");
        assert_eq!(value["batch"].as_array().map(Vec::len), Some(frame.len()));
    }
}

/// Text that is read as envelopes makes envelopes that decode and that are written and read again alike.
pub fn json_read(data: &[u8]) {
    let mut bytes = Vec::new();
    if let Ok(count) = json::read_batch(data, &mut bytes) {
        let decoded = v2::EnvelopeBatch::decode(&bytes[..]).expect("what was read decodes");
        assert_eq!(decoded.batch.len(), count);
        let written = |bytes: &[u8]| {
            let frame = frame(bytes).expect("what was read is a frame");
            assert_eq!(frame.len(), count);
            let mut text = Vec::new();
            json::write_batch(&mut text, &frame);
            text
        };
        let text = written(&bytes);
        bytes.clear();
        json::read_batch(&text, &mut bytes).expect("what is written can be read");
        assert_eq!(written(&bytes), text);
    }
    bytes.clear();
    if json::read_envelope(data, &mut bytes).is_ok() {
        v2::Envelope::decode(&bytes[..]).expect("what was read decodes");
    } else {
        assert!(bytes.is_empty());
    }
}
