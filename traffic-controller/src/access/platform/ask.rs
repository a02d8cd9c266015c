//! One service that is asked over HTTP, with its bounds and counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use loggregator_net::http::client::{Answer, Client, ClientError, Question};
use loggregator_service::metrics::{Samples, names};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::breaker::Breaker;
use super::cache::Flight;
use super::config::Limits;

/// What came of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The answer was yes.
    Allowed,
    /// The answer was no.
    Denied,
    /// There was no answer that means anything.
    Failed,
    /// It was not asked: the service is being left alone, the wait for a place took too long, or nobody wants to know any
    /// more.
    HeldBack,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Allowed, Self::Denied, Self::Failed, Self::HeldBack];

    fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::HeldBack => "held_back",
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    /// It was asked in vain.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It failed too often just now.
    #[error("it did not answer before and is left alone for a while")]
    Resting,
    /// Too many questions are under way.
    #[error("no place for another request in time")]
    Busy,
    /// Whoever asked has left.
    #[error("nobody waits for the answer any more")]
    Unwanted,
}

/// A service: a client, how many may use it at once, and when to leave it alone.
pub(super) struct Service {
    target: &'static str,
    client: Client,
    slots: Semaphore,
    max_in_flight: usize,
    timeout: Duration,
    breaker: Breaker,
    outcomes: [AtomicU64; Outcome::ALL.len()],
    last_nanos: AtomicU64,
    sum_nanos: AtomicU64,
}

impl Service {
    /// `target` is its name among the metrics.
    pub fn new(target: &'static str, client: Client, limits: &Limits) -> Self {
        let max_in_flight = limits.max_in_flight.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            target,
            client,
            slots: Semaphore::new(max_in_flight),
            max_in_flight,
            timeout: limits.timeout,
            breaker: Breaker::new(
                limits.breaker_failures,
                limits.breaker_pause,
                limits.breaker_max_pause,
            ),
            outcomes: Default::default(),
            last_nanos: AtomicU64::new(0),
            sum_nanos: AtomicU64::new(0),
        }
    }

    /// Asks, and judges the answer. The outcome [`Outcome::Failed`] counts against the service. The question is made when
    /// there is a place for it: many may be waiting.
    ///
    /// # Errors
    /// When there is no answer, or it was not asked.
    pub async fn ask<T>(
        &self,
        flight: &Flight,
        question: impl FnOnce() -> Question,
        judge: impl FnOnce(&Answer) -> (Outcome, T),
    ) -> Result<T, Unanswered> {
        let asked = self.attempt(flight, question, judge).await;
        let outcome = match &asked {
            Ok((outcome, _)) => *outcome,
            Err(Unanswered::Client(_)) => Outcome::Failed,
            Err(Unanswered::Resting | Unanswered::Busy | Unanswered::Unwanted) => Outcome::HeldBack,
        };
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
        asked.map(|(_, judged)| judged)
    }

    async fn attempt<T>(
        &self,
        flight: &Flight,
        question: impl FnOnce() -> Question,
        judge: impl FnOnce(&Answer) -> (Outcome, T),
    ) -> Result<(Outcome, T), Unanswered> {
        // Before the wait for a place, and after it: a service may have gone in between.
        if self.breaker.resting() {
            return Err(Unanswered::Resting);
        }
        let deadline = Instant::now() + self.timeout;
        let Ok(Ok(_slot)) = tokio::time::timeout_at(deadline, self.slots.acquire()).await else {
            return Err(Unanswered::Busy);
        };
        if !flight.sent() {
            return Err(Unanswered::Unwanted);
        }
        let pass = self.breaker.enter().ok_or(Unanswered::Resting)?;
        let started = Instant::now();
        let answer = self.client.send(question(), deadline).await;
        let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.last_nanos.store(nanos, Ordering::Relaxed);
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
        if matches!(answer, Err(ClientError::Timeout { .. }))
            && started.elapsed() < self.timeout / 2
        {
            // Most of the time went by before it was asked: that says nothing about the service.
            return Err(Unanswered::Busy);
        }
        let judged = answer.map(|answer| judge(&answer));
        match &judged {
            Ok((Outcome::Failed, _)) | Err(_) => pass.failed(),
            Ok(_) => pass.answered(),
        }
        Ok(judged?)
    }

    /// How long the last answer, or failure, took; zero: none yet.
    pub fn last_latency(&self) -> Duration {
        Duration::from_nanos(self.last_nanos.load(Ordering::Relaxed))
    }

    /// Adds this service's metrics.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus values are doubles")]
    pub fn collect(&self, samples: &mut Samples) {
        for outcome in Outcome::ALL {
            let count = self.outcomes[outcome as usize].load(Ordering::Relaxed);
            let labels = [("target", self.target), ("outcome", outcome.name())];
            samples.counter(&names::ACCESS_CHECKS, &labels, count);
        }
        let target = [("target", self.target)];
        let seconds = |nanos: &AtomicU64| nanos.load(Ordering::Relaxed) as f64 / 1e9;
        samples.gauge(
            &names::ACCESS_LAST_LATENCY,
            &target,
            seconds(&self.last_nanos),
        );
        samples.counter_f64(
            &names::ACCESS_CHECK_SECONDS,
            &target,
            seconds(&self.sum_nanos),
        );
        let in_flight = self.max_in_flight - self.slots.available_permits();
        samples.gauge_count(&names::ACCESS_IN_FLIGHT, &target, in_flight as u64);
        let open = u64::from(self.breaker.open());
        samples.gauge_count(&names::ACCESS_BREAKER_OPEN, &target, open);
    }
}
