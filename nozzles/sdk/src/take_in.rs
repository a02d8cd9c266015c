//! From the intake into the buffer.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use loggregator_envelope::{Entry, Frame, FrameBuilder, Kind};
use loggregator_service::Lifecycle;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::buffer::{Appended, Buffer};
use crate::enrich::Directory;
use crate::event::Event;
use crate::filter::Filter;
use crate::intake::{Intake, Monitor};
use crate::ledger::{LEFT_OUT, Ledger, MALFORMED};
use crate::tap::INTAKE;

/// What others may know of the intake.
#[derive(Debug)]
pub(crate) struct IntakeState {
    last: Mutex<Instant>,
    monitor: OnceLock<Arc<Monitor>>,
    upstream_lost: Mutex<BTreeMap<&'static str, u64>>,
}

impl IntakeState {
    pub(crate) fn new() -> IntakeState {
        IntakeState {
            last: Mutex::new(Instant::now()),
            monitor: OnceLock::new(),
            upstream_lost: Mutex::default(),
        }
    }

    /// How long nothing has come.
    pub(crate) fn silence(&self) -> Duration {
        self.last.lock().elapsed()
    }

    /// How the latest stream ended.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.monitor.get()?.status().last_error
    }

    /// Envelopes that the other side says it lost, by its origin.
    pub(crate) fn upstream_lost(&self) -> Vec<(&'static str, u64)> {
        let lost = self.upstream_lost.lock();
        lost.iter().map(|(origin, n)| (*origin, *n)).collect()
    }
}

/// What takes in, and what it takes.
pub(crate) struct TakeIn {
    pub intake: Box<dyn Intake>,
    pub buffer: Buffer,
    pub ledger: Arc<Ledger>,
    /// `select.filter`
    pub filter: Option<Filter>,
    /// Envelopes that it has looked at. What has no number in the buffer yet is sampled by this.
    pub looked_at: u64,
    pub directory: Option<Arc<dyn Directory>>,
}

impl TakeIn {
    /// Takes in until the nozzle stops or nothing more can come; then nothing more is taken into the buffer.
    pub(crate) async fn run(mut self, lifecycle: Lifecycle) {
        let stop = lifecycle.token();
        // There is one intake in the life of a ledger.
        self.ledger.intake.monitor.set(self.intake.monitor()).ok();
        while let Some(Some(batch)) = stop
            .run_until_cancelled(poll_fn(|cx| self.intake.poll_next(cx)))
            .await
        {
            *self.ledger.intake.last.lock() = Instant::now();
            self.take(batch).await;
        }
        // What has arrived already would be lost with the connection.
        self.intake.stop();
        while let Some(batch) = poll_fn(|cx| self.intake.poll_next(cx)).await {
            self.take(batch).await;
        }
        self.buffer.close();
    }

    async fn take(&mut self, batch: Bytes) {
        let Ok(parsed) = Frame::parse(batch) else {
            let mut ingress = self.ledger.ingress.lock();
            ingress.received += 1;
            *ingress.rejected.entry(MALFORMED.to_owned()).or_default() += 1;
            return;
        };
        let received = now();
        look(&parsed.frame, received, &self.ledger);
        let all = parsed.frame.len() as u64;
        let frame = self.selected(parsed.frame, received);
        let left_out = all - frame.len() as u64;
        let appended = match frame.is_empty() {
            true => Appended::default(),
            false => self.buffer.append(&frame, received).await,
        };
        let mut ingress = self.ledger.ingress.lock();
        ingress.received += u64::from(parsed.rejected) + all;
        ingress.accepted += appended.accepted;
        for (reason, n) in [
            (MALFORMED, u64::from(parsed.rejected)),
            (LEFT_OUT, left_out),
            (appended.why, appended.refused),
        ] {
            if n > 0 {
                *ingress.rejected.entry(reason.to_owned()).or_default() += n;
            }
        }
    }

    /// What `select.filter` holds for.
    fn selected(&mut self, frame: Frame, received: i64) -> Frame {
        let Some(filter) = &self.filter else {
            return frame;
        };
        let looked_at = &mut self.looked_at;
        let wanted = |entry: &&Entry| {
            let event = Event::new(*looked_at, received, frame.bytes().slice(entry.body()));
            *looked_at += 1;
            let directory = self.directory.as_ref();
            let names = directory.and_then(|directory| directory.names(&event));
            filter.matches(&event.with_names(names))
        };
        let wanted: Vec<&Entry> = frame.entries().iter().filter(wanted).collect();
        if wanted.len() == frame.len() {
            return frame;
        }
        let mut builder = FrameBuilder::new();
        for entry in wanted {
            // It fits: it is a part of a frame that did.
            builder.push_entry(frame.bytes(), entry).ok();
        }
        let (bytes, index) = builder.finish();
        Frame::from_parts(bytes, index)
    }
}

/// What is learnt from a frame on the way.
fn look(frame: &Frame, received: i64, ledger: &Ledger) {
    ledger.talkers.count(frame);
    if frame.index().kinds().contains(Kind::Counter) {
        told_lost(frame, ledger);
    }
    if ledger.taps.open() > 0 {
        let events: Vec<Event> = frame
            .entries()
            .iter()
            .map(|entry| Event::new(0, received, frame.bytes().slice(entry.body())))
            .collect();
        ledger.taps.show(INTAKE, events.iter());
    }
}

/// The counter by which a doppler or a reverse log proxy tells its reader that it lost something.
const DROPPED: &str = "dropped";
const ORIGINS: [&str; 2] = ["loggregator.doppler", "loggregator.rlp"];

/// Counts what the other side says it lost. It stays an event like any other.
fn told_lost(frame: &Frame, ledger: &Ledger) {
    let counters = frame.entries().iter().filter(|e| e.kind() == Kind::Counter);
    for entry in counters {
        let envelope = frame.envelope(entry);
        let told = envelope.counter().filter(|c| c.name == DROPPED);
        // Components also tell that they lost nothing.
        let Some(counter) = told.filter(|c| c.delta > 0) else {
            continue;
        };
        let tag = |name| envelope.tag(name).unwrap_or_default();
        let origin = ORIGINS.into_iter().find(|known| *known == tag("origin"));
        if let (Some(origin), "egress") = (origin, &*tag("direction")) {
            let mut lost = ledger.intake.upstream_lost.lock();
            *lost.entry(origin).or_default() += counter.delta;
            tracing::warn!(origin, envelopes = counter.delta, "lost upstream");
        }
    }
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    })
}
