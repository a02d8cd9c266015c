//! The nozzle's ledger: what it received, and what became of that at each destination.

use std::sync::{Arc, OnceLock};

use loggregator_proto::v2;
use loggregator_service::ledger::{Ingress, LogFill, Report, Source, SourceLoss, Subscription};
use parking_lot::{Mutex, RwLock};
use prost::Message as _;

use crate::account::Account;
use crate::buffer::{BACKLOG_FULL, Buffer, BufferReport};
use crate::dead_letter::DeadLetters;
use crate::enrich::Directory;
use crate::event::{Event, Names};
use crate::pipeline::state::{LISTED, State};
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
pub(crate) struct Ledger {
    pub nozzle: String,
    pub ingress: Mutex<Ingress>,
    pub intake: IntakeState,
    pub talkers: Talkers,
    pub taps: Arc<Taps>,
    pub buffer: Buffer,
    /// Names that tags do not tell, once there is one.
    pub directory: OnceLock<Arc<dyn Directory>>,
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
            directory: OnceLock::new(),
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

    /// The names that belong to a source of which nothing else is known, if they are known now.
    pub(crate) fn names(&self, source_id: &str) -> Option<Arc<Names>> {
        let directory = self.directory.get();
        let known = directory.and_then(|directory| directory.names(&of_source(source_id)));
        known.or_else(|| self.talkers.names(source_id))
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

/// An event of which nothing but the source is known.
fn of_source(source_id: &str) -> Event {
    let envelope = v2::Envelope {
        source_id: source_id.to_owned(),
        ..v2::Envelope::default()
    };
    Event::new(0, 0, envelope.encode_to_vec().into())
}

/// How many events came for a destination, and what became of them.
#[derive(Debug)]
pub(crate) struct Standing {
    /// All that the buffer has numbered since the destination's first.
    pub received: u64,
    /// Not settled, and not lost either.
    pub pending: u64,
    /// What became of the others. What a full share left out counts from that moment on, and not only when the destination
    /// comes to it: one that is away might not for days.
    pub account: Account,
}

impl Line {
    /// Where it stands. `buffer` was asked before.
    pub(crate) fn standing(&self, buffer: &BufferReport) -> Standing {
        let (birth, mut account) = self.state.settled();
        let settled = birth.saturating_add(account.total());
        // The account is read after the buffer was: it may be ahead by what arrived or was settled in between.
        let received = buffer.next.saturating_sub(birth).max(account.total());
        let cursor = buffer.cursors.iter().find(|one| one.name == self.name);
        let skips = cursor.into_iter().flat_map(|cursor| &cursor.skips);
        let skipped: u64 = skips
            .map(|skip| skip.end.saturating_sub(skip.start.max(settled)))
            .sum();
        if skipped > 0 {
            *account.dropped.entry(BACKLOG_FULL.to_owned()).or_default() += skipped;
        }
        Standing {
            received,
            pending: received.saturating_sub(account.total()),
            account,
        }
    }

    /// Whose events were lost, the biggest losers first.
    fn losses(&self, buffer: &BufferReport, ledger: &Ledger) -> Vec<SourceLoss> {
        let mut losses = self.state.losses();
        let cursor = buffer.cursors.iter().find(|one| one.name == self.name);
        for (source_id, n) in cursor.into_iter().flat_map(|one| &one.untold_sources) {
            if let Some(known) = losses.iter_mut().find(|one| one.source_id == *source_id) {
                known.dropped += n;
                continue;
            }
            let names = ledger.names(source_id);
            let name = |of: fn(&Names) -> &String| {
                let name = names.as_deref().map(of);
                name.cloned().unwrap_or_default()
            };
            losses.push(SourceLoss {
                dropped: *n,
                app: name(|names| &names.app),
                space: name(|names| &names.space),
                org: name(|names| &names.org),
                source_id: source_id.clone(),
            });
        }
        losses.sort_by_key(|loss| std::cmp::Reverse(loss.dropped));
        losses.truncate(LISTED);
        losses
    }

    fn row(&self, buffer: &BufferReport, ledger: &Ledger) -> Subscription {
        let Standing {
            received,
            pending,
            account,
        } = self.standing(buffer);
        Subscription {
            id: self.name.clone(),
            selector: self.filter.clone().unwrap_or_else(|| "all".to_owned()),
            api: self.kind.clone(),
            open: !self.state.has_ended(),
            received,
            pending,
            delivered: account.delivered,
            filtered: account.filtered,
            dead_lettered: account.dead_lettered,
            dropped: account.dropped,
            lost_sources: self.losses(buffer, ledger),
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
            subscriptions: lines.iter().map(|line| line.row(&buffer, self)).collect(),
            log: Some(LogFill {
                bytes: buffer.bytes,
                limit: buffer.max_bytes,
                ..LogFill::default()
            }),
            lost_upstream: { self.intake.upstream_lost().into_iter() }
                .map(|(origin, n)| (origin.to_owned(), n))
                .collect(),
        }
    }
}
