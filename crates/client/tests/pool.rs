//! The pool against dopplers that come, go and stall.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the report

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use loggregator_client::{
    Connector, DOPPLER, DopplerPool, DopplerSet, DropReason, EmitError, Emitter, EmitterConfig,
    PoolReport, PoolSettings, message,
};
use loggregator_envelope::Frame;
use loggregator_net::Backoff;
use loggregator_net::dns::Addresses;
use loggregator_proto::v2::EnvelopeBatch;
use prost::Message as _;
use support::{FakeDoppler, PATIENCE, Seen, until};

fn connector() -> Connector {
    let mut connector = Connector::new(DOPPLER, None);
    connector.settings.backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(20));
    connector
}

fn pool(dopplers: &[&FakeDoppler], settings: PoolSettings) -> DopplerPool {
    let set = DopplerSet::fixed(dopplers.iter().map(|d| d.addr.to_string()), connector());
    DopplerPool::new(&set, settings)
}

/// A frame with a line of each source, numbered.
fn frame(sources: std::ops::Range<u32>, number: u32) -> Frame {
    let line = |source| {
        message::log(format!("{source}:{number}"))
            .source(&format!("app-{source}"), "0")
            .build()
    };
    let batch = EnvelopeBatch {
        batch: sources.map(line).collect(),
    };
    Frame::parse(batch.encode_to_vec().into()).unwrap().frame
}

fn check_balance(report: &PoolReport) {
    for link in report.links.iter().chain([&report.homeless]) {
        assert!(link.balanced(), "{link:?}");
    }
}

