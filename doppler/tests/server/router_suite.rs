//! What the platform's own integration suite for routers expects, row by row.

use std::collections::BTreeSet;
use std::time::Duration;

use loggregator_proto::{plumbing, rpc, v2};
use prost::Message as _;

use crate::harness::*;

const MARKER: &str = "prime-message";

/// Pushes `envelope` every few milliseconds until the returned guard is dropped.
struct Pusher(tokio::task::JoinHandle<()>);

impl Pusher {
    async fn start(client: &Client, envelope: loggregator_proto::events::Envelope) -> Self {
        let mut sender = client.sender(rpc::DOPPLER_INGESTOR_PUSHER).await;
        Self(tokio::spawn(async move {
            loop {
                sender.push(&envelope).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }))
    }
}

impl Drop for Pusher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sends markers until each reader saw one: its registration is effective.
async fn prime(client: &Client, readers: &mut [&mut V1Reader]) {
    let _markers = Pusher::start(client, v1_log("primer", MARKER)).await;
    for reader in readers {
        reader.payloads().await;
    }
}

/// The messages of the next `count` logs that are not markers.
async fn messages(reader: &mut V1Reader, count: usize) -> Vec<String> {
    let mut found = Vec::new();
    while found.len() < count {
        let message = v1_message(&reader.take(1).await[0]);
        if message != MARKER {
            found.push(message);
        }
    }
    found
}

/// Only markers, for a while.
async fn only_markers(reader: &mut V1Reader) {
    let unexpected = tokio::time::timeout(QUIET, messages(reader, 1)).await;
    assert!(unexpected.is_err(), "{unexpected:?}");
}

#[tokio::test]
async fn row_1_a_v1_subscriber_gets_pushed_logs() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut reader = client.subscribe(v1_firehose("shard-id")).await;
    prime(&client, &mut [&mut reader]).await;
    let _pusher = Pusher::start(&client, v1_log("app", "hello")).await;
    assert_eq!(messages(&mut reader, 1).await, ["hello"]);
}

#[tokio::test]
async fn row_2_different_shards_both_get_a_log() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut one = client.subscribe(v1_firehose("shard-id-1")).await;
    let mut two = client.subscribe(v1_firehose("shard-id-2")).await;
    prime(&client, &mut [&mut one, &mut two]).await;
    client.push_once(&v1_log("app", "hello")).await;
    assert_eq!(messages(&mut one, 1).await, ["hello"]);
    assert_eq!(messages(&mut two, 1).await, ["hello"]);
}

#[tokio::test]
async fn row_3_a_shard_is_shared_about_equally() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut one = client.subscribe(v1_firehose("shard-id")).await;
    let mut two = client.subscribe(v1_firehose("shard-id")).await;
    prime(&client, &mut [&mut one, &mut two]).await;

    let mut sender = client.sender(rpc::DOPPLER_INGESTOR_PUSHER).await;
    let expected: BTreeSet<String> = (0..100).map(|number| format!("log-{number}")).collect();
    for message in &expected {
        sender.push(&v1_log("app", message)).await;
    }
    let (mut seen, mut by_one, mut by_two) = (BTreeSet::new(), 0_i32, 0_i32);
    within("a hundred logs", async {
        while seen.len() < 100 {
            let (message, count) = tokio::select! {
                found = messages(&mut one, 1) => (found, &mut by_one),
                found = messages(&mut two, 1) => (found, &mut by_two),
            };
            assert!(seen.insert(message[0].clone()), "{message:?} twice");
            *count += 1;
        }
    })
    .await;
    assert_eq!(seen, expected);
    assert!((by_one - by_two).abs() <= 30, "{by_one} and {by_two}");
    only_markers(&mut one).await;
    only_markers(&mut two).await;
}

async fn v2_log_arrives_once(request: plumbing::SubscriptionRequest) {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut reader = client.subscribe(request).await;
    prime(&client, &mut [&mut reader]).await;
    client
        .send_once(rpc::INGRESS_SENDER, &log("", "hello"))
        .await;
    assert_eq!(messages(&mut reader, 1).await, ["hello"]);
    only_markers(&mut reader).await;
}

#[tokio::test]
async fn row_4_a_v2_log_without_source_arrives_once() {
    v2_log_arrives_once(v1_firehose("shard-id")).await;
}

