//! The nozzle's ledger: what it received, and what became of that at each destination.

use std::sync::Arc;

use loggregator_service::ledger::{Ingress, LogFill, Report, Source, Subscription};
use parking_lot::{Mutex, RwLock};

use crate::buffer::{Buffer, BufferReport};
use crate::dead_letter::DeadLetters;
use crate::pipeline::state::State;
use crate::take_in::IntakeState;
use crate::talkers::Talkers;
use crate::tap::{INTAKE, Taps};

/// Reason of envelopes that no scan accepts.
pub(crate) const MALFORMED: &str = "malformed";
/// Reason of envelopes that `select.filter` does not hold for: left out on purpose.
pub(crate) const LEFT_OUT: &str = "filter";

/// A destination, as everybody sees it.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub name: String,
    pub kind: String,
    /// Its filter, if it has one.
    pub filter: Option<String>,
    pub guarantee: String,
    pub state: Arc<State>,
    pub dead_letters: Arc<DeadLetters>,
}

/// Shared by the intake, the admin server, readiness and metrics.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub nozzle: String,
    pub ingress: Mutex<Ingress>,
    pub intake: IntakeState,
    pub talkers: Talkers,
    pub taps: Arc<Taps>,
    pub buffer: Buffer,
    pub lines: RwLock<Vec<Line>>,
}

impl Ledger {
    pub(crate) fn new(nozzle: &str, buffer: Buffer) -> Ledger {
        Ledger {
            nozzle: nozzle.to_owned(),
            ingress: Mutex::default(),
            intake: IntakeState::new(),
            talkers: Talkers::new(),
            taps: Arc::default(),
            buffer,
            lines: RwLock::default(),
        }
    }
}

impl Ledger {
    /// Adds a destination, or replaces it.
    pub(crate) fn set_line(&self, line: Line) {
        let mut lines = self.lines.write();
        match lines.iter_mut().find(|other| other.name == line.name) {
            Some(known) => *known = line,
            None => lines.push(line),
        }
    }

    /// Where one may listen.
    pub(crate) fn edges(&self) -> Vec<String> {
        let lines = self.lines.read();
        let edges = lines.iter().flat_map(|line| {
            let edges = ["in", "out", "rendered"];
            edges.map(|edge| format!("{}/{edge}", line.name))
        });
        std::iter::once(INTAKE.to_owned()).chain(edges).collect()
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
            selector: self.filter.clone().unwrap_or_else(|| "all".to_owned()),
            api: self.kind.clone(),
            open: !self.state.has_ended(),
            received,
            pending: received - account.total(),
            delivered: account.delivered,
            filtered: account.filtered,
            dead_lettered: account.dead_lettered,
            dropped: account.dropped,
            lost_sources: self.state.losses(),
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
