//! Delivering a few events to the end, one batch after the other: for a replay.

use std::collections::VecDeque;
use std::sync::Arc;

use loggregator_net::Backoff;

use super::flight::{self, Landed};
use super::work::Work;
use crate::config::RetryConfig;
use crate::dead_letter::DeadLetters;
use crate::destination::DynDestination;
use crate::event::Event;

/// A destination, and how often it is tried.
pub(crate) struct Retrier {
    pub destination: Arc<dyn DynDestination>,
    pub retry: RetryConfig,
    pub backoff: Backoff,
}

impl Retrier {
    /// Delivers these, or makes dead letters of them; returns how many of each.
    pub(crate) async fn deliver(
        &mut self,
        events: Vec<Event>,
        dead_letters: &DeadLetters,
    ) -> (u64, u64) {
        let (mut delivered, mut dead) = (0, 0);
        let mut queue = VecDeque::from([Work {
            events,
            ..Work::default()
        }]);
        while let Some(work) = queue.pop_front() {
            let destination = Arc::clone(&self.destination);
            let Landed { work, delivery, .. } =
                flight::fly(destination, work, self.retry.timeout.0).await;
            let verdict = work.judge(delivery, self.retry.attempts);
            delivered += verdict.taken.len() as u64;
            dead += verdict.dead.len() as u64;
            if !verdict.dead.is_empty() {
                dead_letters.keep(&verdict.dead).await;
            }
            if verdict.progress() {
                self.backoff.reset();
            }
            if let Some(why) = &verdict.failed {
                tracing::warn!(%why, "not delivered, will be tried again");
                let wait = self.backoff.next_delay();
                tokio::time::sleep(wait.max(verdict.after.unwrap_or_default())).await;
            }
            for again in verdict.again.into_iter().rev() {
                queue.push_front(again);
            }
        }
        (delivered, dead)
    }
}
