//! From the traffic controller's firehose.

use std::time::Duration;

use loggregator_testkit::{Pipeline, TOKEN, eventually};

use super::reader::{Reader, Received, select};

const SOURCES: [&str; 2] = ["a", "b"];

fn config(pipeline: &Pipeline, token: &str) -> String {
    let addr = pipeline.web.running().addr;
    format!(
        "[websocket]\nurl = \"wss://{addr}\"\nca_file = {:?}\ntoken = \"{token}\"\n",
        pipeline.certs.ca()
    )
}

/// Scenario: the traffic controller stops and comes back; lines are sent meanwhile.
/// Guarantee: the nozzle gets every line once and in order, many messages in a batch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_traffic_controller_that_comes_back_costs_nothing() {
    let mut pipeline = Pipeline::start().await.unwrap();
    let received = Received::default();
    let reader = Reader::start(&config(&pipeline, TOKEN), &select(""), &received).await;
    reader.stands().await;
    eventually("the doppler is subscribed at", async || {
        pipeline.open_subscriptions("v1") == 1
    })
    .await;
    let mut load = pipeline.load(&SOURCES).unwrap();
    load.send(2_000).await.unwrap();
    received.exactly(2_000, &SOURCES).await;

    pipeline.web.stop(Duration::from_secs(20)).await;
    load.send(2_000).await.unwrap();
    pipeline.web.restart().await.unwrap();
    received.exactly(4_000, &SOURCES).await;
    let status = reader.monitor.status();
    assert!(
        status.reconnects >= 1 && status.malformed == 0,
        "{status:?}"
    );
    reader.stop().await;
}

/// Scenario: a nozzle wants the logs of one source; a WebSocket can select logs, and no source.
/// Guarantee: it gets these and nothing else, and the rest is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_traffic_controller_cannot_leave_out_is_left_out_here() {
    let pipeline = Pipeline::start().await.unwrap();
    let received = Received::default();
    let some = select("kinds = [\"log\"]\nsource_ids = [\"b\"]");
    let reader = Reader::start(&config(&pipeline, TOKEN), &some, &received).await;
    reader.stands().await;
    eventually("the doppler is subscribed at", async || {
        pipeline.open_subscriptions("v1") == 1
    })
    .await;
    let mut load = pipeline.load(&["a", "b", "c"]).unwrap();
    load.send(999).await.unwrap();
    received.exactly(333, &["b"]).await;
    let count = "\nloggregator_nozzle_intake_not_selected_total 666\n";
    eventually("the rest is counted", async || {
        reader.metrics.encode().contains(count)
    })
    .await;
    reader.stop().await;
}

/// Scenario: the token is refused, then the traffic controller learns it.
/// Guarantee: the nozzle keeps trying and says why; it never shows the token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_token_is_tried_again() {
    let pipeline = Pipeline::start().await.unwrap();
    let received = Received::default();
    let file = pipeline.certs.dir().join("nozzle-token");
    std::fs::write(&file, "bearer wrong-token\n").unwrap();
    let addr = pipeline.web.running().addr;
    let config = format!(
        "[websocket]\nurl = \"wss://{addr}\"\nca_file = {:?}\ntoken = {{ file = {file:?} }}\n",
        pipeline.certs.ca()
    );
    let reader = Reader::start(&config, &select(""), &received).await;
    eventually("it is refused", async || {
        reader.monitor.status().reconnects > 0
    })
    .await;
    let error = reader.monitor.status().last_error.unwrap();
    let expected =
        "the server refused the token (401): You are not authorized. invalid authorization";
    assert_eq!(error, expected);
    std::fs::write(&file, TOKEN).unwrap();
    reader.stands().await;
    reader.stop().await;
}
