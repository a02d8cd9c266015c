//! The nozzle's ledger: what it received, and what became of that at each destination.

use std::sync::Arc;

use loggregator_service::ledger::{Ingress, LogFill, Report, Source, Subscription};
use parking_lot::{Mutex, RwLock};

use crate::buffer::{Buffer, BufferReport};
use crate::pipeline::state::State;

/// Reason of envelopes that no scan accepts.
pub(crate) const MALFORMED: &str = "malformed";

/// A destination, as everybody sees it.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub name: String,
    pub kind: String,
    /// Its filter.
    pub selector: String,
    pub state: Arc<State>,
}

/// Shared by the intake, the admin server, readiness and metrics.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub nozzle: String,
    pub ingress: Mutex<Ingress>,
    pub buffer: Buffer,
    pub lines: RwLock<Vec<Line>>,
}

impl Ledger {
    pub(crate) fn new(nozzle: &str, buffer: Buffer) -> Ledger {
        Ledger {
            nozzle: nozzle.to_owned(),
            ingress: Mutex::default(),
            buffer,
            lines: RwLock::default(),
        }
    }
}

impl Line {
    /// Events that are not settled: all that the buffer has numbered since the destination's first, less those that are.
    pub(crate) fn pending(&self, next: u64) -> u64 {
        let (birth, account) = self.state.settled();
        next.saturating_sub(birth.saturating_add(account.total()))
    }

    fn row(&self, buffer: &BufferReport) -> Subscription {
        // The account is read after the buffer's next number was: it may be ahead of that by what arrived in between.
        let (birth, account) = self.state.settled();
        let received = buffer.next.saturating_sub(birth).max(account.total());
        Subscription {
            id: self.name.clone(),
            selector: self.selector.clone(),
            api: self.kind.clone(),
            open: !self.state.has_ended(),
            received,
            pending: received - account.total(),
            delivered: account.delivered,
            filtered: account.filtered,
            dead_lettered: account.dead_lettered,
            dropped: account.dropped,
            ..Subscription::default()
        }
    }
}

impl Source for Ledger {
    fn report(&self) -> Report {
        let ingress = self.ingress.lock().clone();
        let buffer = self.buffer.report();
        let lines = self.lines.read();
        Report {
            component: "nozzle".to_owned(),
            instance: self.nozzle.clone(),
            ingress,
            subscriptions: lines.iter().map(|line| line.row(&buffer)).collect(),
            log: Some(LogFill {
                bytes: buffer.bytes,
                limit: buffer.max_bytes,
                ..LogFill::default()
            }),
        }
    }
}
