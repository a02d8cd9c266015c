//! How calls begin and end: unknown ones, undecodable ones, and the statuses of ended ones.

use bytes::Bytes;
use loggregator_net::grpc::Code;
use loggregator_proto::{plumbing, rpc, v2};

use crate::harness::*;

const READERS: [&str; 4] = [
    rpc::EGRESS_BATCHED_RECEIVER,
    rpc::EGRESS_RECEIVER,
    rpc::DOPPLER_SUBSCRIBE,
    rpc::DOPPLER_BATCH_SUBSCRIBE,
];

#[tokio::test]
async fn unknown_calls_are_answered_in_the_go_routers_words() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    for (path, text) in [
        (
            "/plumbing.Doppler/ContainerMetrics",
            "unknown method ContainerMetrics for service plumbing.Doppler",
        ),
        (
            "/plumbing.Doppler/RecentLogs",
            "unknown method RecentLogs for service plumbing.Doppler",
        ),
        (
            "/loggregator.v2.Egress/Nothing",
            "unknown method Nothing for service loggregator.v2.Egress",
        ),
        (
            "/grpc.health.v1.Health/Check",
            "unknown service grpc.health.v1.Health",
        ),
    ] {
        let status = within("an answer", client.channel.unary(path, Bytes::new()))
            .await
            .unwrap_err();
        assert_eq!(
            (status.code, status.message.as_str()),
            (Code::Unimplemented, text)
        );
    }
}

#[tokio::test]
async fn an_undecodable_request_is_an_internal_error_that_says_so() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    for path in READERS {
        let garbage = Bytes::from_static(&[0x0a, 0xff]);
        let mut messages = client.channel.server_stream(path, garbage).await.unwrap();
        let status = end(&mut messages).await.unwrap();
        assert_eq!(status.code, Code::Internal, "{path}");
        assert!(
            status
                .message
                .starts_with("grpc: failed to unmarshal the received message: "),
            "{status}"
        );
    }
    assert!(doppler.report().subscriptions.is_empty());
}

#[tokio::test]
async fn a_reader_that_asks_for_nothing_is_told_what_is_missing() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    for path in READERS {
        let status = client.sender(path).await.finish().await.unwrap_err();
        assert_eq!(status.code, Code::Internal, "{path}");
        assert!(
            status.message.starts_with("cardinality violation:"),
            "{status}"
        );
    }
}

#[tokio::test]
async fn a_finished_ingress_stream_is_answered_with_ok_and_an_empty_message() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    for path in [
        rpc::INGRESS_SENDER,
        rpc::INGRESS_BATCH_SENDER,
        rpc::DOPPLER_INGESTOR_PUSHER,
    ] {
        assert_eq!(
            client.sender(path).await.finish().await,
            Ok(Some(Bytes::new())),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_request_without_selectors_stays_open_and_receives_nothing() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut reader = client.batched(v2::EgressBatchRequest::default()).await;
    doppler.subscribed(1).await;
    client.send_batch(logs("app", 0, 5)).await;
    eventually("the logs to be taken", || {
        (doppler.report().ingress.accepted == 5).then_some(())
    })
    .await;
    reader.nothing_more().await;
    assert_eq!(doppler.running.router.stats().subscriptions, 1);
}

#[tokio::test]
async fn send_takes_a_batch_and_says_what_it_refused() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut reader = client.batched(logs_for("")).await;
    doppler.subscribed(1).await;

    let good = encode(&v2::EnvelopeBatch {
        batch: logs("app", 0, 2),
    });
    let answer = within(
        "an answer",
        client.channel.unary(rpc::INGRESS_SEND, good.clone()),
    )
    .await;
    assert_eq!(answer, Ok(Bytes::new()));
    assert_eq!(payloads(&reader.take(2).await), ["0", "1"]);

    let mut mixed = good.to_vec();
    mixed.extend_from_slice(&[0x0a, 2, 0x12, 9]); // a source id longer than its envelope
    let status = within(
        "an answer",
        client.channel.unary(rpc::INGRESS_SEND, mixed.into()),
    )
    .await
    .unwrap_err();
    assert_eq!(status.code, Code::InvalidArgument);
    assert!(status.message.starts_with("1 of 3 envelopes"), "{status}");
    assert_eq!(payloads(&reader.take(2).await), ["0", "1"]);

    let broken = Bytes::from_static(&[0x0a, 200]);
    let status = within("an answer", client.channel.unary(rpc::INGRESS_SEND, broken))
        .await
        .unwrap_err();
    assert_eq!(status.code, Code::Internal);
    assert!(
        status
            .message
            .starts_with("grpc: failed to unmarshal the received message: "),
        "{status}"
    );
    doppler.assert_balanced();
}

#[tokio::test]
async fn more_subscriptions_than_allowed_are_refused_by_name() {
    let doppler = Doppler::start_with(|config| config.max_subscriptions = 2).await;
    let client = doppler.connect();
    let _one = client.batched(logs_for("")).await;
    let _two = client
        .subscribe(plumbing::SubscriptionRequest::default())
        .await;
    doppler.subscribed(2).await;
    let status = client.batched(logs_for("")).await.end().await.unwrap();
    assert_eq!(status.code, Code::ResourceExhausted);
    assert!(status.message.contains('2'), "{status}");
}
