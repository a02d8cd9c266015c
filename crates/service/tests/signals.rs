//! Signals ask for a drain, and a second one cuts it short. Own process: signals concern all of it.
#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use loggregator_service::Lifecycle;
use loggregator_service::lifecycle::EXIT_DRAIN_CUT;

fn signal_self(name: &str) {
    let status = Command::new("kill")
        .args(["-s", name, &std::process::id().to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

/// Guarantee: SIGTERM starts the drain, which waits for a task; SIGINT then ends it at once, long before its deadline,
/// and the exit code tells so.
#[tokio::test]
async fn the_first_signal_drains_and_the_second_cuts_short() {
    let lifecycle = Lifecycle::new();
    lifecycle.watch_signals().unwrap();
    lifecycle.spawn("stuck", std::future::pending::<()>());
    let started = Instant::now();
    let program = tokio::spawn({
        let lifecycle = lifecycle.clone();
        async move { lifecycle.run(Duration::from_secs(600)).await }
    });

    signal_self("TERM");
    assert_eq!(lifecycle.stopped().await.to_string(), "received SIGTERM");
    assert!(!lifecycle.cut().is_cancelled());
    signal_self("INT");
    let code = program.await.unwrap();
    assert_eq!(
        format!("{code:?}"),
        format!("{:?}", ExitCode::from(EXIT_DRAIN_CUT))
    );
    assert!(started.elapsed() < Duration::from_secs(60));
}
