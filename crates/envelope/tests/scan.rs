//! The index agrees with a full decode.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use bytes::Bytes;
use common::{any_batch, envelope};
use loggregator_envelope::{Fault, Flags, Frame, Kind, scan, source_hash, survey};
use loggregator_proto::v2;
use proptest::prelude::*;
use prost::Message;

fn kind_of(envelope: &v2::Envelope) -> Kind {
    use v2::envelope::Message::*;
    match envelope.message {
        None => Kind::None,
        Some(Log(_)) => Kind::Log,
        Some(Counter(_)) => Kind::Counter,
        Some(Gauge(_)) => Kind::Gauge,
        Some(Timer(_)) => Kind::Timer,
        Some(Event(_)) => Kind::Event,
    }
}

/// The index of bytes that decode says what the decoded values say.
fn agree(bytes: &[u8], batch: &v2::EnvelopeBatch) {
    let frame = Frame::parse(Bytes::copy_from_slice(bytes)).expect("decodes, so the framing holds");
    assert_eq!(frame.rejected, 0, "{bytes:02x?}");
    let frame = frame.frame;
    assert_eq!(frame.len(), batch.batch.len());
    let mut covered = 0;
    for (entry, decoded) in frame.entries().iter().zip(&batch.batch) {
        assert_eq!(entry.record().start, covered);
        covered = entry.record().end;
        assert_eq!(entry.kind(), kind_of(decoded));
        assert_eq!(frame.source_id(entry), decoded.source_id);
        assert_eq!(entry.source_hash, source_hash(decoded.source_id.as_bytes()));
        assert_eq!(
            entry.flags().contains(Flags::HAS_TAGS),
            !decoded.tags.is_empty()
        );
        assert_eq!(
            entry.flags().contains(Flags::HAS_DEPRECATED_TAGS),
            !decoded.deprecated_tags.is_empty()
        );
        assert_eq!(
            entry.flags().contains(Flags::NO_SOURCE_ID),
            decoded.source_id.is_empty()
        );
        assert!(frame.index().kinds().contains(entry.kind()));
        assert!(frame.index().flags().contains(entry.flags()));
        let body = &frame.bytes()[entry.body()];
        let again = v2::Envelope::decode(body).expect("part of what decoded");
        // NaN differs from itself; the text does not.
        assert_eq!(format!("{again:?}"), format!("{decoded:?}"));
    }
    assert_eq!(covered, frame.bytes().len());
}

/// What can be said of any bytes.
fn hold(bytes: &[u8]) {
    let decoded = v2::EnvelopeBatch::decode(bytes);
    if let Ok(batch) = &decoded {
        // Decoders differ in how deep groups may nest; nothing else is accepted there and not here.
        if !common::has_deep_groups(bytes) {
            agree(bytes, batch);
        }
    }
    if let Ok(parsed) = Frame::parse(Bytes::copy_from_slice(bytes)) {
        let again = v2::EnvelopeBatch::decode(&parsed.frame.bytes()[..])
            .expect("what was accepted decodes everywhere");
        assert_eq!(again.batch.len(), parsed.frame.len());
        agree(parsed.frame.bytes(), &again);
    }
}

