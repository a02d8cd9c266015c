//! Envelopes and requests of the tests.

use std::collections::BTreeMap;

use loggregator_proto::{events, plumbing, v2};
use v2::selector::Message as Selects;

/// A log of this source; its payload.
pub fn log(source_id: &str, payload: &str) -> v2::Envelope {
    v2::Envelope {
        timestamp: 1,
        source_id: source_id.to_owned(),
        instance_id: "0".to_owned(),
        message: Some(v2::envelope::Message::Log(v2::Log {
            payload: payload.to_owned().into(),
            r#type: 0,
        })),
        ..Default::default()
    }
}

/// `count` logs of this source, numbered from `first`.
pub fn logs(source_id: &str, first: usize, count: usize) -> Vec<v2::Envelope> {
    (first..first + count)
        .map(|number| log(source_id, &number.to_string()))
        .collect()
}

pub fn counter(source_id: &str, name: &str, delta: u64) -> v2::Envelope {
    let counter = v2::Counter {
        name: name.to_owned(),
        delta,
        total: 0,
    };
    v2::Envelope {
        source_id: source_id.to_owned(),
        message: Some(v2::envelope::Message::Counter(counter)),
        ..Default::default()
    }
}

pub fn gauge(source_id: &str, names: &[&str]) -> v2::Envelope {
    let metrics: BTreeMap<String, v2::GaugeValue> = names
        .iter()
        .map(|name| {
            (
                (*name).to_owned(),
                v2::GaugeValue {
                    unit: "u".to_owned(),
                    value: 1.0,
                },
            )
        })
        .collect();
    v2::Envelope {
        source_id: source_id.to_owned(),
        message: Some(v2::envelope::Message::Gauge(v2::Gauge { metrics })),
        ..Default::default()
    }
}

/// What a log says; empty for anything else.
pub fn payload(envelope: &v2::Envelope) -> String {
    match &envelope.message {
        Some(v2::envelope::Message::Log(log)) => String::from_utf8_lossy(&log.payload).into_owned(),
        _ => String::new(),
    }
}

pub fn payloads(envelopes: &[v2::Envelope]) -> Vec<String> {
    envelopes.iter().map(payload).collect()
}

/// What was lost according to an in-band notice; 0 for any other envelope.
pub fn notice(envelope: &v2::Envelope) -> u64 {
    match &envelope.message {
        Some(v2::envelope::Message::Counter(counter))
            if counter.name == "dropped" && envelope.source_id == "doppler" =>
        {
            counter.delta
        }
        _ => 0,
    }
}

/// A v1 log of this app.
pub fn v1_log(app_id: &str, message: &str) -> events::Envelope {
    events::Envelope {
        origin: "o".to_owned(),
        event_type: events::envelope::EventType::LogMessage as i32,
        timestamp: Some(1),
        log_message: Some(events::LogMessage {
            message: message.to_owned().into(),
            message_type: events::log_message::MessageType::Out as i32,
            timestamp: 1,
            app_id: Some(app_id.to_owned()),
            source_type: Some("APP".to_owned()),
            source_instance: Some("0".to_owned()),
        }),
        ..Default::default()
    }
}

pub fn v1_message(envelope: &events::Envelope) -> String {
    let log = envelope.log_message.as_ref().expect("a log message");
    String::from_utf8_lossy(&log.message).into_owned()
}

/// A selector of this kind and source; an empty source is any.
pub fn selector(source_id: &str, message: Selects) -> v2::Selector {
    v2::Selector {
        source_id: source_id.to_owned(),
        message: Some(message),
    }
}

pub fn any_log() -> Selects {
    Selects::Log(v2::LogSelector {})
}

pub fn any_counter() -> Selects {
    Selects::Counter(v2::CounterSelector::default())
}

/// A request with this shard id, for any log.
pub fn logs_for(shard_id: &str) -> v2::EgressBatchRequest {
    request(shard_id, vec![selector("", any_log())])
}

/// A request with this shard id, for every kind.
pub fn firehose(shard_id: &str) -> v2::EgressBatchRequest {
    let kinds = [
        any_log(),
        any_counter(),
        Selects::Gauge(v2::GaugeSelector::default()),
        Selects::Timer(v2::TimerSelector {}),
        Selects::Event(v2::EventSelector {}),
    ];
    request(
        shard_id,
        kinds.into_iter().map(|kind| selector("", kind)).collect(),
    )
}

pub fn request(shard_id: &str, selectors: Vec<v2::Selector>) -> v2::EgressBatchRequest {
    v2::EgressBatchRequest {
        shard_id: shard_id.to_owned(),
        selectors,
        ..Default::default()
    }
}

/// A v1 request without a filter.
pub fn v1_firehose(shard_id: &str) -> plumbing::SubscriptionRequest {
    plumbing::SubscriptionRequest {
        shard_id: shard_id.to_owned(),
        filter: None,
    }
}

pub fn v1_filtered(
    shard_id: &str,
    app_id: &str,
    message: Option<plumbing::filter::Message>,
) -> plumbing::SubscriptionRequest {
    let filter = plumbing::Filter {
        app_id: app_id.to_owned(),
        message,
    };
    plumbing::SubscriptionRequest {
        shard_id: shard_id.to_owned(),
        filter: Some(filter),
    }
}
