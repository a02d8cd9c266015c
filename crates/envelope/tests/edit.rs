//! Selecting, joining and splicing equal decoding, editing and encoding.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use bytes::Bytes;
use common::{any_batch, any_envelope, envelope, text};
use loggregator_envelope::{
    EnvelopeRef, Frame, FrameBuilder, Kind, scan,
    select::PushError,
    splice::{DefaultTags, Edit, move_to_deprecated_tags, move_to_tags, source_id_from_origin},
};
use loggregator_proto::v2::{self, value::Data};
use proptest::{collection::vec, prelude::*};
use prost::Message;

fn decode(bytes: &[u8]) -> v2::EnvelopeBatch {
    v2::EnvelopeBatch::decode(bytes).unwrap()
}

/// Finishes and checks that the index is the one a scan of the bytes would make.
fn finish(builder: &mut FrameBuilder) -> Frame {
    let (bytes, index) = builder.finish();
    let scanned = scan(&bytes).unwrap();
    assert!(scanned.tiles && scanned.rejected == 0);
    assert_eq!(index, scanned.index);
    assert!(builder.is_empty() && builder.bytes() == 0);
    Frame::from_parts(bytes, index)
}

/// How an agent writes the value of a deprecated tag.
fn plain(value: &v2::Value) -> String {
    match &value.data {
        None => String::new(),
        Some(Data::Text(text)) => text.clone(),
        Some(Data::Integer(number)) => number.to_string(),
        Some(Data::Decimal(number)) if number.is_nan() => "NaN".into(),
        Some(Data::Decimal(number)) if number.is_infinite() => {
            if *number > 0.0 { "+Inf" } else { "-Inf" }.into()
        }
        Some(Data::Decimal(number)) => number.to_string(),
    }
}

fn same(left: &v2::Envelope, right: &v2::Envelope) {
    // NaN differs from itself; the text does not.
    assert_eq!(format!("{left:?}"), format!("{right:?}"));
}

proptest! {
    #[test]
    fn selecting_equals_filtering(bytes in any_batch(), wanted in any::<u8>()) {
        let frame = Frame::parse(bytes.clone().into()).unwrap().frame;
        let wanted = |kind: Kind| wanted & 1 << kind as u8 != 0;
        let (mut by_entry, mut by_record, mut by_body) = (FrameBuilder::new(), FrameBuilder::new(), FrameBuilder::new());
        for (i, entry) in frame.entries().iter().enumerate().filter(|(_, e)| wanted(e.kind())) {
            by_entry.push_entry(frame.bytes(), entry).unwrap();
            by_record.push_record(&frame.record(i)).unwrap();
            by_body.push_envelope(frame.envelope(entry).bytes()).unwrap();
        }
        let selected = finish(&mut by_entry);
        for mut other in [by_record, by_body] {
            let other = finish(&mut other);
            prop_assert_eq!(selected.bytes(), other.bytes());
        }
        let mut model = decode(&bytes).batch;
        let mut kinds = frame.entries().iter().map(|e| e.kind());
        model.retain(|_| wanted(kinds.next().unwrap()));
        prop_assert_eq!(format!("{:?}", decode(selected.bytes()).batch), format!("{model:?}"));
    }

    #[test]
    fn joining_is_concatenating(batches in vec(any_batch(), 0..4)) {
        let mut builder = FrameBuilder::new();
        let mut joined = Vec::new();
        let mut model = Vec::new();
        for bytes in batches {
            model.extend(decode(&bytes).batch);
            let frame = Frame::parse(bytes.into()).unwrap().frame;
            joined.extend_from_slice(&frame.run(0..frame.len()));
            builder.push_record(frame.bytes()).unwrap();
        }
        prop_assert_eq!(format!("{:?}", decode(&joined).batch), format!("{model:?}"));
        let frame = finish(&mut builder);
        prop_assert_eq!(&frame.bytes()[..], &joined[..]);
    }

    #[test]
    fn splicing_equals_editing(
        body in any_envelope(),
        defaults in prop::option::of(prop::collection::btree_map(text(), text(), 0..4)),
        source_id in prop::option::of(text()),
        copy_deprecated in any::<bool>(),
        total in prop::option::of(any::<u64>()),
    ) {
        let mut model = v2::Envelope::decode(&body[..]).unwrap();
        let mut total = total;
        if copy_deprecated {
            for (key, value) in &model.deprecated_tags {
                model.tags.insert(key.clone(), plain(value));
            }
        }
        for (key, value) in defaults.iter().flatten() {
            model.tags.entry(key.clone()).or_insert_with(|| value.clone());
        }
        if let Some(source_id) = &source_id {
            model.source_id.clone_from(source_id);
        }
        match (&mut model.message, total) {
            (Some(v2::envelope::Message::Counter(counter)), Some(total)) => counter.total = total,
            _ => total = None,
        }

        let encoded = defaults.map(DefaultTags::new);
        let edit = Edit { defaults: encoded.as_ref(), source_id: source_id.as_deref(), copy_deprecated, counter_total: total };
        let mut out = Vec::new();
        edit.write(&body, &mut out);
        same(&v2::Envelope::decode(&out[..]).unwrap(), &model);

        let mut builder = FrameBuilder::new();
        builder.push_envelope(&body).unwrap();
        let (bytes, index) = builder.finish();
        builder.push_edited(&bytes, &index.entries()[0], &edit).unwrap();
        builder.push_entry(&bytes, &index.entries()[0]).unwrap();
        let frame = finish(&mut builder);
        prop_assert_eq!(frame.envelope(&frame.entries()[0]).bytes(), &out[..]);
        prop_assert_eq!(frame.envelope(&frame.entries()[1]).bytes(), &body[..]);
    }

    #[test]
    fn moving_tags_equals_editing(body in any_envelope()) {
        let decoded = v2::Envelope::decode(&body[..]).unwrap();
        let mut model = decoded.clone();
        for (key, value) in std::mem::take(&mut model.deprecated_tags) {
            if let Some(data) = &value.data {
                let text = match data {
                    // The number module has its own tests.
                    Data::Decimal(number) => loggregator_envelope::TagValue::Decimal(*number).to_short_text().into_owned(),
                    _ => plain(&value),
                };
                model.tags.insert(key, text);
            }
        }
        let mut out = Vec::new();
        move_to_tags(&body, &mut out);
        same(&v2::Envelope::decode(&out[..]).unwrap(), &model);

        let mut model = decoded;
        for (key, value) in std::mem::take(&mut model.tags) {
            model.deprecated_tags.insert(key, v2::Value { data: Some(Data::Text(value)) });
        }
        out.clear();
        move_to_deprecated_tags(&body, &mut out);
        same(&v2::Envelope::decode(&out[..]).unwrap(), &model);
    }
}

