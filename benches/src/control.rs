//! What the threads of one run share: the clock, the phase and the counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Connections are made; emitters send probes until every subscriber has seen one.
    Probe,
    /// Nothing is sent; probes still under way arrive.
    Settle,
    /// Emitters send from `start` on for `length`.
    Send {
        /// First deadline of the schedule.
        start: Instant,
        /// How long they send, warm-up included.
        length: Duration,
    },
    /// All is over; everybody leaves.
    Stop,
}

/// Shared by all threads of a run.
pub struct Control {
    epoch: Instant,
    phase: watch::Sender<Phase>,
    /// Latency counts only for envelopes stamped at or after this time, in nanoseconds since the epoch.
    pub measure_from: AtomicU64,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            phase: watch::Sender::new(Phase::Probe),
            measure_from: AtomicU64::new(u64::MAX),
        }
    }
}

impl Control {
    /// Nanoseconds since the run began; the same clock for emitters and subscribers.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// The same for a moment that may lie ahead.
    #[must_use]
    pub fn at(&self, when: Instant) -> u64 {
        when.saturating_duration_since(self.epoch).as_nanos() as u64
    }

    /// Moves everybody to another phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Where the run is now.
    #[must_use]
    pub fn current(&self) -> Phase {
        *self.phase.borrow()
    }

    /// A view of the phase that can be waited on.
    #[must_use]
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }
}

/// Waits until the phase is one that `wanted` accepts; `Stop` always ends the wait.
pub async fn wait_for(phase: &mut watch::Receiver<Phase>, wanted: impl Fn(Phase) -> bool) -> Phase {
    loop {
        let now = *phase.borrow_and_update();
        if now == Phase::Stop || wanted(now) {
            return now;
        }
        if phase.changed().await.is_err() {
            return Phase::Stop;
        }
    }
}

/// What the main thread sees of one subscriber while it runs.
#[derive(Default)]
pub struct Progress {
    /// It has seen a probe.
    pub ready: AtomicBool,
    /// Records received, of every sort.
    pub records: AtomicU64,
    /// Records of its group that had not been seen before (the group's total, as of this member's last update).
    pub unique: AtomicU64,
}

/// What the main thread sees of one emitter while it runs.
#[derive(Default)]
pub struct Emitted {
    /// Envelopes handed to the connection.
    pub sent: AtomicU64,
    /// It has finished sending.
    pub done: AtomicBool,
}

/// Reads a counter.
#[must_use]
pub fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// A shared control.
pub type Shared = Arc<Control>;
