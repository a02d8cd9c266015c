//! How an intake is, for whoever wants to know: health, metrics, people.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use loggregator_net::ClientTls;
use loggregator_service::metrics::{Metrics, Samples, names};
use parking_lot::Mutex;

use super::oauth::Tokens;

/// Why a stream ended; the metrics' label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The other side ended it in order.
    Closed,
    /// The connection broke, or could not be made.
    Failed,
    /// The other side answered something else than a stream.
    Refused,
    /// The other side wants another token.
    Unauthorized,
    /// The other side says that the nozzle is too slow.
    SlowConsumer,
    /// Nothing came for too long.
    Silence,
    /// The other side ends every stream after a while.
    Expired,
}

const ENDED: [(Ended, &str); 7] = [
    (Ended::Closed, "closed"),
    (Ended::Failed, "failed"),
    (Ended::Refused, "refused"),
    (Ended::Unauthorized, "unauthorized"),
    (Ended::SlowConsumer, "slow_consumer"),
    (Ended::Silence, "silence"),
    (Ended::Expired, "expired"),
];

/// How an intake is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Streams that stand.
    pub open: usize,
    /// Streams that ended and were or will be opened again.
    pub reconnects: u64,
    /// How the latest of them ended.
    pub last_error: Option<String>,
    /// When the latest batch came.
    pub last_received: Option<SystemTime>,
    /// How often the other side ended a stream because the nozzle was too slow.
    pub slow_consumer: u64,
    /// How often streams were opened again because nothing came.
    pub silences: u64,
    /// Messages that were no envelopes.
    pub malformed: u64,
    /// Whether there is a token.
    pub token: TokenState,
}

/// Whether there is a token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TokenState {
    /// None is needed, or it stands in the configuration.
    #[default]
    Fixed,
    /// There is one that has not expired.
    Valid,
    /// There is none yet, or none any more; what went wrong, if anything did.
    Missing(Option<String>),
}

/// What an intake counts. It is written by the intake alone.
#[derive(Debug, Default)]
pub struct Monitor {
    open: AtomicU64,
    ended: [AtomicU64; ENDED.len()],
    batches: AtomicU64,
    bytes: AtomicU64,
    /// In milliseconds since 1970; 0: never.
    last_received: AtomicU64,
    malformed: AtomicU64,
    not_selected: AtomicU64,
    last_error: Mutex<Option<String>>,
    tokens: OnceLock<Tokens>,
    tls: OnceLock<Arc<ClientTls>>,
}

impl Monitor {
    /// How the intake is now.
    #[must_use]
    pub fn status(&self) -> Status {
        let millis = self.last_received.load(Relaxed);
        Status {
            open: usize::try_from(self.open.load(Relaxed)).unwrap_or(usize::MAX),
            reconnects: self.ended.iter().map(|count| count.load(Relaxed)).sum(),
            last_error: self.last_error.lock().clone(),
            last_received: (millis > 0).then(|| UNIX_EPOCH + Duration::from_millis(millis)),
            slow_consumer: self.count(Ended::SlowConsumer).load(Relaxed),
            silences: self.count(Ended::Silence).load(Relaxed),
            malformed: self.malformed.load(Relaxed),
            token: self.tokens.get().map_or(TokenState::Fixed, Tokens::state),
        }
    }

    pub(super) fn received(&self, bytes: usize) {
        self.batches.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.last_received.store(
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            Relaxed,
        );
    }

    /// So many streams stand now.
    pub(super) fn standing(&self, streams: usize) {
        self.open.store(streams as u64, Relaxed);
    }

    /// A stream ended for this reason, and will be opened again.
    pub(super) fn ended(&self, why: Ended, error: impl Into<String>) {
        self.count(why).fetch_add(1, Relaxed);
        *self.last_error.lock() = Some(error.into());
    }

    /// So many streams ended in all for this reason.
    pub(super) fn ended_in_all(
        &self,
        why: Ended,
        total: u64,
        error: impl FnOnce() -> Option<String>,
    ) {
        if self.count(why).swap(total, Relaxed) != total {
            *self.last_error.lock() = error();
        }
    }

    pub(super) fn malformed(&self) {
        self.malformed.fetch_add(1, Relaxed);
    }

    pub(super) fn not_selected(&self, envelopes: u64) {
        self.not_selected.fetch_add(envelopes, Relaxed);
    }

    pub(super) fn uses(&self, tokens: Option<&Tokens>, tls: Option<&Arc<ClientTls>>) {
        // An intake says so once, when it is made.
        if let Some(tokens) = tokens {
            self.tokens.set(tokens.clone()).ok();
        }
        if let Some(tls) = tls {
            self.tls.set(Arc::clone(tls)).ok();
        }
    }

    fn count(&self, why: Ended) -> &AtomicU64 {
        &self.ended[why as usize]
    }

    pub(super) fn publish(monitor: &Arc<Monitor>, metrics: &Metrics) {
        let monitor = Arc::clone(monitor);
        metrics.collect(move |samples| monitor.sample(samples));
    }

    fn sample(&self, samples: &mut Samples) {
        let (batches, bytes) = (self.batches.load(Relaxed), self.bytes.load(Relaxed));
        samples.counter(&names::NOZZLE_INTAKE_BATCHES, &[], batches);
        samples.counter(&names::NOZZLE_INTAKE_BYTES, &[], bytes);
        samples.gauge_count(&names::NOZZLE_INTAKE_STREAMS, &[], self.open.load(Relaxed));
        for (why, name) in ENDED {
            let count = self.count(why).load(Relaxed);
            samples.counter(&names::NOZZLE_INTAKE_RECONNECTS, &[("reason", name)], count);
        }
        samples.counter(
            &names::NOZZLE_INTAKE_MALFORMED,
            &[],
            self.malformed.load(Relaxed),
        );
        samples.counter(
            &names::NOZZLE_INTAKE_NOT_SELECTED,
            &[],
            self.not_selected.load(Relaxed),
        );
        let last = Duration::from_millis(self.last_received.load(Relaxed)).as_secs_f64();
        samples.gauge(&names::NOZZLE_INTAKE_LAST_BATCH, &[], last);
        if let Some(tls) = self.tls.get() {
            for (outcome, count) in [("ok", tls.reloads()), ("failed", tls.reload_failures())] {
                samples.counter(
                    &names::NOZZLE_INTAKE_CERTIFICATE_RELOADS,
                    &[("outcome", outcome)],
                    count,
                );
            }
        }
        if let Some(tokens) = self.tokens.get() {
            tokens.sample("intake", samples);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_count() {
        let monitor = Monitor::default();
        for (i, (why, _)) in ENDED.into_iter().enumerate() {
            assert_eq!(why as usize, i);
            for _ in 0..=i {
                monitor.ended(why, format!("{why:?}"));
            }
        }
        let status = monitor.status();
        assert_eq!(
            (status.reconnects, status.slow_consumer, status.silences),
            (28, 5, 6)
        );
        assert_eq!(status.last_error.as_deref(), Some("Expired"));
        assert_eq!(
            (status.last_received, status.token),
            (None, TokenState::Fixed)
        );
        monitor.received(7);
        assert!(monitor.status().last_received.is_some());
    }
}
