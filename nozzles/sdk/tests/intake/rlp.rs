//! Over gRPC, from a reverse log proxy and from dopplers.

use std::time::Duration;

use loggregator_testkit::{Pipeline, eventually};
use tokio_util::sync::CancellationToken;

use super::reader::{Reader, Received, select};

const SOURCES: [&str; 2] = ["a", "b"];
const PATIENCE: Duration = Duration::from_secs(20);

fn config(pipeline: &Pipeline, addrs: &[String], server_name: &str) -> String {
    let tls = pipeline.certs.tls("client");
    format!(
        "[rlp]\naddrs = {addrs:?}\nserver_name = \"{server_name}\"\nca_file = {:?}\ncert_file = {:?}\nkey_file = {:?}\n",
        tls.ca, tls.cert, tls.key
    )
}

fn at_rlp(pipeline: &Pipeline) -> String {
    config(
        pipeline,
        &[pipeline.rlp.running().grpc_addr.to_string()],
        "reverselogproxy",
    )
}

/// Scenario: the reverse log proxy stops and comes back; lines are sent meanwhile.
/// Guarantee: the nozzle gets every line once and in order: the doppler kept its place by its name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reverse_log_proxy_that_comes_back_costs_nothing() {
    let mut pipeline = Pipeline::start().await.unwrap();
    let received = Received::default();
    let reader = Reader::start(&at_rlp(&pipeline), &select(""), &received).await;
    reader.stands().await;
    eventually("the doppler is subscribed at", async || {
        pipeline.open_subscriptions("v2") == 1
    })
    .await;
    let mut load = pipeline.load(&SOURCES).unwrap();
    load.send(2_000).await.unwrap();
    received.exactly(2_000, &SOURCES).await;

    pipeline.rlp.stop(PATIENCE).await;
    load.send(2_000).await.unwrap();
    pipeline.rlp.restart().await.unwrap();
    received.exactly(4_000, &SOURCES).await;
    let status = reader.monitor.status();
    assert!(
        status.reconnects >= 1 && status.last_error.is_some(),
        "{status:?}"
    );
    assert!(
        reader
            .metrics
            .encode()
            .contains("\nloggregator_nozzle_intake_streams 1\n")
    );
    reader.stop().await;
}

/// Scenario: the nozzle stops and comes back; lines are sent meanwhile.
/// Guarantee: as above.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nozzle_that_comes_back_goes_on_where_it_stopped() {
    let pipeline = Pipeline::start().await.unwrap();
    let received = Received::default();
    let mut load = pipeline.load(&SOURCES).unwrap();
    for life in 0..3 {
        let reader = Reader::start(&at_rlp(&pipeline), &select(""), &received).await;
        reader.stands().await;
        eventually("the doppler is subscribed at", async || {
            pipeline.open_subscriptions("v2") == 1
        })
        .await;
        load.send(1_000).await.unwrap();
        received.exactly(load.accepted(), &SOURCES).await;
        reader.stop().await;
        eventually("the doppler sees it leave", async || {
            pipeline.open_subscriptions("v2") == 0
        })
        .await;
        if life < 2 {
            load.send(1_000).await.unwrap();
        }
    }
    assert_eq!(load.accepted(), 5_000);
}

/// Scenario: the nozzle is stopped and started again three times while lines are sent without a pause.
/// Guarantee: it gets every line once and in order: what is under way at a stop is taken with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nozzle_that_is_restarted_under_load_loses_nothing() {
    let pipeline = Pipeline::start().await.unwrap();
    let received = Received::default();
    let stop = CancellationToken::new();
    let mut reader = Reader::start(&at_rlp(&pipeline), &select(""), &received).await;
    eventually("the doppler is subscribed at", async || {
        pipeline.open_subscriptions("v2") == 1
    })
    .await;
    let mut load = pipeline.load(&SOURCES).unwrap();
    let stopped = stop.clone();
    let sending = tokio::spawn(async move {
        load.send_while(5_000, || !stopped.is_cancelled())
            .await
            .unwrap();
        load.accepted()
    });
    for _ in 0..3 {
        let lines = received.checker().lines();
        eventually("lines come", async || {
            received.checker().lines() > lines + 1_000
        })
        .await;
        reader.stop().await;
        reader = Reader::start(&at_rlp(&pipeline), &select(""), &received).await;
    }
    stop.cancel();
    let sent = sending.await.unwrap();
    received.exactly(sent, &SOURCES).await;
    reader.stop().await;
}

