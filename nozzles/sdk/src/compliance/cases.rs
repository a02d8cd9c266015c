//! The cases.

use std::time::Duration;

use super::rig::Rig;
use super::{Behaviour, Peer, Subject};
use crate::kind::Rendered;

/// Envelopes of most cases: enough for several batches.
const SOME: u64 = 300;
/// What `Poison` looks for: the number of one event in the middle.
const POISONED: u64 = 137;

/// A case of the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Healthy,
    Retries,
    Away,
    Partial,
    Acknowledged,
    Poisoned,
    Full,
    Restart,
    Metrics,
}

impl Case {
    pub(super) const ALL: [Case; 9] = [
        Case::Healthy,
        Case::Retries,
        Case::Away,
        Case::Partial,
        Case::Acknowledged,
        Case::Poisoned,
        Case::Full,
        Case::Restart,
        Case::Metrics,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Case::Healthy => "healthy",
            Case::Retries => "retries",
            Case::Away => "away",
            Case::Partial => "partial",
            Case::Acknowledged => "acknowledged",
            Case::Poisoned => "poisoned",
            Case::Full => "full",
            Case::Restart => "restart",
            Case::Metrics => "metrics",
        }
    }

    /// What the peer must be able to do.
    pub(super) fn needs(self) -> Vec<Behaviour> {
        match self {
            Case::Healthy | Case::Metrics => vec![],
            Case::Retries => vec![Behaviour::Fail(3)],
            Case::Away | Case::Full => vec![Behaviour::Away],
            Case::Partial => vec![Behaviour::Partial(2)],
            Case::Acknowledged | Case::Restart => vec![SLOW],
            Case::Poisoned => vec![poison()],
        }
    }
}

const SLOW: Behaviour = Behaviour::Slow(Duration::from_millis(20));

fn poison() -> Behaviour {
    Behaviour::Poison(format!("event {POISONED:06}"))
}

pub(super) async fn run<P: Peer>(case: Case, subject: &Subject, peer: P) {
    match case {
        Case::Healthy => healthy(subject, peer).await,
        Case::Retries => retries(subject, peer).await,
        Case::Away => away(subject, peer).await,
        Case::Partial => partial(subject, peer).await,
        Case::Acknowledged => acknowledged(subject, peer).await,
        Case::Poisoned => poisoned(subject, peer).await,
        Case::Full => full(subject, peer).await,
        Case::Restart => restart(subject, peer).await,
        Case::Metrics => metrics(subject, peer).await,
    }
}

/// Batches of 20, so that there are several.
const SMALL: &str = "batch.events = 20";

async fn healthy<P: Peer>(subject: &Subject, peer: P) {
    let mut rig = Rig::start("healthy", subject, peer, "", SMALL).await;
    rig.feed(SOME);
    rig.settled().await;
    assert_eq!(rig.line().delivered, SOME, "healthy: {:?}", rig.line());
    rig.took(0..SOME).await;
    let by_number = |mut all: Vec<Rendered>| {
        all.sort_by_key(|one| rig.peer.number(one));
        let comparable = all.into_iter().map(|one| rig.peer.comparable(one));
        comparable.collect::<Vec<_>>()
    };
    let received = by_number(rig.peer.received().await);
    let mut rendered = by_number(rig.rendered(SOME));
    // Only what the peer can see is compared.
    for (rendered, received) in rendered.iter_mut().zip(&received) {
        let seen = |name: &str| received.fields.iter().any(|(seen, _)| *seen == name);
        rendered.fields.retain(|(name, _)| seen(name));
    }
    assert_eq!(
        received, rendered,
        "healthy: what was sent is what was rendered, once"
    );
    rig.stop().await;
}

async fn retries<P: Peer>(subject: &Subject, peer: P) {
    peer.behave(Behaviour::Fail(3)).await;
    let mut rig = Rig::start("retries", subject, peer, "", SMALL).await;
    rig.feed(SOME);
    rig.settled().await;
    assert_eq!(rig.line().delivered, SOME, "retries: {:?}", rig.line());
    rig.took(0..SOME).await;
    let retried = "loggregator_nozzle_retried_events_total{destination=\"subject\"";
    let metrics = rig.metrics();
    assert!(metrics.contains(retried), "retries are counted: {metrics}");
    rig.stop().await;
}

