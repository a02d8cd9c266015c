//! The path of an envelope, from agent to each kind of reader.

use super::{at_rest, v1_firehose};
use loggregator_client::Selectors;
use loggregator_client::ws::{Filter, Subject};
use loggregator_testkit::{Pipeline, eventually};

const SOURCES: [&str; 4] = ["web", "worker", "router", "api"];
const LINES: u64 = 8_000;

/// Scenario: a burst at the agent, a firehose of each kind.
/// Guarantee: each gets every line once and in order, and the ledgers say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_firehose_gets_everything_in_order() {
    let pipeline = Pipeline::start().await.unwrap();
    let v2 = pipeline
        .v2(Selectors::everything().shard("v2"))
        .await
        .unwrap();
    let v1 = pipeline.v1(&v1_firehose("v1")).await.unwrap();
    let web = pipeline
        .web(Subject::Firehose {
            id: "web".to_owned(),
            filter: None,
        })
        .await
        .unwrap();

    let mut load = pipeline.load(&SOURCES).unwrap();
    load.send(LINES).await.unwrap();
    for (name, reader) in [("v2", &v2), ("v1", &v1), ("web", &web)] {
        eventually(&format!("{name} has everything"), async || {
            reader.lines() >= LINES
        })
        .await;
        let checker = reader.checker();
        assert_eq!(
            (checker.lines(), checker.out_of_order(), checker.told_lost),
            (LINES, 0, 0),
            "{name}: {checker}"
        );
        for source in SOURCES {
            let arrived = checker.of(source);
            assert_eq!(
                (arrived.lines, arrived.gaps),
                (load.made(source), 0),
                "{name}, {source}"
            );
        }
        assert_eq!(reader.unreadable(), 0, "{name}");
    }
    at_rest(&pipeline).await;

    let agent = pipeline.agent_report().await.unwrap();
    assert_eq!(agent.ingress.accepted, LINES);
    let doppler = pipeline.doppler_report(0);
    assert_eq!(doppler.ingress.accepted, LINES);
    for row in doppler.subscriptions.iter().filter(|row| row.open) {
        assert_eq!((row.received, row.delivered), (LINES, LINES), "{row:?}");
    }
    let controller = pipeline.web_report().await.unwrap();
    let socket = controller
        .subscriptions
        .iter()
        .find(|row| row.open)
        .expect("the WebSocket's row");
    assert_eq!((socket.received, socket.delivered), (LINES, LINES));
}

/// Scenario: a tail of one source beside others' noise, by selector and by WebSocket.
/// Guarantee: it gets that source, all of it, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_gets_its_source_and_nothing_else() {
    let pipeline = Pipeline::start().await.unwrap();
    let v2 = pipeline
        .v2(Selectors::new().everything_of("web"))
        .await
        .unwrap();
    let web = pipeline.web(Subject::App("web".to_owned())).await.unwrap();
    let mut load = pipeline.load(&SOURCES).unwrap();
    load.send(LINES).await.unwrap();
    let wanted = load.made("web");
    for (name, reader) in [("v2", &v2), ("web", &web)] {
        eventually(&format!("{name} has its source"), async || {
            reader.lines() >= wanted
        })
        .await;
    }
    at_rest(&pipeline).await;
    for (name, reader) in [("v2", &v2), ("web", &web)] {
        let checker = reader.checker();
        assert_eq!(
            (checker.lines(), checker.of("web").gaps, checker.others),
            (wanted, 0, 0),
            "{name}: {checker}"
        );
    }
}

/// Scenario: a WebSocket with `filter-type=metrics` while only logs are sent.
/// Guarantee: it gets none of them, and one with `filter-type=logs` gets all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_firehoses_get_their_half() {
    let pipeline = Pipeline::start().await.unwrap();
    let half = |id: &str, filter| Subject::Firehose {
        id: id.to_owned(),
        filter: Some(filter),
    };
    let logs = pipeline.web(half("logs", Filter::Logs)).await.unwrap();
    let metrics = pipeline
        .web(half("metrics", Filter::Metrics))
        .await
        .unwrap();
    let mut load = pipeline.load(&["web"]).unwrap();
    load.send(500).await.unwrap();
    eventually("the logs are there", async || logs.lines() == 500).await;
    at_rest(&pipeline).await;
    assert_eq!((metrics.lines(), metrics.checker().others), (0, 0));
}