fn sources_of(seen: &Seen) -> BTreeSet<String> {
    seen.payloads()
        .iter()
        .map(|p| p.split(':').next().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn each_source_goes_to_one_doppler_in_order_and_everything_is_accounted_for() {
    let (one, two) = (FakeDoppler::start(), FakeDoppler::start());
    let pool = pool(&[&one, &two], PoolSettings::default());
    for number in 0..50 {
        pool.send(&frame(0..20, number));
    }
    let report = pool.close(PATIENCE).await;
    check_balance(&report);
    let total = report.total();
    assert_eq!(
        (total.received, total.delivered, report.pending()),
        (1000, 1000, 0)
    );
    // Closing waits until the dopplers have read everything.
    assert_eq!(one.seen.envelopes() + two.seen.envelopes(), 1000);
    assert!(sources_of(&one.seen).is_disjoint(&sources_of(&two.seen)));
    for doppler in [&one, &two] {
        assert!(!sources_of(&doppler.seen).is_empty());
        assert!(
            doppler
                .seen
                .batches
                .lock()
                .iter()
                .all(|b| b.batch.len() <= 100)
        );
        for source in sources_of(&doppler.seen) {
            let all = doppler.seen.payloads();
            let lines: Vec<u32> = all
                .iter()
                .filter_map(|p| p.strip_prefix(&format!("{source}:"))?.parse().ok())
                .collect();
            assert_eq!(lines, (0..50).collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
async fn a_quiet_line_is_used_at_once() {
    let doppler = FakeDoppler::start();
    let pool = pool(
        &[&doppler],
        PoolSettings {
            linger: Duration::from_secs(3600),
            ..PoolSettings::default()
        },
    );
    pool.send(&frame(0..1, 0));
    until("the first envelope arrives alone", || {
        doppler.seen.envelopes() == 1
    })
    .await;
    pool.send(&frame(0..1, 1));
    pool.send(&frame(0..98, 2));
    pool.send(&frame(0..1, 3)); // the hundredth: the batch is full
    until("a full batch arrives without waiting", || {
        doppler.seen.envelopes() == 101
    })
    .await;
    pool.send(&frame(0..1, 4));
    assert!(pool.flush(PATIENCE).await, "and the rest when asked for");
    pool.close(PATIENCE).await;
    assert_eq!(doppler.seen.envelopes(), 102);
}

#[tokio::test]
async fn sources_of_a_dead_doppler_move_and_come_back() {
    let (one, mut two) = (FakeDoppler::start(), FakeDoppler::start());
    let pool = pool(&[&one, &two], PoolSettings::default());
    pool.send(&frame(0..20, 0));
    until("both got their share", || {
        one.seen.envelopes() + two.seen.envelopes() == 20
    })
    .await;
    let (of_one, of_two) = (sources_of(&one.seen), sources_of(&two.seen));
    // What a doppler has read, its connection has taken; the receipt may come a moment later.
    until("everything is settled", || pool.report().pending() == 0).await;

    two.kill();
    until("the pool has noticed", || {
        pool.report().links.iter().any(|l| !l.up)
    })
    .await;
    pool.send(&frame(0..20, 1));
    until("the other one got everything", || {
        one.seen.envelopes() == of_one.len() + 20
    })
    .await;
    assert_eq!(sources_of(&one.seen).len(), 20);

    let back = FakeDoppler::at(two.addr, &[]);
    until("it is found again", || {
        pool.report().links.iter().all(|l| l.up)
    })
    .await;
    pool.send(&frame(0..20, 2));
    until("its sources are back", || {
        back.seen.envelopes() == of_two.len()
    })
    .await;
    assert_eq!(sources_of(&back.seen), of_two);

    let report = pool.close(PATIENCE).await;
    check_balance(&report);
    let total = report.total();
    assert_eq!(
        (total.received, total.delivered, total.dropped_total()),
        (60, 60, 0)
    );
    assert_eq!(
        one.seen.envelopes() + two.seen.envelopes() + back.seen.envelopes(),
        60
    );
    assert!(
        total.in_doubt <= of_two.len() as u64,
        "only what the dead one's last stream carried"
    );
}

#[tokio::test]
async fn what_waits_for_a_dead_doppler_moves_before_anything_newer() {
    let (one, mut two) = (FakeDoppler::start(), FakeDoppler::start());
    let addrs = [one.addr, two.addr].map(|a| a.to_string());
    two.kill(); // it was never there
    let pool = DopplerPool::new(
        &DopplerSet::fixed(addrs, connector()),
        PoolSettings::default(),
    );
    for number in 0..30 {
        pool.send(&frame(0..20, number));
    }
    until("one doppler got all", || one.seen.envelopes() == 600).await;
    let all = one.seen.payloads();
    for source in 0..20 {
        let lines: Vec<u32> = all
            .iter()
            .filter_map(|p| p.strip_prefix(&format!("{source}:"))?.parse().ok())
            .collect();
        assert_eq!(lines, (0..30).collect::<Vec<_>>(), "source {source}");
    }
    check_balance(&pool.close(PATIENCE).await);
}

#[tokio::test]
async fn a_full_buffer_loses_the_oldest_and_counts_them() {
    let mut doppler = FakeDoppler::start();
    let addr = doppler.addr;
    doppler.kill();
    let set = DopplerSet::fixed([addr.to_string()], connector());
    let one = frame(0..10, 0).bytes().len();
    let pool = DopplerPool::new(
        &set,
        PoolSettings {
            buffer_bytes: one * 5 + 100,
            ..PoolSettings::default()
        },
    );
    for number in 0..40 {
        pool.send(&frame(0..10, number % 10));
    }
    let report = pool.report();
    check_balance(&report);
    let total = report.total();
    assert!(report.pending_bytes() <= (one * 5 + 100) as u64);
    assert_eq!(total.received, 400);
    assert_eq!(
        total.dropped[&DropReason::BufferFull],
        400 - report.pending()
    );
    assert!(report.pending() > 0);

    let back = FakeDoppler::at(addr, &[]);
    let kept = report.pending();
    until("the rest arrives", || back.seen.envelopes() as u64 == kept).await;
    let last = back.seen.payloads();
    assert_eq!(
        last.last().map(String::as_str),
        Some("9:9"),
        "the newest were kept"
    );
    let total = pool.close(PATIENCE).await.total();
    assert_eq!(total.delivered + total.dropped_total(), 400);
}

#[tokio::test]
async fn kill_and_restart_under_load_loses_at_most_what_is_in_doubt() {
    let mut doppler = FakeDoppler::start();
    let pool = pool(&[&doppler], PoolSettings::default());
    let mut arrived = 0;
    let mut sent = 0;
    for round in 0..4 {
        let sending = pool.clone();
        let sender = tokio::spawn(async move {
            for number in 0..200 {
                sending.send(&frame(0..10, round * 200 + number));
                tokio::task::yield_now().await;
            }
        });
        until("something arrives", || doppler.seen.envelopes() > 0).await;
        doppler.kill();
        arrived += doppler.seen.envelopes() as u64;
        sender.await.unwrap();
        sent += 2000;
        doppler = FakeDoppler::at(doppler.addr, &[]);
    }
    let report = pool.close(PATIENCE).await;
    check_balance(&report);
    let total = report.total();
    arrived += doppler.seen.envelopes() as u64;
    assert_eq!(
        (total.received, total.dropped_total(), report.pending()),
        (sent, 0, 0)
    );
    assert_eq!(total.delivered, sent);
    let lost = total.delivered - arrived;
    assert!(
        lost <= total.in_doubt,
        "lost {lost}, in doubt {}",
        total.in_doubt
    );
    assert!(total.reconnects >= 1);
}

#[tokio::test]
async fn what_cannot_be_sent_in_time_is_counted_when_closing() {
    let mut doppler = FakeDoppler::start();
    let pool = pool(&[&doppler], PoolSettings::default());
    doppler.kill();
    pool.send(&frame(0..10, 0));
    let report = pool.close(Duration::from_millis(50)).await;
    check_balance(&report);
    let total = report.total();
    assert_eq!(
        total.dropped.get(&DropReason::NotFlushed),
        Some(&(10 - total.delivered))
    );
    pool.send(&frame(0..10, 1));
    assert_eq!(pool.report().total().dropped[&DropReason::Closed], 10);
    check_balance(&pool.report());
}

#[tokio::test]
async fn dopplers_may_come_and_leave_and_nothing_is_lost_with_them() {
    let (one, two) = (FakeDoppler::start(), FakeDoppler::start());
    let (addresses, watched) = tokio::sync::watch::channel(Vec::new().into());
    let set = DopplerSet::new(&Addresses::watched(watched), connector());
    let pool = DopplerPool::new(&set, PoolSettings::default());
    pool.send(&frame(0..20, 0));
    let report = pool.report();
    check_balance(&report);
    assert_eq!(
        (report.homeless.pending, report.links.len()),
        (20, 0),
        "they wait for the first to come"
    );

    addresses.send_replace([one.addr.to_string()].into());
    until("the first to come gets them", || one.seen.envelopes() == 20).await;
    addresses.send_replace([one.addr, two.addr].map(|a| a.to_string()).into());
    until("the second is there", || pool.report().links.len() == 2).await;
    pool.send(&frame(0..20, 1));
    until("they share", || {
        one.seen.envelopes() + two.seen.envelopes() == 40
    })
    .await;
    let of_two = two.seen.envelopes() as u64;
    assert!(of_two > 0);

    // It leaves while it reads nothing: what its connection did not take goes to the other one.
    *two.seen.stalled.lock() = true;
    for number in 2..2000 {
        pool.send(&frame(0..20, number));
    }
    addresses.send_replace([one.addr.to_string()].into());
    *two.seen.stalled.lock() = false;
    until("it is gone", || pool.report().former.len() == 1).await;
    pool.send(&frame(0..20, 2000));
    let report = pool.close(PATIENCE).await;
    check_balance(&report);
    let total = report.total();
    assert_eq!(
        (total.received, total.delivered, report.pending()),
        (40_020, 40_020, 0)
    );
    assert_eq!(one.seen.envelopes() + two.seen.envelopes(), 40_020);
    assert_eq!(sources_of(&one.seen).len(), 20);
}

#[tokio::test]
async fn the_workers_end_with_the_last_clone_of_a_pool() {
    let doppler = FakeDoppler::start();
    let set = DopplerSet::fixed([doppler.addr.to_string()], connector());
    let pool = DopplerPool::new(&set, PoolSettings::default());
    pool.send(&frame(0..1, 0));
    until("it works", || doppler.seen.envelopes() == 1).await;
    let mut watch = set.watch();
    drop((pool, set));
    // The pool's tasks hold the set; when they have ended, so has the set's own.
    let ended = async { while watch.changed().await.is_ok() {} };
    assert!(tokio::time::timeout(PATIENCE, ended).await.is_ok());
}

#[tokio::test]
async fn a_stalled_doppler_fills_the_buffer_and_waiting_senders_wait() {
    let doppler = FakeDoppler::start();
    *doppler.seen.stalled.lock() = true;
    let pool = pool(
        &[&doppler],
        PoolSettings {
            buffer_bytes: 256 * 1024,
            ..PoolSettings::default()
        },
    );
    let sending = pool.clone();
    let sender = tokio::spawn(async move {
        for number in 0..1500 {
            sending.send_waiting(&frame(0..100, number)).await;
        }
    });
    until("the buffer is half full", || {
        pool.report().pending_bytes() > 100 * 1024
    })
    .await;
    assert!(!sender.is_finished());
    *doppler.seen.stalled.lock() = false;
    tokio::time::timeout(PATIENCE * 3, sender)
        .await
        .unwrap()
        .unwrap();
    let report = pool.close(PATIENCE).await;
    check_balance(&report);
    assert_eq!(
        (report.total().delivered, report.total().dropped_total()),
        (150_000, 0)
    );
    assert_eq!(doppler.seen.envelopes(), 150_000);
}

#[tokio::test]
async fn an_emitter_sends_tags_counts_and_closes() {
    let agent = FakeDoppler::start();
    let mut config = EmitterConfig::new(&agent.addr.to_string(), None);
    config.connector = connector();
    config.tags = vec![
        ("deployment".to_owned(), "cf".to_owned()),
        ("own".to_owned(), "no".to_owned()),
    ];
    let emitter = Emitter::new(config);
    for number in 0..250 {
        emitter
            .emit(
                message::log(number.to_string())
                    .source("a", "0")
                    .tag("own", "yes"),
            )
            .await
            .unwrap();
    }
    emitter.try_emit(message::counter("c", 1)).unwrap();
    let stats = emitter.close(PATIENCE).await;
    assert_eq!(
        (stats.emitted, stats.sent, stats.dropped, stats.pending),
        (251, 251, 0, 0)
    );
    assert_eq!(
        agent.seen.payloads()[..250],
        (0..250).map(|n| n.to_string()).collect::<Vec<_>>()
    );
    let first = agent.seen.batches.lock()[0].batch[0].clone();
    assert_eq!(
        (
            first.tags["deployment"].as_str(),
            first.tags["own"].as_str()
        ),
        ("cf", "yes")
    );
    assert_eq!(
        emitter.try_emit(message::log("late")),
        Err(EmitError::Closed)
    );
    assert_eq!(emitter.stats().dropped, 1);
}

#[tokio::test]
async fn an_emitter_without_an_agent_refuses_or_waits() {
    let mut agent = FakeDoppler::start();
    let addr = agent.addr;
    agent.kill();
    let mut config = EmitterConfig::new(&addr.to_string(), None);
    config.connector = connector();
    config.pool.buffer_bytes = 1000;
    let emitter = Emitter::new(config);
    let line = || message::log(vec![b'x'; 90]).source("a", "0");
    let mut taken = 0;
    while emitter.try_emit(line()).is_ok() {
        taken += 1;
    }
    assert!((5..=10).contains(&taken));
    let waiting = emitter.clone();
    let emitting = tokio::spawn(async move { waiting.emit(line()).await });
    let back = FakeDoppler::at(addr, &[]);
    emitting.await.unwrap().unwrap();
    let stats = emitter.close(PATIENCE).await;
    assert_eq!(
        (stats.emitted, stats.sent, stats.dropped),
        (taken + 2, taken + 1, 1)
    );
    assert_eq!(back.seen.envelopes() as u64, taken + 1);
}

#[tokio::test]
async fn several_streams_keep_each_source_in_order() {
    let doppler = FakeDoppler::start();
    let pool = pool(
        &[&doppler],
        PoolSettings {
            streams: 3,
            ..PoolSettings::default()
        },
    );
    for number in 0..50 {
        pool.send(&frame(0..20, number));
    }
    let report = pool.close(PATIENCE).await;
    check_balance(&report);
    assert_eq!(report.links.len(), 3);
    assert!(report.links.iter().all(|l| l.counts.delivered > 0));
    let all = doppler.seen.payloads();
    assert_eq!(all.len(), 1000);
    for source in 0..20 {
        let lines: Vec<u32> = all
            .iter()
            .filter_map(|p| p.strip_prefix(&format!("{source}:"))?.parse().ok())
            .collect();
        assert!(lines.is_sorted(), "source {source}");
    }
}
