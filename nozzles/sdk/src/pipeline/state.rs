//! What others may know of a running pipeline: metrics, the ledger, readiness.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use loggregator_service::ledger::SourceLoss;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{breaker, settle};
use crate::account::Account;
use crate::event::Names;
use crate::top::{Slot, Top};

/// Sources whose losses are counted; the biggest losers are always among them.
const LOSERS: usize = 200;
/// Of these so many stand in the ledger.
pub(crate) const LISTED: usize = 32;

/// Written by the pipeline, read by everybody else. Plain numbers are relaxed: each stands for itself.
#[derive(Debug)]
pub(crate) struct State {
    /// Number of the first event that concerned the destination; and the account of those between it and the cursor.
    settled: Mutex<(u64, Account)>,
    pub delivered_bytes: AtomicU64,
    /// Batches of which something has to be tried again.
    pub failures: AtomicU64,
    /// Whose events were lost, since the start.
    losses: Mutex<Top>,
    /// Let pass by the filter, and not, since the start.
    pub matched: AtomicU64,
    pub unmatched: AtomicU64,
    pub in_flight: AtomicUsize,
    pub limit: AtomicUsize,
    /// How long batches that could have gone were held back by the rate, in nanoseconds.
    pub rate_held: AtomicU64,
    breaker: AtomicU8,
    /// When the oldest pending event that was read had been received, in nanoseconds since 1970; 0 when there is none.
    pub oldest: AtomicI64,
    /// Notices of quotas that were taken.
    pub notices: AtomicU64,
    retries: Mutex<BTreeMap<String, u64>>,
    progress: Mutex<Instant>,
    /// Why the last attempt failed, unless one succeeded since.
    trouble: Mutex<Option<String>>,
    ended: AtomicBool,
}

impl State {
    pub(crate) fn new() -> State {
        State {
            settled: Mutex::default(),
            delivered_bytes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            losses: Mutex::new(Top::new(LOSERS)),
            matched: AtomicU64::new(0),
            unmatched: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            limit: AtomicUsize::new(0),
            rate_held: AtomicU64::new(0),
            breaker: AtomicU8::new(0),
            oldest: AtomicI64::new(0),
            notices: AtomicU64::new(0),
            retries: Mutex::default(),
            progress: Mutex::new(Instant::now()),
            trouble: Mutex::default(),
            ended: AtomicBool::new(false),
        }
    }

    /// The first event that concerned the destination, and what became of it and those after.
    pub(crate) fn settled(&self) -> (u64, Account) {
        self.settled.lock().clone()
    }

    pub(crate) fn settle(&self, birth: u64, account: &Account) {
        let mut settled = self.settled.lock();
        settled.0 = birth;
        settled.1.clone_from(account);
    }

    /// Its task is done.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Whether its task is done.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    pub(crate) fn breaker(&self) -> u8 {
        self.breaker.load(Ordering::Relaxed)
    }

    pub(crate) fn set_breaker(&self, state: breaker::State) {
        self.breaker.store(state.number(), Ordering::Relaxed);
    }

    pub(crate) fn retried(&self, code: &str, n: u64) {
        let mut retries = self.retries.lock();
        // As bounded as the reasons of the account.
        let known = retries.contains_key(code) || retries.len() < settle::MOST_FATES;
        let code = if known { code } else { settle::OTHER };
        *retries.entry(code.to_owned()).or_default() += n;
    }

    /// Events that were tried again, by reason, since the start.
    pub(crate) fn retries(&self) -> BTreeMap<String, u64> {
        self.retries.lock().clone()
    }

    /// So many events of a source were lost; of one of them more may be known.
    pub(crate) fn lost(&self, source_id: &str, n: u64, names: impl FnOnce() -> Option<Arc<Names>>) {
        let hash = loggregator_envelope::source_hash(source_id.as_bytes());
        let mut losses = self.losses.lock();
        let slot = losses.add(hash, source_id, n);
        if slot.names.is_none() {
            slot.names = names();
        }
    }

    /// Whose events were lost, since the start; the biggest losers first.
    pub(crate) fn losses(&self) -> Vec<SourceLoss> {
        let biggest = self.losses.lock().biggest(LISTED);
        let loss = |slot: Slot| {
            let [app, space, org] = slot.names().map(str::to_owned);
            SourceLoss {
                dropped: slot.count,
                app,
                space,
                org,
                source_id: slot.source_id.into(),
            }
        };
        biggest.into_iter().map(loss).collect()
    }

    /// Something was settled, or there was nothing to settle.
    pub(crate) fn progressed(&self, now: Instant) {
        *self.progress.lock() = now;
    }

    /// When that was last.
    pub(crate) fn progress(&self) -> Instant {
        *self.progress.lock()
    }

    pub(crate) fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock() = trouble;
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }
}
