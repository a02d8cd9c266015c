//! Dopplers that die, stay away and come back: what was lost is what the ledger says.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the report

mod support;

use std::time::Duration;

use loggregator_client::{Emitter, EmitterConfig, message};
use support::{Agent, Certificates, FakeDoppler, PATIENCE, until};

fn emitter(agent: &Agent) -> Emitter {
    let mut config = EmitterConfig::new(&agent.running.grpc_addr.to_string(), None);
    config.connector = agent.connector.clone();
    Emitter::new(config)
}

async fn emit(emitter: &Emitter, sources: u32, lines: u32) {
    for number in 0..lines {
        for source in 0..sources {
            let line = message::log(format!("{number} {}", "x".repeat(100)))
                .source(&format!("app-{source}"), "0");
            emitter.emit(line).await.unwrap();
        }
    }
    assert!(emitter.flush(PATIENCE).await);
}

#[tokio::test]
async fn a_doppler_that_is_away_costs_exactly_what_the_buffer_could_not_hold() {
    let certificates = Certificates::new();
    let mut doppler = FakeDoppler::start(&certificates);
    let addr = doppler.addr;
    let agent = Agent::start(&certificates, &[addr], |config| {
        config.buffer_bytes = 100 * 1024
    })
    .await;
    let emitter = emitter(&agent);
    emit(&emitter, 1, 10).await;
    until("the first ones arrive", || doppler.count() == 10).await;
    until("and are settled", || agent.ledger().3 == 0).await;

    doppler.kill();
    let dead = doppler.count();
    until("the agent has noticed", || {
        agent
            .running
            .ledger
            .report()
            .subscriptions
            .iter()
            .any(|doppler| !doppler.open)
    })
    .await;
    emit(&emitter, 1, 3000).await;
    until("the agent took them", || agent.ledger().0 == 3010).await;
    let (_, delivered, dropped, pending) = agent.ledger();
    assert!(dropped > 0 && pending > 0, "{dropped} {pending}");

    let back = FakeDoppler::at(addr, &certificates);
    until("the rest arrives", || back.count() == pending).await;
    until("the loss is told downstream", || {
        back.told("buffer_full") == dropped
    })
    .await;
    assert_eq!(
        back.lines("app-0")
            .last()
            .map(|l| l.split(' ').next().unwrap().to_owned())
            .as_deref(),
        Some("2999")
    );
    emitter.close(PATIENCE).await;
    assert!(agent.stop().await.finished());
    let (accepted, after, lost, left) = agent.ledger();
    assert_eq!((lost, left), (dropped, 0));
    assert_eq!(after - delivered, back.received.lock().len() as u64);
    assert_eq!(accepted, dead + dropped + back.received.lock().len() as u64);
}

#[tokio::test]
async fn one_of_two_dopplers_dies_under_load() {
    let certificates = Certificates::new();
    let (one, mut two) = (
        FakeDoppler::start(&certificates),
        FakeDoppler::start(&certificates),
    );
    let agent = Agent::start(&certificates, &[one.addr, two.addr], |_| {}).await;
    let emitter = emitter(&agent);
    let emitting = emitter.clone();
    let load = tokio::spawn(async move { emit(&emitting, 20, 500).await });
    until("both get something", || one.count() > 0 && two.count() > 0).await;
    two.kill();
    load.await.unwrap();
    emitter.close(PATIENCE).await;
    assert!(agent.stop().await.finished());
    let (accepted, delivered, dropped, pending) = agent.ledger();
    assert_eq!(
        (accepted, delivered, dropped, pending),
        (10_000, 10_000, 0, 0)
    );
    // What the dead one's connection had taken and it never read is lost; nobody can count it but the receivers.
    let arrived = one.count() + two.count();
    assert!(arrived <= 10_000);
    for source in 0..20 {
        let numbers = |doppler: &FakeDoppler| -> Vec<u32> {
            let lines = doppler.lines(&format!("app-{source}"));
            lines
                .iter()
                .map(|l| l.split(' ').next().unwrap().parse().unwrap())
                .collect()
        };
        let (early, late) = (numbers(&two), numbers(&one));
        assert!(early.is_sorted() && late.is_sorted());
        assert_eq!(
            late.last(),
            Some(&499),
            "the survivor has the newest of every source"
        );
    }
}

#[tokio::test]
async fn stopping_hands_on_what_was_taken_and_counts_what_nobody_takes() {
    let certificates = Certificates::new();
    let mut doppler = FakeDoppler::start(&certificates);
    let addr = doppler.addr;
    doppler.kill();
    let agent = Agent::start(&certificates, &[addr], |config| {
        config.drain_timeout = Duration::from_millis(300)
    })
    .await;
    let emitter = emitter(&agent);
    emit(&emitter, 1, 50).await;
    until("the agent took them", || agent.ledger().0 == 50).await;
    assert!(agent.stop().await.finished());
    assert_eq!(agent.ledger(), (50, 0, 50, 0));
    let report = agent.running.ledger.report();
    assert_eq!(
        report
            .subscriptions
            .iter()
            .map(|s| s.dropped["not_flushed"])
            .sum::<u64>(),
        50
    );
}
