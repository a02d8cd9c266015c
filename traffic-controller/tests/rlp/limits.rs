//! Who is turned away, and with which words.

use bytes::Bytes;
use loggregator_net::grpc::Code;
use loggregator_proto::rpc;
use loggregator_proto::v2::{EgressBatchRequest, EgressRequest, Selector};
use traffic_controller::provider::Provider;

use crate::rig::{Rig, line, logs, soon};

#[tokio::test]
async fn requests_that_select_nothing_end_with_the_go_proxys_words() {
    let rig = Rig::new().await;
    let bare = EgressBatchRequest {
        selectors: vec![Selector {
            source_id: "a".to_owned(),
            message: None,
        }],
        ..EgressBatchRequest::default()
    };
    let none = EgressBatchRequest::default();
    for (request, expected) in [
        (&none, "Selectors cannot be empty"),
        (&bare, "Selectors must have a Message"),
    ] {
        let mut client = rig.call(rpc::EGRESS_BATCHED_RECEIVER, request).await;
        let expected = (Code::InvalidArgument, expected.to_owned());
        assert_eq!(client.end().await, expected);
        let single = EgressRequest {
            selectors: request.selectors.clone(),
            ..EgressRequest::default()
        };
        let mut client = rig.call(rpc::EGRESS_RECEIVER, &single).await;
        assert_eq!(client.end().await, expected);
    }
    assert_eq!(rig.doppler().subscriptions(), 0);
    let metrics = rig.metrics().await;
    let sample = "loggregator_rlp_refused_streams_total{reason=\"selectors\"} 4";
    assert!(metrics.contains(sample), "{metrics}");
}

#[tokio::test]
async fn the_limit_of_streams_comes_before_any_other_check() {
    let rig = Rig::with(1, |config, _| config.max_streams = 2).await;
    let first = rig.read(logs()).await;
    let _second = rig.read(logs()).await;
    let expected = (
        Code::ResourceExhausted,
        "unable to create stream, max egress streams reached: 2".to_owned(),
    );
    for request in [logs(), EgressBatchRequest::default()] {
        let mut client = rig.call(rpc::EGRESS_BATCHED_RECEIVER, &request).await;
        assert_eq!(client.end().await, expected);
    }
    drop(first);
    rig.ledger_when("the first is closed", |report| {
        report.subscriptions.iter().any(|row| !row.open)
    })
    .await;
    rig.read(logs()).await;
}

#[tokio::test]
async fn the_limit_of_subscriptions_has_its_own_words() {
    let rig = Rig::with(1, |config, _| config.max_subscriptions = 1).await;
    let _first = rig.read(logs()).await;
    let mut client = rig.call(rpc::EGRESS_BATCHED_RECEIVER, &logs()).await;
    let expected = (Code::Unknown, "unable to setup subscription".to_owned());
    assert_eq!(client.end().await, expected);
}

#[tokio::test]
async fn a_request_that_does_not_decode_or_is_too_large_is_refused() {
    let rig = Rig::new().await;
    let channel = rig.channel();
    for (request, code, words) in [
        (
            Bytes::from_static(b"\x0a\x05ab"),
            Code::Internal,
            "grpc: failed to unmarshal the received message: ",
        ),
        (
            Bytes::from(vec![0; (4 << 20) + 1]),
            Code::ResourceExhausted,
            "grpc: received message larger than max (4194305 vs. 4194304)",
        ),
    ] {
        let call = channel.server_stream(rpc::EGRESS_BATCHED_RECEIVER, request);
        let mut messages = soon("the call is made", call).await.unwrap();
        let status = soon("the end", messages.next()).await.unwrap().unwrap_err();
        assert_eq!(status.code, code);
        assert!(status.message.starts_with(words), "{status}");
    }
}

#[tokio::test]
async fn a_reader_in_the_same_process_gets_the_same() {
    let rig = Rig::with(1, |config, _| config.max_streams = 1).await;
    let provider = rig.running.provider();
    let open = |request| {
        let provider = std::sync::Arc::clone(&provider);
        async move {
            soon("it is open", Provider::open(&*provider, request))
                .await
                .unwrap()
        }
    };
    let mut refused = open(EgressBatchRequest::default()).await;
    let end = std::future::poll_fn(|cx| refused.poll_next(cx)).await;
    let status = end.unwrap().unwrap_err();
    assert_eq!(
        (status.code, status.message.as_str()),
        (Code::InvalidArgument, "Selectors cannot be empty")
    );

    let mut envelopes = open(logs()).await;
    rig.doppler().subscription(0).await.send(&[line("one")]);
    let next = soon(
        "a batch",
        std::future::poll_fn(|cx| envelopes.poll_next(cx)),
    );
    let batch = next.await.unwrap().unwrap();
    let batch: loggregator_proto::v2::EnvelopeBatch = prost::Message::decode(batch).unwrap();
    assert_eq!(batch.batch, [line("one")]);
    let report = rig.ledger().await;
    let row = &report.subscriptions[0];
    assert_eq!((row.api.as_str(), row.delivered), ("in_process", 1));
    assert!(report.balanced());

    // The limits are those of the port.
    let mut client = rig.call(rpc::EGRESS_BATCHED_RECEIVER, &logs()).await;
    assert_eq!(client.end().await.0, Code::ResourceExhausted);
    drop(envelopes);
    rig.doppler().subscription(0).await.cancelled().await;
    rig.read(logs()).await;
}
