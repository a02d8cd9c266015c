//! Protobuf JSON back to envelopes: in the form of this project, and in all others that the mapping allows.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use loggregator_envelope::{EnvelopeRef, Frame, json};
use loggregator_proto::v2::{self, envelope::Message as M, value::Data};
use proptest::prelude::*;
use prost::Message;

fn read(text: &str) -> Result<v2::Envelope, String> {
    let mut out = b"kept".to_vec();
    match json::read_envelope(text.as_bytes(), &mut out) {
        Ok(()) => Ok(v2::Envelope::decode(&out[4..]).unwrap()),
        Err(error) => {
            assert_eq!(out, b"kept");
            Err(error.to_string())
        }
    }
}

fn message(text: &str) -> M {
    let envelope = read(text).unwrap();
    envelope.message.expect("an envelope with a message")
}

#[test]
fn both_spellings_of_every_name() {
    let full = v2::Envelope {
        timestamp: -5,
        source_id: "s".into(),
        instance_id: "i".into(),
        deprecated_tags: [
            (
                "a".into(),
                v2::Value {
                    data: Some(Data::Text("".into())),
                },
            ),
            (
                "b".into(),
                v2::Value {
                    data: Some(Data::Integer(0)),
                },
            ),
            (
                "c".into(),
                v2::Value {
                    data: Some(Data::Decimal(-0.5)),
                },
            ),
            ("d".into(), v2::Value { data: None }),
        ]
        .into(),
        tags: [("t".into(), "é\n".into())].into(),
        message: Some(M::Log(v2::Log {
            payload: vec![0xfb, 0xff, 0x00].into(),
            r#type: 1,
        })),
    };
    let snake = r#"{"timestamp":"-5","source_id":"s","instance_id":"i","deprecated_tags":{"a":{"text":""},"b":{"integer":"0"},"c":{"decimal":-0.5},"d":{}},"tags":{"t":"\u00e9\n"},"log":{"payload":"+/8A","type":"ERR"}}"#;
    let camel = r#" { "log" : {"type":1, "payload":"-_8A", "new":[{}]}, "timestamp" : -5, "sourceId" : "s", "unknown": {"a":[1,{"b":null}]},
        "instanceId":"i", "deprecatedTags": {"a":{"text":""},"b":{"integer":0},"c":{"decimal":"-0.5"},"d":null}, "tags":{"t":"é\n"} } "#;
    assert_eq!(read(snake).unwrap(), full);
    assert_eq!(read(camel).unwrap(), full);
}

