//! What is asked of the dopplers and what comes back.

use std::collections::BTreeMap;

use loggregator_net::grpc::Code;
use loggregator_proto::rpc;
use loggregator_proto::v2::value::Data;
use loggregator_proto::v2::{EgressBatchRequest, EgressRequest, Envelope, Value};
use prost::Message as _;

use crate::doppler::Doppler;
use crate::rig::{Rig, any_log, line, logs, soon, text};

#[tokio::test]
async fn the_request_goes_to_every_doppler_and_the_answers_are_merged() {
    let rig = Rig::with(2, |_, _| {}).await;
    let request = EgressBatchRequest {
        shard_id: "nozzle".to_owned(),
        deterministic_name: "first".to_owned(),
        ..logs()
    };
    let mut client = rig.read(request.clone()).await;
    for (i, doppler) in rig.dopplers.iter().enumerate() {
        let subscription = doppler.subscription(0).await;
        assert_eq!(subscription.request, request);
        subscription.send(&[line(format!("of {i}"))]);
    }
    let mut texts: Vec<_> = client.envelopes(2).await.iter().map(text).collect();
    texts.sort();
    assert_eq!(texts, ["of 0", "of 1"]);
    let report = rig
        .ledger_when("all is delivered", |report| {
            report.subscriptions[0].delivered == 2
        })
        .await;
    let row = &report.subscriptions[0];
    assert_eq!((report.component.as_str(), row.api.as_str()), ("rlp", "v2"));
    assert_eq!((row.id.as_str(), row.selector.as_str()), ("nozzle", "log"));
    let from: Vec<_> = row.from.values().collect();
    assert_eq!(from, [&1, &1]);

    drop(client);
    rig.doppler().subscription(0).await.cancelled().await;
    let report = rig
        .ledger_when("the stream is closed", |report| {
            !report.subscriptions[0].open
        })
        .await;
    assert!(report.subscriptions[0].dropped.is_empty());
}

#[tokio::test]
async fn a_legacy_selector_is_folded_and_never_forwarded() {
    let rig = Rig::new().await;
    let request = EgressBatchRequest {
        legacy_selector: Some(any_log()),
        ..EgressBatchRequest::default()
    };
    let _client = rig.read(request).await;
    let expected = EgressBatchRequest {
        selectors: vec![any_log()],
        ..EgressBatchRequest::default()
    };
    assert_eq!(rig.doppler().subscription(0).await.request, expected);
}

#[tokio::test]
async fn single_envelopes_come_one_by_one() {
    let rig = Rig::new().await;
    let request = EgressRequest {
        shard_id: "s".to_owned(),
        selectors: vec![any_log()],
        use_preferred_tags: true,
        deterministic_name: "d".to_owned(),
        ..EgressRequest::default()
    };
    let mut client = rig.call(rpc::EGRESS_RECEIVER, &request).await;
    let subscription = rig.doppler().subscription(0).await;
    assert_eq!(subscription.request.deterministic_name, "d");
    let lines: Vec<_> = ["one", "", "three"].map(line).into();
    subscription.send(&lines);
    for expected in &lines {
        let message = soon("an envelope", client.messages.next()).await.unwrap();
        assert_eq!(&Envelope::decode(message.unwrap()).unwrap(), expected);
    }
    rig.ledger_when("all is delivered", |report| {
        report.subscriptions[0].delivered == 3
    })
    .await;
    let metrics = rig.metrics().await;
    let sample = "loggregator_rlp_egress_envelopes_total{endpoint=\"receiver\"} 3";
    assert!(metrics.contains(sample), "{metrics}");
}

fn tagged() -> Envelope {
    let value = |data| Value { data: Some(data) };
    Envelope {
        tags: BTreeMap::from([
            ("same".to_owned(), "new".to_owned()),
            ("plain".to_owned(), "p".to_owned()),
        ]),
        deprecated_tags: BTreeMap::from([
            ("same".to_owned(), value(Data::Text("old".to_owned()))),
            ("int".to_owned(), value(Data::Integer(42))),
            ("dec".to_owned(), value(Data::Decimal(0.8))),
            ("big".to_owned(), value(Data::Decimal(1e21))),
        ]),
        ..line("tagged")
    }
}

