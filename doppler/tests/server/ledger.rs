//! Whatever happens to a reader: received = delivered + dropped + pending, and who lost what is told.

use std::collections::BTreeSet;

use loggregator_net::grpc::ClientSettings;
use loggregator_proto::v2;

use crate::harness::*;

/// Payload of the bulk envelopes; large, so that few of them fill a log.
const BULK: usize = 4 << 10;

fn bulk(source_id: &str, first: usize, count: usize) -> Vec<v2::Envelope> {
    (first..first + count)
        .map(|number| log(source_id, &format!("{number:0width$}", width = BULK)))
        .collect()
}

fn numbers(envelopes: &[v2::Envelope]) -> Vec<usize> {
    envelopes
        .iter()
        .map(|envelope| payload(envelope).parse().unwrap())
        .collect()
}

/// A connection that holds little, so that a reader that does not read is soon behind.
fn narrow(doppler: &Doppler) -> Client {
    doppler.connect_with(ClientSettings {
        stream_window: 64 << 10,
        connection_window: 1 << 20,
        ..ClientSettings::default()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stalls_gets_an_exact_count_and_its_neighbours_lose_nothing() {
    let doppler = Doppler::start_with(|config| config.log_bytes = 32 << 20).await;
    let client = doppler.connect();
    let mut neighbours = Vec::new();
    for id in ["n-1", "n-2", "n-3"] {
        neighbours.push(client.batched(firehose(id)).await);
    }
    let mut stalled = narrow(&doppler).batched(firehose("stalled")).await;
    doppler.subscribed(4).await;

    // Three logs full. The neighbours keep up by construction: the next round waits for them.
    let (round, total) = (500, 24_000);
    let mut sender = client.batch_sender().await;
    for first in (0..total).step_by(round) {
        for start in (first..first + round).step_by(100) {
            sender.batch(bulk("app", start, 100)).await;
        }
        for reader in &mut neighbours {
            assert_eq!(
                numbers(&reader.take(round).await),
                (first..first + round).collect::<Vec<_>>()
            );
        }
    }
    for id in ["n-1", "n-2", "n-3"] {
        let row = doppler.settled(id).await;
        assert_eq!(
            (row.received, row.delivered, row.dropped_total()),
            (total as u64, total as u64, 0),
            "{row:?}"
        );
    }
    doppler.assert_balanced();

    // It reads again: what it gets is in order, and what it does not get is what it is told.
    sender.batch(bulk("end", total, 1)).await;
    let (mut received, mut told) = (Vec::new(), 0);
    while received.last() != Some(&total) {
        for envelope in stalled.batch().await {
            match notice(&envelope) {
                0 => received.push(payload(&envelope).parse().unwrap()),
                lost => told += lost,
            }
        }
    }
    assert!(received.is_sorted(), "out of order");
    assert!(
        received.windows(2).all(|pair| pair[0] != pair[1]),
        "duplicates"
    );
    let lost = (total + 1 - received.len()) as u64;
    assert!(lost > 0, "nothing was lost; the test shows nothing");
    assert_eq!(told, lost, "told in-band");
    let row = doppler.settled("stalled").await;
    assert_eq!(
        (row.received, row.dropped_total()),
        (total as u64 + 1, lost),
        "{row:?}"
    );
    assert_eq!(
        row.lost_sources
            .iter()
            .map(|s| (s.source_id.as_str(), s.dropped))
            .collect::<Vec<_>>(),
        [("app", lost)]
    );
    doppler.assert_balanced();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_source_survives_beside_a_noisy_one() {
    let doppler = Doppler::start_with(|config| config.log_bytes = 32 << 20).await;
    let client = doppler.connect();
    let mut stalled = narrow(&doppler).batched(firehose("stalled")).await;
    doppler.subscribed(1).await;
    // Most of a log full, so that nothing is evicted, and still more than half: the reader is behind.
    let mut sender = client.batch_sender().await;
    for first in (0..6_000).step_by(100) {
        sender.batch(bulk("noisy", first, 100)).await;
        sender.batch(vec![log("quiet", &first.to_string())]).await;
    }
    sender.batch(vec![log("quiet", "end")]).await;
    sender.finish().await.unwrap();
    let received = stalled.until(|envelope| payload(envelope) == "end").await;
    let quiet: Vec<_> = received
        .iter()
        .filter(|e| e.source_id == "quiet")
        .map(payload)
        .collect();
    let expected: Vec<_> = (0..6_000)
        .step_by(100)
        .map(|n| n.to_string())
        .chain(["end".to_owned()])
        .collect();
    assert_eq!(quiet, expected);
    doppler.assert_balanced();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_killed_in_the_middle_is_still_accounted_for() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let victim = narrow(&doppler);
    let mut readers = Vec::new();
    for request in [
        firehose(""),
        firehose("named"),
        request("", vec![selector("app", any_log())]),
    ] {
        readers.push(victim.batched(request).await);
    }
    let mut v1 = victim.batch_subscribe(v1_firehose("v1")).await;
    doppler.subscribed(4).await;
    let mut sender = client.batch_sender().await;
    for first in (0..2_000).step_by(100) {
        sender.batch(bulk("app", first, 100)).await;
    }
    // Each has got something, none has got everything.
    for reader in &mut readers {
        reader.batch().await;
    }
    v1.payloads().await;
    drop((readers, v1, victim));
    doppler.subscribed(0).await;
    eventually("the ledger to be at rest", || {
        let report = doppler.report();
        report
            .subscriptions
            .iter()
            .all(|row| row.balanced())
            .then_some(())
    })
    .await;
    let report = doppler.report();
    assert_eq!(report.subscriptions.len(), 4);
    let unnamed = report
        .subscriptions
        .iter()
        .find(|row| row.id.is_empty())
        .unwrap();
    assert!(
        unnamed.dropped_total() > 0 && unnamed.delivered > 0 && unnamed.pending == 0,
        "{unnamed:?}"
    );

    // The named one goes on where the connection stopped taking.
    let named = report
        .subscriptions
        .iter()
        .find(|row| row.id == "named")
        .unwrap();
    let mut back = client.batched(firehose("named")).await;
    let rest = back
        .until(|envelope| payload(envelope).ends_with("1999"))
        .await;
    assert_eq!(named.delivered + rest.len() as u64, 2_000, "{named:?}");
    doppler.assert_balanced();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_leaves_hands_its_share_over() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let leaver = narrow(&doppler);
    let idle = leaver.batched(logs_for("group")).await;
    let mut stays = client.batched(logs_for("group")).await;
    doppler.subscribed(2).await;
    let total = 2_000;
    let mut sender = client.batch_sender().await;
    for first in (0..total).step_by(100) {
        sender.batch(bulk("app", first, 100)).await;
    }
    sender.finish().await.unwrap();
    drop((idle, leaver));
    doppler.subscribed(1).await;

    let taken_by_leaver = || {
        let report = doppler.report();
        let rows = report
            .subscriptions
            .iter()
            .filter(|row| row.id == "group" && !row.open);
        rows.map(|row| row.delivered).sum::<u64>()
    };
    let mut seen = BTreeSet::new();
    while seen.len() as u64 + taken_by_leaver() < total as u64 {
        for number in numbers(&stays.batch().await) {
            assert!(seen.insert(number), "{number} twice");
        }
    }
    stays.nothing_more().await;
    let rows = doppler.report().subscriptions;
    assert_eq!(
        rows.iter().map(|row| row.dropped_total()).sum::<u64>(),
        0,
        "{rows:?}"
    );
    assert_eq!(
        rows.iter().map(|row| row.received).sum::<u64>(),
        total as u64,
        "{rows:?}"
    );
    doppler.assert_balanced();
}
