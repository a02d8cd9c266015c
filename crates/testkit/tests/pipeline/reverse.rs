//! The way through the reverse log proxy and its gateway, whole and with each of its parts killed.

use super::at_rest;
use super::restarts::Background;
use loggregator_client::{EgressStream, Selectors};
use loggregator_service::ledger::Report;
use loggregator_testkit::{Consumer, Pipeline, assert_ledger_balanced, eventually, sum};

const SOURCES: [&str; 3] = ["a", "b", "c"];
const LINES: u64 = 6_000;
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(20);

/// What the open subscriptions of a component received and delivered.
fn open_rows(report: &Report) -> (u64, u64) {
    let sum = sum(report.subscriptions.iter().filter(|row| row.open));
    (sum.received, sum.delivered)
}

/// Scenario: a burst at the agent; a firehose at the reverse log proxy, one at the gateway.
/// Guarantee: each gets every line once and in order, and the ledgers of all components on the way say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxy_and_gateway_give_everything_in_order() {
    let pipeline = Pipeline::start().await.unwrap();
    let rlp = pipeline
        .rlp(Selectors::everything().shard("rlp"))
        .await
        .unwrap();
    let sse = pipeline.sse("log&shard_id=sse").await.unwrap();
    let mut load = pipeline.load(&SOURCES).unwrap();
    load.send(LINES).await.unwrap();
    for (name, reader) in [("rlp", &rlp), ("sse", &sse)] {
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
        assert_eq!(reader.unreadable(), 0, "{name}");
    }
    at_rest(&pipeline).await;
    // The gateway reads over gRPC here: the proxy has two readers, the gateway one.
    assert_eq!(
        open_rows(&pipeline.rlp_report().await.unwrap()),
        (2 * LINES, 2 * LINES)
    );
    assert_eq!(
        open_rows(&pipeline.gateway_report().await.unwrap()),
        (LINES, LINES)
    );
}

/// Scenario: a tail of one source at the gateway, beside others' noise.
/// Guarantee: it gets that source, all of it, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_at_the_gateway_gets_its_source_and_nothing_else() {
    let pipeline = Pipeline::start().await.unwrap();
    let sse = pipeline.sse("log&source_id=a").await.unwrap();
    let mut load = pipeline.load(&SOURCES).unwrap();
    load.send(LINES).await.unwrap();
    let wanted = load.made("a");
    eventually("it has its source", async || sse.lines() >= wanted).await;
    at_rest(&pipeline).await;
    let checker = sse.checker();
    assert_eq!(
        (checker.lines(), checker.of("a").gaps, checker.others),
        (wanted, 0, 0),
        "{checker}"
    );
}

/// Scenario: the same tail, many times, over gRPC.
/// Guarantee: the doppler sees one subscription; each reader gets everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_tails_share_one_subscription_at_the_doppler() {
    const TAILS: usize = 8;
    let pipeline = Pipeline::start().await.unwrap();
    let tail = || Selectors::new().everything_of("a");
    let mut readers = vec![pipeline.rlp(tail()).await.unwrap()];
    for _ in 1..TAILS {
        let stream = EgressStream::open(&pipeline.rlp_set().unwrap(), tail());
        readers.push(Consumer::v2(stream, 1).await.unwrap());
    }
    let mut load = pipeline.load(&SOURCES).unwrap();
    load.send(LINES).await.unwrap();
    let wanted = load.made("a");
    for reader in &readers {
        eventually("it has everything", async || reader.lines() >= wanted).await;
        let checker = reader.checker();
        assert_eq!(
            (checker.lines(), checker.out_of_order()),
            (wanted, 0),
            "{checker}"
        );
    }
    assert_eq!(pipeline.open_subscriptions("v2"), 1);
    at_rest(&pipeline).await;
    let tails = TAILS as u64;
    assert_eq!(
        open_rows(&pipeline.rlp_report().await.unwrap()),
        (tails * wanted, tails * wanted)
    );
}

/// A pipeline under load with a reader at the doppler, at the proxy and at the gateway.
struct UnderLoad {
    pipeline: Pipeline,
    doppler: Consumer,
    rlp: Consumer,
    sse: Consumer,
    load: Background,
}

impl UnderLoad {
    async fn start() -> Self {
        let pipeline = Pipeline::start().await.unwrap();
        let doppler = pipeline
            .v2(Selectors::everything().shard("doppler"))
            .await
            .unwrap();
        let rlp = pipeline
            .rlp(Selectors::everything().shard("rlp"))
            .await
            .unwrap();
        let sse = pipeline.sse("log&shard_id=sse").await.unwrap();
        let load = Background::start(pipeline.load(&SOURCES).unwrap());
        let this = Self {
            pipeline,
            doppler,
            rlp,
            sse,
            load,
        };
        this.flows("lines flow").await;
        this
    }

    /// Waits until a reader has lost its connection and made it again so often. On a busy machine it first reads what it has.
    async fn came_back(&self, reader: &Consumer, times: u64) {
        eventually("the reader is back", async || reader.reconnects() >= times).await;
    }

