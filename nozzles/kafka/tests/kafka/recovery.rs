//! Brokers that go away and come back, and a client that has to be made anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use loggregator_nozzle::{Batch, Delivery, Event};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::broker::{Broker, installed};
use crate::support::{Got, log, make_topic, read, start};

/// First occurrences of each source's lines are in order, and all are there.
fn assert_complete_and_in_order(got: &[Got], events: u64, sources: u64) {
    let mut by_source: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for got in got {
        let of_source = by_source.entry(got.key.clone().unwrap()).or_default();
        let number = got.text().parse().unwrap();
        if !of_source.contains(&number) {
            of_source.push(number);
        }
    }
    for source in 0..sources {
        let expected: Vec<u64> = (0..events).filter(|n| n % sources == source).collect();
        assert_eq!(by_source[&format!("source-{source}")], expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_may_stop_and_be_killed_and_nothing_is_lost_or_out_of_order() {
    let Some(lib) = installed("recovery") else {
        return;
    };
    let mut broker = tokio::task::spawn_blocking(|| Broker::start(lib, ""))
        .await
        .unwrap();
    let address = broker.address();
    make_topic(&address, "bounce", &[]).await;
    let section = format!(
        "brokers = [\"{address}\"]\ntopic = \"bounce\"\nvalue = \"text\"\nstall_timeout = \"2s\"\n"
    );
    let subject = Arc::new(start(&section, "b1").await);
    let stop = Arc::new(AtomicBool::new(false));
    // Four batches at a time, as the framework has them: when one fails, all are awaited, and go again in order.
    let (deliverer, stopping) = (Arc::clone(&subject), Arc::clone(&stop));
    let delivering = tokio::spawn(async move {
        let mut next = 0;
        while !stopping.load(Ordering::Acquire) {
            let batch = |n: u64| -> Vec<Event> {
                let first = next + n * 50;
                (first..first + 50)
                    .map(|n| log(n, &format!("source-{}", n % 5), n.to_string()))
                    .collect()
            };
            let mut round: Vec<Vec<Event>> = (0..4).map(batch).collect();
            next += 200;
            for attempt in 0.. {
                let deliveries = stream::iter(round.into_iter().map(|events| {
                    let subject = Arc::clone(&deliverer);
                    async move {
                        let batch = Batch::new(events.clone(), attempt);
                        let each = match subject.destination.deliver(&batch).await {
                            Delivery::All => return Vec::new(),
                            Delivery::Each(each) => each,
                            Delivery::Retry { why, .. } => {
                                vec![loggregator_nozzle::Outcome::Retry(why); events.len()]
                            }
                            other => panic!("{other:?}"),
                        };
                        let undelivered = events.into_iter().zip(each).filter(|(_, outcome)| {
                            let retry = matches!(outcome, loggregator_nozzle::Outcome::Retry(_));
                            assert!(
                                retry || *outcome == loggregator_nozzle::Outcome::Delivered,
                                "{outcome:?}"
                            );
                            retry
                        });
                        undelivered.map(|(event, _)| event).collect()
                    }
                }));
                round = deliveries.buffered(4).collect().await;
                round.retain(|events| !events.is_empty());
                if round.is_empty() {
                    break;
                }
            }
        }
        next
    });
    let broker = tokio::task::spawn_blocking(move || {
        // Let some of it pass; the test holds wherever it is interrupted.
        std::thread::sleep(Duration::from_secs(2));
        broker.terminate();
        std::thread::sleep(Duration::from_secs(3));
        broker.run();
        std::thread::sleep(Duration::from_secs(2));
        broker.kill();
        broker.run();
        std::thread::sleep(Duration::from_secs(2));
        broker
    })
    .await
    .unwrap();
    stop.store(true, Ordering::Release);
    let events = delivering.await.unwrap();
    let got = read(&address, "bounce").await;
    println!("{} records of {events} events", got.len());
    assert_complete_and_in_order(&got, events, 5);
    // A broker that was killed may have forgotten what it had from this client: some may have come twice.
    assert!(got.len() as u64 >= events);
    Arc::into_inner(subject).unwrap().stop().await;
    drop(broker);
}

/// Of librdkafka's mock cluster, since no broker can be made to answer so.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_met_a_fatal_error_is_made_anew() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("fatal", 1, 1).unwrap();
    // May this client be an idempotent producer? Twice no, which is fatal for a client.
    let no = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    cluster.request_errors(RDKafkaApiKey::InitProducerId, &[no, no]);
    let address = cluster.bootstrap_servers();
    let section = format!("brokers = [\"{address}\"]\ntopic = \"fatal\"\nvalue = \"text\"\n");
    let subject = start(&section, "b1").await;
    let events: Vec<Event> = (0..50).map(|n| log(n, "s", n.to_string())).collect();
    subject.deliver_all(&events).await;
    let got: Vec<String> = read(&address, "fatal")
        .await
        .iter()
        .map(Got::text)
        .collect();
    let expected: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    assert_eq!(got, expected);
    let metrics = subject.metrics.encode();
    let restarts = "loggregator_nozzle_kafka_producer_restarts_total{destination=\"events\"} 2\n";
    assert!(metrics.contains(restarts), "{metrics}");
    subject.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn given_up_batches_are_not_sent_twice() {
    let Some(lib) = installed("recovery") else {
        return;
    };
    let mut broker = tokio::task::spawn_blocking(|| Broker::start(lib, ""))
        .await
        .unwrap();
    let address = broker.address();
    make_topic(&address, "given", &[]).await;
    let section = format!(
        "brokers = [\"{address}\"]\ntopic = \"given\"\nvalue = \"text\"\nstall_timeout = \"30s\"\n"
    );
    let subject = start(&section, "b1").await;
    subject.deliver_all(&[log(0, "s", "0")]).await;
    broker.terminate();
    let events: Vec<Event> = (1..100).map(|n| log(n, "s", n.to_string())).collect();
    // The framework's patience ends: the attempt is dropped, several times.
    for attempt in 0..3 {
        let batch = Batch::new(events.clone(), attempt);
        let delivering = subject.destination.deliver(&batch);
        tokio::time::timeout(Duration::from_millis(300), delivering)
            .await
            .expect_err("there is no broker");
    }
    let broker = tokio::task::spawn_blocking(move || {
        broker.run();
        broker
    })
    .await
    .unwrap();
    subject.deliver_all(&events).await;
    let got: Vec<String> = read(&address, "given")
        .await
        .iter()
        .map(Got::text)
        .collect();
    let expected: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    assert_eq!(got, expected);
    subject.stop().await;
    drop(broker);
}
