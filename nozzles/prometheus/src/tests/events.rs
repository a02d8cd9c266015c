//! Events for tests.

use std::collections::{BTreeMap, HashMap};

use loggregator_nozzle::Event;
use loggregator_proto::v2::{Counter, Envelope, Gauge, GaugeValue, Log, Timer, envelope::Message};
use prost::Message as _;

/// Id of the app of all examples.
pub const APP: &str = "6f1c7c9e-53a4-4f3e-9f36-0a1b2c3d4e9a";
/// Time of all events, in nanoseconds since 1970.
pub const AT: i64 = 1_755_600_003_123_000_000;

pub fn event(source: &str, instance: &str, tags: &[(&str, &str)], message: Message) -> Event {
    at(AT, source, instance, tags, message)
}

pub fn at(at: i64, source: &str, instance: &str, tags: &[(&str, &str)], message: Message) -> Event {
    let tags: BTreeMap<String, String> = tags
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let envelope = Envelope {
        timestamp: at,
        source_id: source.to_owned(),
        instance_id: instance.to_owned(),
        tags,
        message: Some(message),
        ..Envelope::default()
    };
    Event::new(1, at, envelope.encode_to_vec().into())
}

pub fn counter(name: &str, delta: u64, total: u64) -> Message {
    Message::Counter(Counter {
        name: name.to_owned(),
        delta,
        total,
    })
}

pub fn gauge(values: &[(&str, &str, f64)]) -> Message {
    let values = values.iter().map(|(name, unit, value)| {
        let value = GaugeValue {
            unit: (*unit).to_owned(),
            value: *value,
        };
        ((*name).to_owned(), value)
    });
    Message::Gauge(Gauge {
        metrics: values.collect::<HashMap<_, _>>().into_iter().collect(),
    })
}

pub fn timer(name: &str, millis: i64) -> Message {
    Message::Timer(Timer {
        name: name.to_owned(),
        start: AT,
        stop: AT + millis * 1_000_000,
    })
}

pub fn log(err: bool, text: &str) -> Message {
    Message::Log(Log {
        payload: text.as_bytes().to_vec().into(),
        r#type: i32::from(err),
    })
}

/// The container metric of the first example.
pub fn container() -> Event {
    let tags = [
        ("deployment", "cf"),
        ("job", "diego-cell"),
        ("index", "ab12"),
        ("ip", "10.0.16.20"),
        ("origin", "rep"),
        ("app_id", APP),
        ("app_name", "shop"),
        ("space_name", "dev"),
        ("organization_name", "acme"),
    ];
    let values = [
        ("cpu", "percentage", 12.5),
        ("memory", "bytes", 268_435_456.0),
        ("disk", "bytes", 1024.0),
        ("memory_quota", "bytes", 536_870_912.0),
        ("disk_quota", "bytes", 1_073_741_824.0),
    ];
    event(APP, "0", &tags, gauge(&values))
}

/// Tags of the routers.
pub const ROUTER: [(&str, &str); 5] = [
    ("deployment", "cf"),
    ("job", "router"),
    ("index", "r0"),
    ("ip", "10.0.0.9"),
    ("origin", "gorouter"),
];

/// A request as the router saw its client.
pub fn request(status: &str, millis: i64, bytes: &str, extra: &[(&str, &str)]) -> Event {
    let mut tags = ROUTER.to_vec();
    tags.extend([
        ("app_id", APP),
        ("app_name", "shop"),
        ("space_name", "dev"),
        ("organization_name", "acme"),
        ("peer_type", "Server"),
        ("method", "GET"),
        ("uri", "https://shop.example.com/"),
        ("request_id", "a1b2c3d4-0000-4000-8000-000000000001"),
        ("remote_address", "10.1.2.3:4711"),
        ("user_agent", "curl/8.0"),
        ("status_code", status),
        ("content_length", bytes),
    ]);
    tags.extend_from_slice(extra);
    event(APP, "", &tags, timer("http", millis))
}

/// The same request as the router's own to the app.
pub fn client_side(status: &str, millis: i64) -> Event {
    let mut tags = ROUTER.to_vec();
    tags.extend([
        ("peer_type", "Client"),
        ("method", "GET"),
        ("uri", "https://shop.example.com/"),
        ("status_code", status),
        ("content_length", "512"),
    ]);
    event(APP, "", &tags, timer("http", millis))
}