proptest! {
    #[test]
    fn arbitrary_batches_agree(bytes in any_batch()) {
        agree(&bytes, &v2::EnvelopeBatch::decode(&bytes[..]).unwrap());
    }

    #[test]
    fn mutated_batches_agree(bytes in any_batch(), edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut bytes = bytes;
        if !bytes.is_empty() {
            for (at, value) in edits {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            hold(&bytes);
        }
    }

    #[test]
    fn cut_batches_agree(bytes in any_batch(), at in any::<prop::sample::Index>()) {
        if !bytes.is_empty() {
            hold(&bytes[..at.index(bytes.len())]);
        }
    }

    #[test]
    fn arbitrary_bytes_agree(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        hold(&bytes);
    }

    #[test]
    fn small_alphabets_agree(bytes in proptest::collection::vec(prop::sample::select(&b"\x0a\x12\x1a\x22\x2a\x32\x3a\x42\x4a\x52\x08\x10\x11\x19\x18\x00\x01\x02\x03\x04\x05\x0b\x0c\x5b\x5c\x80\xc3\xa4"[..]), 0..40)) {
        hold(&bytes);
    }
}

fn record(body: &[u8]) -> Vec<u8> {
    let mut record = vec![0x0a, body.len() as u8];
    record.extend(body);
    record
}

#[test]
fn a_malformed_envelope_is_left_out_alone() {
    let good = envelope("app").encode_to_vec();
    for bad in [
        &b"\x12\x05ab"[..],                              // source id beyond the end
        b"\x12\x02\xff\xff",                             // source id not UTF-8
        b"\x08",                                         // no value
        b"\x4a\x04\x0a\x02\xc3\x28",                     // tag key not UTF-8
        b"\x4a\x05\x12\x03\xed\xa0\x80",                 // surrogate
        b"\x2a\x03\x0a\x01\xff",                         // counter name
        b"\x1a\x05\x12\x03\x0a\x01\xff",                 // deprecated tag text
        b"\x32\x07\x0a\x05\x12\x03\x0a\x01\xff",         // unit
        b"\x52\x03\x12\x01\xff",                         // event body
        b"\x10\x01",                                     // source id as a number
        b"\x22\x02\x08\x01",                             // payload as a number
        b"\x5c",                                         // end of a group that did not begin
        b"\x07",                                         // no such wire type
        b"\x00\x00",                                     // field 0
        b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", // 65 bits
    ] {
        let batch = [record(&good), record(bad), record(&good)].concat();
        let found = scan(&batch).unwrap();
        assert_eq!(
            (found.rejected, found.tiles, found.index.len()),
            (1, false, 2),
            "{bad:02x?}"
        );
        let frame = Frame::parse(batch.into()).unwrap();
        assert_eq!(frame.rejected, 1);
        assert_eq!(
            frame.frame.bytes()[..],
            [record(&good), record(&good)].concat()
        );
        assert!(v2::Envelope::decode(bad).is_err(), "{bad:02x?}");
    }
}

#[test]
fn broken_framing_is_an_error_with_its_place() {
    let good = record(&envelope("app").encode_to_vec());
    for (tail, kind) in [
        (&b"\x0a\x05ab"[..], Fault::Truncated),
        (b"\x0a", Fault::Truncated),
        (
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
            Fault::Varint,
        ),
        (b"\x07", Fault::Tag),
        (b"\x0c", Fault::Group),
    ] {
        let batch = [&good[..], tail].concat();
        let error = scan(&batch).unwrap_err();
        assert_eq!(
            (error.offset, error.kind),
            (good.len(), kind),
            "{tail:02x?}"
        );
    }
}

#[test]
fn odd_framing_is_made_regular() {
    let good = envelope("app").encode_to_vec();
    let odd_length = [&[0x0a, 0x80 | good.len() as u8, 0], &good[..]].concat();
    let odd_tag = [&[0x8a, 0, good.len() as u8], &good[..]].concat();
    let beside = [record(&good), vec![0x10, 0x05, 0x08, 0x07]].concat();
    for batch in [odd_length, odd_tag, beside] {
        let found = scan(&batch).unwrap();
        assert_eq!(
            (found.rejected, found.tiles, found.index.len()),
            (0, false, 1),
            "{batch:02x?}"
        );
        let frame = Frame::parse(batch.into()).unwrap().frame;
        assert_eq!(frame.bytes()[..], record(&good));
        assert_eq!(frame.source_id(&frame.entries()[0]), "app");
    }
}

#[test]
fn the_bytes_are_kept_when_nothing_is_wrong() {
    let batch = Bytes::from(
        [
            record(&envelope("a").encode_to_vec()),
            record(&envelope("b").encode_to_vec()),
        ]
        .concat(),
    );
    let frame = Frame::parse(batch.clone()).unwrap().frame;
    assert_eq!(frame.bytes().as_ptr(), batch.as_ptr());
    assert_eq!(frame.record(1)[..], batch[frame.entries()[1].record()]);
    assert_eq!(frame.run(0..2), batch);
    assert_eq!(frame.run(1..1), Bytes::new());
    assert_eq!(frame.run(1..3), Bytes::new());
    assert_eq!(frame.record(2), Bytes::new());
}

#[test]
fn an_empty_batch_is_an_empty_frame() {
    let frame = Frame::parse(Bytes::new()).unwrap();
    assert_eq!((frame.frame.len(), frame.rejected), (0, 0));
    let frame = Frame::parse(Bytes::from_static(b"\x0a\x00")).unwrap().frame;
    assert_eq!(frame.entries()[0].kind(), Kind::None);
    assert_eq!(frame.source_id(&frame.entries()[0]), "");
}

#[test]
fn long_and_foreign_strings_are_checked_too() {
    let mut message = envelope("quelle-äöü-源");
    message.tags.insert("lang".repeat(60), "x".repeat(300));
    message.tags.insert("ключ".into(), "значение".into());
    message.instance_id = "é".repeat(100);
    let batch = v2::EnvelopeBatch {
        batch: vec![message],
    };
    agree(&batch.encode_to_vec(), &batch);
}

proptest! {
    #[test]
    fn a_survey_agrees_with_the_index(bytes in any_batch()) {
        let scan = scan(&bytes).unwrap();
        for wanted in [Flags::HAS_TAGS, Flags::HAS_DEPRECATED_TAGS] {
            let seen = survey(&bytes, wanted).unwrap();
            prop_assert_eq!(seen.envelopes, scan.index.len());
            prop_assert_eq!(seen.found, scan.index.flags().contains(wanted));
            prop_assert!(seen.sound || !scan.tiles);
        }
    }
}

#[test]
fn a_survey_says_when_an_envelope_is_broken_and_fails_when_the_batch_is() {
    let seen = survey(b"\x0a\x03\x12\x05a\x0a\x00", Flags::HAS_TAGS).unwrap();
    assert_eq!((seen.envelopes, seen.found, seen.sound), (2, false, false));
    // Other fields before, between and behind the envelopes.
    for odd in [
        &b"\x10\x01\x0a\x00"[..],
        b"\x0a\x00\x10\x01\x0a\x00",
        b"\x0a\x00\x10\x01",
    ] {
        assert!(!survey(odd, Flags::HAS_TAGS).unwrap().sound);
    }
    assert_eq!(survey(b"\x0a\x05a", Flags::HAS_TAGS).unwrap_err().offset, 0);
}
