//! From the buffer to one destination: read, select, batch, deliver, settle.
//!
//! One task per destination. It reads from its cursor, leaves out what the destination does not want, makes batches, has
//! the destination deliver them, and moves the cursor past what is settled without a gap. What has to be tried again goes
//! before anything new.

mod breaker;
mod concurrency;
mod flight;
mod lanes;
mod loss;
mod pace;
pub(crate) mod rate;
mod retrier;
mod select;
mod settle;
mod sizes;
pub(crate) mod state;
mod work;

#[cfg(test)]
mod model;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use loggregator_envelope::Kind;
use loggregator_net::Backoff;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::buffer::{Cursor, Read};
use crate::config::DestinationConfig;
use crate::dead_letter::DeadLetters;
use crate::destination::DynDestination;
use crate::enrich::Directory;
use crate::event::Event;
use crate::filter::Filter;
use crate::kind::{Limits, Plan};
use crate::ledger::Ledger;
use crate::quota::Quota;
use crate::top;

use self::breaker::Breaker;
use self::concurrency::Concurrency;
use self::flight::{Flight, Landed};
use self::lanes::Lanes;
use self::rate::Rate;
use self::select::Select;
use self::settle::{Class, Fate, Window};
pub(crate) use self::sizes::Sizes;
use self::state::State;
use self::work::Work;

pub(crate) use self::retrier::Retrier;
pub(crate) use self::select::suspicion;

/// At least so much is read at a time, however small the batches are.
const READ_EVENTS: usize = 256;
const READ_BYTES: usize = 256 << 10;
/// The window between the first event that is not settled and the last that was read is not longer than this.
const MOST_OPEN: usize = 1 << 20;
/// What a destination has at the end to hand on what it holds.
const CLOSE: Duration = Duration::from_secs(5);

/// Everything that a destination's task needs, also when it is started again.
pub(crate) struct Setup {
    pub nozzle: String,
    pub config: DestinationConfig,
    pub plan: Arc<dyn Plan>,
    pub filter: Filter,
    pub directory: Option<Arc<dyn Directory>>,
    pub destination: Arc<dyn DynDestination>,
    pub dead_letters: Arc<DeadLetters>,
    pub state: Arc<State>,
    pub ledger: Arc<Ledger>,
    pub sizes: Sizes,
    /// Whether what is left at the end is still there at the next start.
    pub durable: bool,
    /// Told to finish what there is, once the buffer takes nothing more.
    pub stop: CancellationToken,
    /// Told to stop at once, for a change of the configuration: nothing is lost, the cursor stays.
    pub leave: CancellationToken,
    /// Cancelled when its task is done.
    pub ended: CancellationToken,
    /// How long finishing may take.
    pub drain: Duration,
}

/// A destination's task.
pub(crate) struct Pipeline {
    setup: Arc<Setup>,
    limits: Limits,
    cursor: Cursor,
    birth: u64,
    window: Window,
    select: Select,
    edges: [String; 3],
    /// What is being put together, and since when.
    building: Work,
    building_bytes: usize,
    since: Instant,
    /// Whether the cursor has an end that was reached.
    ended: bool,
    lanes: Lanes,
    flights: FuturesUnordered<Flight>,
    concurrency: Concurrency,
    rate: Rate,
    /// Since when a batch that could have gone is held back by the rate.
    held: Option<Instant>,
    breaker: Breaker,
    backoff: Backoff,
    not_before: Instant,
    /// When the last failure was met.
    failed_at: Instant,
    /// Since when it is to finish, and whether an attempt failed since then.
    draining: Option<Instant>,
    failed_at_end: bool,
}

/// What is good for a destination, as the configuration has it.
pub(crate) fn limits(config: &DestinationConfig, plan: &dyn Plan) -> Limits {
    let (batch, own) = (&config.batch, plan.limits());
    let bytes = batch
        .bytes
        .map(|size| usize::try_from(size.0).unwrap_or(usize::MAX));
    Limits {
        batch_events: batch.events.unwrap_or(own.batch_events).max(1),
        batch_bytes: bytes.unwrap_or(own.batch_bytes).max(1),
        linger: batch.linger.map_or(own.linger, |time| time.0),
        in_flight: batch.in_flight.unwrap_or(own.in_flight).max(1),
    }
}

/// Delivers from this cursor until the buffer is closed and everything was settled, or there is reason to leave.
pub(crate) async fn run(setup: Arc<Setup>, cursor: Cursor) {
    let mut pipeline = Pipeline::new(Arc::clone(&setup), cursor);
    pipeline.deliver_all().await;
    drop(pipeline);
    if tokio::time::timeout(CLOSE.min(setup.drain), setup.destination.close())
        .await
        .is_err()
    {
        tracing::warn!(
            destination = setup.config.name,
            "did not hand on what it holds in time"
        );
    }
    setup.state.end();
    setup.ended.cancel();
}

