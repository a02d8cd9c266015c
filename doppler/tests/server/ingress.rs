//! What comes in: kept as it is, gathered without loss or disorder, refused by name.

use loggregator_proto::{events, plumbing, rpc, v2};
use prost::Message as _;

use crate::harness::*;

/// An envelope whose source id claims more bytes than there are.
const MALFORMED: &[u8] = &[0x12, 9, b'x'];

#[tokio::test]
async fn single_envelopes_and_batches_reach_a_v2_reader_in_order() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut reader = client.batched(logs_for("")).await;
    doppler.subscribed(1).await;

    let sent = logs("app", 0, 5_000);
    let mut single = client.sender(rpc::INGRESS_SENDER).await;
    for envelope in &sent {
        single.send(envelope).await;
    }
    single.finish().await.unwrap();
    assert_eq!(reader.take(sent.len()).await, sent);

    let mut batches = client.batch_sender().await;
    for batch in sent.chunks(77) {
        batches.batch(batch.to_vec()).await;
    }
    batches.finish().await.unwrap();
    assert_eq!(reader.take(sent.len()).await, sent);
    doppler.assert_balanced();
}

#[tokio::test]
async fn pushed_envelopes_reach_a_v1_reader_in_order_and_once() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut reader = client.batch_subscribe(v1_firehose("")).await;
    doppler.subscribed(1).await;
    let sent: Vec<events::Envelope> = (0..5_000).map(|n| v1_log("app", &n.to_string())).collect();
    let mut pusher = client.sender(rpc::DOPPLER_INGESTOR_PUSHER).await;
    for envelope in &sent {
        pusher.push(envelope).await;
    }
    pusher.finish().await.unwrap();
    assert_eq!(reader.take(sent.len()).await, sent);
    doppler.assert_balanced();
}

#[tokio::test]
async fn unknown_fields_survive() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut reader = client.batched(logs_for("")).await;
    doppler.subscribed(1).await;
    let mut envelope = encode(&log("app", "hello")).to_vec();
    envelope.extend_from_slice(&[0xa2, 0x06, 3, b'n', b'e', b'w']); // field 100
    let mut record = vec![0x0a, u8::try_from(envelope.len()).unwrap()];
    record.extend_from_slice(&envelope);

    client
        .raw_once(rpc::INGRESS_BATCH_SENDER, record.clone())
        .await;
    assert_eq!(
        within("a batch", reader.messages.next())
            .await
            .unwrap()
            .unwrap(),
        record
    );
    client.raw_once(rpc::INGRESS_SENDER, envelope).await;
    assert_eq!(
        within("a batch", reader.messages.next())
            .await
            .unwrap()
            .unwrap(),
        record
    );
}

#[tokio::test]
async fn a_malformed_envelope_costs_itself_alone() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut reader = client.batched(logs_for("")).await;
    doppler.subscribed(1).await;

    let mut batches = client.batch_sender().await;
    let mut mixed = encode(&v2::EnvelopeBatch {
        batch: logs("app", 0, 1),
    })
    .to_vec();
    mixed.extend_from_slice(&[0x0a, u8::try_from(MALFORMED.len()).unwrap()]);
    mixed.extend_from_slice(MALFORMED);
    mixed.extend_from_slice(&encode(&v2::EnvelopeBatch {
        batch: logs("app", 1, 1),
    }));
    batches.raw(mixed).await;
    batches.raw(vec![0x0a, 100, 1, 2, 3]).await; // no batch at all
    batches.batch(logs("app", 2, 1)).await;
    assert_eq!(
        batches.finish().await,
        Ok(Some(Default::default())),
        "the stream went on"
    );

    let mut single = client.sender(rpc::INGRESS_SENDER).await;
    single.send(&log("app", "3")).await;
    single.raw(MALFORMED).await;
    single.send(&log("app", "4")).await;
    assert_eq!(
        single.finish().await,
        Ok(Some(Default::default())),
        "the stream went on"
    );

    assert_eq!(payloads(&reader.take(5).await), ["0", "1", "2", "3", "4"]);
    let ingress = doppler.report().ingress;
    assert_eq!(
        (ingress.accepted, ingress.rejected_total()),
        (5, 3),
        "{ingress:?}"
    );
    doppler.assert_balanced();
}

#[tokio::test]
async fn an_envelope_with_text_that_is_not_utf8_is_refused_before_readers_see_it() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut reader = client.batched(logs_for("")).await;
    doppler.subscribed(1).await;
    let mut single = client.sender(rpc::INGRESS_SENDER).await;
    single.raw(vec![0x12, 2, 0xff, 0xfe, 0x22, 0]).await;
    single.send(&log("app", "good")).await;
    assert_eq!(payloads(&reader.take(1).await), ["good"]);
    assert_eq!(doppler.report().ingress.rejected_total(), 1);
}

#[tokio::test]
async fn bad_v1_payloads_are_counted_and_the_stream_goes_on() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut v1 = client.batch_subscribe(v1_firehose("")).await;
    let mut v2 = client.batched(firehose("")).await;
    doppler.subscribed(2).await;

    let mut pusher = client.sender(rpc::DOPPLER_INGESTOR_PUSHER).await;
    pusher.push(&v1_log("app", "before")).await;
    for payload in [&b""[..], b"garbage", &[0x0a, 0xff]] {
        pusher
            .send(&plumbing::EnvelopeData {
                payload: payload.to_vec().into(),
            })
            .await;
    }
    pusher.raw(vec![0x0a, 50, 1]).await; // no EnvelopeData at all
    pusher.push(&v1_log("app", "after")).await;
    pusher.finish().await.unwrap();

    let received = v1.take(2).await;
    assert_eq!(
        received.iter().map(v1_message).collect::<Vec<_>>(),
        ["before", "after"]
    );
    assert_eq!(payloads(&v2.take(2).await), ["before", "after"]);
    let ingress = doppler.report().ingress;
    assert_eq!((ingress.received, ingress.accepted), (6, 2), "{ingress:?}");
    assert_eq!(
        ingress.rejected.get("bad_v1_envelope"),
        Some(&3),
        "{ingress:?}"
    );
    assert_eq!(
        ingress.rejected.get("malformed_message"),
        Some(&1),
        "{ingress:?}"
    );
    doppler.assert_balanced();
}

