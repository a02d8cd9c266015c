//! Subscriptions against dopplers that come, go and fail.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the report

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use loggregator_client::{
    Connector, DOPPLER, DopplerSet, EgressStream, Selectors, V1Stream, message, payloads,
};
use loggregator_net::Backoff;
use loggregator_net::grpc::{Code, Status};
use loggregator_proto::plumbing::{BatchResponse, Response, SubscriptionRequest};
use loggregator_proto::{rpc, v2};
use prost::Message as _;
use support::{FakeDoppler, PATIENCE, until};

fn set(dopplers: &[&FakeDoppler]) -> DopplerSet {
    let mut connector = Connector::new(DOPPLER, None);
    connector.settings.backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(20));
    DopplerSet::fixed(dopplers.iter().map(|d| d.addr.to_string()), connector)
}

fn batch(text: &str) -> Bytes {
    v2::EnvelopeBatch {
        batch: vec![message::log(text.to_owned()).source("a", "0").build()],
    }
    .encode_to_vec()
    .into()
}

/// The next line and the doppler it came from.
async fn line(stream: &mut EgressStream) -> (String, String) {
    let batch = tokio::time::timeout(PATIENCE, stream.next())
        .await
        .expect("in time")
        .expect("no end");
    let frame = batch.frame().unwrap();
    let log = frame.envelope(&frame.entries()[0]).log().unwrap();
    (
        String::from_utf8(log.payload.to_vec()).unwrap(),
        batch.doppler.to_string(),
    )
}

#[tokio::test]
async fn all_dopplers_are_merged_and_each_is_asked_the_same() {
    let dopplers = [
        FakeDoppler::start(),
        FakeDoppler::start(),
        FakeDoppler::start(),
    ];
    let set = set(&dopplers.iter().collect::<Vec<_>>());
    let mut stream = EgressStream::open(&set, Selectors::everything().shard("s"));
    dopplers
        .iter()
        .enumerate()
        .for_each(|(i, d)| d.publish(batch(&i.to_string())));
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        seen.insert(line(&mut stream).await);
    }
    let expected = dopplers
        .iter()
        .enumerate()
        .map(|(i, d)| (i.to_string(), d.addr.to_string()))
        .collect();
    assert_eq!(seen, expected);
    for doppler in &dopplers {
        let requests = doppler.seen.requests.lock();
        let (path, request) = &requests[0];
        let request = v2::EgressBatchRequest::decode(request.clone()).unwrap();
        assert_eq!(
            (requests.len(), path.as_str()),
            (1, rpc::EGRESS_BATCHED_RECEIVER)
        );
        assert_eq!(
            (request.shard_id.as_str(), request.selectors.len()),
            ("s", 5)
        );
    }
    let stats = stream.stats();
    assert_eq!(
        (stats.batches, stats.dopplers, stats.open, stats.reconnects),
        (3, 3, 3, 0)
    );
}

#[tokio::test]
async fn a_doppler_that_dies_is_joined_again_and_the_others_go_on() {
    let (one, mut two) = (FakeDoppler::start(), FakeDoppler::start());
    let mut stream = EgressStream::open(&set(&[&one, &two]), Selectors::everything());
    two.publish(batch("before"));
    assert_eq!(line(&mut stream).await.0, "before");
    two.kill();
    for text in ["a", "b"] {
        one.publish(batch(text));
        assert_eq!(line(&mut stream).await.0, text);
    }
    let back = FakeDoppler::at(two.addr, &[]);
    back.publish(batch("after"));
    assert_eq!(
        line(&mut stream).await,
        ("after".to_owned(), back.addr.to_string())
    );
    assert!(stream.stats().reconnects >= 1);
    assert_eq!(stream.stats().open, 2);
}

