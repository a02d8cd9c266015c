//! Where an exactly-once destination has got to: a record of a compacted topic, written in the transaction of the events.

use std::ops::Range;
use std::time::{Duration, Instant};

use loggregator_nozzle::Reason;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message as _;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use crate::context::Callbacks;
use crate::outcome;
use crate::producer::Common;

/// Records that are looked through first, from the end; eight times as many whenever the key is not among them.
const WINDOW: i64 = 500;
/// One call of librdkafka.
const CALL: Duration = Duration::from_secs(5);
/// Between two looks at where the last stable record is.
const PAUSE: Duration = Duration::from_millis(100);

/// Value of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Identity of the buffer that the number is of.
    pub buffer_id: String,
    /// The buffer's opening under which that was written.
    pub opening: String,
    /// The first event that is not committed.
    pub next: u64,
}

/// Key of the record.
pub(crate) fn key(nozzle: &str, destination: &str, buffer_id: &str) -> String {
    format!("{nozzle}/{destination}/{buffer_id}")
}

/// Makes the topic if there is none.
///
/// # Errors
/// When the brokers do not allow it, or are not there.
pub(crate) async fn make_topic(common: &Common, settings: &ClientConfig) -> Result<(), Reason> {
    let name = &common.config.cursor_topic;
    let admin: AdminClient<Callbacks> = settings
        .create_with_context(common.callbacks())
        .map_err(|error| Reason::new(outcome::OTHER, error.to_string()))?;
    // As many replicas as the cluster has by default.
    let topic =
        NewTopic::new(name, 1, TopicReplication::Fixed(-1)).set("cleanup.policy", "compact");
    let options = AdminOptions::new().request_timeout(Some(CALL));
    let made = admin.create_topics([&topic], &options).await;
    match made.map(|mut made| made.pop()) {
        Ok(Some(Err((_, Code::TopicAlreadyExists)))) => Ok(()),
        Ok(Some(Err((_, code)))) => {
            let detail = format!("cursor_topic {name} cannot be made: {code}");
            Err(Reason::new(outcome::CURSOR_TOPIC, detail))
        }
        Ok(_) => {
            tracing::info!(topic = name, "the topic for cursors was made");
            Ok(())
        }
        Err(error) => Err(failed(common, &error)),
    }
}

/// The place that was committed last under this key. Blocks.
///
/// # Errors
/// When it cannot be read before `deadline`.
pub(crate) fn read(
    common: &Common,
    settings: &ClientConfig,
    key: &str,
    deadline: Instant,
) -> Result<Option<Place>, Reason> {
    let topic = common.config.cursor_topic.as_str();
    let fail = |error: KafkaError| failed(common, &error);
    let consumer = |isolation: &str| -> Result<BaseConsumer<Callbacks>, Reason> {
        let mut settings = settings.clone();
        settings.set("group.id", "loggregator-nozzle-cursor");
        settings.set("enable.auto.commit", "false");
        settings.set("enable.partition.eof", "true");
        settings.set("isolation.level", isolation);
        settings
            .create_with_context(common.callbacks())
            .map_err(fail)
    };
    let (all, committed) = (consumer("read_uncommitted")?, consumer("read_committed")?);
    let metadata = all.fetch_metadata(Some(topic), CALL).map_err(fail)?;
    let partitions = metadata
        .topics()
        .first()
        .map_or(0, |topic| topic.partitions().len());
    let mut found = None;
    for partition in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
        let (_, high) = all.fetch_watermarks(topic, partition, CALL).map_err(fail)?;
        // What lies behind somebody's open transaction cannot be read yet, and may be ours.
        let low = loop {
            let (low, stable) = committed
                .fetch_watermarks(topic, partition, CALL)
                .map_err(fail)?;
            if stable >= high {
                break low;
            }
            if Instant::now() >= deadline {
                let detail = format!("{topic}: another nozzle's transaction is still open");
                return Err(Reason::new(outcome::CURSOR_TOPIC, detail));
            }
            std::thread::sleep(PAUSE);
        };
        let mut window = WINDOW;
        loop {
            let from = low.max(high.saturating_sub(window));
            if let Some(place) = scan(common, &committed, partition, from..high, key, deadline)? {
                found = Some(place);
                break;
            }
            if from <= low {
                break;
            }
            window = window.saturating_mul(8);
        }
    }
    Ok(found)
}

/// The last record of this key from the beginning of the range on, at least up to its end.
fn scan(
    common: &Common,
    consumer: &BaseConsumer<Callbacks>,
    partition: i32,
    range: Range<i64>,
    key: &str,
    deadline: Instant,
) -> Result<Option<Place>, Reason> {
    let topic = common.config.cursor_topic.as_str();
    let fail = |error: KafkaError| failed(common, &error);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(range.start))
        .map_err(fail)?;
    consumer.assign(&list).map_err(fail)?;
    if range.is_empty() {
        return Ok(None);
    }
    let mut found = None;
    loop {
        match consumer.poll(PAUSE) {
            // Others go on writing: the end of the topic may never be reached.
            Some(Ok(message)) if message.offset() >= range.end => return Ok(found),
            Some(Ok(message)) if message.key() == Some(key.as_bytes()) => {
                let value = message.payload().unwrap_or_default();
                found = serde_json::from_slice(value).ok();
            }
            Some(Ok(_)) => {}
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(found),
            Some(Err(error)) if Instant::now() >= deadline => return Err(fail(error)),
            Some(Err(_)) => {}
            None if Instant::now() >= deadline => {
                let detail = format!("{topic} could not be read to its end in time");
                return Err(Reason::new(outcome::CURSOR_TOPIC, detail));
            }
            None => {}
        }
    }
}

fn failed(common: &Common, error: &KafkaError) -> Reason {
    common.shared.trouble().unwrap_or_else(|| {
        let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
        Reason::new(outcome::of_client(code), error.to_string())
    })
}