#[test]
fn what_is_null_is_not_set() {
    let text = r#"{"timestamp":null,"source_id":null,"instance_id":null,"deprecated_tags":null,"tags":null,"log":null,"counter":null,"gauge":null,"timer":null,"event":null}"#;
    assert_eq!(read(text).unwrap(), v2::Envelope::default());
    assert_eq!(
        message(r#"{"log":{"payload":null,"type":null}}"#),
        M::Log(v2::Log::default())
    );
    assert_eq!(
        message(r#"{"gauge":{"metrics":{"a":{"unit":null,"value":null},"b":null}}}"#),
        M::Gauge(v2::Gauge {
            metrics: [
                ("a".into(), v2::GaugeValue::default()),
                ("b".into(), v2::GaugeValue::default())
            ]
            .into()
        })
    );
    assert_eq!(message(r#"{"event":{}}"#), M::Event(v2::Event::default()));
}

#[test]
fn numbers_in_every_form() {
    for (text, expected) in [
        ("0", Some(0)),
        ("18446744073709551615", Some(u64::MAX)),
        ("\"18446744073709551615\"", Some(u64::MAX)),
        ("1e3", Some(1000)),
        ("\"1.0\"", Some(1)),
        ("18446744073709551616", None),
        ("\"18446744073709551616\"", None),
        ("-1", None),
        ("1.5", None),
        ("\"\"", None),
        ("\"NaN\"", None),
        ("true", None),
        ("[1]", None),
    ] {
        let text = format!(r#"{{"counter":{{"name":"c","delta":{text}}}}}"#);
        let counter = read(&text).ok().and_then(|envelope| envelope.message);
        let expected = expected.map(|delta| {
            M::Counter(v2::Counter {
                name: "c".into(),
                delta,
                total: 0,
            })
        });
        assert_eq!(counter, expected, "{text}");
    }
    for (text, expected) in [
        ("\"NaN\"", Some("NaN")),
        ("\"Infinity\"", Some("inf")),
        ("\"-Infinity\"", Some("-inf")),
        ("\"2.5\"", Some("2.5")),
        ("-0.0", Some("-0")),
        ("7", Some("7")),
        ("1e30", Some("1000000000000000000000000000000")),
        ("\"inf\"", None),
        ("\"x\"", None),
        ("false", None),
    ] {
        let text = format!(r#"{{"gauge":{{"metrics":{{"m":{{"unit":"u","value":{text}}}}}}}}}"#);
        let value = read(&text).ok().map(|envelope| match envelope.message {
            Some(M::Gauge(gauge)) => gauge.metrics["m"].value.to_string(),
            other => panic!("{other:?}"),
        });
        assert_eq!(value.as_deref(), expected, "{text}");
    }
}

#[test]
fn payloads_in_every_form_of_base64() {
    for (text, expected) in [
        ("", Some(&b""[..])),
        ("YQ==", Some(b"a")),
        ("YQ", Some(b"a")),
        ("YWI=", Some(b"ab")),
        ("YWI", Some(b"ab")),
        ("YWJj", Some(b"abc")),
        ("//8=", Some(b"\xff\xff")),
        ("__8", Some(b"\xff\xff")),
        ("YR==", Some(b"a")),
        ("Y", None),
        ("YQ=a", None),
        ("+_==", None),
        ("Y Q=", None),
    ] {
        let json = format!(r#"{{"log":{{"payload":"{text}"}}}}"#);
        let payload = read(&json).ok().map(|envelope| match envelope.message {
            Some(M::Log(log)) => log.payload.to_vec(),
            other => panic!("{other:?}"),
        });
        assert_eq!(payload.as_deref(), expected, "{text}");
    }
    assert_eq!(
        message(r#"{"log":{"type":"NEW"}}"#),
        M::Log(v2::Log::default())
    );
    assert_eq!(
        message(r#"{"log":{"type":-3}}"#),
        M::Log(v2::Log {
            r#type: -3,
            ..Default::default()
        })
    );
}

#[test]
fn errors_say_where_and_what() {
    for (text, error) in [
        ("", "EOF while parsing a value at line 1 column 0"),
        (
            "[]",
            "invalid type: sequence, expected an envelope at line 1 column 2",
        ),
        (
            r#"{"timestamp":"x"}"#,
            r#""x" is no number at line 1 column 16"#,
        ),
        (
            r#"{"tags":{"a":1}}"#,
            "invalid type: integer `1`, expected a text at line 1 column 14",
        ),
        ("{} {}", "trailing characters at line 1 column 4"),
        (
            "{\"source_id\":\"\u{0}\"}",
            "control character (\\u0000-\\u001F) found while parsing a string at line 1 column 15",
        ),
    ] {
        assert_eq!(
            read(text).unwrap_err(),
            format!("no envelope in protobuf JSON: {error}")
        );
    }
}

#[test]
fn batches_are_appended_whole_or_not_at_all() {
    let mut out = Vec::new();
    let text = br#"{"batch":[{"source_id":"a"},{},{"event":{"title":"t"}}]}"#;
    assert_eq!(json::read_batch(text, &mut out).unwrap(), 3);
    let before = out.clone();
    assert_eq!(json::read_batch(br#"{"batch":[]}"#, &mut out).unwrap(), 0);
    assert_eq!(
        json::read_batch(br#"{"batch":null,"x":1}"#, &mut out).unwrap(),
        0
    );
    json::read_batch(
        br#"{"batch":[{"source_id":"b"},{"timestamp":"x"}]}"#,
        &mut out,
    )
    .unwrap_err();
    assert_eq!(out, before);
    let batch = v2::EnvelopeBatch::decode(&out[..]).unwrap();
    assert_eq!(batch.batch.len(), 3);
    assert_eq!(batch.batch[0].source_id, "a");
    assert_eq!(Frame::parse(out.into()).unwrap().frame.len(), 3);
}

proptest! {
    /// What is written comes back as it was, whatever it is.
    #[test]
    fn there_and_back(bodies in proptest::collection::vec(common::any_envelope(), 0..4)) {
        let mut text = Vec::new();
        json::write_envelopes(&mut text, bodies.iter().map(|body| EnvelopeRef::new(body)));
        let mut out = Vec::new();
        prop_assert_eq!(json::read_batch(&text, &mut out).unwrap(), bodies.len());
        let frame = Frame::parse(out.into()).unwrap();
        prop_assert_eq!((frame.rejected, frame.frame.len()), (0, bodies.len()));
        let mut again = Vec::new();
        json::write_batch(&mut again, &frame.frame);
        prop_assert_eq!(String::from_utf8(again).unwrap(), String::from_utf8(text).unwrap());
        for (entry, body) in frame.frame.entries().iter().zip(&bodies) {
            let before = v2::Envelope::decode(&body[..]);
            let after = v2::Envelope::decode(frame.frame.envelope(entry).bytes()).unwrap();
            if let Ok(before) = before {
                // NaN is not equal to itself, but looks so.
                prop_assert_eq!(format!("{after:?}"), format!("{before:?}"));
            }
        }
    }
}
