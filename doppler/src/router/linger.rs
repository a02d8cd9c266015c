//! Waking selected subscriptions together when there are many wake-ups.
//!
//! Two hundred tails of quiet applications cost wake-ups and small writes, not bytes: thousands of one-envelope
//! messages a second, each with its own frame, TLS record and system call. So while they come thick and fast they
//! leave together, at most every few milliseconds. The first after a pause leaves at once: somebody who watches one
//! application on a quiet system waits for nothing.

use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::wake_all;

/// Holds wake-ups back for a moment under load.
pub(crate) struct Linger {
    every: Duration,
    state: Mutex<State>,
    armed: Notify,
}

#[derive(Default)]
struct State {
    last: Option<Instant>,
    held: Vec<Waker>,
    /// True while [`Linger::run`] is there to let go what is held.
    running: bool,
}

// === impl Linger ===

impl Linger {
    pub(crate) fn new(every: Duration) -> Self {
        Self {
            every,
            state: Mutex::default(),
            armed: Notify::new(),
        }
    }

    /// Wakes now, or soon.
    pub(crate) fn wake(&self, wakers: impl IntoIterator<Item = Waker>) {
        let mut wakers = wakers.into_iter().peekable();
        if wakers.peek().is_none() {
            return;
        }
        {
            let mut state = self.state.lock();
            let now = Instant::now();
            let paused = state.last.is_none_or(|last| now - last >= self.every);
            if state.running && !(paused && state.held.is_empty()) {
                let first = state.held.is_empty();
                state.held.extend(wakers);
                if first {
                    self.armed.notify_one();
                }
                return;
            }
            state.last = Some(now);
        }
        wake_all(wakers);
    }

    /// Lets go what was held back, when its time has come. Without it nothing is held back.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        if self.every.is_zero() {
            return;
        }
        self.state.lock().running = true;
        let mut stopping = false;
        while !stopping {
            tokio::select! {
                () = self.armed.notified() => {}
                () = stop.cancelled() => stopping = true,
            }
            let wait = self
                .state
                .lock()
                .last
                .map(|last| self.every.saturating_sub(last.elapsed()));
            if let (false, Some(wait)) = (stopping, wait) {
                tokio::time::sleep(wait).await;
            }
            let held = {
                let mut state = self.state.lock();
                state.last = Some(Instant::now());
                state.running = !stopping;
                std::mem::take(&mut state.held)
            };
            wake_all(held);
        }
    }
}