async fn away<P: Peer>(subject: &Subject, peer: P) {
    let mut rig = Rig::start("away", subject, peer, "", SMALL).await;
    rig.peer.behave(Behaviour::Away).await;
    rig.feed(SOME);
    rig.until("received", |line| line.received == SOME).await;
    let failed = "loggregator_nozzle_failures_total{destination=\"subject\"";
    loop {
        let metrics = rig.metrics();
        let failures = metrics
            .lines()
            .filter(|line| line.starts_with(failed) && !line.ends_with(" 0"))
            .count();
        assert_eq!(rig.line().delivered, 0, "away: {:?}", rig.line());
        if failures > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rig.peer.behave(Behaviour::Healthy).await;
    rig.settled().await;
    assert_eq!(rig.line().delivered, SOME, "away: {:?}", rig.line());
    rig.took(0..SOME).await;
    rig.stop().await;
}

async fn partial<P: Peer>(subject: &Subject, peer: P) {
    peer.behave(Behaviour::Partial(2)).await;
    let mut rig = Rig::start("partial", subject, peer, "", SMALL).await;
    rig.feed(SOME);
    rig.settled().await;
    assert_eq!(rig.line().delivered, SOME, "partial: {:?}", rig.line());
    rig.took(0..SOME).await;
    rig.stop().await;
}

async fn acknowledged<P: Peer>(subject: &Subject, peer: P) {
    peer.behave(SLOW).await;
    let mut rig = Rig::start("acknowledged", subject, peer, "", SMALL).await;
    rig.feed(SOME);
    loop {
        // In this order: what the cursor has passed was taken before.
        let delivered = rig.line().delivered;
        let mut taken = rig.numbers().await;
        taken.sort_unstable();
        taken.dedup();
        assert!(
            taken
                .iter()
                .copied()
                .take_while(|n| *n < delivered)
                .eq(0..delivered),
            "acknowledged: {delivered} count as delivered, taken are {taken:?}"
        );
        if delivered == SOME {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    rig.took(0..SOME).await;
    rig.stop().await;
}

async fn poisoned<P: Peer>(subject: &Subject, peer: P) {
    peer.behave(poison()).await;
    let mut rig = Rig::start("poisoned", subject, peer, "", SMALL).await;
    rig.feed(SOME);
    rig.settled().await;
    let line = rig.line();
    assert_eq!(
        (line.delivered, line.dead_lettered_total()),
        (SOME - 1, 1),
        "poisoned: {line:?}"
    );
    rig.took((0..SOME).filter(|n| *n != POISONED)).await;
    rig.stop().await;
}

/// Some hundred events fit.
const SMALL_BUFFER: &str = "[buffer.memory]\nmax_bytes = \"64KiB\"";

async fn full<P: Peer>(subject: &Subject, peer: P) {
    let mut rig = Rig::start("full", subject, peer, SMALL_BUFFER, SMALL).await;
    rig.peer.behave(Behaviour::Away).await;
    rig.feed(5000);
    let all = rig.fed();
    rig.until("received", |line| line.received == all).await;
    rig.peer.behave(Behaviour::Healthy).await;
    rig.settled().await;
    let line = rig.line();
    assert!(line.dropped_total() > 0, "full: {line:?}");
    assert_eq!(
        line.delivered + line.dropped_total(),
        all,
        "full: every event has one fate: {line:?}"
    );
    let mut taken = rig.numbers().await;
    taken.sort_unstable();
    taken.dedup();
    assert_eq!(taken.len() as u64, line.delivered, "full: {line:?}");
    rig.stop().await;
}

async fn restart<P: Peer>(subject: &Subject, peer: P) {
    peer.behave(SLOW).await;
    let path = peer.scratch().join("state");
    let disk = format!("[buffer.disk]\npath = {path:?}\nmax_bytes = \"64MiB\"");
    let mut rig = Rig::start("restart", subject, peer, &disk, SMALL).await;
    rig.feed(SOME);
    rig.until("received", |line| line.received == SOME).await;
    rig.until("begun", |line| line.delivered > 0).await;
    // The destination answers nothing more in time: the stop is in the middle of a batch.
    rig.peer
        .behave(Behaviour::Slow(Duration::from_secs(3600)))
        .await;
    rig.stop().await;
    rig.peer.behave(Behaviour::Healthy).await;
    rig.run().await;
    rig.until("delivered", |line| {
        line.received == SOME && line.pending == 0
    })
    .await;
    assert_eq!(rig.line().delivered, SOME, "restart: {:?}", rig.line());
    rig.took(0..SOME).await;
    rig.stop().await;
}

/// What an operator looks at when something does not arrive.
const REQUIRED: [&str; 13] = [
    "loggregator_nozzle_delivered_events_total",
    "loggregator_nozzle_delivered_bytes_total",
    "loggregator_nozzle_pending_events",
    "loggregator_nozzle_pending_bytes",
    "loggregator_nozzle_in_flight_batches",
    "loggregator_nozzle_concurrency_limit",
    "loggregator_nozzle_breaker_state",
    "loggregator_nozzle_batch_events_count",
    "loggregator_nozzle_batch_bytes_count",
    "loggregator_nozzle_delivery_seconds_count",
    "loggregator_nozzle_lag_seconds",
    "loggregator_nozzle_destination_received_events_total",
    "loggregator_nozzle_failures_total",
];

async fn metrics<P: Peer>(subject: &Subject, peer: P) {
    let mut rig = Rig::start("metrics", subject, peer, "", SMALL).await;
    rig.feed(SOME);
    rig.settled().await;
    let metrics = rig.metrics();
    for name in REQUIRED {
        let line = format!("{name}{{destination=\"subject\"");
        assert!(
            metrics.lines().any(|l| l.starts_with(&line)),
            "metrics: {name} is missing in\n{metrics}"
        );
    }
    rig.stop().await;
}
