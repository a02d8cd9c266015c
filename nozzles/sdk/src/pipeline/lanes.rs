//! In which order batches are sent, when several may be on their way and some come back.

use std::collections::VecDeque;

use super::work::Work;

/// Batches that wait, and what is known of those on their way.
///
/// When something comes back, nothing more is sent before all that is on its way has landed. Then what came back goes
/// first, in the order of its numbers. So no event is ever sent for the first time while an earlier one waits to be sent
/// again.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    ready: VecDeque<Work>,
    back: Vec<Work>,
    /// Of each batch on its way: number of its first event, and when that was received.
    flying: Vec<(u64, i64)>,
}

impl Lanes {
    /// A new batch, behind all others.
    pub(crate) fn push(&mut self, work: Work) {
        self.ready.push_back(work);
    }

    /// Whether a batch may be sent, when at most `limit` are on their way at a time.
    pub(crate) fn may_send(&self, limit: usize) -> bool {
        let waits = !self.ready.is_empty() || !self.back.is_empty();
        let settled = self.back.is_empty() || self.flying.is_empty();
        waits && settled && self.flying.len() < limit
    }

    /// The next one to send; it is on its way then.
    pub(crate) fn send(&mut self) -> Option<Work> {
        if self.flying.is_empty() && !self.back.is_empty() {
            self.back.sort_by_key(Work::first);
            for work in std::mem::take(&mut self.back).into_iter().rev() {
                self.ready.push_front(work);
            }
        }
        let work = self.ready.pop_front()?;
        self.flying.push(key(&work));
        Some(work)
    }

    /// The batch that begins with this number has landed; this is what comes back of it.
    pub(crate) fn landed(&mut self, first: u64, again: Vec<Work>) {
        if let Some(at) = self.flying.iter().position(|(seq, _)| *seq == first) {
            self.flying.swap_remove(at);
        }
        self.back.extend(again);
    }

    /// How many are on their way.
    pub(crate) fn flying(&self) -> usize {
        self.flying.len()
    }

    /// Events that wait to be sent.
    pub(crate) fn waiting(&self) -> usize {
        let waiting = self.ready.iter().chain(&self.back);
        waiting.map(|work| work.events.len()).sum()
    }

    /// Whether nothing waits and nothing is on its way.
    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.back.is_empty() && self.flying.is_empty()
    }

    /// When the first event of those here was received.
    pub(crate) fn oldest(&self) -> Option<i64> {
        let ready = self.ready.front().into_iter().chain(&self.back).map(key);
        let oldest = self.flying.iter().copied().chain(ready).min();
        oldest.map(|(_, received)| received)
    }
}

fn key(work: &Work) -> (u64, i64) {
    let first = work.events.first();
    first.map_or((u64::MAX, i64::MAX), |event| (event.seq, event.received))
}