impl Pipeline {
    fn new(setup: Arc<Setup>, cursor: Cursor) -> Pipeline {
        let now = Instant::now();
        let config = &setup.config;
        let limits = limits(config, &*setup.plan);
        let (next, account) = cursor.start();
        let birth = cursor.birth();
        let accepts = setup.plan.accepts();
        let mut select = Select::new(accepts, setup.filter.clone(), config.filter.clone());
        select.directory.clone_from(&setup.directory);
        select.quota = config
            .quota
            .map(|quota| Quota::new(&setup.nozzle, quota, accepts.contains(Kind::Log), now));
        setup.state.settle(birth, &account);
        Pipeline {
            limits,
            cursor,
            birth,
            window: Window::new(next, account),
            select,
            edges: ["in", "out", "rendered"].map(|edge| format!("{}/{edge}", config.name)),
            building: Work::default(),
            building_bytes: 0,
            since: now,
            ended: false,
            lanes: Lanes::default(),
            flights: FuturesUnordered::new(),
            concurrency: Concurrency::new(limits.in_flight),
            rate: Rate::new(&config.rate, now),
            held: None,
            breaker: Breaker::new(&config.breaker),
            backoff: Backoff::new(config.retry.min.0, config.retry.max.0).with_shape(2.0, 0.2),
            not_before: now,
            failed_at: now,
            draining: None,
            failed_at_end: false,
            setup,
        }
    }

    async fn deliver_all(&mut self) {
        let leave = self.setup.leave.clone();
        let stop = self.setup.stop.clone();
        // A peer may take long to say where an earlier process stopped. What is on disk need not wait for it.
        let resume = tokio::select! {
            biased;
            resume = self.setup.destination.resume() => resume,
            () = leave.cancelled() => return,
            () = stop.cancelled(), if self.setup.durable => return,
        };
        if let Some(resume) = resume {
            tracing::info!(
                destination = self.setup.config.name,
                resume,
                "the destination says where an earlier process stopped"
            );
            self.select.resume = resume;
        }
        loop {
            let now = Instant::now();
            self.send(now);
            self.publish(now);
            if self.done(now) {
                return;
            }
            let wake = self.wake(now);
            let reads = self.reads();
            let (events, bytes) = (
                self.limits.batch_events.max(READ_EVENTS),
                self.limits.batch_bytes.max(READ_BYTES),
            );
            tokio::select! {
                biased;
                () = leave.cancelled() => return,
                () = stop.cancelled(), if self.draining.is_none() => self.begin_to_drain(),
                Some(landed) = self.flights.next(), if !self.flights.is_empty() => self.land(landed).await,
                () = sleep_until(wake), if wake.is_some() => {}
                read = self.cursor.next(events, bytes), if reads => self.take(read),
            }
        }
    }

    /// Puts what was read into batches.
    fn take(&mut self, read: Option<Read>) {
        let now = Instant::now();
        let Some(read) = read else {
            self.ended = true;
            self.close_batch();
            return;
        };
        let setup = Arc::clone(&self.setup);
        let (state, taps) = (&setup.state, &setup.ledger.taps);
        for lost in read.lost {
            self.lost(lost);
        }
        let [edge_in, edge_out, rendered] = &self.edges;
        taps.show(edge_in, read.events.iter());
        let selected = self
            .select
            .select(read.events, &mut self.window, state, now);
        self.select.suspect(&setup.config.name, state);
        taps.show(edge_out, selected.events.iter());
        taps.show_rendered(rendered, &*setup.plan, selected.events.iter());
        for event in &selected.over {
            state.lost(event.envelope().source_id(), 1, || top::names(event));
        }
        for event in selected.events {
            let notice = selected.notices.binary_search(&event.seq).is_ok();
            self.build(event, notice, now);
        }
        self.checkpoint(now);
    }

    fn build(&mut self, event: Event, notice: bool, now: Instant) {
        let bytes = event.body().len();
        if self.building_bytes + bytes > self.limits.batch_bytes {
            self.close_batch();
        }
        if self.building.events.is_empty() {
            self.since = now;
        }
        if notice {
            self.building.notices.push(event.seq);
        }
        self.building.events.push(event);
        self.building_bytes += bytes;
        if self.building.events.len() >= self.limits.batch_events
            || self.building_bytes >= self.limits.batch_bytes
        {
            self.close_batch();
        }
    }

