//! Envelopes as protobuf JSON, byte for byte.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use loggregator_envelope::{EnvelopeRef, Frame, FrameBuilder, json};
use loggregator_proto::v2::{self, envelope::Message as M, value::Data};
use prost::Message;

fn text(envelope: &v2::Envelope) -> String {
    let mut out = Vec::new();
    json::write_envelope(&mut out, EnvelopeRef::new(&envelope.encode_to_vec()));
    String::from_utf8(out).unwrap()
}

fn of(message: M) -> String {
    let empty =
        r#"{"timestamp":"0","source_id":"","instance_id":"","deprecated_tags":{},"tags":{},"#;
    let text = text(&v2::Envelope {
        message: Some(message),
        ..Default::default()
    });
    text.strip_prefix(empty)
        .unwrap()
        .strip_suffix('}')
        .unwrap()
        .to_owned()
}

#[test]
fn a_batch_is_one_line() {
    let counter = v2::Envelope {
        timestamp: 1_795_293_671_306_864_594,
        source_id: "src".into(),
        instance_id: "3".into(),
        tags: [("a".into(), "b".into())].into(),
        message: Some(M::Counter(v2::Counter {
            name: "c".into(),
            delta: 0,
            total: 2,
        })),
        ..Default::default()
    };
    let one = r#"{"timestamp":"1795293671306864594","source_id":"src","instance_id":"3","deprecated_tags":{},"tags":{"a":"b"},"counter":{"name":"c","delta":"0","total":"2"}}"#;
    let mut builder = FrameBuilder::new();
    for n in 0..3 {
        let mut out = Vec::new();
        let (bytes, index) = builder.finish();
        json::write_batch(&mut out, &Frame::from_parts(bytes, index));
        let expected = format!(r#"{{"batch":[{}]}}"#, vec![one; n].join(","));
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        for _ in 0..=n {
            builder.push_message(&counter).unwrap();
        }
    }
}

#[test]
fn every_kind_has_its_member() {
    assert_eq!(
        text(&v2::Envelope::default()),
        r#"{"timestamp":"0","source_id":"","instance_id":"","deprecated_tags":{},"tags":{}}"#
    );
    assert_eq!(
        of(M::Log(v2::Log {
            payload: "msg".into(),
            r#type: 0
        })),
        r#""log":{"payload":"bXNn","type":"OUT"}"#
    );
    assert_eq!(
        of(M::Log(v2::Log {
            payload: vec![0xff, 0xfe].into(),
            r#type: 1
        })),
        r#""log":{"payload":"//4=","type":"ERR"}"#
    );
    assert_eq!(
        of(M::Log(v2::Log {
            payload: "".into(),
            r#type: -7
        })),
        r#""log":{"payload":"","type":-7}"#
    );
    assert_eq!(
        of(M::Counter(v2::Counter {
            name: "".into(),
            delta: u64::MAX,
            total: 0
        })),
        r#""counter":{"name":"","delta":"18446744073709551615","total":"0"}"#
    );
    assert_eq!(
        of(M::Timer(v2::Timer {
            name: "http".into(),
            start: 1,
            stop: -2
        })),
        r#""timer":{"name":"http","start":"1","stop":"-2"}"#
    );
    assert_eq!(
        of(M::Event(v2::Event {
            title: "t".into(),
            body: "".into()
        })),
        r#""event":{"title":"t","body":""}"#
    );
    assert_eq!(
        of(M::Gauge(v2::Gauge::default())),
        r#""gauge":{"metrics":{}}"#
    );
}

#[test]
fn doubles_are_numbers_or_names() {
    for (value, text) in [
        (0.0, "0"),
        (0.5, "0.5"),
        (1e30, "1e+30"),
        (1e-7, "1e-7"),
        (123456789.0, "123456789"),
        (f64::NAN, "\"NaN\""),
        (f64::INFINITY, "\"Infinity\""),
        (f64::NEG_INFINITY, "\"-Infinity\""),
    ] {
        let metrics = [(
            "m".into(),
            v2::GaugeValue {
                unit: "".into(),
                value,
            },
        )]
        .into();
        assert_eq!(
            of(M::Gauge(v2::Gauge { metrics })),
            format!(r#""gauge":{{"metrics":{{"m":{{"unit":"","value":{text}}}}}}}"#)
        );
    }
}

#[test]
fn maps_are_sorted_and_the_last_of_a_key_counts() {
    let tags = |pairs: &[(&str, &str)]| {
        let field = |(key, value): &(&str, &str)| {
            let tags = [((*key).to_owned(), (*value).to_owned())].into();
            v2::Envelope {
                tags,
                ..Default::default()
            }
            .encode_to_vec()
        };
        pairs.iter().flat_map(field).collect::<Vec<u8>>()
    };
    let mut out = Vec::new();
    json::write_envelope(
        &mut out,
        EnvelopeRef::new(&tags(&[("b", "1"), ("a", "2"), ("b", "3")])),
    );
    assert!(
        String::from_utf8(out)
            .unwrap()
            .contains(r#""tags":{"a":"2","b":"3"}"#)
    );
}

#[test]
fn deprecated_tags_keep_their_types() {
    let value = |data| v2::Value { data };
    let envelope = v2::Envelope {
        deprecated_tags: [
            ("d".into(), value(None)),
            ("a".into(), value(Some(Data::Text("x".into())))),
            ("b".into(), value(Some(Data::Integer(-5)))),
            ("c".into(), value(Some(Data::Decimal(2.5)))),
        ]
        .into(),
        ..Default::default()
    };
    assert!(text(&envelope).contains(
        r#""deprecated_tags":{"a":{"text":"x"},"b":{"integer":"-5"},"c":{"decimal":2.5},"d":{}}"#
    ));
}

#[test]
fn strings_are_escaped_where_they_must_and_nowhere_else() {
    let odd = "\"\\/\u{8}\u{c}\n\r\t\u{1}\u{1f}\u{7f}<>&é\u{2028}源";
    let envelope = v2::Envelope {
        source_id: odd.into(),
        ..Default::default()
    };
    let text = text(&envelope);
    assert!(text.contains(r#""source_id":"\"\\/\b\f\n\r\t\u0001\u001f"#));
    assert!(text.contains("<>&é\u{2028}源"));
    let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(parsed["source_id"], odd);
}
