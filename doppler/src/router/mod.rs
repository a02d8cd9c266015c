//! The router: from frames to subscriptions.
//!
//! ```text
//! ingest ─► Log ─┬─► Group (wildcards) ── one cursor, dealt among its members ──┐
//!                └─► Selections (named sources, metrics) ── places, queued ─────┴─► Subscription::poll_batch
//! ```
//!
//! A frame is scanned once, copied once into the log, and from then on referred to by its place. A subscription that
//! wants everything reads the log forward; one that names a source gets a list of places. Both put their messages
//! together from shared slices when their connection can take data, and not before. What each of them got and what it
//! lost is counted in its [`Member`], which is a row of the ledger.

mod dispatch;
mod gather;
mod group;
mod hash;
mod linger;
mod member;
mod notice;
mod report;
mod selection;
mod selector;
mod subscription;
mod surveys;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use loggregator_envelope::{Frame, Kind, KindSet, ScanError};
use loggregator_log::{Log, LogConfig, Piece, Position, Reader, Slot};
use loggregator_proto::{plumbing, v2};
use parking_lot::Mutex;
use smallvec::SmallVec;

use dispatch::Selections;
use group::Group;
use linger::Linger;
use member::{Member, Ref, Who};
use selector::{V1Filter, Wanted};
use surveys::Surveys;

pub use member::Reason;
pub use report::Stats;
pub use selector::Api;
pub use subscription::{Batch, Subscription};

/// Pieces of the log, on their way into one message.
pub(crate) type Pieces = SmallVec<[Piece; 4]>;

/// For entries that were chosen one by one.
pub(crate) const EVERY_KIND: KindSet = KindSet::ALL;

/// A batch above this many bytes becomes several frames, of at most as many envelopes. Thereby an index takes a few
/// MiB at most while it is made, however small the envelopes are, and no single frame is a big part of the log.
const PART_BYTES: usize = 256 << 10;
const PART_ENVELOPES: usize = 16 << 10;

/// How a router is set up.
#[derive(Debug, Clone)]
pub struct RouterConfig {
    /// Size of the log.
    pub log: LogConfig,
    /// How long the place of a subscription id is kept after its last connection ended. Default 60 s.
    pub resume_grace: Duration,
    /// Most subscriptions at a time. Default 20,000.
    pub max_subscriptions: usize,
    /// Most places queued for one subscription. Default 262,144 (4 MiB).
    pub max_queued: usize,
    /// Subscriptions that name sources or metrics are woken together at most this often while much happens; the first
    /// wake-up after a pause is never held back. Default 3 ms; 0 wakes each at once.
    pub linger: Duration,
    /// Closed subscriptions whose rows the ledger still shows. Default 256.
    pub closed_rows: usize,
}

impl Default for RouterConfig {
    fn default() -> Self {
        Self {
            log: LogConfig::default(),
            resume_grace: Duration::from_secs(60),
            max_subscriptions: 20_000,
            max_queued: 262_144,
            linger: Duration::from_millis(3),
            closed_rows: 256,
        }
    }
}

/// Why a subscription was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// All places are taken.
    #[error("at subscription limit: {limit}")]
    Limit {
        /// The limit ([`RouterConfig::max_subscriptions`]).
        limit: usize,
    },
    /// The router is shutting down.
    #[error("the doppler is shutting down")]
    Closed,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ingested {
    /// Envelopes accepted.
    pub envelopes: u32,
    /// Envelopes refused because they were malformed.
    pub rejected: u32,
}

/// Takes frames in and serves subscriptions. One per doppler, shared by all its connections.
pub struct Router {
    config: RouterConfig,
    log: Arc<Log>,
    selections: Selections,
    surveys: Surveys,
    linger: Linger,
    groups: Mutex<HashMap<GroupKey, Arc<Group>>>,
    members: Mutex<Members>,
    next_id: AtomicU64,
    closed: AtomicBool,
    counts: Counts,
}

/// Which wildcard subscriptions share a cursor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct GroupKey {
    api: Api,
    shard_id: Box<str>,
    v1: V1Filter,
}

