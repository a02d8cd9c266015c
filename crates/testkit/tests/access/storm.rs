//! Many clients at once.

use std::sync::Arc;
use std::time::Duration;

use loggregator_testkit::eventually;
use loggregator_testkit::platform::{Endpoint, Fault, Grant, Mode};
use tokio::task::JoinSet;

use crate::rig::{APP, Rig, get};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_token_is_checked_once_and_nobody_is_refused() {
    const TOKENS: usize = 200;
    let rig = Arc::new(Rig::new().await);
    for endpoint in [Endpoint::CheckToken, Endpoint::LogAccess] {
        rig.stub.set_fault(endpoint, Fault::slow(500));
    }
    let mut clients = JoinSet::new();
    for i in 0..TOKENS {
        let token = format!("token-{i}");
        let admin = i % 2 == 0;
        rig.stub.grant(
            &token,
            if admin {
                Grant::admin()
            } else {
                Grant::apps(&[APP])
            },
        );
        let path = if admin {
            "/firehose/x".to_owned()
        } else {
            format!("/apps/{APP}/stream")
        };
        for _ in 0..3 {
            let (addr, path, token) = (rig.addr, path.clone(), format!("bearer {token}"));
            clients
                .spawn(async move { get(addr, &path, &[("authorization", &token)]).await.status });
        }
    }
    while let Some(status) = clients.join_next().await {
        assert_eq!(status.unwrap(), 400);
    }
    let calls = rig.stub.all_calls();
    for i in 0..TOKENS {
        let token = format!("token-{i}");
        let asked =
            [Endpoint::CheckToken, Endpoint::LogAccess].map(|endpoint| calls.of(endpoint, &token));
        assert_eq!(asked, if i % 2 == 0 { [1, 0] } else { [0, 1] }, "{token}");
    }
    Arc::into_inner(rig).unwrap().stop().await;
}

#[tokio::test]
async fn who_goes_away_does_not_take_the_check_along() {
    let rig = Rig::new().await;
    rig.stub.grant("admin", Grant::admin());
    rig.stub.set_fault(Endpoint::CheckToken, Fault::slow(500));
    let addr = rig.addr;
    let ask =
        move || async move { get(addr, "/firehose/x", &[("authorization", "bearer admin")]).await };
    let first = tokio::spawn(ask());
    while rig.stub.calls(Endpoint::CheckToken, "admin") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!(ask().await.status, 400);
    assert_eq!(rig.stub.calls(Endpoint::CheckToken, "admin"), 1);
    rig.stop().await;
}

#[tokio::test]
async fn requests_under_way_are_bounded_and_the_wait_is_too() {
    let rig = Rig::with(|config, _| {
        config.limits.max_in_flight = 1;
        config.limits.timeout = Duration::from_millis(500);
        config.limits.breaker_failures = 1000;
    })
    .await;
    rig.stub.set_fault(Endpoint::LogAccess, Fault::slow(60_000));
    let mut clients = JoinSet::new();
    for i in 0..20 {
        let addr = rig.addr;
        clients.spawn(async move {
            let token = format!("bearer {i}");
            let path = format!("/apps/{APP}/stream");
            get(addr, &path, &[("authorization", &token)]).await.status
        });
    }
    while let Some(status) = clients.join_next().await {
        assert_eq!(status.unwrap(), 500);
    }
    let metrics = rig.metrics().await;
    let held_back =
        "loggregator_access_checks_total{target=\"capi_log_access\",outcome=\"held_back\"} 19";
    assert!(metrics.contains(held_back), "{metrics}");
    rig.stop().await;
}

#[tokio::test]
async fn who_goes_away_before_there_was_a_place_is_not_asked_about() {
    let rig = Rig::with(|config, _| config.limits.max_in_flight = 1).await;
    rig.stub.set_fault(Endpoint::CheckToken, Mode::Hang.into());
    let mut clients = JoinSet::new();
    let ask = |clients: &mut JoinSet<_>, i: usize| {
        let addr = rig.addr;
        clients.spawn(async move {
            let token = format!("bearer {i}");
            get(addr, "/firehose/x", &[("authorization", &token)]).await;
        });
    };
    ask(&mut clients, 0);
    eventually("the only place is taken", async || {
        rig.stub.calls(Endpoint::CheckToken, "0") == 1
    })
    .await;
    for i in 1..=20 {
        ask(&mut clients, i);
    }
    let under_way = async |checks: usize| {
        let line = format!("loggregator_access_cache_entries{{cache=\"tokens\"}} {checks}\n");
        rig.metrics().await.contains(&line)
    };
    eventually("all of them wait", async || under_way(21).await).await;
    clients.shutdown().await;
    // The one that was sent stays.
    eventually("nobody waits any more", async || under_way(1).await).await;
    assert_eq!(rig.stub.all_calls().total(Endpoint::CheckToken), 1);
    rig.stop().await;
}
