//! What a nozzle shows of itself: how fast it may, what its filters do, what was lost before it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the report

#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::time::Duration;

use loggregator_nozzle::compliance::{Behaviour, Peer as _};
use loggregator_proto::v2;
use tokio::time::Instant;

use support::Scripted;
use support::nozzle::{Nozzle, PATIENCE, file, line};

/// The value of a series, if it is there.
fn metric(nozzle: &Nozzle, series: &str) -> Option<f64> {
    let page = nozzle.running.metrics().encode();
    let values = page.lines().filter_map(|line| line.strip_prefix(series));
    values.filter_map(|value| value.trim().parse().ok()).next()
}

async fn until_metric(nozzle: &Nozzle, series: &str, met: impl Fn(Option<f64>) -> bool) {
    let since = Instant::now();
    while !met(metric(nozzle, series)) {
        let page = nozzle.running.metrics().encode();
        assert!(since.elapsed() < PATIENCE, "{series} in\n{page}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_holds_back_and_says_how_long() {
    let peer = Scripted::new(1);
    let more = "rate = { events = 200 }\nbatch = { events = 100, linger = \"1ms\" }";
    let text = file(&peer, "", "").replace("batch.linger = \"1ms\"\n", &format!("{more}\n"));
    let nozzle = Nozzle::start(&text).await;
    let held = "loggregator_nozzle_rate_held_seconds_total{destination=\"d\"}";
    let begun = Instant::now();
    nozzle.feed(500);
    let settled = nozzle.settled("d", 500).await;
    // A bucket that was full lets 200 pass at once; the batch that empties it is the last one before the debt is paid.
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(900), "{took:?}");
    assert_eq!(settled.delivered, 500);
    let held = metric(&nozzle, held).unwrap();
    assert!(held > 0.9 && held <= took.as_secs_f64(), "{held}");
    nozzle.lifecycle.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_rate_nothing_is_held_back() {
    let peer = Scripted::new(1);
    let nozzle = Nozzle::start(&file(&peer, "", "")).await;
    peer.behave(Behaviour::Fail(3)).await;
    nozzle.feed(5000);
    nozzle.settled("d", 5000).await;
    let held = "loggregator_nozzle_rate_held_seconds_total{destination=\"d\"}";
    assert_eq!(metric(&nozzle, held), Some(0.0));
    nozzle.lifecycle.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_batches_go_at_a_time_when_they_are_confirmed_and_fewer_when_they_are_not() {
    let peer = Scripted::new(4);
    let limit = "loggregator_nozzle_concurrency_limit{destination=\"d\"}";
    let text = file(&peer, "", "").replace("batch.linger", "batch.events = 10\nbatch.linger");
    let nozzle = Nozzle::start(&text).await;
    until_metric(&nozzle, limit, |limit| limit == Some(1.0)).await;
    peer.behave(Behaviour::Slow(Duration::from_millis(2))).await;
    let mut fed = 0;
    let since = Instant::now();
    while metric(&nozzle, limit) < Some(4.0) {
        assert!(since.elapsed() < PATIENCE);
        nozzle.feed(1000);
        fed += 1000;
        nozzle.settled("d", fed).await;
    }
    peer.behave(Behaviour::Away).await;
    nozzle.feed(1000);
    until_metric(&nozzle, limit, |limit| limit < Some(4.0)).await;
    peer.behave(Behaviour::Healthy).await;
    assert_eq!(nozzle.settled("d", fed + 1000).await.delivered, fed + 1000);
    nozzle.lifecycle.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_holds_for_nothing_or_for_everything_is_suspect() {
    let peer = Scripted::new(1);
    for (filter, matched) in [("app == \"shpo\"", "none"), ("app == \"shop\"", "all")] {
        let nozzle = Nozzle::start(&file(&peer, "", &format!("filter = '{filter}'"))).await;
        let suspect =
            format!("loggregator_nozzle_filter_suspect{{destination=\"d\",matched=\"{matched}\"}}");
        nozzle.feed(9_999);
        nozzle.settled("d", 9_999).await;
        assert_eq!(metric(&nozzle, &suspect), None);
        nozzle.feed(1);
        nozzle.settled("d", 10_000).await;
        assert_eq!(metric(&nozzle, &suspect), Some(1.0));
        nozzle.lifecycle.shutdown(PATIENCE).await;
    }
    let nozzle = Nozzle::start(&file(&peer, "", "filter = 'text == \"line 1\"'")).await;
    nozzle.feed(20_000);
    nozzle.settled("d", 20_000).await;
    let page = nozzle.running.metrics().encode();
    assert!(!page.contains("filter_suspect{"), "{page}");
    nozzle.lifecycle.shutdown(PATIENCE).await;
}

fn told_lost(origin: &str, direction: &str, delta: u64) -> v2::Envelope {
    v2::Envelope {
        tags: [
            ("origin".to_owned(), origin.to_owned()),
            ("direction".to_owned(), direction.to_owned()),
        ]
        .into(),
        message: Some(v2::envelope::Message::Counter(v2::Counter {
            name: "dropped".to_owned(),
            delta,
            total: delta,
        })),
        ..line(0, "doppler")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_before_it_came_here_is_in_the_ledger_and_in_the_metrics() {
    let peer = Scripted::new(1);
    let nozzle = Nozzle::start(&file(&peer, "", "filter = 'kind == \"log\"'")).await;
    nozzle.feed.push(&[
        told_lost("loggregator.doppler", "egress", 7),
        told_lost("loggregator.doppler", "egress", 0),
        told_lost("loggregator.doppler", "egress", 5),
        told_lost("loggregator.rlp", "egress", 3),
        // Neither of these was for this nozzle.
        told_lost("loggregator.doppler", "ingress", 100),
        told_lost("some.app", "egress", 1000),
        line(1, "app"),
    ]);
    assert_eq!(nozzle.settled("d", 7).await.delivered, 1);
    let report = nozzle.running.report();
    let lost: Vec<_> = report.lost_upstream.into_iter().collect();
    assert_eq!(
        lost,
        [
            ("loggregator.doppler".to_owned(), 12),
            ("loggregator.rlp".to_owned(), 3)
        ]
    );
    let series = "loggregator_nozzle_upstream_lost_envelopes_total{origin=\"loggregator.doppler\"}";
    assert_eq!(metric(&nozzle, series), Some(12.0));
    nozzle.lifecycle.shutdown(PATIENCE).await;
}
