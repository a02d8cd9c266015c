//! Exactly once from the buffer on.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use loggregator_nozzle::{Batch, Delivery, Event, Outcome};

use crate::support::{Subject, log, make_topic, read, shared, start};

const EVENTS: u64 = 30_000;
const BATCH: u64 = 50;
/// Says to a second process of this test where the broker is.
const CHILD: &str = "KAFKA_NOZZLE_CHILD";

fn section(address: &str, topic: &str) -> String {
    format!(
        "brokers = [\"{address}\"]\ntopic = \"{topic}\"\nvalue = \"text\"\ndelivery = \"exactly_once\"\nstall_timeout = \"20s\"\n"
    )
}

fn events(range: std::ops::Range<u64>) -> Vec<Event> {
    range
        .map(|n| log(n, &format!("source-{}", n % 3), n.to_string()))
        .collect()
}

/// A nozzle whose own cursor was never written down: all it knows is what the destination says.
async fn deliver_from_where_it_stopped(address: &str) {
    let subject = start(&section(address, "once"), "buffer-1").await;
    let mut next = subject.destination.resume().await.unwrap_or(0);
    println!("resumes at {next}");
    while next < EVENTS {
        let batch = events(next..(next + BATCH).min(EVENTS));
        subject.deliver_all(&batch).await;
        next += BATCH;
    }
    subject.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nozzle_that_is_killed_writes_every_event_exactly_once() {
    if let Ok(address) = std::env::var(CHILD) {
        return deliver_from_where_it_stopped(&address).await;
    }
    let Some(broker) = shared("exactly_once").await else {
        return;
    };
    let address = broker.address();
    make_topic(&address, "once", &[]).await;
    let child = |address: &str| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("exactly_once::a_nozzle_that_is_killed_writes_every_event_exactly_once")
            .env(CHILD, address)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut seen = 0;
    for kill in 1..=4 {
        let mut child = child(&address);
        // It has got further, so it is in the middle of the next transactions.
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let now = read(&address, "once").await.len();
            if now > seen {
                seen = now;
                break;
            }
            assert!(Instant::now() < deadline, "nothing arrives");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        println!("killed {kill} times, {seen} records");
    }
    assert!(
        seen > 0 && (seen as u64) < EVENTS,
        "{seen}: it was killed too late"
    );
    let ended = tokio::task::spawn_blocking(move || child(&address).wait().unwrap());
    assert!(ended.await.unwrap().success());
    let mut by_source: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for got in read(&broker.address(), "once").await {
        let of_source = by_source.entry(got.key.clone().unwrap()).or_default();
        of_source.push(got.text().parse().unwrap());
    }
    for source in 0..3 {
        let expected: Vec<u64> = (0..EVENTS).filter(|n| n % 3 == source).collect();
        assert_eq!(by_source[&format!("source-{source}")], expected);
    }
}

async fn once(subject: &Subject, events: Vec<Event>) -> Delivery {
    subject.destination.deliver(&Batch::new(events, 0)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_is_known_to_the_next_process_of_the_same_buffer_only() {
    let Some(broker) = shared("exactly_once").await else {
        return;
    };
    let address = broker.address();
    make_topic(&address, "resume", &[]).await;
    let section = section(&address, "resume");
    let first = start(&section, "buffer-2").await;
    assert_eq!(first.destination.resume().await, None);
    first.deliver_all(&events(0..10)).await;
    first.stop().await;
    let second = start(&section, "buffer-2").await;
    assert_eq!(second.destination.resume().await, Some(10));
    // They come again all the same; they are not written again.
    assert_eq!(once(&second, events(5..12)).await, Delivery::All);
    second.stop().await;
    let other = start(&section, "buffer-3").await;
    assert_eq!(other.destination.resume().await, None);
    other.stop().await;
    let mut got: Vec<u64> = read(&address, "resume")
        .await
        .iter()
        .map(|got| got.text().parse().unwrap())
        .collect();
    got.sort_unstable();
    assert_eq!(got, (0..12).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_is_fenced_and_stays_away() {
    let Some(broker) = shared("exactly_once").await else {
        return;
    };
    let address = broker.address();
    make_topic(&address, "zombie", &[]).await;
    let section = section(&address, "zombie");
    let zombie = start(&section, "buffer-4").await;
    zombie.deliver_all(&events(0..5)).await;
    let heir = start(&section, "buffer-4").await;
    assert_eq!(heir.destination.resume().await, Some(5));
    heir.deliver_all(&events(5..10)).await;
    // Fenced with its first transaction, and then because the heir has moved on.
    for _ in 0..3 {
        let delivery = once(&zombie, events(5..8)).await;
        assert_ne!(delivery, Delivery::All);
    }
    let delivery = once(&zombie, events(5..8)).await;
    let Delivery::Retry { why, .. } = delivery else {
        panic!("{delivery:?}");
    };
    assert_eq!(why.code, "fenced");
    heir.deliver_all(&events(10..12)).await;
    heir.stop().await;
    zombie.stop().await;
    assert_eq!(read(&address, "zombie").await.len(), 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_refused_does_not_cost_its_transaction() {
    let Some(broker) = shared("exactly_once").await else {
        return;
    };
    let address = broker.address();
    make_topic(&address, "refused", &[("max.message.bytes", "20000")]).await;
    let section = format!(
        "{}max_record_bytes = 50000\ncompression = \"none\"\nlinger = \"0s\"\n",
        section(&address, "refused")
    );
    let subject = start(&section, "buffer-5").await;
    let large = |n: u64, size: usize| log(n, "source-0", "x".repeat(size));
    let batch = [
        events(0..2),
        vec![large(2, 60_000)],
        events(3..5),
        // Only the broker knows that this one is too large: its transaction is aborted, and the others go again.
        vec![large(5, 30_000)],
        events(6..8),
    ]
    .concat();
    let outcomes = subject.deliver(&batch).await;
    let oversize: Vec<usize> = (0..batch.len())
        .filter(|i| matches!(outcomes[*i], Outcome::Oversize(_)))
        .collect();
    assert_eq!(oversize, [2, 5]);
    let mut got: Vec<u64> = read(&address, "refused")
        .await
        .iter()
        .map(|got| got.text().parse().unwrap())
        .collect();
    got.sort_unstable();
    assert_eq!(got, [0, 1, 3, 4, 6, 7]);
    let metrics = subject.metrics.encode();
    let aborted =
        "loggregator_nozzle_kafka_transactions_total{destination=\"events\",result=\"aborted\"} ";
    let aborted = metrics.split_once(aborted).unwrap().1;
    assert_ne!(aborted.lines().next(), Some("0"), "{metrics}");
    subject.stop().await;
}