    /// Waits until each reader got some hundreds of lines more than now.
    async fn flows(&self, what: &str) {
        let readers = [&self.doppler, &self.rlp, &self.sse];
        let before = readers.map(Consumer::lines);
        eventually(what, async || {
            readers
                .iter()
                .zip(before)
                .all(|(reader, before)| reader.lines() > before + 500)
        })
        .await;
    }

    /// Stops the load; each reader got everything once, and every ledger balances.
    async fn complete(mut self) {
        let load = self.load.stop().await;
        for (name, reader) in [
            ("doppler", &self.doppler),
            ("rlp", &self.rlp),
            ("sse", &self.sse),
        ] {
            eventually(&format!("{name} has everything"), async || {
                reader.lines() >= load.accepted()
            })
            .await;
            assert_eq!(reader.told_lost(), 0, "{name}");
        }
        self.load = Background::ended(load);
        self.finish().await;
    }

    /// Stops the load; nothing came twice or out of order, and every ledger balances.
    async fn finish(self) {
        let load = self.load.stop().await;
        assert_eq!(load.in_doubt(), 0, "the agent never stopped taking lines");
        at_rest(&self.pipeline).await;
        for (name, reader) in [
            ("doppler", &self.doppler),
            ("rlp", &self.rlp),
            ("sse", &self.sse),
        ] {
            let checker = reader.checker();
            assert_eq!(checker.out_of_order(), 0, "{name}: {checker}");
            assert!(checker.lines() <= load.accepted(), "{name}: {checker}");
            assert_eq!(reader.unreadable(), 0, "{name}");
        }
        assert_ledger_balanced(&self.pipeline.reports().await.unwrap());
    }
}

/// Scenario: the reverse log proxy is killed under load and comes back.
/// Guarantee: its clients and the gateway's go on by themselves; the doppler's own reader loses nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_proxy_comes_back() {
    let mut all = UnderLoad::start().await;
    all.pipeline.rlp.kill().await;
    all.pipeline.rlp.restart().await.unwrap();
    all.came_back(&all.sse, 1).await;
    all.flows("lines flow again").await;
    assert_eq!(all.doppler.told_lost(), 0);
    all.finish().await;
}

/// Scenario: the reverse log proxy is stopped in order under load, and started again; twice.
/// Guarantee: nothing is lost, not even what was on its way: readers with an id get every line once, behind the gateway too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_proxy_loses_nothing() {
    let mut all = UnderLoad::start().await;
    for restart in 1..=2 {
        let stopped = all.pipeline.rlp.stop(DEADLINE).await;
        assert!(stopped.finished(), "{stopped:?}");
        all.pipeline.rlp.restart().await.unwrap();
        all.came_back(&all.rlp, restart).await;
        all.came_back(&all.sse, restart).await;
        all.flows("lines flow again").await;
    }
    all.complete().await;
}

/// Scenario: the gateway is stopped in order under load, and started again; twice.
/// Guarantee: as above; the proxy's other client notices nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_gateway_loses_nothing() {
    let mut all = UnderLoad::start().await;
    for restart in 1..=2 {
        let stopped = all.pipeline.gateway.stop(DEADLINE).await;
        assert!(stopped.finished(), "{stopped:?}");
        all.pipeline.gateway.restart().await.unwrap();
        all.came_back(&all.sse, restart).await;
        all.flows("lines flow again").await;
    }
    assert_eq!(all.rlp.reconnects(), 0);
    all.complete().await;
}

/// Scenario: the gateway is killed under load and comes back.
/// Guarantee: its client goes on; the proxy's other client notices nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_gateway_comes_back() {
    let mut all = UnderLoad::start().await;
    all.pipeline.gateway.kill().await;
    all.pipeline.gateway.restart().await.unwrap();
    all.came_back(&all.sse, 1).await;
    all.flows("lines flow again").await;
    assert_eq!((all.rlp.told_lost(), all.rlp.reconnects()), (0, 0));
    all.finish().await;
}

/// Scenario: the doppler is killed under load and comes back.
/// Guarantee: the streams of proxy and gateway stay open and go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_doppler_comes_back_behind_proxy_and_gateway() {
    let mut all = UnderLoad::start().await;
    all.pipeline.dopplers[0].kill().await;
    all.pipeline.dopplers[0].restart().await.unwrap();
    all.flows("lines flow again").await;
    assert_eq!((all.rlp.reconnects(), all.sse.reconnects()), (0, 0));
    all.finish().await;
}

/// Scenario: an orderly stop along the data path with everything on its way.
/// Guarantee: proxy and gateway bring what was accepted to their clients before they end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_stop_delivers_everything() {
    let pipeline = Pipeline::start().await.unwrap();
    let rlp = pipeline
        .rlp(Selectors::everything().shard("rlp"))
        .await
        .unwrap();
    let sse = pipeline.sse("log&shard_id=sse").await.unwrap();
    let mut load = pipeline.load(&SOURCES).unwrap();
    load.send(LINES).await.unwrap();
    pipeline.stop(std::time::Duration::from_secs(20)).await;
    for (name, reader) in [("rlp", &rlp), ("sse", &sse)] {
        eventually(&format!("{name} has everything"), async || {
            reader.lines() >= LINES
        })
        .await;
        assert_eq!(
            (reader.lines(), reader.checker().out_of_order()),
            (LINES, 0),
            "{name}"
        );
    }
}
