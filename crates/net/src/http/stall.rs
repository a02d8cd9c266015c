//! Ends HTTP/2 responses that their client does not take.
//!
//! A client closes the window of a stream, or of its connection, by not reading. TCP is well then, and a body that is not
//! asked for its next frame cannot look at the clock: without a look from outside such a response would never end.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use crate::accept::ConnectionStats;
use crate::grpc::driver::Executor;

tokio::task_local! {
    /// Of the stream that is being polled.
    static TURN: Arc<Turn>;
}

/// Whose turn it is in a response: at an even count ours, at an odd one the client's.
#[derive(Debug, Default)]
pub(super) struct Turn(AtomicU64);

impl Turn {
    /// That of the stream that is being polled.
    pub(super) fn current() -> Arc<Self> {
        TURN.try_with(Arc::clone).unwrap_or_default()
    }

    /// The connection asks for the next frame.
    pub(super) fn is_ours(&self) {
        self.pass_when(1);
    }

    /// The client is to take a frame.
    pub(super) fn is_the_clients(&self) {
        self.pass_when(0);
    }

    fn pass_when(&self, parity: u64) {
        // Written by the connection's task alone.
        let count = self.0.load(Ordering::Relaxed);
        if count % 2 == parity {
            self.0.store(count + 1, Ordering::Relaxed);
        }
    }

    /// Ready when one and the same turn of the client's has lasted for `patience`, at the latest after twice that time.
    async fn stalled(&self, patience: Duration) {
        let mut seen = 0;
        loop {
            sleep(patience).await;
            let count = self.0.load(Ordering::Relaxed);
            if count == seen && count % 2 == 1 {
                return;
            }
            seen = count;
        }
    }
}

/// An executor that gives streams up whose client takes nothing. A stream that is dropped is reset, and with it goes what
/// waited for its window.
#[derive(Clone)]
pub(super) struct Watching {
    pub(super) streams: Executor,
    pub(super) patience: Duration,
    pub(super) stats: Arc<ConnectionStats>,
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Watching {
    fn execute(&self, stream: F) {
        let (patience, stats) = (self.patience, Arc::clone(&self.stats));
        self.streams.execute(async move {
            let turn = Arc::<Turn>::default();
            tokio::select! {
                biased;
                () = TURN.scope(Arc::clone(&turn), stream) => {}
                () = turn.stalled(patience) => {
                    stats.stalled_responses.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
}