#[tokio::test]
async fn a_call_that_fails_is_made_again() {
    let doppler = FakeDoppler::start();
    let mut stream = EgressStream::open(&set(&[&doppler]), Selectors::everything());
    for round in 0..3 {
        doppler.publish(batch(&round.to_string()));
        assert_eq!(line(&mut stream).await.0, round.to_string());
        doppler.fail(Status::new(Code::ResourceExhausted, "enough"));
    }
    doppler.publish(batch("last"));
    assert_eq!(line(&mut stream).await.0, "last");
    assert_eq!(doppler.seen.requests.lock().len(), 4);
    assert_eq!(
        stream.stats().last_error.as_deref(),
        Some("RESOURCE_EXHAUSTED: enough")
    );
}

#[tokio::test]
async fn a_subscription_may_come_before_its_doppler() {
    let mut doppler = FakeDoppler::start();
    let set = set(&[&doppler]);
    doppler.kill();
    let mut stream = EgressStream::open(&set, Selectors::everything());
    let waiting = tokio::spawn(async move {
        stream.opened(1).await;
        line(&mut stream).await.0
    });
    let back = FakeDoppler::at(doppler.addr, &[]);
    back.publish(batch("at last"));
    assert_eq!(waiting.await.unwrap(), "at last");
}

#[tokio::test]
async fn what_arrived_and_was_not_read_is_counted() {
    let doppler = FakeDoppler::start();
    let mut stream = EgressStream::open(&set(&[&doppler]), Selectors::everything());
    doppler.publish(batch("read"));
    assert_eq!(line(&mut stream).await.0, "read");
    doppler.publish(batch("unread"));
    doppler.publish(batch("unread"));
    // A message lies in the stream once the doppler has got rid of it and time has passed: poll for the count.
    let mut unread = None;
    for _ in 0..1000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if doppler.published_all() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            unread = Some(stream.close());
            break;
        }
    }
    let unread = unread.expect("both were sent");
    assert_eq!((unread.batches, unread.envelopes), (2, 2));
}

#[tokio::test]
async fn v1_batches_arrive_and_dopplers_without_batches_are_asked_singly() {
    let modern = FakeDoppler::start();
    let old = FakeDoppler::at(
        "127.0.0.1:0".parse().unwrap(),
        &[rpc::DOPPLER_BATCH_SUBSCRIBE],
    );
    let request = SubscriptionRequest {
        shard_id: "s".to_owned(),
        filter: None,
    };
    let mut stream = V1Stream::open(&set(&[&modern, &old]), &request);
    let two = vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")];
    modern.publish(BatchResponse { payload: two }.encode_to_vec().into());
    old.publish(
        Response {
            payload: Bytes::from_static(b"three"),
        }
        .encode_to_vec()
        .into(),
    );
    let mut seen = BTreeSet::new();
    while seen.len() < 3 {
        let batch = tokio::time::timeout(PATIENCE, stream.next())
            .await
            .unwrap()
            .unwrap();
        seen.extend(payloads(&batch.bytes).map(|p| String::from_utf8(p.to_vec()).unwrap()));
    }
    assert_eq!(seen, ["one", "three", "two"].map(str::to_owned).into());
    let paths = |d: &FakeDoppler| {
        d.seen
            .requests
            .lock()
            .iter()
            .map(|(path, _)| path.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(paths(&modern), [rpc::DOPPLER_BATCH_SUBSCRIBE]);
    assert_eq!(paths(&old), [rpc::DOPPLER_SUBSCRIBE]);
    let sent = SubscriptionRequest::decode(old.seen.requests.lock()[0].1.clone()).unwrap();
    assert_eq!(sent, request);
}

#[tokio::test]
async fn many_subscriptions_share_one_connection() {
    let doppler = FakeDoppler::start();
    let set = set(&[&doppler]);
    let mut streams: Vec<V1Stream> = (0..300)
        .map(|_| V1Stream::open(&set, &SubscriptionRequest::default()))
        .collect();
    let mut opening = Vec::new();
    for mut stream in streams.drain(..) {
        opening.push(tokio::spawn(async move {
            stream.opened(1).await;
            stream
        }));
    }
    let mut open = Vec::new();
    for task in opening {
        open.push(task.await.unwrap());
    }
    until("all requests arrived", || {
        doppler.seen.requests.lock().len() == 300
    })
    .await;
    assert_eq!(set.connected(), 1);
    assert!(open.iter().all(|s| s.stats().open == 1));
}