#[tokio::test]
async fn tags_are_where_the_client_wants_them() {
    let rig = Rig::new().await;
    let mut preferring = rig.read(logs()).await;
    let mut old = rig
        .read(EgressBatchRequest {
            use_preferred_tags: false,
            // Not the same subscription, so that the test says which is which.
            shard_id: "old".to_owned(),
            ..logs()
        })
        .await;
    for n in 0..2 {
        rig.doppler()
            .subscription(n)
            .await
            .send(&[line("before"), tagged(), line("after")]);
    }
    let texts = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    let expected = Envelope {
        tags: texts(&[
            ("same", "old"),
            ("plain", "p"),
            ("int", "42"),
            ("dec", "0.8"),
            ("big", "1e+21"),
        ]),
        deprecated_tags: BTreeMap::new(),
        ..tagged()
    };
    assert_eq!(
        preferring.envelopes(3).await,
        [line("before"), expected, line("after")]
    );
    let mut expected = tagged();
    expected.tags.clear();
    for (key, text) in [("same", "new"), ("plain", "p")] {
        let data = Some(Data::Text(text.to_owned()));
        expected
            .deprecated_tags
            .insert(key.to_owned(), Value { data });
    }
    assert_eq!(
        old.envelopes(3).await,
        [line("before"), expected, line("after")]
    );
}

#[tokio::test]
async fn a_big_batch_is_cut_and_what_gathers_is_joined() {
    let rig = Rig::with(1, |config, _| config.send_budget = 64 * 1024).await;
    let mut client = rig.read(logs()).await;
    let subscription = rig.doppler().subscription(0).await;
    let lines: Vec<_> = (0..200).map(|i| line(format!("{i:05000}"))).collect();
    subscription.send(&lines);
    let mut seen = Vec::new();
    while seen.len() < lines.len() {
        let message = soon("a batch", client.messages.next()).await.unwrap();
        let message = message.unwrap();
        assert!(message.len() <= 64 * 1024, "{} bytes", message.len());
        seen.extend(
            loggregator_proto::v2::EnvelopeBatch::decode(message)
                .unwrap()
                .batch,
        );
    }
    assert_eq!(seen, lines);

    // A hundred batches; the client reads none before all are on the way.
    for i in 0..100 {
        subscription.send(&[line(format!("{i}")), line(format!("{i}"))]);
    }
    rig.ledger_when("all was received", |report| {
        report.subscriptions[0].received == 400
    })
    .await;
    let joined = client.envelopes(200).await;
    let texts: Vec<_> = joined.iter().map(text).collect();
    let expected: Vec<_> = (0..200).map(|i| (i / 2).to_string()).collect();
    assert_eq!(texts, expected);
    rig.ledger_when("all is delivered", |report| {
        report.subscriptions[0].delivered == 400
    })
    .await;
}

#[tokio::test]
async fn a_doppler_that_comes_back_is_read_again() {
    let mut rig = Rig::with(2, |_, _| {}).await;
    let mut client = rig.read(logs()).await;
    let addr = rig.dopplers.remove(0).kill().await;
    let other = rig.doppler().subscription(0).await;
    other.send(&[line("other")]);
    assert_eq!(text(&client.envelopes(1).await[0]), "other");
    let again = Doppler::start_at(&rig.certs, addr);
    again.subscription(0).await.send(&[line("again")]);
    assert_eq!(text(&client.envelopes(1).await[0]), "again");
    assert_eq!(rig.doppler().subscriptions(), 1);
}

#[tokio::test]
async fn malformed_envelopes_are_left_out_and_counted() {
    let rig = Rig::new().await;
    let mut client = rig.read(logs()).await;
    let subscription = rig.doppler().subscription(0).await;
    // A source id of five bytes, of which one is there.
    subscription.send_bytes(b"\x0a\x03\x12\x05a"[..].into());
    subscription.send_bytes(b"\x0a\x7fabc"[..].into());
    subscription.send(&[line("good")]);
    assert_eq!(client.envelopes(1).await, [line("good")]);
    let report = rig.ledger().await;
    assert_eq!(report.ingress.rejected_total(), 1);
    assert_eq!(report.subscriptions[0].dropped["malformed_envelope"], 1);
    assert!(report.balanced());
}

#[tokio::test]
async fn calls_that_do_not_exist_are_answered_as_go_does() {
    let rig = Rig::new().await;
    for (path, expected) in [
        (
            "/loggregator.v2.Egress/Other",
            "unknown method Other for service loggregator.v2.Egress",
        ),
        (
            "/loggregator.v2.Ingress/BatchSender",
            "unknown service loggregator.v2.Ingress",
        ),
    ] {
        let end = rig.call(path, &logs()).await.end().await;
        assert_eq!(end, (Code::Unimplemented, expected.to_owned()));
    }
}