#[derive(Default)]
struct Members {
    open: HashMap<u64, Arc<Member>>,
    closed: VecDeque<Arc<Member>>,
    /// Sums by reason of what subscriptions lost that are not in `closed` any more.
    forgotten: [u64; Reason::ALL.len()],
}

#[derive(Default)]
struct Counts {
    frames: AtomicU64,
    envelopes: AtomicU64,
    bytes: AtomicU64,
    /// As the Go router counts: in dropsonde envelopes.
    ingress_v1: AtomicU64,
    rejected_frames: AtomicU64,
    rejected_envelopes: AtomicU64,
    egress_v1: AtomicU64,
    egress_v2: AtomicU64,
}

// === impl Router ===

impl Router {
    /// A router with an empty log.
    pub fn new(config: RouterConfig) -> Arc<Self> {
        Arc::new(Self {
            log: Log::new(config.log),
            linger: Linger::new(config.linger),
            config,
            selections: Selections::new(),
            surveys: Surveys::default(),
            groups: Mutex::default(),
            members: Mutex::default(),
            next_id: AtomicU64::new(1),
            closed: AtomicBool::new(false),
            counts: Counts::default(),
        })
    }

    /// Takes in one `EnvelopeBatch`. Never waits for a reader.
    ///
    /// # Errors
    ///
    /// If the outer framing is broken; nothing of it is taken. A malformed envelope in sound framing is left out alone.
    pub fn ingest(&self, batch: &[u8]) -> Result<Ingested, ScanError> {
        if batch.len() <= PART_BYTES {
            return self
                .ingest_part(batch)
                .inspect_err(|_| self.count_rejected(1, 0));
        }
        let parts = loggregator_envelope::split(batch, PART_BYTES, PART_ENVELOPES)
            .inspect_err(|_| self.count_rejected(1, 0))?;
        let mut sum = Ingested::default();
        for part in parts {
            let ingested = self.ingest_part(part)?;
            sum.envelopes += ingested.envelopes;
            sum.rejected += ingested.rejected;
        }
        Ok(sum)
    }

    fn ingest_part(&self, batch: &[u8]) -> Result<Ingested, ScanError> {
        let scan = loggregator_envelope::scan(batch)?;
        self.count_rejected(0, u64::from(scan.rejected));
        let ingested = Ingested {
            envelopes: scan.index.len() as u32,
            rejected: scan.rejected,
        };
        if scan.tiles {
            self.append(batch, scan.index, None);
        } else {
            // Rare: something is to be left out, so the good envelopes are put together first.
            let parsed = Frame::parse(Bytes::copy_from_slice(batch))?;
            self.ingest_frame(parsed.frame);
        }
        Ok(ingested)
    }

    /// Takes in a frame that was built here: v1 input, or the doppler's own metrics.
    pub fn ingest_frame(&self, frame: Frame) {
        let (bytes, index, v1) = frame.into_parts();
        self.append(&bytes, index, v1);
    }

    /// Counts a frame (or v1 envelope) that was refused before it got here.
    pub fn count_rejected(&self, frames: u64, envelopes: u64) {
        self.counts
            .rejected_frames
            .fetch_add(frames, Ordering::Relaxed);
        self.counts
            .rejected_envelopes
            .fetch_add(envelopes, Ordering::Relaxed);
    }

    /// Subscribes a v2 reader. No usable selector is accepted and gets nothing, as in the Go router.
    ///
    /// # Errors
    ///
    /// At the subscription limit, or when the router is closing.
    pub fn subscribe_v2(
        self: &Arc<Self>,
        request: &v2::EgressBatchRequest,
        peer: &str,
    ) -> Result<Subscription, SubscribeError> {
        let wanted = Wanted::from_v2(&request.selectors);
        let who = Who {
            api: Api::V2,
            shard_id: &request.shard_id,
            name: &request.deterministic_name,
            peer,
        };
        self.subscribe(who, wanted, V1Filter::default())
    }

