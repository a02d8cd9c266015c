//! What the tests have in common: one broker while any of them needs it, a destination, events, and a reader.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use loggregator_client::message::{self, EnvelopeBuilder};
use loggregator_nozzle::config::Section;
use loggregator_nozzle::{
    Batch, BufferIdentity, Context, Delivery, DynDestination, Event, Kind as _, Outcome, Plan,
    Reason,
};
use loggregator_nozzle_kafka::KafkaKind;
use loggregator_service::Lifecycle;
use loggregator_service::metrics::Metrics;
use parking_lot::Mutex;
use prost::Message as _;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::broker::{Broker, installed};

static SHARED: Mutex<Weak<Broker>> = Mutex::new(Weak::new());

/// The broker that tests share, unless there is none to be had.
pub async fn shared(test: &'static str) -> Option<Arc<Broker>> {
    tokio::task::spawn_blocking(move || {
        let lib = installed(test)?;
        let mut shared = SHARED.lock();
        if let Some(broker) = shared.upgrade() {
            return Some(broker);
        }
        let broker = Arc::new(Broker::start(lib, "auto.create.topics.enable=false"));
        *shared = Arc::downgrade(&broker);
        Some(broker)
    })
    .await
    .unwrap()
}

/// A destination and what belongs to it.
pub struct Subject {
    pub destination: Arc<dyn DynDestination>,
    pub plan: Box<dyn Plan>,
    pub metrics: Metrics,
    lifecycle: Lifecycle,
}

/// Starts a destination from its section.
pub async fn start(section: &str, buffer_id: &str) -> Subject {
    // Shown when the test fails.
    tracing_subscriber::fmt()
        .with_env_filter("info,loggregator_nozzle_kafka=debug")
        .with_test_writer()
        .try_init()
        .ok();
    let plan = KafkaKind
        .plan(&Section::from_text(section).unwrap())
        .unwrap();
    let (metrics, lifecycle) = (Metrics::empty(), Lifecycle::new());
    let context = Context {
        nozzle: "audit".to_owned(),
        name: "events".to_owned(),
        metrics: metrics.clone(),
        lifecycle: lifecycle.clone(),
        buffer: BufferIdentity::new(buffer_id),
        state_dir: None,
    };
    Subject {
        destination: plan.start(context).await.unwrap(),
        plan,
        metrics,
        lifecycle,
    }
}