#[tokio::test]
async fn row_5_a_v2_log_without_source_passes_the_log_filter_once() {
    let logs = plumbing::filter::Message::Log(plumbing::LogFilter {});
    v2_log_arrives_once(v1_filtered("shard-id", "", Some(logs))).await;
}

#[tokio::test]
async fn row_6_a_pushed_envelope_comes_out_byte_for_byte() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut reader = client
        .subscribe(v1_filtered("foo", "some-test-app-id", None))
        .await;
    doppler.subscribed(1).await;
    let mut envelope = v1_log("some-test-app-id", "some-log-message");
    envelope.deployment = Some("d".to_owned());
    envelope.job = Some("j".to_owned());
    envelope.index = Some("i".to_owned());
    envelope.ip = Some("127.0.0.1".to_owned());
    envelope.tags.insert("a".to_owned(), "b".to_owned());
    client.push_once(&envelope).await;
    assert_eq!(reader.payloads().await, [encode(&envelope)]);
}

#[tokio::test]
async fn row_7_a_v2_reader_gets_pushed_v1_logs() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut reader = client.batched(logs_for("")).await;
    let _pusher = Pusher::start(&client, v1_log("app", "hello")).await;
    assert_eq!(payload(&reader.batch().await[0]), "hello");
}

#[tokio::test]
async fn row_8_a_v2_reader_gets_v2_logs() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut reader = client.batched(logs_for("")).await;
    doppler.subscribed(1).await;
    let sent = log("app", "hello");
    client.send_once(rpc::INGRESS_SENDER, &sent).await;
    assert_eq!(reader.batch().await, [sent]);
}

#[tokio::test]
async fn row_9_a_log_selector_lets_only_logs_through() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut reader = client.batched(logs_for("")).await;
    doppler.subscribed(1).await;
    let mut sender = client.sender(rpc::INGRESS_SENDER).await;
    let mut expected = Vec::new();
    for number in 0..20 {
        let log = log("app", &number.to_string());
        sender.send(&log).await;
        sender.send(&counter("app", "c", number)).await;
        expected.push(log);
    }
    assert_eq!(reader.take(20).await, expected);
    reader.nothing_more().await;
}

/// The end-to-end suite's path: v2 in, v1 batches out.
#[tokio::test]
async fn a_v2_log_reaches_a_v1_firehose_as_a_log_of_its_app() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut reader = client.batch_subscribe(v1_firehose("uniqueId")).await;
    doppler.subscribed(1).await;
    client
        .send_once(rpc::INGRESS_SENDER, &log("custom-app-id", "hello"))
        .await;
    let received = reader.take(1).await;
    let log = received[0].log_message.as_ref().unwrap();
    assert_eq!(
        (log.app_id(), v1_message(&received[0]).as_str()),
        ("custom-app-id", "hello")
    );
}

/// A `Response` and a `BatchResponse` of one payload are the same bytes, so the stream's own type is checked here.
#[tokio::test]
async fn subscribe_sends_one_envelope_per_message() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut reader = client.subscribe(v1_firehose("")).await;
    doppler.subscribed(1).await;
    client.send_batch(logs("app", 0, 50)).await;
    for number in 0..50 {
        let bytes = within("a response", reader.messages.next())
            .await
            .unwrap()
            .unwrap();
        let response = plumbing::Response::decode(bytes.clone()).unwrap();
        assert_eq!(encode(&response), bytes, "exactly one payload");
        let envelope = loggregator_proto::events::Envelope::decode(response.payload).unwrap();
        assert_eq!(v1_message(&envelope), number.to_string());
    }
}

#[tokio::test]
async fn receiver_sends_one_envelope_per_message() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let request = v2::EgressRequest {
        selectors: vec![selector("app", any_log())],
        ..Default::default()
    };
    let mut messages = client
        .channel
        .server_stream(rpc::EGRESS_RECEIVER, encode(&request))
        .await
        .unwrap();
    doppler.subscribed(1).await;
    let mut sent = logs("app", 0, 50);
    sent.push(log("app", &"long ".repeat(1000)));
    client.send_batch(sent.clone()).await;
    for expected in sent {
        let bytes = within("an envelope", messages.next())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(v2::Envelope::decode(bytes).unwrap(), expected);
    }
}