    /// Subscribes a v1 reader.
    ///
    /// # Errors
    ///
    /// At the subscription limit, or when the router is closing.
    pub fn subscribe_v1(
        self: &Arc<Self>,
        request: &plumbing::SubscriptionRequest,
        peer: &str,
    ) -> Result<Subscription, SubscribeError> {
        let (wanted, filter) = Wanted::from_v1(request.filter.as_ref());
        let who = Who {
            api: Api::V1,
            shard_id: &request.shard_id,
            name: "",
            peer,
        };
        self.subscribe(who, wanted, filter)
    }

    /// No new subscriptions; those there are end when they have read everything.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.log.wake_all();
        let members: Vec<_> = self.members.lock().open.values().cloned().collect();
        wake_all(
            members
                .into_iter()
                .filter_map(|member| member.queue.lock().waker.take()),
        );
    }

    /// True after [`Self::close`].
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Runs what the router does on its own, until `stop`: wake-ups that are held back together, and forgetting
    /// subscription ids whose grace period is over.
    pub async fn run(&self, stop: tokio_util::sync::CancellationToken) {
        let expiry = async {
            let mut every = tokio::time::interval(Duration::from_secs(1));
            every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while stop.run_until_cancelled(every.tick()).await.is_some() {
                self.expire();
            }
        };
        tokio::join!(expiry, self.linger.run(stop.clone()));
    }

    /// Forgets subscription ids whose grace period is over. To be called about once a second.
    pub fn expire(&self) {
        let grace = self.config.resume_grace;
        let expired: Vec<_> = {
            let mut groups = self.groups.lock();
            let keys: Vec<_> = groups
                .iter()
                .filter(|(_, g)| g.is_expired(grace))
                .map(|(key, _)| key.clone())
                .collect();
            keys.iter().filter_map(|key| groups.remove(key)).collect()
        };
        let view = self.log.view();
        for group in &expired {
            group.expire(&view);
        }
        self.selections.expire(grace, &view);
    }

    /// The log.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    fn append(
        &self,
        bytes: &[u8],
        index: loggregator_envelope::Index,
        v1: Option<loggregator_envelope::V1Frame>,
    ) {
        if index.is_empty() {
            return;
        }
        let slot = self.log.append(bytes, index, v1);
        self.linger.wake(self.selections.dispatch(&slot));
        let frame = slot.frame();
        self.counts.frames.fetch_add(1, Ordering::Relaxed);
        self.counts
            .envelopes
            .fetch_add(frame.len() as u64, Ordering::Relaxed);
        self.counts
            .bytes
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.counts
            .ingress_v1
            .fetch_add(v1_count(frame), Ordering::Relaxed);
    }

    fn subscribe(
        self: &Arc<Self>,
        who: Who<'_>,
        wanted: Wanted,
        v1: V1Filter,
    ) -> Result<Subscription, SubscribeError> {
        if self.is_closed() {
            return Err(SubscribeError::Closed);
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let queued = self.config.max_queued;
        let member = Arc::new(Member::new(id, who, wanted, v1, queued));
        {
            let mut members = self.members.lock();
            if members.open.len() >= self.config.max_subscriptions {
                return Err(SubscribeError::Limit {
                    limit: self.config.max_subscriptions,
                });
            }
            members.open.insert(id, member.clone());
        }
        if !member.wanted.selections.is_empty() {
            let weak: std::sync::Weak<Member> = Arc::downgrade(&member);
            self.log.register(weak as std::sync::Weak<dyn Reader>);
            let view = self.log.view();
            self.selections.join(&member, &view);
        }
        let group = self.join_group(&member);
        Ok(Subscription::new(self.clone(), member, group))
    }

    fn join_group(&self, member: &Arc<Member>) -> Option<Arc<Group>> {
        if member.wanted.kinds == KindSet::EMPTY {
            return None;
        }
        let new = || {
            let group = Group::new(&member.shard_id, Position::frame(self.log.head()));
            let weak: std::sync::Weak<Group> = Arc::downgrade(&group);
            self.log.register(weak as std::sync::Weak<dyn Reader>);
            group
        };
        let (group, wake) = if member.shard_id.is_empty() {
            let group = new();
            let wake = group.join(member.clone(), &self.log.view());
            (group, wake)
        } else {
            let key = GroupKey {
                api: member.api,
                shard_id: member.shard_id.clone(),
                v1: member.v1.clone(),
            };
            let mut groups = self.groups.lock();
            let group = groups.entry(key).or_insert_with(new).clone();
            let wake = group.join(member.clone(), &self.log.view());
            (group, wake)
        };
        wake_all(wake);
        Some(group)
    }

    fn unsubscribe(&self, member: &Arc<Member>, group: Option<&Arc<Group>>) {
        let (from_group, from_selections) = {
            let view = self.log.view();
            let left = group
                .map(|group| group.leave(member, &view).1)
                .unwrap_or_default();
            (left, self.selections.leave(member, &view))
        };
        wake_all(from_group);
        wake_all(from_selections);
        member.open.store(false, Ordering::Relaxed);
        let mut members = self.members.lock();
        if let Some(member) = members.open.remove(&member.id) {
            members.closed.push_back(member);
        }
        while members.closed.len() > self.config.closed_rows {
            if let Some(oldest) = members.closed.pop_front() {
                for (sum, reason) in members.forgotten.iter_mut().zip(Reason::ALL) {
                    *sum += oldest.counts.of(reason);
                }
            }
        }
    }

    /// Hands what a connection did not deliver to somebody else, or keeps it for the subscription id.
    fn give_back(&self, member: &Arc<Member>, group: Option<&Arc<Group>>, refs: &[Ref]) {
        let (wake, wake_selected) = {
            let view = self.log.view();
            let (dealt, selected) = split(member, refs, &view, group.is_some());
            let wake = group
                .map(|group| group.give_back(dealt, member, &view))
                .unwrap_or_default();
            let wake_selected = if selected.is_empty() {
                SmallVec::new()
            } else {
                self.selections.give_back(&selected, member, &view)
            };
            (wake, wake_selected)
        };
        wake_all(wake);
        wake_all(wake_selected);
    }

    fn count_egress(&self, api: Api, envelopes: u64) {
        let count = match api {
            Api::V1 => &self.counts.egress_v1,
            Api::V2 => &self.counts.egress_v2,
        };
        count.fetch_add(envelopes, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router")
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

pub(crate) fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        waker.wake();
    }
}

/// What of `refs` is the group's, and what the selections'.
fn split(
    member: &Member,
    refs: &[Ref],
    view: &loggregator_log::View<'_>,
    grouped: bool,
) -> (VecDeque<Ref>, Vec<Ref>) {
    if member.wanted.selections.is_empty() {
        return (refs.iter().copied().collect(), Vec::new());
    }
    if !grouped {
        return (VecDeque::new(), refs.to_vec());
    }
    let (mut dealt, mut selected) = (VecDeque::new(), Vec::new());
    for r in refs {
        let entries = view
            .get(r.ordinal)
            .map(|slot: &Arc<Slot>| slot.frame().entries());
        for i in r.start..r.end {
            let one = Ref {
                ordinal: r.ordinal,
                start: i,
                end: i + 1,
            };
            let kind = entries
                .and_then(|entries| entries.get(i as usize))
                .map(|entry| entry.kind());
            if kind.is_none_or(|kind| member.wanted.kinds.contains(kind)) {
                dealt.push_back(one);
            } else {
                selected.push(one);
            }
        }
    }
    (dealt, selected)
}

/// How many dropsonde envelopes the Go router would count: gauges are several, events and empty envelopes none.
fn v1_count(frame: &Frame) -> u64 {
    let kinds = frame.index().kinds();
    let plain = KindSet::of(Kind::Log)
        .union(KindSet::of(Kind::Counter))
        .union(KindSet::of(Kind::Timer));
    if plain.is_superset(kinds) {
        return frame.len() as u64;
    }
    frame
        .entries()
        .iter()
        .map(|entry| match entry.kind() {
            Kind::Log | Kind::Counter | Kind::Timer => 1,
            Kind::Gauge => selector::v1_gauge_count(&frame.envelope(entry)),
            Kind::Event | Kind::None => 0,
        })
        .sum()
}