/// Scenario: two dopplers without a reverse log proxy; one stops and comes back.
/// Guarantee: both are read; the other one's lines do not wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dopplers_are_read_without_a_proxy() {
    let mut pipeline = Pipeline::builder().dopplers(2).start().await.unwrap();
    let received = Received::default();
    let addrs: Vec<String> = pipeline
        .dopplers
        .iter()
        .map(|part| part.running().grpc_addr.to_string())
        .collect();
    let reader = Reader::start(
        &config(&pipeline, &addrs, "doppler"),
        &select(""),
        &received,
    )
    .await;
    eventually("both are subscribed at", async || {
        pipeline.open_subscriptions("v2") == 2
    })
    .await;
    let mut first = pipeline.load_to_doppler(0, &["a"]).unwrap();
    let mut second = pipeline.load_to_doppler(1, &["b"]).unwrap();
    first.send(500).await.unwrap();
    second.send(500).await.unwrap();
    received.exactly(1_000, &SOURCES).await;
    assert_eq!(reader.monitor.status().open, 2);

    pipeline.dopplers[0].stop(PATIENCE).await;
    eventually("one is away", async || reader.monitor.status().open == 1).await;
    second.send(500).await.unwrap();
    received.exactly(1_500, &SOURCES).await;
    pipeline.dopplers[0].restart().await.unwrap();
    eventually("both are read again", async || {
        pipeline.open_subscriptions("v2") == 2
    })
    .await;
    let mut first_again = pipeline.load_to_doppler(0, &["c"]).unwrap();
    first_again.send(500).await.unwrap();
    received.exactly(2_000, &["a", "b", "c"]).await;
    reader.stop().await;
}

/// Scenario: a nozzle selects kinds and sources.
/// Guarantee: nothing else leaves the doppler.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_selected_does_not_leave_the_doppler() {
    let pipeline = Pipeline::start().await.unwrap();
    let received = Received::default();
    let some = select("kinds = [\"log\"]\nsource_ids = [\"b\"]");
    let reader = Reader::start(&at_rlp(&pipeline), &some, &received).await;
    reader.stands().await;
    eventually("the doppler is subscribed at", async || {
        pipeline.open_subscriptions("v2") == 1
    })
    .await;
    let mut load = pipeline.load(&["a", "b", "c"]).unwrap();
    load.send(999).await.unwrap();
    received.exactly(333, &["b"]).await;
    let row = pipeline
        .doppler_report(0)
        .subscriptions
        .into_iter()
        .find(|row| row.id == "audit")
        .unwrap();
    assert_eq!((row.received, row.delivered), (333, 333));
    reader.stop().await;
}

/// Scenario: nothing comes for longer than the nozzle finds right.
/// Guarantee: its streams are opened again, it is counted, and nothing is lost by that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_opens_the_stream_again() {
    let pipeline = Pipeline::start().await.unwrap();
    let received = Received::default();
    let silence = Duration::from_millis(200);
    let reader = Reader::with_silence(&at_rlp(&pipeline), &select(""), &received, silence).await;
    eventually("it was silent", async || {
        reader.monitor.status().silences >= 2
    })
    .await;
    let mut load = pipeline.load(&SOURCES).unwrap();
    load.send(1_000).await.unwrap();
    received.exactly(1_000, &SOURCES).await;
    assert!(reader.monitor.status().last_received.is_some());
    reader.stop().await;
}