#[test]
fn an_edit_that_changes_nothing_says_so() {
    assert!(Edit::default().is_empty());
    let none = DefaultTags::default();
    assert!(
        Edit {
            defaults: Some(&none),
            ..Edit::default()
        }
        .is_empty()
    );
    let some = DefaultTags::new([("a", "b")]);
    assert!(
        !Edit {
            defaults: Some(&some),
            ..Edit::default()
        }
        .is_empty()
    );
    assert!(
        !Edit {
            source_id: Some(""),
            ..Edit::default()
        }
        .is_empty()
    );
}

#[test]
fn unknown_fields_survive_an_edit() {
    let unknown = b"\xa8\x06\x07";
    let body = [&envelope("a").encode_to_vec()[..], unknown].concat();
    let mut out = Vec::new();
    Edit {
        source_id: Some("b"),
        ..Edit::default()
    }
    .write(&body, &mut out);
    assert!(out.windows(unknown.len()).any(|window| window == unknown));
    out.clear();
    move_to_deprecated_tags(&body, &mut out);
    assert!(out.windows(unknown.len()).any(|window| window == unknown));
}

#[test]
fn the_source_id_comes_from_the_origin() {
    let mut message = envelope("");
    message.tags.insert("origin".into(), "tagged".into());
    let text = |data| v2::Value { data: Some(data) };
    message
        .deprecated_tags
        .insert("origin".into(), text(Data::Text("old".into())));
    let of = |message: &v2::Envelope| {
        source_id_from_origin(EnvelopeRef::new(&message.encode_to_vec())).map(str::to_owned)
    };
    assert_eq!(of(&message).as_deref(), Some("tagged"));
    message.tags.clear();
    assert_eq!(of(&message).as_deref(), Some("old"));
    message
        .deprecated_tags
        .insert("origin".into(), text(Data::Integer(5)));
    assert_eq!(of(&message).as_deref(), Some(""));
    message.deprecated_tags.clear();
    assert_eq!(of(&message), None);
}

#[test]
fn what_is_no_envelope_is_refused() {
    let mut builder = FrameBuilder::new();
    assert!(matches!(
        builder.push_envelope(b"\x12\x05a"),
        Err(PushError::Malformed(_))
    ));
    assert!(matches!(
        builder.push_record(b"\x12\x00"),
        Err(PushError::Malformed(_))
    ));
    assert!(matches!(
        builder.push_record(b"\x0a\x05a"),
        Err(PushError::Malformed(_))
    ));
    assert!(builder.is_empty());
    assert_eq!(builder.finish().0, Bytes::new());
}
