//! One reader's slowness is its own.

use super::at_rest;
use loggregator_client::Selectors;
use loggregator_testkit::{Consumer, Pipeline, eventually};

const READERS: usize = 3;

/// Scenario: a firehose stops reading while far more than its share of the log goes by, beside three that read; then
/// reads on. One of the sources is quiet.
/// Guarantee: the three lose nothing; the stopped one is told exactly how many it lost; its row balances.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_firehose_costs_only_itself_and_knows_its_loss() {
    // The smallest log that there is, so that a debug build can lap it.
    let pipeline = Pipeline::builder()
        .tune_doppler(|config| {
            config.log_bytes = 32 << 20;
            config.max_message = 1 << 20;
        })
        .start()
        .await
        .unwrap();
    let stopped = pipeline
        .v2(Selectors::everything().shard("stopped"))
        .await
        .unwrap();
    let mut readers: Vec<Consumer> = Vec::new();
    for index in 0..READERS {
        readers.push(
            pipeline
                .v2(Selectors::everything().shard(&format!("reader-{index}")))
                .await
                .unwrap(),
        );
    }
    let mut noise = pipeline
        .load_to_doppler(0, &["noise-1", "noise-2", "noise-3"])
        .unwrap()
        .padded(2_000);
    let mut quiet = pipeline.load_to_doppler(0, &["quiet"]).unwrap();
    noise.send(1_000).await.unwrap();
    eventually("everybody reads", async || {
        readers
            .iter()
            .chain([&stopped])
            .all(|reader| reader.lines() >= 1_000)
    })
    .await;

    stopped.pause();
    let lost = |pipeline: &Pipeline| {
        let report = pipeline.doppler_report(0);
        report
            .subscriptions
            .iter()
            .find(|row| row.id == "stopped")
            .map_or(0, |row| row.dropped_total())
    };
    while lost(&pipeline) == 0 {
        noise.send(5_000).await.unwrap();
        quiet.send(1).await.unwrap();
        // Whoever reads keeps up with the emitter here: the log holds a fraction of this.
        let sent = noise.accepted() + quiet.accepted();
        eventually("the readers keep up", async || {
            readers.iter().all(|reader| reader.lines() >= sent)
        })
        .await;
        assert!(sent < 200_000, "the log is never full");
    }
    stopped.resume();
    quiet.send(1).await.unwrap();

    let sent = noise.accepted() + quiet.accepted();
    eventually("the stopped one has or knows everything", async || {
        stopped.lines() + stopped.told_lost() >= sent
    })
    .await;
    at_rest(&pipeline).await;
    for reader in &readers {
        let checker = reader.checker();
        assert_eq!(
            (checker.lines(), checker.out_of_order(), checker.told_lost),
            (sent, 0, 0),
            "{checker}"
        );
    }
    let checker = stopped.checker();
    assert_eq!(checker.lines() + checker.told_lost, sent, "{checker}");
    assert_eq!(checker.out_of_order(), 0, "{checker}");
    assert_eq!(checker.told_lost, lost(&pipeline));
}
