//! The JSON of firehose-to-syslog, key by key.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;

use common::{envelope, plan};
use loggregator_proto::v2::{Counter, Envelope, Gauge, GaugeValue, Log, Timer, envelope::Message};

const APP: &str = "b1f0c6a2-6b1b-4f0e-9a54-3f7d7f0b9c11";

fn messages(format: &str, message: Message, tags: &[(&str, &str)]) -> Vec<String> {
    let tags = tags.iter().chain(&[
        ("origin", "rep"),
        ("deployment", "cf"),
        ("job", "cell"),
        ("index", "3"),
        ("ip", "10.0.1.5"),
    ]);
    let event = envelope(
        0,
        Envelope {
            timestamp: 1_700_000_000_123_456_789,
            source_id: APP.to_owned(),
            instance_id: "2".to_owned(),
            tags: tags
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            message: Some(message),
            ..Envelope::default()
        },
    );
    let section = format!(
        "url = \"syslog://x\"\nframing = \"newline\"\nhostname = \"h\"\nformat = {format:?}"
    );
    let rendered = plan(&section).render(&event).unwrap();
    let text = |body: &[u8]| String::from_utf8(body.to_vec()).unwrap();
    rendered
        .iter()
        .map(|one| text(&one.body).replace(&std::process::id().to_string(), "PID"))
        .collect()
}

fn log(text: &str) -> Message {
    Message::Log(Log {
        payload: text.as_bytes().to_vec().into(),
        r#type: 1,
    })
}

#[test]
fn keys_are_those_of_the_program() {
    let names = [
        ("source_type", "APP/PROC/WEB"),
        ("app_name", "dora"),
        ("space_id", "s"),
        ("space_name", "dev"),
        ("organization_id", "o"),
        ("organization_name", "acme"),
    ];
    let expected = format!(
        "<6> 2023-11-14T22:13:20Z h doppler[PID]: {{\"cf_app_id\":\"{APP}\",\"cf_app_name\":\"dora\",\"cf_org_id\":\"o\",\
        \"cf_org_name\":\"acme\",\"cf_origin\":\"firehose\",\"cf_space_id\":\"s\",\"cf_space_name\":\"dev\",\
        \"deployment\":\"cf\",\"event_type\":\"LogMessage\",\"ip\":\"10.0.1.5\",\"job\":\"cell\",\"job_index\":\"3\",\
        \"level\":\"info\",\"message_type\":\"ERR\",\"msg\":\"two\\nlines\",\"origin\":\"rep\",\"source_instance\":\"2\",\
        \"source_type\":\"APP/PROC/WEB\",\"time\":\"2023-11-14T22:13:20Z\",\"timestamp\":1700000000123456789}}\n"
    );
    assert_eq!(
        messages("firehose-to-syslog", log("two\nlines"), &names),
        [expected]
    );

    let common = "\"cf_origin\":\"firehose\",";
    let rest =
        "\"ip\":\"10.0.1.5\",\"job\":\"cell\",\"job_index\":\"3\",\"level\":\"info\",\"msg\":\"\",";
    let counter = Message::Counter(Counter {
        name: "requests".to_owned(),
        delta: 2,
        total: 5,
    });
    let expected = format!(
        "<6>Nov 14 22:13:20 h doppler[PID]: @cee: {{{common}\"delta\":2,\"deployment\":\"cf\",\"event_type\":\"CounterEvent\",{}\
        \"name\":\"requests\",\"origin\":\"rep\",\"time\":\"2023-11-14T22:13:20Z\",\"total\":5}}\n",
        rest
    );
    assert_eq!(messages("firehose-to-syslog-cee", counter, &[]), [expected]);

    let metrics = [("load", f64::NAN)].map(|(name, value)| {
        let unit = "x".to_owned();
        (name.to_owned(), GaugeValue { unit, value })
    });
    let gauge = Message::Gauge(Gauge {
        metrics: metrics.into_iter().collect(),
    });
    let found = messages("firehose-to-syslog", gauge, &[]);
    assert!(
        found[0].contains("\"event_type\":\"ValueMetric\"")
            && found[0].contains("\"value\":\"NaN\""),
        "{found:?}"
    );
}

#[test]
fn requests_and_containers_have_keys_of_their_own() {
    let fields = |message: Message, tags: &[(&str, &str)]| -> BTreeMap<String, serde_json::Value> {
        let all = messages("firehose-to-syslog", message, tags);
        assert_eq!(all.len(), 1);
        serde_json::from_str(all[0].split_once("]: ").unwrap().1).unwrap()
    };
    let timer = Message::Timer(Timer {
        name: "http".to_owned(),
        start: 1_000_000_000,
        stop: 1_250_000_000,
    });
    let tags = [
        ("method", "POST"),
        ("peer_type", "Server"),
        ("status_code", "201"),
        ("request_id", APP),
    ];
    let found = fields(timer, &tags);
    for (key, value) in [
        ("cf_app_id", APP.into()),
        ("request_id", APP.into()),
        ("duration_ms", 250.into()),
        ("method", "POST".into()),
        ("peer_type", "Server".into()),
        ("status_code", serde_json::Value::from(201)),
        ("instance_index", 2.into()),
        ("event_type", "HttpStartStop".into()),
    ] {
        assert_eq!(found[key], value, "{key}");
    }

    let value = |value| GaugeValue {
        unit: "x".to_owned(),
        value,
    };
    let metrics = ["cpu", "memory", "disk", "memory_quota", "disk_quota"];
    let metrics = metrics.iter().zip([0.5, 1.0, 2.0, 3.0, 4.0]);
    let gauge = Message::Gauge(Gauge {
        metrics: metrics
            .map(|(name, v)| ((*name).to_owned(), value(v)))
            .collect(),
    });
    let found = fields(gauge, &[]);
    for (key, value) in [
        ("cpu_percentage", serde_json::Value::from(0.5)),
        ("memory_bytes", 1.into()),
        ("disk_bytes", 2.into()),
        ("memory_bytes_quota", 3.into()),
        ("disk_bytes_quota", 4.into()),
        ("instance_index", 2.into()),
        ("event_type", "ContainerMetric".into()),
    ] {
        assert_eq!(found[key], value, "{key}");
    }
}
