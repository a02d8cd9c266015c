//! Clients that do not read.

use std::sync::atomic::Ordering;

use loggregator_proto::v2::EgressBatchRequest;
use loggregator_proto::v2::envelope::Message;

use crate::rig::{Rig, line, logs, text};

/// Far more than windows and buffers on the way hold.
const BATCHES: usize = 400;

#[tokio::test]
async fn what_a_slow_client_does_not_take_stays_at_the_doppler_and_nothing_is_lost() {
    let rig = Rig::new().await;
    // Each in a shard group of its own, so that they share no subscription.
    let of_shard = |shard_id: &str| EgressBatchRequest {
        shard_id: shard_id.to_owned(),
        ..logs()
    };
    let mut slow = rig.read(of_shard("slow")).await;
    let subscription = rig.doppler().subscription(0).await;
    for i in 0..BATCHES {
        subscription.send(&[line(format!("{i:060000}")), line("pad")]);
    }
    // One who reads is not held up by one who does not.
    let mut quick = rig.read(of_shard("quick")).await;
    let other = rig.doppler().subscription(1).await;
    for i in 0..50 {
        other.send(&[line(format!("{i}"))]);
        assert_eq!(text(&quick.envelopes(1).await[0]), i.to_string());
    }
    assert!(
        subscription.left() > BATCHES / 4,
        "everything was taken from the doppler: {} left",
        subscription.left()
    );
    let lines = slow.envelopes(2 * BATCHES).await;
    for (i, pair) in lines.chunks(2).enumerate() {
        assert_eq!(text(&pair[0]).parse::<usize>().unwrap(), i);
    }
    assert_eq!(subscription.taken.load(Ordering::SeqCst), BATCHES as u64);
    let report = rig
        .ledger_when("all is delivered", |report| {
            report.subscriptions[0].delivered == 2 * BATCHES as u64
        })
        .await;
    assert!(
        report
            .subscriptions
            .iter()
            .all(|row| row.dropped.is_empty())
    );
}

#[tokio::test]
async fn what_was_received_for_a_client_that_leaves_is_counted() {
    let rig = Rig::new().await;
    let client = rig.read(logs()).await;
    let subscription = rig.doppler().subscription(0).await;
    for i in 0..BATCHES {
        subscription.send(&[line(format!("{i:060000}"))]);
    }
    rig.ledger_when("something was received", |report| {
        report.subscriptions[0].pending > 0
    })
    .await;
    drop(client);
    let report = rig
        .ledger_when("the stream is closed", |report| {
            !report.subscriptions[0].open
        })
        .await;
    let row = &report.subscriptions[0];
    assert!(row.dropped["disconnected"] > 0, "{row:?}");
    assert_eq!(row.pending, 0);
}

#[tokio::test]
async fn who_is_left_behind_by_others_of_the_same_subscription_is_told_what_it_missed() {
    let rig = Rig::with(1, |config, _| config.shared.request = 1 << 20).await;
    let mut slow = rig.read(logs()).await;
    let mut quick = rig
        .read(EgressBatchRequest {
            use_preferred_tags: false,
            ..logs()
        })
        .await;
    let subscription = rig.doppler().subscription(0).await;
    for i in 0..BATCHES {
        subscription.send(&[line(format!("{i:060000}"))]);
        quick.envelopes(1).await;
    }
    assert_eq!(rig.doppler().subscriptions(), 1);

    let (mut lines, mut told) = (0, 0);
    while lines + told < BATCHES as u64 {
        for envelope in slow.batch().await {
            match &envelope.message {
                Some(Message::Counter(counter)) => {
                    assert_eq!(counter.name, "dropped");
                    assert_eq!(envelope.source_id, "reverse_log_proxy");
                    assert_eq!(envelope.tags["origin"], "loggregator.rlp");
                    told += counter.delta;
                }
                _ => lines += 1,
            }
        }
    }
    assert!(told > 0);
    let report = rig
        .ledger_when("all is settled", |report| {
            report.subscriptions[0].pending == 0
        })
        .await;
    let row = &report.subscriptions[0];
    assert_eq!((row.received, row.delivered), (BATCHES as u64, lines));
    assert_eq!(row.dropped["shared_behind"], told);
    assert_eq!(report.ingress.accepted, BATCHES as u64);
}
