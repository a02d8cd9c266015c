//! Two dopplers, one of which dies.

use super::at_rest;
use loggregator_client::Selectors;
use loggregator_client::ws::Subject;
use loggregator_testkit::{Pipeline, assert_ledger_balanced, eventually};

/// Scenario: many sources over two dopplers; one doppler is killed under load and stays dead for a while.
/// Guarantee: the firehose goes on with the other; sources of the dead one move over; what was lost is exactly what
/// the ledgers say; the dead one is used again when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_firehose_goes_on_and_the_ledger_knows_the_loss() {
    let mut pipeline = Pipeline::builder().dopplers(2).start().await.unwrap();
    let names: Vec<String> = (0..24).map(|index| format!("app-{index}")).collect();
    let sources: Vec<&str> = names.iter().map(String::as_str).collect();
    let v2 = pipeline.v2(Selectors::everything()).await.unwrap();
    let web = pipeline
        .web(Subject::Firehose {
            id: "web".to_owned(),
            filter: None,
        })
        .await
        .unwrap();
    let mut load = pipeline.load(&sources).unwrap();
    load.send(5_000).await.unwrap();
    eventually("both dopplers are used", async || {
        (0..2).all(|index| pipeline.doppler_report(index).ingress.accepted > 500)
            && v2.lines() == 5_000
    })
    .await;

    // Half way through a burst, so that lines are under way.
    load.send(1_000).await.unwrap();
    pipeline.dopplers[0].kill().await;
    load.send(4_000).await.unwrap();
    let dead = pipeline.doppler_report(0);
    eventually("what can arrive has arrived", async || {
        let agent = pipeline.agent_report().await.unwrap();
        agent.subscriptions.iter().all(|row| row.pending == 0)
            && [&v2, &web]
                .iter()
                .all(|reader| reader.lines() >= pipeline.doppler_report(1).ingress.accepted)
    })
    .await;
    at_rest(&pipeline).await;
    assert_ledger_balanced(std::slice::from_ref(&dead));

    // Everything accepted by the agent was taken in by a doppler, or counted by the agent as dropped, or died on the
    // wire to the dead doppler: the agent's in-flight window, which its ledger counts as delivered.
    let agent = pipeline.agent_report().await.unwrap();
    let alive = pipeline.doppler_report(1);
    assert_eq!(agent.ingress.accepted, 10_000);
    let dropped: u64 = agent
        .subscriptions
        .iter()
        .map(|row| row.dropped_total())
        .sum::<u64>()
        + agent.ingress.dropped_total();
    let sent: u64 = agent.subscriptions.iter().map(|row| row.delivered).sum();
    assert_eq!(sent + dropped, 10_000, "{agent:?}");
    assert!(dead.ingress.accepted + alive.ingress.accepted <= sent);
    // Of the living one nothing is missing.
    for reader in [&v2, &web] {
        let checker = reader.checker();
        assert_eq!(checker.out_of_order(), 0, "{checker}");
        assert!(checker.lines() >= alive.ingress.accepted, "{checker}");
        assert!(
            checker.lines() <= alive.ingress.accepted + dead.ingress.accepted,
            "{checker}"
        );
    }

    pipeline.dopplers[0].restart().await.unwrap();
    eventually("the one that came back is used again", async || {
        load.send(500).await.unwrap();
        pipeline.doppler_report(0).ingress.accepted > 0
    })
    .await;
    at_rest(&pipeline).await;
    assert_eq!(v2.checker().out_of_order(), 0);
}
