//! From the reverse log proxy's gateway.

use std::time::Duration;

use loggregator_testkit::{Pipeline, TOKEN, eventually};

use super::reader::{Reader, Received, select};

const SOURCES: [&str; 2] = ["a", "b"];

fn config(pipeline: &Pipeline, scheme: &str) -> String {
    let (addr, ca) = (pipeline.gateway.running().addr, pipeline.certs.ca());
    format!("[gateway]\nurl = \"{scheme}://{addr}\"\nca_file = {ca:?}\ntoken = \"{TOKEN}\"\n")
}

async fn stands(pipeline: &Pipeline, reader: &Reader) {
    reader.stands().await;
    eventually("the doppler is subscribed at", async || {
        pipeline.open_subscriptions("v2") == 1
    })
    .await;
}

/// Scenario: responses end after a second, under load.
/// Guarantee: the nozzle gets every line once and in order over any number of them: the subscription outlives its response.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responses_that_end_cost_nothing() {
    let pipeline = Pipeline::builder()
        .tune_gateway(|config| config.stream_timeout = Duration::from_secs(1))
        .start()
        .await
        .unwrap();
    let received = Received::default();
    let reader = Reader::start(&config(&pipeline, "http"), &select(""), &received).await;
    stands(&pipeline, &reader).await;
    let mut load = pipeline.load(&SOURCES).unwrap();
    let monitor = &reader.monitor;
    load.send_while(4_000, || monitor.status().reconnects < 3)
        .await
        .unwrap();
    received.exactly(load.accepted(), &SOURCES).await;
    assert_eq!(reader.monitor.status().malformed, 0);
    reader.stop().await;
}

/// Scenario: the gateway stops and comes back; lines are sent meanwhile. It speaks TLS and HTTP/2.
/// Guarantee: the nozzle gets every line once and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_comes_back_costs_nothing() {
    let mut pipeline = Pipeline::start().await.unwrap();
    let files = pipeline.certs.tls("trafficcontroller");
    pipeline.gateway.stop(Duration::from_secs(20)).await;
    pipeline.gateway.config_mut().listen_tls = Some((files.cert, files.key));
    pipeline.gateway.restart().await.unwrap();

    let received = Received::default();
    let reader = Reader::start(&config(&pipeline, "https"), &select(""), &received).await;
    stands(&pipeline, &reader).await;
    let mut load = pipeline.load(&SOURCES).unwrap();
    load.send(2_000).await.unwrap();
    received.exactly(2_000, &SOURCES).await;
    pipeline.gateway.stop(Duration::from_secs(20)).await;
    load.send(2_000).await.unwrap();
    pipeline.gateway.restart().await.unwrap();
    received.exactly(4_000, &SOURCES).await;
    reader.stop().await;
}

/// Scenario: two members of a shard group select kinds and sources.
/// Guarantee: together they get what they ask for, once, and nothing else; each gets its part in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_share_what_they_select() {
    let pipeline = Pipeline::start().await.unwrap();
    let some = select("kinds = [\"log\"]\nsource_ids = [\"b\", \"c\"]");
    let config = config(&pipeline, "http");
    let received = [Received::default(), Received::default()];
    let readers = [
        Reader::start(&config, &some, &received[0]).await,
        Reader::start(&config, &some, &received[1]).await,
    ];
    eventually("both are members", async || {
        pipeline.open_subscriptions("v2") == 2
    })
    .await;
    let mut load = pipeline.load(&["a", "b", "c"]).unwrap();
    load.send(999).await.unwrap();
    let lines = || {
        received
            .iter()
            .map(|one| one.checker().lines())
            .sum::<u64>()
    };
    eventually("all lines are there", async || lines() >= 666).await;
    for one in &received {
        let checker = one.checker();
        assert_eq!(
            (checker.out_of_order(), checker.told_lost),
            (0, 0),
            "{checker}"
        );
        assert_eq!(checker.of("a").lines, 0);
    }
    for reader in readers {
        reader.stop().await;
    }
    assert_eq!(lines(), 666);
}
