use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

const LONG: Duration = Duration::from_secs(3600);

#[derive(Debug, thiserror::Error)]
#[error("accept on {addr}")]
struct AcceptError {
    addr: &'static str,
    source: std::io::Error,
}

/// Guarantee: tasks are told to stop, waited for, and an orderly end is reported as one.
#[tokio::test]
async fn a_drain_waits_for_tasks_that_stop() {
    let lifecycle = Lifecycle::new();
    let stop = lifecycle.token();
    lifecycle.spawn("listener", async move { stop.cancelled().await });
    assert_eq!(lifecycle.tasks(), ["listener"]);
    let report = lifecycle.shutdown(LONG).await;
    assert!(report.finished(), "{report:?}");
    assert!(lifecycle.tasks().is_empty());
    assert!(lifecycle.ended().is_cancelled());
}

/// Guarantee: the drain ends at its deadline and names what had not finished.
#[tokio::test(start_paused = true)]
async fn a_drain_ends_at_its_deadline_and_names_what_was_not_finished() {
    let lifecycle = Lifecycle::new();
    let stop = lifecycle.token();
    lifecycle.spawn("polite", async move { stop.cancelled().await });
    lifecycle.spawn("stuck", std::future::pending::<()>());
    lifecycle
        .stage("doppler")
        .spawn("egress", std::future::pending::<()>());
    let report = lifecycle.shutdown(Duration::from_secs(5)).await;
    assert_eq!(report.unfinished, ["doppler/egress", "stuck"]);
    assert!(
        report.took >= Duration::from_secs(5) && report.took < Duration::from_secs(6),
        "{report:?}"
    );
    assert!(lifecycle.cut().is_cancelled());
}

/// Guarantee: cancelling the cut token ends a drain at once.
#[tokio::test(start_paused = true)]
async fn a_drain_can_be_cut_short() {
    let lifecycle = Lifecycle::new();
    lifecycle.spawn("stuck", std::future::pending::<()>());
    let drain = tokio::spawn({
        let lifecycle = lifecycle.clone();
        async move { lifecycle.shutdown(LONG).await }
    });
    lifecycle.token().cancelled().await;
    lifecycle.cut().cancel();
    let report = drain.await.unwrap();
    assert_eq!(report.unfinished, ["stuck"]);
    assert!(report.took < Duration::from_secs(2), "{report:?}");
}

/// Guarantee: aborted tasks are dropped, so that what they hold is closed.
#[tokio::test(start_paused = true)]
async fn aborted_tasks_drop_what_they_hold() {
    let lifecycle = Lifecycle::new();
    let held = Arc::new(());
    let in_task = Arc::clone(&held);
    lifecycle.spawn("holder", async move {
        let _held = in_task;
        std::future::pending::<()>().await;
    });
    let _ = lifecycle.shutdown(Duration::ZERO).await;
    assert_eq!(Arc::strong_count(&held), 1);
}

/// Guarantee: an error names its task, carries all causes and stops the process.
#[tokio::test]
async fn a_failing_task_stops_the_process_and_is_named() {
    let lifecycle = Lifecycle::new();
    lifecycle.stage("doppler").spawn("grpc", async {
        let source = std::io::Error::other("too many open files");
        Err::<(), _>(AcceptError {
            addr: "127.0.0.1:8082",
            source,
        })
    });
    let reason = lifecycle.stopped().await;
    assert_eq!(
        reason.to_string(),
        "task doppler/grpc failed: accept on 127.0.0.1:8082: too many open files"
    );
    assert_eq!(StopReason::Fault(lifecycle.fault().unwrap()), reason);
}

/// Guarantee: a panic is a fault like an error; the first fault wins.
#[tokio::test]
async fn a_panic_is_a_fault_and_the_first_fault_wins() {
    let lifecycle = Lifecycle::new();
    lifecycle.spawn("first", async {
        let index = 7;
        assert!(index < 7, "index {index} out of range");
    });
    let _ = lifecycle.stopped().await;
    lifecycle.spawn("second", async { Err::<(), _>("later") });
    let _ = lifecycle.shutdown(LONG).await;
    let fault = lifecycle.fault().unwrap();
    assert_eq!(
        (fault.task.as_str(), fault.cause.as_str()),
        ("first", "panicked: index 7 out of range")
    );
}

/// Guarantee: a task that ends with Ok is no fault.
#[tokio::test]
async fn tasks_may_end() {
    let lifecycle = Lifecycle::new();
    lifecycle.spawn("connection", async {});
    assert!(lifecycle.shutdown(LONG).await.finished());
    assert_eq!(lifecycle.fault(), None);
}

/// Guarantee: stages stop one after the other, so that an upstream stage can still hand on what it holds.
#[tokio::test]
async fn stages_drain_in_the_order_in_which_they_were_made() {
    let lifecycle = Lifecycle::new();
    let order = Arc::new(Mutex::new(Vec::new()));
    let (agent, doppler) = (lifecycle.stage("agent"), lifecycle.stage("doppler"));
    for (stage, name) in [(&doppler, "doppler"), (&agent, "agent")] {
        let (stop, order, next) = (stage.token(), Arc::clone(&order), doppler.token());
        stage.spawn("work", async move {
            stop.cancelled().await;
            tokio::task::yield_now().await;
            order.lock().push((name, next.is_cancelled()));
        });
    }
    assert!(lifecycle.shutdown(LONG).await.finished());
    assert_eq!(*order.lock(), [("agent", false), ("doppler", true)]);
}

