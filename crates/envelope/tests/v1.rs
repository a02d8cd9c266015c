//! The v1 form: what is refused, what is kept, who it belongs to.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{any_batch, envelope};
use loggregator_envelope::{Frame, FrameBuilder, Kind, V1Builder, V1Error};
use loggregator_proto::{
    events::{self, envelope::EventType},
    plumbing, v2,
};
use proptest::prelude::*;
use prost::Message;

fn v1_log(app_id: Option<&str>) -> events::Envelope {
    events::Envelope {
        origin: "rep".into(),
        event_type: EventType::LogMessage as i32,
        timestamp: Some(7),
        log_message: Some(events::LogMessage {
            message: "hi".into(),
            message_type: 1,
            timestamp: 6,
            app_id: app_id.map(str::to_owned),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn v1_http(application_id: Option<events::Uuid>) -> events::Envelope {
    events::Envelope {
        origin: "gorouter".into(),
        event_type: EventType::HttpStartStop as i32,
        http_start_stop: Some(events::HttpStartStop {
            request_id: events::Uuid { low: 1, high: 2 },
            peer_type: 1,
            method: 1,
            application_id,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn refused(payload: &[u8]) -> V1Error {
    let mut builder = V1Builder::new();
    let error = builder.push(payload).unwrap_err();
    assert!(builder.is_empty());
    assert!(builder.finish().is_empty());
    error
}

#[test]
fn refusals_have_the_texts_that_operators_know() {
    for (payload, text) in [
        (
            &b""[..],
            "proto: required field events.Envelope.origin not set",
        ),
        (
            b"\x10\x05",
            "proto: required field events.Envelope.origin not set",
        ),
        (
            b"\x0a\x00",
            "proto: required field events.Envelope.eventType not set",
        ),
        (
            b"\x0a\x00\x10\x05\x42\x00",
            "proto: required field events.LogMessage.message not set",
        ),
        (
            b"\x0a\x00\x10\x05\x42\x02\x0a\x00",
            "proto: required field events.LogMessage.message_type not set",
        ),
        (
            b"\x0a\x00\x10\x05\x42\x04\x0a\x00\x10\x01",
            "proto: required field events.LogMessage.timestamp not set",
        ),
        (
            b"\x0a\x00\x10\x06\x4a\x00",
            "proto: required field events.ValueMetric.name not set",
        ),
        (
            b"\x0a\x00\x10\x07\x52\x02\x0a\x00",
            "proto: required field events.CounterEvent.delta not set",
        ),
        (
            b"\x0a\x00\x10\x08\x5a\x02\x0a\x00",
            "proto: required field events.Error.code not set",
        ),
        (
            b"\x0a\x00\x10\x09\x62\x02\x0a\x00",
            "proto: required field events.ContainerMetric.instanceIndex not set",
        ),
        (
            b"\x0a\x00\x10\x04\x3a\x04\x08\x00\x10\x00",
            "proto: required field events.HttpStartStop.requestId not set",
        ),
        (
            b"\x0a\x00\x10\x04\x3a\x08\x08\x00\x10\x00\x1a\x02\x08\x01",
            "proto: required field events.UUID.high not set",
        ),
        // A body that does not count is checked too.
        (
            b"\x0a\x00\x10\x07\x42\x00",
            "proto: required field events.LogMessage.message not set",
        ),
        (b"\x0a\x05a", "proto: cannot parse invalid wire-format data"),
        (b"\x0a", "proto: cannot parse invalid wire-format data"),
        (
            b"\x0a\x00\x10\x05\x42\x02\x0a\x05",
            "proto: cannot parse invalid wire-format data",
        ),
        (
            b"\x0a\x00\x10\x05\x07",
            "proto: cannot parse invalid wire-format data",
        ),
        (
            b"\x0a\x00\x10\x05\x8a\x01\x02\x0a\x09",
            "proto: cannot parse invalid wire-format data",
        ),
    ] {
        assert_eq!(refused(payload).to_string(), text, "{payload:02x?}");
    }
}

fn accepted(payload: &[u8]) -> Frame {
    let mut builder = V1Builder::new();
    builder.push(payload).unwrap();
    builder.finish()
}

#[test]
fn what_is_canonical_passes_and_what_is_not_becomes_so() {
    for (input, output) in [
        (&b"\x0a\x00\x10\x05"[..], &b"\x0a\x00\x10\x05"[..]),
        // ascending order
        (b"\x10\x05\x0a\x00", b"\x0a\x00\x10\x05"),
        // unknown fields behind the known ones, in their order
        (
            b"\xa0\x01\x07\x0a\x00\x98\x01\x06\x10\x05",
            b"\x0a\x00\x10\x05\xa0\x01\x07\x98\x01\x06",
        ),
        // another wire type than the definition's is unknown
        (b"\x08\x07\x0a\x00\x10\x05", b"\x0a\x00\x10\x05\x08\x07"),
        // the last occurrence counts
        (b"\x0a\x01a\x10\x05\x0a\x01b", b"\x0a\x01b\x10\x05"),
        // numbers, lengths and tags in their shortest form
        (b"\x0a\x80\x00\x10\x85\x00", b"\x0a\x00\x10\x05"),
        (b"\x8a\x00\x00\x10\x05", b"\x0a\x00\x10\x05"),
        // a 32-bit number has 64 bits of sign
        (
            b"\x0a\x00\x10\xff\xff\xff\xff\x0f",
            b"\x0a\x00\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ),
        // messages are merged, with what is unknown in them
        (
            b"\x0a\x00\x10\x05\x42\x02\x18\x01\x42\x09\x98\x06\x05\x10\x02\x0a\x02hi",
            b"\x0a\x00\x10\x05\x42\x0b\x0a\x02hi\x10\x02\x18\x01\x98\x06\x05",
        ),
        // map entries have key and value, and nothing else
        (
            b"\x0a\x00\x10\x05\x8a\x01\x03\x0a\x01k",
            b"\x0a\x00\x10\x05\x8a\x01\x05\x0a\x01k\x12\x00",
        ),
        (
            b"\x0a\x00\x10\x05\x8a\x01\x07\x18\x09\x0a\x01k\x12\x00",
            b"\x0a\x00\x10\x05\x8a\x01\x05\x0a\x01k\x12\x00",
        ),
        (
            b"\x0a\x00\x10\x05\x8a\x01\x06\x0a\x01k\x12\x01a\x8a\x01\x06\x0a\x01k\x12\x01b",
            b"\x0a\x00\x10\x05\x8a\x01\x06\x0a\x01k\x12\x01b",
        ),
        // strings are not looked at
        (b"\x0a\x02\xff\xfe\x10\x05", b"\x0a\x02\xff\xfe\x10\x05"),
    ] {
        let frame = accepted(input);
        assert_eq!(frame.v1().payload(0)[..], *output, "{input:02x?}");
    }
}

#[test]
fn what_is_not_utf8_is_replaced_in_the_v2_form_only() {
    let frame = accepted(b"\x0a\x03a\xffb\x10\x05\x8a\x01\x06\x0a\x01\xfe\x12\x01\xfd\x42\x0b\x0a\x01\xfc\x10\x01\x18\x01\x22\x02a\xff");
    let v2 = v2::EnvelopeBatch::decode(&frame.bytes()[..]).unwrap();
    assert_eq!(v2.batch[0].tags["origin"], "a\u{fffd}b");
    assert_eq!(v2.batch[0].tags["\u{fffd}"], "\u{fffd}");
    assert_eq!(v2.batch[0].source_id, "a\u{fffd}");
    assert_eq!(
        frame.envelope(&frame.entries()[0]).log().unwrap().payload,
        b"\xfc"
    );
    assert!(frame.v1().payload(0).starts_with(b"\x0a\x03a\xffb"));
    assert_eq!(frame.v1().app_id(0).as_deref(), None);
    assert!(frame.v1().is_log(0));
}

#[test]
fn unknown_numbers_are_kept() {
    let mut unknown = v1_log(None);
    unknown.event_type = 42;
    let frame = accepted(&unknown.encode_to_vec());
    let view = frame.envelope(&frame.entries()[0]);
    assert_eq!(view.kind(), Kind::None);
    assert_eq!(view.tag("__v1_type").as_deref(), Some("42"));
    assert_eq!(view.source_id(), "/");
    assert_eq!(frame.v1().app_id(0).as_deref(), Some("system"));

    let mut http = v1_http(None);
    let body = http.http_start_stop.as_mut().unwrap();
    (body.method, body.peer_type) = (99, 7);
    let frame = accepted(&http.encode_to_vec());
    let view = frame.envelope(&frame.entries()[0]);
    assert_eq!(view.tag("method").as_deref(), Some("99"));
    assert_eq!(view.tag("peer_type").as_deref(), Some("7"));
    assert_eq!(
        view.tag("request_id").as_deref(),
        Some("01000000-0000-0000-0200-000000000000")
    );
    assert_eq!(view.tag("forwarded").as_deref(), Some(""));
    assert_eq!(view.instance_id(), "0");
}

#[test]
fn absent_bodies_are_all_defaults() {
    for (event_type, kind, source_id) in [
        (4, Kind::Timer, "/"),
        (5, Kind::Log, "/"),
        (6, Kind::Gauge, "/"),
        (7, Kind::Counter, "/"),
        (8, Kind::Log, "/"),
        (9, Kind::Gauge, "/"),
    ] {
        let payload = [&b"\x0a\x00\x10"[..], &[event_type]].concat();
        let frame = accepted(&payload);
        let view = frame.envelope(&frame.entries()[0]);
        assert_eq!((view.kind(), view.source_id()), (kind, source_id));
        if event_type == 4 {
            assert_eq!(view.tag("method").as_deref(), Some("GET"));
            assert_eq!(view.tag("peer_type").as_deref(), Some("Client"));
        }
    }
}

#[test]
fn the_source_id_tag_counts_even_when_empty() {
    let mut log = v1_log(None);
    (log.deployment, log.job) = (Some("cf".into()), Some("diego".into()));
    let of = |log: &events::Envelope| {
        let frame = accepted(&log.encode_to_vec());
        let view = frame.envelope(&frame.entries()[0]);
        assert_eq!(view.tag("source_id"), None);
        view.source_id().to_owned()
    };
    assert_eq!(of(&log), "cf/diego");
    log.tags.insert("source_id".into(), String::new());
    assert_eq!(of(&log), "");
    log.tags.insert("source_id".into(), "me".into());
    assert_eq!(of(&log), "me");
    log.log_message.as_mut().unwrap().app_id = Some("app".into());
    assert_eq!(of(&log), "app");
}

#[test]
fn envelopes_belong_to_apps_or_to_the_system() {
    let zero = events::Uuid { low: 0, high: 0 };
    let uuid = events::Uuid {
        low: 0x6d47_cd09_695d_01b3,
        high: 0xb75a_4d82_2dad_ceaa,
    };
    let container = |application_id: &str| events::Envelope {
        event_type: EventType::ContainerMetric as i32,
        container_metric: Some(events::ContainerMetric {
            application_id: application_id.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let counter = events::Envelope {
        event_type: EventType::CounterEvent as i32,
        counter_event: Some(events::CounterEvent::default()),
        // A body that does not count says nothing.
        log_message: v1_log(Some("other")).log_message,
        ..Default::default()
    };
    let mut bodiless = v1_log(None);
    bodiless.log_message = None;
    let expected = [
        (v1_log(Some("app-1")), "app-1", true),
        (v1_log(Some("")), "", true),
        (v1_log(None), "", true),
        (bodiless, "", true),
        (container("app-2"), "app-2", false),
        (container(""), "", false),
        (
            v1_http(Some(uuid)),
            "b3015d69-09cd-476d-aace-ad2d824d5ab7",
            false,
        ),
        (
            v1_http(Some(zero)),
            "00000000-0000-0000-0000-000000000000",
            false,
        ),
        (v1_http(None), "system", false),
        (counter, "system", false),
    ];
    let mut builder = V1Builder::new();
    for (envelope, ..) in &expected {
        builder.push(&envelope.encode_to_vec()).unwrap();
    }
    assert_eq!(builder.len(), expected.len());
    let frame = builder.finish();
    assert!(builder.is_empty());
    let v1 = frame.v1();
    for (i, (envelope, app, log)) in expected.iter().enumerate() {
        assert_eq!(v1.app_id(i).as_deref(), Some(*app), "{i}");
        assert_eq!(v1.is_log(i), *log, "{i}");
        assert_eq!(v1.entries()[i].envelope as usize, i);
        assert_eq!(events::Envelope::decode(v1.payload(i)).unwrap(), *envelope);
    }
    let joined = plumbing::BatchResponse::decode(v1.run(0..expected.len())).unwrap();
    assert_eq!(joined.payload.len(), expected.len());
    assert_eq!(v1.run(0..expected.len()), *v1.bytes());
    let middle = plumbing::BatchResponse::decode(v1.run(2..4)).unwrap();
    assert_eq!(middle.payload, [v1.payload(2), v1.payload(3)]);
    assert_eq!(
        plumbing::Response::decode(v1.record(3)).unwrap().payload,
        v1.payload(3)
    );
}

/// The v1 forms of one v2 envelope.
fn v1_of(envelope: &v2::Envelope) -> Vec<events::Envelope> {
    let mut builder = FrameBuilder::new();
    builder.push_message(envelope).unwrap();
    let (bytes, index) = builder.finish();
    let frame = Frame::from_parts(bytes, index);
    let v1 = frame.v1();
    (0..v1.len())
        .map(|i| events::Envelope::decode(v1.payload(i)).unwrap())
        .collect()
}

#[test]
fn names_numbers_and_ids_that_do_not_parse_become_zero_or_nothing() {
    let mut timer = envelope("b3015d69-09cd-476d-aace-ad2d824d5ab7");
    timer.message = Some(v2::envelope::Message::Timer(v2::Timer {
        name: "any".into(),
        start: 1,
        stop: 2,
    }));
    timer.instance_id = "99999999999".into();
    for (key, value) in [
        ("request_id", "B3015D69-09CD-476D-AACE-AD2D824D5AB7"),
        ("method", "get"),
        ("peer_type", "Server"),
        ("status_code", "2147483648"),
        ("content_length", "1e3"),
        ("forwarded", "a\n\nb"),
        ("instance_index", "5"),
    ] {
        timer.tags.insert(key.into(), value.into());
    }
    let v1 = v1_of(&timer).remove(0);
    let http = v1.http_start_stop.unwrap();
    assert_eq!((http.method, http.peer_type), (0, 2));
    assert_eq!(
        (http.status_code, http.content_length, http.instance_index),
        (i32::MIN, 0, Some(0))
    );
    assert_eq!(http.forwarded, ["a", "", "b"]);
    assert_eq!(http.request_id, http.application_id.unwrap());
    assert_eq!(
        v1.tags.keys().collect::<Vec<_>>(),
        ["instance_index", "source_id"]
    );

    timer
        .tags
        .insert("method".into(), "BASELINE_CONTROL".into());
    assert_eq!(v1_of(&timer)[0].http_start_stop.as_ref().unwrap().method, 7);
}

#[test]
fn a_big_gauge_does_not_fill_the_memory() {
    let mut gauge = envelope("app");
    gauge.tags.insert("big".into(), "x".repeat(100_000));
    let metrics = (0..2_000)
        .map(|i| {
            (
                format!("m{i}"),
                v2::GaugeValue {
                    unit: "u".into(),
                    value: 1.0,
                },
            )
        })
        .collect();
    gauge.message = Some(v2::envelope::Message::Gauge(v2::Gauge { metrics }));
    let mut builder = FrameBuilder::new();
    builder.push_message(&gauge).unwrap();
    builder.push_message(&envelope("app")).unwrap();
    let (bytes, index) = builder.finish();
    let frame = Frame::from_parts(bytes, index);
    let v1 = frame.v1();
    assert!(v1.bytes().len() <= loggregator_envelope::v1::MAX_V1_FRAME);
    assert!(v1.oversized() > 1_000);
    // What is small still fits.
    assert_eq!(v1.entries().last().unwrap().envelope, 1);
    assert_eq!(v1.len() + v1.oversized() as usize, 2_001);
}

#[test]
fn the_v1_form_is_made_once() {
    let mut builder = FrameBuilder::new();
    builder.push_message(&envelope("app")).unwrap();
    let (bytes, index) = builder.finish();
    let frame = Frame::from_parts(bytes, index);
    assert!(frame.v1_if_made().is_none());
    let before = frame.memory();
    let first = frame.v1().bytes().as_ptr();
    assert_eq!(frame.v1().bytes().as_ptr(), first);
    assert_eq!(frame.memory(), before + frame.v1().memory());
}

proptest! {
    #[test]
    fn v1_of_any_batch_decodes(bytes in any_batch()) {
        let frame = Frame::parse(bytes.into()).unwrap().frame;
        let v1 = frame.v1();
        let joined = plumbing::BatchResponse::decode(v1.bytes().clone()).unwrap();
        prop_assert_eq!(joined.payload.len(), v1.len());
        for (i, payload) in joined.payload.iter().enumerate() {
            prop_assert_eq!(payload, &v1.payload(i));
            // A payload of a v1 error may be no text; everything else decodes strictly.
            let error = frame.envelope(&frame.entries()[v1.entries()[i].envelope as usize]).tag("__v1_type").as_deref() == Some("Error");
            prop_assert!(error || events::Envelope::decode(payload.clone()).is_ok());
            // It is in the form that re-encoding would give.
            let mut builder = V1Builder::new();
            prop_assert_eq!(builder.push(payload), Ok(()));
            let again = builder.finish();
            prop_assert_eq!(again.v1().payload(0), payload.clone());
            prop_assert_eq!(again.v1().is_log(0), v1.is_log(i));
            let (app, app_again) = (v1.app_id(i), again.v1().app_id(0));
            prop_assert_eq!(app_again.as_deref(), app.as_deref());
        }
    }

    #[test]
    fn any_bytes_are_an_envelope_or_an_error(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"\x0a\x10\x05\x42\x3a\x8a\x01\x12\x1a\x08\x02\x00"[..])], 0..60)) {
        let payload = [&b"\x0a\x00\x10\x05"[..], &bytes].concat();
        let mut builder = V1Builder::new();
        if builder.push(&payload).is_ok() {
            let frame = builder.finish();
            prop_assert!(v2::EnvelopeBatch::decode(&frame.bytes()[..]).is_ok());
            // The canonical form is stable.
            let canonical = frame.v1().payload(0);
            let mut builder = V1Builder::new();
            prop_assert_eq!(builder.push(&canonical), Ok(()));
            prop_assert_eq!(builder.finish().v1().payload(0), canonical);
        }
        if let Ok(decoded) = events::Envelope::decode(&payload[..]) {
            let mut builder = V1Builder::new();
            if builder.push(&payload).is_ok() {
                let frame = builder.finish();
                let again = events::Envelope::decode(frame.v1().payload(0)).unwrap();
                prop_assert_eq!(format!("{again:?}"), format!("{decoded:?}"));
            }
        }
    }
}