#[tokio::test]
async fn a_container_metric_reaches_both_kinds_of_readers() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut v1 = client.batch_subscribe(v1_filtered("", "app", None)).await;
    let gauges = v2::selector::Message::Gauge(v2::GaugeSelector::default());
    let mut v2 = client
        .batched(request("", vec![selector("app", gauges)]))
        .await;
    doppler.subscribed(2).await;
    let sent = events::Envelope {
        origin: "rep".to_owned(),
        event_type: events::envelope::EventType::ContainerMetric as i32,
        timestamp: Some(7),
        container_metric: Some(events::ContainerMetric {
            application_id: "app".to_owned(),
            instance_index: 3,
            cpu_percentage: 1.5,
            memory_bytes: 10,
            disk_bytes: 20,
            memory_bytes_quota: Some(100),
            disk_bytes_quota: Some(200),
        }),
        ..Default::default()
    };
    client.push_once(&sent).await;
    assert_eq!(v1.take(1).await[0].container_metric, sent.container_metric);
    let converted = v2.take(1).await.remove(0);
    let Some(v2::envelope::Message::Gauge(gauge)) = converted.message else {
        panic!("{converted:?}")
    };
    assert_eq!(
        (converted.source_id.as_str(), converted.instance_id.as_str()),
        ("app", "3")
    );
    let values: Vec<_> = gauge
        .metrics
        .iter()
        .map(|(name, value)| (name.as_str(), value.value))
        .collect();
    assert_eq!(
        values,
        [
            ("cpu", 1.5),
            ("disk", 20.0),
            ("disk_quota", 200.0),
            ("memory", 10.0),
            ("memory_quota", 100.0)
        ]
    );
}

#[tokio::test]
async fn an_envelope_without_message_is_accepted_and_matches_nothing() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut v1 = client.batch_subscribe(v1_firehose("")).await;
    let mut v2 = client.batched(firehose("")).await;
    doppler.subscribed(2).await;
    let empty = v2::Envelope {
        source_id: "app".to_owned(),
        ..Default::default()
    };
    client.send_batch(vec![empty, log("app", "marker")]).await;
    assert_eq!(payloads(&v2.take(1).await), ["marker"]);
    assert_eq!(v1.take(1).await.len(), 1);
    assert_eq!(doppler.report().ingress.accepted, 2);
    doppler.assert_balanced();
}

/// The sender may break its records wherever HTTP/2 frames end; a large message is put together once.
#[tokio::test]
async fn large_envelopes_pass_whole() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut reader = client.batched(logs_for("")).await;
    doppler.subscribed(1).await;
    let sent: Vec<_> = [1, 16_384, 65_535, 1 << 20, 3 << 20]
        .map(|length| log("app", &"x".repeat(length)))
        .to_vec();
    let mut sender = client.sender(rpc::INGRESS_SENDER).await;
    for envelope in &sent {
        sender.send(envelope).await;
    }
    assert_eq!(reader.take(sent.len()).await, sent);
}

/// A v1 envelope that went through prost, for comparison by value.
#[tokio::test]
async fn v1_unknown_fields_survive_and_come_last() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut reader = client.batch_subscribe(v1_firehose("")).await;
    doppler.subscribed(1).await;
    let known = encode(&v1_log("app", "hello"));
    let unknown = [0xa2, 0x06, 3, b'n', b'e', b'w']; // field 100
    let first: Vec<u8> = unknown.iter().chain(&known).copied().collect();
    let last: Vec<u8> = known.iter().chain(&unknown).copied().collect();
    let mut pusher = client.sender(rpc::DOPPLER_INGESTOR_PUSHER).await;
    pusher
        .send(&plumbing::EnvelopeData {
            payload: first.into(),
        })
        .await;
    let received = reader.payloads().await;
    assert_eq!(received.len(), 1);
    assert_eq!(received[0], last);
    assert!(events::Envelope::decode(&last[..]).is_ok());
}

/// Dashboards compare this number with the Go router's, which counts in dropsonde envelopes.
#[tokio::test]
async fn the_ingress_metric_counts_what_dropsonde_readers_would_see() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let event = v2::Event {
        title: "t".to_owned(),
        body: "b".to_owned(),
    };
    let cases = [
        ("a log", log("app", "x"), 1),
        ("a log without payload", log("app", ""), 1),
        ("a counter", counter("app", "c", 1), 1),
        ("a gauge of three", gauge("app", &["a", "b", "c"]), 3),
        (
            "an event",
            v2::Envelope {
                message: Some(v2::envelope::Message::Event(event)),
                ..Default::default()
            },
            0,
        ),
        ("nothing at all", v2::Envelope::default(), 0),
    ];
    for (name, envelope, counted) in cases {
        let before = doppler.running.router.stats().ingress;
        client.send_batch(vec![envelope]).await;
        let after = doppler.running.router.stats().ingress;
        assert_eq!(after - before, counted, "{name}");
    }
}
