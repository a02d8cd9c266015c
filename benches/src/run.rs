//! One run: start the servers, connect everybody, send for a while, wait for the rest, report.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::BenchError;
use crate::control::{Control, Phase, Shared, load};
use crate::plan::Plan;
use crate::process::{Sample, sample};
use crate::report::{Outcome, Report};
use crate::sides::{EmitterSide, ReaderSide, start_emitters, start_readers};
use crate::target::{Opened, open, sample_all};
use crate::tracker::Group;

/// Nothing new for this long means that nothing more will come.
const QUIET: Duration = Duration::from_secs(1);
/// What may still be under way gets this long after the last envelope was sent, if it keeps coming.
const DRAIN: Duration = Duration::from_secs(60);
/// All subscriptions must be there by then.
const READY: Duration = Duration::from_secs(20);

/// Counters at one moment.
pub(crate) struct Snapshot {
    pub(crate) when: Instant,
    pub(crate) sent: u64,
    pub(crate) unique: Vec<u64>,
    pub(crate) servers: Vec<Sample>,
    pub(crate) generator: Sample,
}

impl Snapshot {
    fn take(
        opened: &Opened,
        emitters: &EmitterSide,
        readers: &ReaderSide,
    ) -> Result<Self, BenchError> {
        Ok(Self {
            when: Instant::now(),
            sent: emitters.progress.iter().map(|p| load(&p.sent)).sum(),
            unique: readers
                .groups
                .iter()
                .map(|g| g.lock().unwrap_or_else(PoisonError::into_inner).unique)
                .collect(),
            servers: sample_all(opened)?,
            generator: sample(std::process::id())?,
        })
    }
}

/// Runs `plan`.
///
/// # Errors
/// When a server cannot be started or dies, or a subscription does not come about. Losses are no error but a result.
pub fn run(plan: &Plan) -> Result<Report, BenchError> {
    let dir = tempfile::tempdir().map_err(|e| BenchError::new(format!("temporary folder: {e}")))?;
    let opened = open(plan, dir.path())?;
    // Let a fresh process come to rest before its idle memory is read.
    std::thread::sleep(Duration::from_millis(300));
    let idle = sample_all(&opened)?;

    let control: Shared = Arc::new(Control::default());
    let readers = start_readers(plan, &opened, &control)?;
    let emitters = start_emitters(plan, &opened, &control)?;
    let result = measure(plan, &opened, &control, &readers, &emitters);
    let (before, window, after) = match result {
        Ok(snapshots) => snapshots,
        Err(e) => {
            control.enter(Phase::Stop);
            let emitted = emitters.thread.join().unwrap_or_default();
            let received = readers.thread.join().unwrap_or_default();
            let causes: Vec<String> = emitted
                .into_iter()
                .filter_map(|r| r.error)
                .chain(received.into_iter().filter_map(|r| r.error))
                .take(3)
                .collect();
            return Err(BenchError::new(format!("{e}; {}", causes.join("; "))));
        }
    };
    let ledger = opened
        .admin
        .and_then(|addr| crate::process::ledger(addr).ok());
    control.enter(Phase::Stop);
    let died = |_| BenchError::new("a thread of the generator panicked");
    let emitted = emitters.thread.join().map_err(died)?;
    let received = readers.thread.join().map_err(died)?;
    let sent: Vec<u64> = emitters.progress.iter().map(|p| load(&p.sent)).collect();
    let groups: Vec<Group> = readers
        .groups
        .iter()
        .map(|g| g.lock().unwrap_or_else(PoisonError::into_inner).clone())
        .collect();
    let outcome = Outcome {
        idle,
        before,
        window,
        after,
        sent,
        groups,
        emitted,
        received,
        ledger,
    };
    Ok(outcome.report(plan, &opened))
}

/// Goes through the phases; returns the counters at the start and the end of the measured time, and at the very end.
fn measure(
    plan: &Plan,
    opened: &Opened,
    control: &Shared,
    readers: &ReaderSide,
    emitters: &EmitterSide,
) -> Result<(Snapshot, Snapshot, Snapshot), BenchError> {
    let asked = Instant::now();
    loop {
        let ready = readers
            .progress
            .iter()
            .filter(|p| p.ready.load(Ordering::Relaxed))
            .count();
        if ready == readers.progress.len() {
            break;
        }
        let ended = readers.thread.is_finished()
            || emitters
                .progress
                .iter()
                .any(|p| p.done.load(Ordering::Relaxed));
        if ended || asked.elapsed() > READY {
            return Err(BenchError::new(format!(
                "{ready} of {} subscriptions are there",
                readers.progress.len()
            )));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    control.enter(Phase::Settle);
    std::thread::sleep(Duration::from_millis(300));

    let start = Instant::now() + Duration::from_millis(20);
    let measured = start + plan.warmup;
    control
        .measure_from
        .store(control.at(measured), Ordering::Relaxed);
    control.enter(Phase::Send {
        start,
        length: plan.warmup + plan.time,
    });
    std::thread::sleep(measured.saturating_duration_since(Instant::now()));
    let before = Snapshot::take(opened, emitters, readers)?;
    std::thread::sleep((measured + plan.time).saturating_duration_since(Instant::now()));
    let window = Snapshot::take(opened, emitters, readers)?;

    while !emitters
        .progress
        .iter()
        .all(|p| p.done.load(Ordering::Acquire))
    {
        std::thread::sleep(Duration::from_millis(5));
    }
    let expected = plan.expected(
        &emitters
            .progress
            .iter()
            .map(|p| load(&p.sent))
            .collect::<Vec<_>>(),
    );
    let (drain, stalled) = (Instant::now(), plan.stall.unwrap_or_default());
    let mut last = (Instant::now(), u64::MAX);
    loop {
        let arrived: Vec<u64> = readers
            .groups
            .iter()
            .map(|g| g.lock().unwrap_or_else(PoisonError::into_inner).unique)
            .collect();
        let total = arrived.iter().sum();
        if arrived == expected || drain.elapsed() > DRAIN + stalled {
            break;
        }
        if total != last.1 {
            last = (Instant::now(), total);
        } else if last.0.elapsed() > QUIET && drain.elapsed() + plan.time > stalled {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let after = Snapshot::take(opened, emitters, readers)?;
    Ok((before, window, after))
}
