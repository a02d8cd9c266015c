//! Shard groups and named cursors.

use super::at_rest;
use loggregator_client::Selectors;
use loggregator_testkit::{Pipeline, eventually};

/// Scenario: two members share a firehose; one leaves while lines arrive, the other stays.
/// Guarantee: between them every line once; what the leaver had not taken, the other gets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_leaves_hands_its_share_over() {
    let pipeline = Pipeline::start().await.unwrap();
    let stays = pipeline
        .v2(Selectors::everything().shard("shared"))
        .await
        .unwrap();
    let leaves = pipeline
        .v2(Selectors::everything().shard("shared"))
        .await
        .unwrap();
    let mut load = pipeline.load_to_doppler(0, &["a", "b", "c"]).unwrap();
    load.send(6_000).await.unwrap();
    eventually("both have everything so far", async || {
        stays.lines() + leaves.lines() >= 6_000
    })
    .await;
    let (first, second) = (stays.lines(), leaves.lines());
    assert!(
        first > 1_000 && second > 1_000,
        "the shares are far from equal: {first} and {second}"
    );

    let gone = leaves.stop().await;
    eventually("the member has left", async || {
        let report = pipeline.doppler_report(0);
        report
            .subscriptions
            .iter()
            .filter(|row| row.id == "shared" && row.open)
            .count()
            == 1
    })
    .await;
    load.send(6_000).await.unwrap();
    eventually("the rest is with the one that stayed", async || {
        stays.lines() + gone.lines() >= 12_000
    })
    .await;
    at_rest(&pipeline).await;
    let stayed = stays.checker();
    assert_eq!(stayed.lines() + gone.lines(), 12_000, "{stayed}{gone}");
    assert_eq!(stayed.told_lost + gone.told_lost, 0);
}

/// Scenario: a reader with a subscription id goes away, lines arrive, it comes back within the grace period.
/// Guarantee: it goes on where it stopped: nothing is missing, nothing comes twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_cursor_goes_on_where_it_stopped() {
    let pipeline = Pipeline::start().await.unwrap();
    let request = || Selectors::everything().shard("nozzle");
    let reader = pipeline.v2(request()).await.unwrap();
    let mut load = pipeline.load_to_doppler(0, &["a", "b"]).unwrap();
    load.send(2_000).await.unwrap();
    eventually("the first part is read", async || reader.lines() == 2_000).await;
    let before = reader.stop().await;
    eventually("it is away", async || {
        pipeline
            .doppler_report(0)
            .subscriptions
            .iter()
            .all(|row| row.id != "nozzle" || !row.open)
    })
    .await;

    load.send(3_000).await.unwrap();
    let reader = pipeline.v2(request()).await.unwrap();
    load.send(1_000).await.unwrap();
    eventually("the rest is read", async || {
        before.lines() + reader.lines() >= 6_000
    })
    .await;
    at_rest(&pipeline).await;
    let after = reader.checker();
    assert_eq!(
        (before.lines(), after.lines(), after.told_lost),
        (2_000, 4_000, 0),
        "{after}"
    );
    // It starts with the very next line of each source.
    for source in ["a", "b"] {
        assert_eq!(
            (after.of(source).gaps, after.of(source).out_of_order),
            (before.of(source).next, 0),
            "{source}"
        );
    }
}

/// Scenario: the same, but it stays away longer than the grace period.
/// Guarantee: what it missed is counted as lost, and it starts anew with what comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_that_is_not_fetched_expires_with_a_count() {
    let pipeline = Pipeline::builder()
        .tune_doppler(|config| config.resume_grace = std::time::Duration::from_secs(1))
        .start()
        .await
        .unwrap();
    let reader = pipeline
        .v2(Selectors::everything().shard("nozzle"))
        .await
        .unwrap();
    let mut load = pipeline.load_to_doppler(0, &["a"]).unwrap();
    load.send(100).await.unwrap();
    eventually("the first part is read", async || reader.lines() == 100).await;
    reader.stop().await;
    eventually("it is away", async || {
        pipeline
            .doppler_report(0)
            .subscriptions
            .iter()
            .all(|row| !row.open)
    })
    .await;
    load.send(300).await.unwrap();
    eventually("what it missed is counted", async || {
        let report = pipeline.doppler_report(0);
        report
            .subscriptions
            .iter()
            .filter(|row| row.id == "nozzle")
            .any(|row| row.dropped_total() == 300)
    })
    .await;
    let reader = pipeline
        .v2(Selectors::everything().shard("nozzle"))
        .await
        .unwrap();
    load.send(50).await.unwrap();
    eventually("the new part is read", async || reader.lines() >= 50).await;
    at_rest(&pipeline).await;
    assert_eq!(reader.of("a").gaps, 400, "it begins with the present");
}
