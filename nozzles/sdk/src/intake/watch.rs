//! What all intakes have in common: counts, and the look at the clock when nothing comes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep};

use super::Intake;
use super::monitor::{Ended, Monitor};

/// One kind of intake.
pub(super) trait Source: Send {
    /// As [`Intake::poll_next`].
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>>;

    /// Gives up the streams that stand, and opens them again at once.
    fn reopen(&mut self);

    /// As [`Intake::stop`].
    fn stop(&mut self);
}

/// A source that is watched.
pub(super) struct Watched {
    source: Box<dyn Source>,
    monitor: Arc<Monitor>,
    max_silence: Duration,
    /// Since when the source has had nothing though it was asked. Time in which nobody asks does not count.
    quiet: Option<Instant>,
    alarm: Pin<Box<Sleep>>,
    /// Bytes that are still taken after [`Intake::stop`].
    rest: Option<usize>,
}

/// Bytes of what has arrived that are taken after [`Intake::stop`]: more than any window holds. The other side may go on
/// sending as fast as they are taken.
const REST: usize = 16 << 20;

impl Watched {
    pub(super) fn new(
        source: Box<dyn Source>,
        monitor: Arc<Monitor>,
        max_silence: Duration,
    ) -> Watched {
        Watched {
            source,
            monitor,
            max_silence,
            quiet: None,
            alarm: Box::pin(sleep(Duration::ZERO)),
            rest: None,
        }
    }
}

impl Intake for Watched {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.rest == Some(0) {
            return Poll::Ready(None);
        }
        loop {
            if let Poll::Ready(batch) = self.source.poll_next(cx) {
                self.quiet = None;
                if let Some(batch) = &batch {
                    self.monitor.received(batch.len());
                    if let Some(rest) = &mut self.rest {
                        *rest = rest.saturating_sub(batch.len());
                    }
                }
                return Poll::Ready(batch);
            }
            if self.max_silence.is_zero() || self.rest.is_some() {
                return Poll::Pending;
            }
            if self.quiet.is_none() {
                let now = Instant::now();
                self.quiet = Some(now);
                self.alarm.as_mut().reset(now + self.max_silence);
            }
            ready!(self.alarm.as_mut().poll(cx));
            self.quiet = None;
            let silence = format!("nothing arrived for {:?}", self.max_silence);
            tracing::warn!(
                open = self.monitor.status().open,
                "{silence}; the intake's streams are opened again"
            );
            self.monitor.ended(Ended::Silence, silence);
            self.source.reopen();
        }
    }

    fn stop(&mut self) {
        self.rest.get_or_insert(REST);
        self.source.stop();
    }

    fn monitor(&self) -> Arc<Monitor> {
        Arc::clone(&self.monitor)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;

    /// Has something once after each opening.
    struct Fake {
        opened: Arc<AtomicU64>,
        given: bool,
    }

    impl Source for Fake {
        fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Bytes>> {
            if std::mem::replace(&mut self.given, true) {
                Poll::Pending
            } else {
                Poll::Ready(Some(Bytes::from_static(b"batch")))
            }
        }
        fn reopen(&mut self) {
            self.opened.fetch_add(1, Relaxed);
            self.given = false;
        }
        fn stop(&mut self) {}
    }

    #[tokio::test(start_paused = true)]
    async fn silence_opens_the_streams_again() {
        let opened = Arc::<AtomicU64>::default();
        let fake = Fake {
            opened: Arc::clone(&opened),
            given: false,
        };
        let silence = Duration::from_secs(60);
        let mut intake = Watched::new(Box::new(fake), Arc::default(), silence);
        let begin = Instant::now();
        for n in 0..3 {
            // Time in which nobody asks is no silence.
            tokio::time::advance(silence * 10).await;
            assert_eq!(poll_fn(|cx| intake.poll_next(cx)).await.unwrap(), "batch");
            assert_eq!(opened.load(Relaxed), n);
        }
        assert_eq!(begin.elapsed().as_secs(), 3 * 600 + 2 * 60);
        let status = intake.status();
        assert_eq!((status.silences, status.reconnects), (2, 2));
        assert_eq!(
            status.last_error.as_deref(),
            Some("nothing arrived for 60s")
        );
    }
}