/// Guarantee: a stage can be stopped alone; the others go on.
#[tokio::test]
async fn a_stage_can_be_shut_down_alone() {
    let lifecycle = Lifecycle::new();
    let (one, other) = (lifecycle.stage("doppler-0"), lifecycle.stage("doppler-1"));
    for stage in [&one, &other] {
        let stop = stage.token();
        stage.spawn("grpc", async move { stop.cancelled().await });
    }
    assert!(one.shutdown(LONG).await.finished());
    assert_eq!(lifecycle.tasks(), ["doppler-1/grpc"]);
    assert!(!other.token().is_cancelled() && !lifecycle.token().is_cancelled());
    assert!(lifecycle.shutdown(LONG).await.finished());
}

/// Guarantee: a restarting task comes back after errors and panics, with growing waits, and its restarts are counted.
#[tokio::test(start_paused = true)]
async fn a_restarting_task_comes_back_with_growing_waits() {
    let lifecycle = Lifecycle::new();
    let runs = Arc::new(AtomicU32::new(0));
    let started = Instant::now();
    let (counted, done) = (Arc::clone(&runs), CancellationToken::new());
    let finished = done.clone();
    lifecycle.spawn_restarting("resolver", RestartPolicy::default(), move || {
        let (run, done) = (counted.fetch_add(1, Ordering::Relaxed), done.clone());
        async move {
            match run {
                0 => Err("no such host"),
                1 => panic!("no such host"),
                2 => Err("no such host"),
                _ => {
                    done.cancel();
                    Ok(())
                }
            }
        }
    });
    finished.cancelled().await;
    let waited = started.elapsed();
    assert!(
        waited >= Duration::from_millis(350) && waited <= Duration::from_millis(710),
        "{waited:?}"
    );
    assert_eq!(
        lifecycle.restarts(),
        BTreeMap::from([("resolver".to_owned(), 3)])
    );
    assert_eq!(lifecycle.fault(), None);
}

/// Guarantee: with a limit, repeated failure becomes a fault.
#[tokio::test(start_paused = true)]
async fn restarting_gives_up_after_the_stated_attempts() {
    let lifecycle = Lifecycle::new();
    let policy = RestartPolicy {
        attempts: Some(2),
        ..RestartPolicy::default()
    };
    lifecycle.spawn_restarting("flaky", policy, || async { Err::<(), _>("broken") });
    let reason = lifecycle.stopped().await;
    assert_eq!(
        reason.to_string(),
        "task flaky failed: broken (given up after 2 restarts)"
    );
}

/// Guarantee: a task that waits for its restart does not hold up the drain.
#[tokio::test(start_paused = true)]
async fn a_waiting_restart_ends_with_the_drain() {
    let lifecycle = Lifecycle::new();
    let policy = RestartPolicy {
        first: LONG,
        longest: LONG,
        ..RestartPolicy::default()
    };
    lifecycle.spawn_restarting("away", policy, || async { Err::<(), _>("gone") });
    while lifecycle.restarts().is_empty() {
        tokio::task::yield_now().await;
    }
    let report = lifecycle.shutdown(Duration::from_secs(5)).await;
    assert!(
        report.finished() && report.took < Duration::from_secs(1),
        "{report:?}"
    );
}

/// Guarantee: an orderly program exits 0, a fault and a cut drain have their own codes.
#[tokio::test(start_paused = true)]
async fn exit_codes_tell_how_it_ended() {
    let code = |code: ExitCode| format!("{code:?}");
    let orderly = Lifecycle::new();
    orderly.stop(StopReason::Requested);
    assert_eq!(code(orderly.run(LONG).await), code(ExitCode::SUCCESS));

    let faulty = Lifecycle::new();
    faulty.spawn("grpc", async { Err::<(), _>("broken") });
    assert_eq!(
        code(faulty.run(LONG).await),
        code(ExitCode::from(EXIT_FAULT))
    );

    let stuck = Lifecycle::new();
    stuck.spawn("stuck", std::future::pending::<()>());
    stuck.stop(StopReason::Signal("SIGTERM"));
    assert_eq!(
        code(stuck.run(Duration::from_secs(1)).await),
        code(ExitCode::from(EXIT_DRAIN_CUT))
    );
}

/// Notes how many tasks ran whenever it was asked for its report.
struct Asked(Lifecycle, Arc<Mutex<Vec<usize>>>);

impl ledger::Source for Asked {
    fn report(&self) -> ledger::Report {
        self.1.lock().push(self.0.tasks().len());
        ledger::Report::default()
    }
}

#[tokio::test]
async fn the_final_account_is_taken_once_when_all_tasks_have_ended() {
    let lifecycle = Lifecycle::new();
    let asked = Arc::<Mutex<Vec<usize>>>::default();
    lifecycle.account_at_end(Arc::new(Asked(lifecycle.clone(), Arc::clone(&asked))));
    let stop = lifecycle.token();
    lifecycle.spawn("late", async move {
        stop.cancelled().await;
        tokio::task::yield_now().await;
    });
    assert!(lifecycle.shutdown(Duration::from_secs(5)).await.finished());
    assert!(lifecycle.shutdown(Duration::from_secs(5)).await.finished());
    assert_eq!(*asked.lock(), [0]);
}
