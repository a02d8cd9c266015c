use loggregator_client::message::{self, EnvelopeBuilder};
use loggregator_proto::v2;
use prost::Message as _;

use super::*;

fn event(builder: EnvelopeBuilder) -> Event {
    let builder = builder.source("shop-id", "1");
    let envelope = builder.at_nanos(1_755_600_000_123_456_789).build();
    Event::new(0, 0, envelope.encode_to_vec().into())
}

fn log() -> Event {
    let log = message::log(&b"say \"hi\"\nnow\xff"[..]).tag("app_name", "shop");
    event(
        log.tag("organization_name", "acme")
            .tag("source_type", "APP/PROC/WEB"),
    )
}

fn written(format: Format, event: &Event) -> String {
    let mut out = Vec::new();
    format.write(&mut out, event);
    String::from_utf8(out).unwrap()
}

#[test]
fn json() {
    let json = |event| written(Format::Json, &event);
    assert_eq!(
        json(log()),
        r#"{"time":"2025-08-19T10:40:00.123456789Z","kind":"log","source_id":"shop-id","instance_id":"1","app":"shop","org":"acme","stream":"out","text":"say \"hi\"\nnow�","tags":{"app_name":"shop","organization_name":"acme","source_type":"APP/PROC/WEB"}}"#
    );
    assert_eq!(
        json(event(message::counter_both("hits", 3, 40))),
        r#"{"time":"2025-08-19T10:40:00.123456789Z","kind":"counter","source_id":"shop-id","instance_id":"1","name":"hits","delta":3,"total":40,"tags":{}}"#
    );
    assert_eq!(
        json(event(message::gauge([
            ("cpu", 1.5, "percentage"),
            ("bad", f64::NAN, "")
        ]))),
        r#"{"time":"2025-08-19T10:40:00.123456789Z","kind":"gauge","source_id":"shop-id","instance_id":"1","metrics":{"bad":{"value":"NaN","unit":""},"cpu":{"value":1.5,"unit":"percentage"}},"tags":{}}"#
    );
    assert_eq!(
        json(event(message::timer_nanos(
            "http",
            1_000_000_000,
            1_012_500_000
        ))),
        r#"{"time":"2025-08-19T10:40:00.123456789Z","kind":"timer","source_id":"shop-id","instance_id":"1","name":"http","start":"1970-01-01T00:00:01.000000000Z","stop":"1970-01-01T00:00:01.012500000Z","duration_ms":12.5,"tags":{}}"#
    );
    assert_eq!(
        json(event(message::event("crash", "out of memory"))),
        r#"{"time":"2025-08-19T10:40:00.123456789Z","kind":"event","source_id":"shop-id","instance_id":"1","title":"crash","body":"out of memory","tags":{}}"#
    );
}

#[test]
fn logfmt() {
    let logfmt = |event| written(Format::Logfmt, &event);
    assert_eq!(
        logfmt(log()),
        r#"time=2025-08-19T10:40:00.123456789Z kind=log source_id=shop-id instance_id=1 app=shop org=acme source_type=APP/PROC/WEB stream=out text="say \"hi\"\nnow�""#
    );
    assert_eq!(
        logfmt(event(message::gauge([("a b=c", 2.0, "per cent")]))),
        r#"time=2025-08-19T10:40:00.123456789Z kind=gauge source_id=shop-id instance_id=1 a_b_c=2 a_b_c_unit="per cent""#
    );
    assert_eq!(
        logfmt(event(message::timer_nanos("http", 0, 12_500_000))),
        "time=2025-08-19T10:40:00.123456789Z kind=timer source_id=shop-id instance_id=1 name=http duration_ms=12.5"
    );
}

#[test]
fn text() {
    let text = |event| written(Format::Text, &event);
    let head = "2025-08-19T10:40:00.123456789Z";
    assert_eq!(
        text(log()),
        format!("{head} shop/1 out say \"hi\"\\nnow\u{fffd}")
    );
    assert_eq!(
        text(event(message::counter_both("hits", 3, 40))),
        format!("{head} shop-id/1 counter hits +3 = 40")
    );
    assert_eq!(
        text(event(message::gauge([("cpu", 1.5, "%")]))),
        format!("{head} shop-id/1 gauge cpu=1.5%")
    );
    assert_eq!(
        text(event(message::event("a\u{1b}[31m", "b"))),
        format!("{head} shop-id/1 event a\\u{{1b}}[31m: b")
    );
}

#[test]
fn every_format_writes_one_line_whatever_comes() {
    let nasty = "a\n\r\u{85}b\u{2028}=\" \\";
    for event in [
        event(message::log(nasty).tag(nasty, nasty)),
        event(message::counter(nasty, 1).tag(nasty, nasty)),
        event(message::gauge([(nasty, 1.0, nasty)])),
        event(message::timer_nanos(nasty, i64::MIN, i64::MAX)),
        event(message::event(nasty, nasty)),
        Event::new(0, 0, bytes::Bytes::new()),
    ] {
        for format in [Format::Json, Format::Envelope, Format::Logfmt, Format::Text] {
            let line = written(format, &event);
            assert!(!line.contains(['\n', '\r']), "{format:?}: {line:?}");
            if matches!(format, Format::Json | Format::Envelope) {
                serde_json::from_str::<serde_json::Value>(&line).unwrap();
            }
        }
    }
}

#[test]
fn deprecated_tags_are_tags_and_names_too() {
    let mut envelope = message::log("x").tag("b", "1").build();
    let text = |text: &str| v2::Value {
        data: Some(v2::value::Data::Text(text.to_owned())),
    };
    envelope.deprecated_tags = [
        ("app_name".to_owned(), text("shop")),
        ("b".to_owned(), text("old")),
        ("a\"".to_owned(), text("\\\u{1}")),
    ]
    .into();
    let event = Event::new(0, 0, envelope.encode_to_vec().into());
    let json: serde_json::Value = serde_json::from_str(&written(Format::Json, &event)).unwrap();
    assert_eq!(json["app"], "shop");
    let tags = serde_json::json!({"a\"": "\\\u{1}", "app_name": "shop", "b": "1"});
    assert_eq!(json["tags"], tags);
}

#[test]
fn every_text_reads_back_as_it_was() {
    for text in [
        "",
        "plain",
        "quote \"",
        "back\\slash",
        "tab\t",
        "\u{0}\u{1f}",
        "del\u{7f}",
        "é\u{2028}🦀",
    ] {
        let event = event(message::log(text.as_bytes()).tag(text, text));
        let json: serde_json::Value = serde_json::from_str(&written(Format::Json, &event)).unwrap();
        assert_eq!(json["text"], text);
        assert_eq!(json["tags"], serde_json::json!({ text: text }));
    }
}

proptest::proptest! {
    #[test]
    fn a_time_is_what_a_library_says(nanos: i64) {
        let format = time::format_description::well_known::Iso8601::DEFAULT;
        let mut out = Vec::new();
        write_time(&mut out, nanos);
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(nanos)).unwrap();
        proptest::prop_assert_eq!(String::from_utf8(out).unwrap(), time.format(&format).unwrap());
    }
}
