//! Each process killed and started again under load; the ledger's equation after each.

use super::at_rest;
use loggregator_client::Selectors;
use loggregator_client::ws::Subject;
use loggregator_testkit::{Pipeline, assert_ledger_balanced, eventually};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const PER_SECOND: u32 = 4_000;
const SOURCES: [&str; 3] = ["a", "b", "c"];

/// A load that runs in the background until told to stop.
pub struct Background {
    running: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<loggregator_testkit::Load>,
}

impl Background {
    pub fn start(mut load: loggregator_testkit::Load) -> Self {
        let running = Arc::new(AtomicBool::new(true));
        let still = Arc::clone(&running);
        let task = tokio::spawn(async move {
            while still.load(Ordering::Relaxed) {
                // A batch that fails is in doubt; the emitter goes on.
                let _failed = load
                    .send_while(PER_SECOND, || still.load(Ordering::Relaxed))
                    .await
                    .is_err();
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            load
        });
        Self { running, task }
    }

    /// One that was stopped.
    pub fn ended(load: loggregator_testkit::Load) -> Self {
        let running = Arc::default();
        let task = tokio::spawn(async move { load });
        Self { running, task }
    }

    pub async fn stop(self) -> loggregator_testkit::Load {
        self.running.store(false, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// Scenario: the doppler is killed under load and comes back.
/// Guarantee: readers go on by themselves; nothing twice, nothing out of order; what is missing is no more than what
/// the agent counts as lost or in doubt plus what the dead doppler held; every ledger balances.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_doppler_comes_back() {
    let mut pipeline = Pipeline::start().await.unwrap();
    let v2 = pipeline.v2(Selectors::everything()).await.unwrap();
    let web = pipeline
        .web(Subject::Firehose {
            id: "web".to_owned(),
            filter: None,
        })
        .await
        .unwrap();
    let load = Background::start(pipeline.load(&SOURCES).unwrap());
    eventually("lines flow", async || v2.lines() > 500 && web.lines() > 500).await;

    pipeline.dopplers[0].kill().await;
    let died = (v2.lines(), web.lines());
    let before = pipeline.doppler_report(0);
    pipeline.dopplers[0].restart().await.unwrap();
    eventually("lines flow again", async || {
        v2.lines() > died.0 + 1_000 && web.lines() > died.1 + 1_000
    })
    .await;
    let load = load.stop().await;
    assert_eq!(load.in_doubt(), 0, "the agent never stopped taking lines");
    at_rest(&pipeline).await;
    assert_ledger_balanced(std::slice::from_ref(&before));

    let after = pipeline.doppler_report(0);
    let agent = pipeline.agent_report().await.unwrap();
    assert_eq!(agent.ingress.accepted, load.accepted());
    // What the agent handed over is what the two lives of the doppler took in, but for what died on the wire.
    let sent: u64 = agent.subscriptions.iter().map(|row| row.delivered).sum();
    let taken = before.ingress.accepted + after.ingress.accepted;
    assert!(taken <= sent, "{taken} taken in, {sent} sent");
    for reader in [v2.checker(), web.checker()] {
        assert_eq!(reader.out_of_order(), 0, "{reader}");
        assert!(reader.lines() <= taken, "{reader}");
    }
}

/// Scenario: the agent is killed under load and comes back.
/// Guarantee: readers and dopplers do not notice but for the pause; lines that the emitter saw accepted are either
/// delivered or were in the dead agent's buffer; every ledger balances.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_agent_comes_back() {
    let mut pipeline = Pipeline::start().await.unwrap();
    let v2 = pipeline.v2(Selectors::everything()).await.unwrap();
    let load = Background::start(pipeline.load(&SOURCES).unwrap());
    eventually("lines flow", async || v2.lines() > 500).await;
    pipeline.agent.kill().await;
    let first = pipeline.agent.running().ledger.report();
    pipeline.agent.restart().await.unwrap();
    let died = v2.lines();
    eventually("lines flow again", async || v2.lines() > died + 1_000).await;
    let load = load.stop().await;
    eventually("all is read", async || {
        v2.lines() == pipeline.doppler_report(0).ingress.accepted
    })
    .await;
    at_rest(&pipeline).await;
    let checker = v2.checker();
    assert_eq!(
        (checker.out_of_order(), checker.told_lost),
        (0, 0),
        "{checker}"
    );
    assert!(
        checker.lines() <= load.accepted() + load.in_doubt(),
        "{checker}"
    );
    // Every answered batch was counted by one of the agent's two lives, and by only one.
    let second = pipeline.agent_report().await.unwrap();
    let accepted = first.ingress.accepted + second.ingress.accepted;
    assert!(
        (load.accepted()..=load.accepted() + load.in_doubt()).contains(&accepted),
        "{accepted} accepted"
    );
    // What arrived, the lives handed over; what they did not, the first one took with it.
    let handed_over: u64 = [&first, &second]
        .iter()
        .flat_map(|life| &life.subscriptions)
        .map(|row| row.delivered)
        .sum();
    assert!(
        checker.lines() <= handed_over && handed_over <= accepted,
        "{checker}{handed_over} of {accepted}"
    );
    assert_ledger_balanced(std::slice::from_ref(&first));
}

/// Scenario: the traffic controller is killed under load and comes back.
/// Guarantee: the WebSocket client connects again and goes on where its subscription id stopped, but for what was on
/// its way; a reader at the doppler notices nothing; every ledger balances.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_traffic_controller_comes_back() {
    let mut pipeline = Pipeline::start().await.unwrap();
    let v2 = pipeline.v2(Selectors::everything()).await.unwrap();
    let web = pipeline
        .web(Subject::Firehose {
            id: "nozzle".to_owned(),
            filter: None,
        })
        .await
        .unwrap();
    let load = Background::start(pipeline.load(&SOURCES).unwrap());
    eventually("lines flow", async || web.lines() > 500 && v2.lines() > 500).await;
    pipeline.web.kill().await;
    pipeline.web.restart().await.unwrap();
    eventually("the client is back", async || web.reconnects() >= 1).await;
    let died = web.lines();
    eventually("lines flow again", async || web.lines() > died + 1_000).await;
    let load = load.stop().await;
    eventually("the other reader has everything", async || {
        v2.lines() == load.accepted()
    })
    .await;
    at_rest(&pipeline).await;
    assert_eq!((v2.checker().out_of_order(), v2.told_lost()), (0, 0));
    let checker = web.checker();
    assert_eq!(checker.out_of_order(), 0, "{checker}");
}

/// Scenario: the traffic controller is stopped in order under load, and started again; twice.
/// Guarantee: nothing is lost, not even what was on its way: a client with an id gets every line once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_traffic_controller_loses_nothing() {
    let mut pipeline = Pipeline::builder().dopplers(2).start().await.unwrap();
    let web = pipeline
        .web(Subject::Firehose {
            id: "nozzle".to_owned(),
            filter: None,
        })
        .await
        .unwrap();
    let load = Background::start(pipeline.load(&SOURCES).unwrap());
    for restart in 1..=2 {
        let before = web.lines();
        eventually("lines flow", async || web.lines() > before + 1_000).await;
        let stopped = pipeline.web.stop(std::time::Duration::from_secs(20)).await;
        assert!(stopped.finished(), "{stopped:?}");
        pipeline.web.restart().await.unwrap();
        eventually("the client is back", async || web.reconnects() >= restart).await;
    }
    let load = load.stop().await;
    assert_eq!(load.in_doubt(), 0, "the agent never stopped taking lines");
    eventually("it has everything", async || web.lines() >= load.accepted()).await;
    at_rest(&pipeline).await;
    let checker = web.checker();
    assert_eq!(
        (checker.lines(), checker.out_of_order(), checker.told_lost),
        (load.accepted(), 0, 0),
        "{checker}"
    );
}

/// Scenario: every process is stopped in order, agent first, while lines are on their way.
/// Guarantee: everything accepted is delivered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_stop_delivers_everything() {
    let mut pipeline = Pipeline::start().await.unwrap();
    let v2 = pipeline
        .v2(Selectors::everything().shard("v2"))
        .await
        .unwrap();
    let mut load = pipeline.load(&SOURCES).unwrap();
    load.send(10_000).await.unwrap();
    let deadline = std::time::Duration::from_secs(20);
    assert!(pipeline.agent.stop(deadline).await.finished());
    assert!(pipeline.dopplers[0].stop(deadline).await.finished());
    eventually("all is read", async || v2.lines() >= 10_000).await;
    let checker = v2.checker();
    assert_eq!(
        (checker.lines(), checker.out_of_order()),
        (10_000, 0),
        "{checker}"
    );
    assert_ledger_balanced(&[pipeline.doppler_report(0)]);
}