impl Subject {
    /// Delivers these as the framework would: what is to be tried again is, in order. Answers what became of each.
    pub async fn deliver(&self, events: &[Event]) -> Vec<Outcome> {
        let mut left = events.to_vec();
        let mut outcomes = BTreeMap::new();
        for attempt in 0.. {
            let batch = Batch::new(left.clone(), attempt);
            let each = match self.destination.deliver(&batch).await {
                Delivery::All => vec![Outcome::Delivered; left.len()],
                Delivery::Each(each) | Delivery::Paused { each, .. } => each,
                Delivery::Retry { why, .. } => vec![Outcome::Retry(why); left.len()],
                Delivery::TooLarge(why) | Delivery::Refused(why) => {
                    return self.halves(left, why).await;
                }
            };
            let mut again = Vec::new();
            for (event, outcome) in left.into_iter().zip(each) {
                if let Outcome::Retry(why) | Outcome::Later(why) = &outcome {
                    println!("{}: again: {why}", event.seq);
                    again.push(event);
                } else {
                    outcomes.insert(event.seq, outcome);
                }
            }
            if again.is_empty() {
                return outcomes.into_values().collect();
            }
            left = again;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        unreachable!()
    }

    async fn halves(&self, events: Vec<Event>, why: Reason) -> Vec<Outcome> {
        if events.len() == 1 {
            return vec![Outcome::Oversize(why)];
        }
        let (left, right) = events.split_at(events.len() / 2);
        let mut outcomes = Box::pin(self.deliver(left)).await;
        outcomes.extend(Box::pin(self.deliver(right)).await);
        outcomes
    }

    /// Delivers these, all of which are taken.
    pub async fn deliver_all(&self, events: &[Event]) {
        let outcomes = self.deliver(events).await;
        assert_eq!(outcomes, vec![Outcome::Delivered; events.len()]);
    }

    /// Ends it.
    pub async fn stop(self) {
        self.destination.close().await;
        self.lifecycle.shutdown(Duration::from_secs(5)).await;
    }
}

/// The event of this envelope.
pub fn event(seq: u64, envelope: EnvelopeBuilder) -> Event {
    let body = envelope.build().encode_to_vec();
    Event::new(seq, 1_700_000_000_000_000_000, body.into())
}

/// A log line of a source.
pub fn log(seq: u64, source: &str, line: impl Into<String>) -> Event {
    let log = message::log(line.into()).source(source, "0");
    event(seq, log.at_nanos(1_700_000_000_123_456_789))
}

/// Makes a topic.
pub async fn make_topic(address: &str, name: &str, settings: &[(&str, &str)]) {
    let admin = admin(address);
    let mut topic = NewTopic::new(name, 4, TopicReplication::Fixed(1));
    for (key, value) in settings {
        topic = topic.set(key, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    let made = admin.create_topics([&topic], &options).await.unwrap();
    assert!(made[0].is_ok(), "{made:?}");
    // Brokers hear of it from the controller.
    let (address, name) = (address.to_owned(), name.to_owned());
    tokio::task::spawn_blocking(move || {
        let deadline = Instant::now() + Duration::from_secs(60);
        while partitions(&reader(&address), &name).is_empty() {
            assert!(Instant::now() < deadline, "there is no topic {name}");
            std::thread::sleep(Duration::from_millis(50));
        }
    })
    .await
    .unwrap();
}

/// Removes a topic.
pub async fn remove_topic(address: &str, name: &str) {
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    let done = admin(address)
        .delete_topics(&[name], &options)
        .await
        .unwrap();
    assert!(done[0].is_ok(), "{done:?}");
}

fn admin(address: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new()
        .set("bootstrap.servers", address)
        .create()
        .unwrap()
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    pub partition: i32,
    pub timestamp: i64,
    pub key: Option<String>,
    pub value: Vec<u8>,
    pub headers: Vec<(String, String)>,
}

impl Got {
    /// Its value, where that is text.
    pub fn text(&self) -> String {
        String::from_utf8(self.value.clone()).unwrap()
    }
}

/// Everything in a topic, each partition in its order.
pub async fn read(address: &str, topic: &str) -> Vec<Got> {
    let (address, topic) = (address.to_owned(), topic.to_owned());
    tokio::task::spawn_blocking(move || read_blocking(&address, &topic))
        .await
        .unwrap()
}

fn reader(address: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .create()
        .unwrap()
}

fn partitions(reader: &BaseConsumer, topic: &str) -> Vec<i32> {
    let wait = Duration::from_secs(30);
    let metadata = reader.fetch_metadata(Some(topic), wait).unwrap();
    let partitions = metadata.topics()[0].partitions();
    partitions.iter().map(|partition| partition.id()).collect()
}

fn read_blocking(address: &str, topic: &str) -> Vec<Got> {
    let consumer = reader(address);
    let mut list = TopicPartitionList::new();
    let mut ends = BTreeMap::new();
    let wait = Duration::from_secs(30);
    for partition in partitions(&consumer, topic) {
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .unwrap();
        let (low, high) = consumer.fetch_watermarks(topic, partition, wait).unwrap();
        if low < high {
            ends.insert(partition, high);
        }
    }
    assert!(list.count() > 0, "there is no topic {topic}");
    consumer.assign(&list).unwrap();
    let mut got = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !ends.is_empty() {
        assert!(Instant::now() < deadline, "{topic} has no end");
        match consumer.poll(Duration::from_millis(200)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ends.remove(&partition);
            }
            Some(Err(error)) => println!("reader: {error}"),
            // Somebody may go on writing; what came after the question is not part of the answer.
            Some(Ok(message)) if !ends.contains_key(&message.partition()) => {}
            Some(Ok(message)) if message.offset() >= ends[&message.partition()] => {
                ends.remove(&message.partition());
            }
            Some(Ok(message)) => got.push(Got {
                partition: message.partition(),
                timestamp: message.timestamp().to_millis().unwrap(),
                key: message
                    .key()
                    .map(|key| String::from_utf8(key.to_vec()).unwrap()),
                value: message.payload().unwrap_or_default().to_vec(),
                headers: message.headers().map_or_else(Vec::new, |headers| {
                    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
                    let pair = |header: rdkafka::message::Header<'_, &[u8]>| {
                        (header.key.to_owned(), text(header.value.unwrap()))
                    };
                    headers.iter().map(pair).collect()
                }),
            }),
        }
    }
    got
}