    fn close_batch(&mut self) {
        self.building_bytes = 0;
        let work = std::mem::take(&mut self.building);
        if !work.events.is_empty() {
            self.lanes.push(work);
        }
    }

    /// Sends what may be sent now.
    fn send(&mut self, now: Instant) {
        let waited = now >= self.since + self.limits.linger;
        if waited || self.draining.is_some() {
            self.close_batch();
        }
        self.count_held(now);
        while self.lanes.may_send(self.limit(now))
            && self.pause(now).is_none()
            && let Some(work) = self.lanes.send()
        {
            self.rate.take(work.events.len(), work.bytes());
            let timeout = self.setup.config.retry.timeout.0;
            let destination = Arc::clone(&self.setup.destination);
            self.flights.push(flight::fly(destination, work, timeout));
            self.concurrency.flying(self.lanes.flying());
        }
        let could = now >= self.not_before && self.lanes.may_send(self.limit(now));
        self.held = (could && !self.rate.wait(now).is_zero()).then_some(now);
    }

    /// Whether there is room for more.
    fn reads(&self) -> bool {
        !self.ended && self.lanes.waiting() == 0 && self.window.len() < MOST_OPEN
    }

    async fn land(&mut self, landed: Landed) {
        let now = Instant::now();
        let Landed {
            work,
            delivery,
            took,
        } = landed;
        let first = work.first();
        self.setup.sizes.landed(&work, took);
        let notices = work.notices.clone();
        let verdict = work.judge(delivery, self.setup.config.retry.attempts);
        self.heed(&verdict, took, now);
        let over = self.window.fate(Class::Dropped, crate::quota::QUOTA);
        let state = Arc::clone(&self.setup.state);
        for seq in &verdict.taken {
            if notices.binary_search(seq).is_ok() {
                state.notices.fetch_add(1, Ordering::Relaxed);
                self.window.settle(*seq, over);
            } else {
                self.window.settle(*seq, Fate::DELIVERED);
            }
        }
        state
            .delivered_bytes
            .fetch_add(verdict.taken_bytes as u64, Ordering::Relaxed);
        // A notice that is refused is no loss of its own.
        let (notes, dead): (Vec<_>, Vec<_>) = verdict
            .dead
            .into_iter()
            .partition(|dead| notices.binary_search(&dead.event.seq).is_ok());
        for note in notes {
            self.window.settle(note.event.seq, over);
        }
        if !dead.is_empty() {
            // Kept first, settled then: a crash in between makes one more of it, never one less.
            self.setup.dead_letters.keep(&dead).await;
            for dead in &dead {
                let fate = self.window.fate(Class::DeadLettered, &dead.why.code);
                self.window.settle(dead.event.seq, fate);
            }
        }
        self.lanes.landed(first, verdict.again);
        self.checkpoint(now);
    }

    /// Moves the cursor past what is settled.
    fn checkpoint(&mut self, now: Instant) {
        if self.window.advance() {
            let account = self.window.account();
            // In this order: what the buffer no longer tells of as skipped is in the account.
            self.setup.state.settle(self.birth, account);
            self.cursor.checkpoint(self.window.next(), account);
            self.setup.state.progressed(now);
        }
    }

    /// Says how it is.
    fn publish(&self, now: Instant) {
        let state = &self.setup.state;
        state
            .in_flight
            .store(self.lanes.flying(), Ordering::Relaxed);
        state
            .limit
            .store(self.concurrency.limit(), Ordering::Relaxed);
        state.set_breaker(self.breaker.state(now));
        let building = self.building.events.first().map(|event| event.received);
        let oldest = self.lanes.oldest().or(building);
        state.oldest.store(oldest.unwrap_or(0), Ordering::Relaxed);
        if oldest.is_none() {
            state.progressed(now);
        }
    }

    fn begin_to_drain(&mut self) {
        let now = Instant::now();
        self.draining = Some(now);
        // It is tried again at once, whatever pause there was.
        self.not_before = now;
        self.backoff.reset();
        self.breaker.succeeded();
    }

    /// Whether it is over.
    fn done(&self, now: Instant) -> bool {
        if self.ended && self.lanes.is_empty() && self.building.events.is_empty() {
            return true;
        }
        // What stays is safe on disk: neither a destination that is away nor a long backlog keeps the nozzle from stopping.
        // In memory it would be lost, so nothing is given up before the time is.
        let Some(since) = self.draining else {
            return false;
        };
        let in_vain = self.failed_at_end && self.flights.is_empty();
        self.setup.durable && (in_vain || now >= since + self.setup.drain)
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
