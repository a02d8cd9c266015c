//! One subscription at the dopplers for all clients that ask for the same.
//!
//! Two hundred people who tail one application, or many readers with equal selectors, ask each doppler once: the streams to
//! the dopplers grow with the distinct requests, not with the clients. A request with a shard id is never shared, because
//! there each client is a member of its own in the shard group.
//!
//! There is no task in between. Each distinct request has an entry with a [`Queue`]; the reader that has taken all that came
//! polls the dopplers' stream, and what it takes is left for the others. So a reader that is alone reads as if its stream
//! were its own: while it does not poll, nothing is read, and the dopplers keep or count what it does not take. With
//! several, the fastest sets the pace. One that falls behind by more than the bound misses batches, is told how many
//! envelopes that were ([`Batches::take_missed`]), and goes on with the oldest that is left.
//!
//! Nobody sleeps through a batch: the dopplers' stream is polled with a waker that wakes every reader that waits, since the
//! one that polled last may be busy with its client when it is needed. A reader registers, then looks again.

use std::collections::HashMap;
use std::collections::hash_map;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use loggregator_client::Batch;
use loggregator_log::{Ticket, WaitList};
use loggregator_proto::plumbing::SubscriptionRequest;
use loggregator_proto::v2::EgressBatchRequest;
use parking_lot::Mutex;
use prost::Message;
use tokio_util::sync::CancellationToken;

use super::queue::{Cursor, Queue};
use super::{Batches, Unread, Upstream};
use crate::accounts::Accounts;
use crate::websocket::records::Records;

/// How often one poll looks again when the dopplers' stream called while it looked; then others get their turn.
const LOOKS: usize = 2;

/// A request that clients may share.
pub(crate) trait Request: Message + Sized + 'static {
    /// The shard group; empty: none.
    fn shard_id(&self) -> &str;

    /// Equal for requests that get the same from a doppler.
    fn key(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

impl Request for SubscriptionRequest {
    fn shard_id(&self) -> &str {
        &self.shard_id
    }
}

impl Request for EgressBatchRequest {
    fn shard_id(&self) -> &str {
        &self.shard_id
    }

    /// Dopplers give the tags as they are, whatever is preferred.
    fn key(&self) -> Vec<u8> {
        let mut key = self.clone();
        key.use_preferred_tags = false;
        key.encode_to_vec()
    }
}

/// What may be held for readers that are behind others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedLimits {
    /// Bytes for one request; the newest batch is held whatever its size.
    pub request: usize,
    /// Bytes for all requests together.
    pub total: usize,
}

impl Default for SharedLimits {
    /// 8 MiB for one request, 64 MiB for all.
    fn default() -> Self {
        Self {
            request: 8 << 20,
            total: 64 << 20,
        }
    }
}

/// An upstream whose clients share the subscriptions to equal requests; see the module's text.
pub(crate) struct Shared<R> {
    inner: Arc<dyn Upstream<R>>,
    hub: Arc<Hub>,
}

impl<R: Request> Shared<R> {
    /// Shares the subscriptions of `inner`. What comes from the dopplers on shared streams is counted as the ingress of
    /// `accounts`, once and not per reader. `stop`: then all readers finish.
    pub(crate) fn new(
        inner: Arc<dyn Upstream<R>>,
        limits: SharedLimits,
        accounts: Arc<Accounts>,
        stop: CancellationToken,
    ) -> Self {
        let hub = Arc::new(Hub {
            limits,
            accounts,
            stop,
            entries: Mutex::default(),
            bytes: AtomicUsize::new(0),
            readers: AtomicUsize::new(0),
            missed: AtomicU64::new(0),
        });
        Self { inner, hub }
    }

    /// What is shared at the moment, for the metrics.
    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }
}

impl<R: Request> Upstream<R> for Shared<R> {
    fn subscribe(&self, request: R) -> Box<dyn Batches> {
        if !request.shard_id().is_empty() {
            return self.inner.subscribe(request);
        }
        let reader = Hub::join(&self.hub, request.key());
        let entry = &reader.entry;
        // Whoever comes first opens it.
        entry.opened.get_or_init(|| {
            let source = Source {
                batches: self.inner.subscribe(request),
                stands: false,
                finishing: false,
                records: Records::default(),
            };
            *entry.source.lock() = Some(source);
        });
        Box::new(reader)
    }
}

/// All shared subscriptions of a process.
pub(crate) struct Hub {
    limits: SharedLimits,
    accounts: Arc<Accounts>,
    stop: CancellationToken,
    /// By the request's key. Locked before any queue.
    entries: Mutex<HashMap<Vec<u8>, Arc<Entry>>>,
    bytes: AtomicUsize,
    readers: AtomicUsize,
    missed: AtomicU64,
}

impl Hub {
    /// Distinct requests that are subscribed to.
    pub(crate) fn subscriptions(&self) -> u64 {
        self.entries.lock().len() as u64
    }

    /// Clients that read them.
    pub(crate) fn readers(&self) -> u64 {
        self.readers.load(Ordering::Relaxed) as u64
    }

    /// Bytes held for readers that are behind.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed) as u64
    }

    /// Envelopes that readers were too far behind for, every reader's copy counted.
    pub(crate) fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    fn join(hub: &Arc<Self>, key: Vec<u8>) -> Reader {
        let mut entries = hub.entries.lock();
        let entry = match entries.entry(key) {
            hash_map::Entry::Occupied(known) => Arc::clone(known.get()),
            hash_map::Entry::Vacant(place) => {
                let entry = Entry::new(place.key().clone(), Arc::clone(hub));
                Arc::clone(place.insert(Arc::new(entry)))
            }
        };
        let cursor = Some(entry.queue.lock().join());
        hub.readers.fetch_add(1, Ordering::Relaxed);
        Reader {
            entry,
            cursor,
            ticket: Ticket::default(),
        }
    }

    /// Takes the entry off the list, unless another one has its place.
    fn forget(entries: &mut HashMap<Vec<u8>, Arc<Entry>>, entry: &Entry) {
        let listed = entries.get(&entry.key);
        if listed.is_some_and(|listed| std::ptr::eq(Arc::as_ptr(listed), entry)) {
            entries.remove(&entry.key);
        }
    }

    /// Keeps what is held in bounds: the requests that hold most let go first. It frees an eighth more than it must, so
    /// that it is not called for every batch.
    fn shed(&self) {
        if self.bytes.load(Ordering::Relaxed) <= self.limits.total {
            return;
        }
        let mut by_size: Vec<_> = {
            let entries = self.entries.lock();
            let sized = |entry: &Arc<Entry>| (entry.queue.lock().bytes(), Arc::clone(entry));
            entries.values().map(sized).collect()
        };
        by_size.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        let goal = self.limits.total - self.limits.total / 8;
        for (_, entry) in by_size {
            let over = |_: &Queue| self.bytes.load(Ordering::Relaxed) > goal;
            entry.evict_while(over);
        }
    }
}

/// One request that is subscribed to.
struct Entry {
    key: Vec<u8>,
    hub: Arc<Hub>,
    opened: OnceLock<()>,
    /// The dopplers' stream; `None` before it is open and after its end. Locked before the queue.
    source: Mutex<Option<Source>>,
    queue: Mutex<Queue>,
    bell: Arc<Bell>,
    /// Rings the bell.
    waker: Waker,
}

struct Source {
    batches: Box<dyn Batches>,
    /// Nobody has to wait for it any more.
    stands: bool,
    /// It gives what is under way, and then ends.
    finishing: bool,
    records: Records,
}

/// What a reader finds.
enum Found {
    Batch(Batch),
    Nothing,
    End,
}

impl Entry {
    fn new(key: Vec<u8>, hub: Arc<Hub>) -> Self {
        let bell = Arc::new(Bell {
            due: AtomicBool::new(true),
            rung: AtomicU64::new(0),
            waiting: WaitList::default(),
        });
        Self {
            key,
            hub,
            opened: OnceLock::new(),
            source: Mutex::default(),
            queue: Mutex::default(),
            waker: Waker::from(Arc::clone(&bell)),
            bell,
        }
    }

    /// The next batch: one that others have taken already or, when there is none, one of the dopplers.
    fn find(&self, cursor: &mut Cursor) -> Found {
        if let Some(batch) = self.change(|queue| queue.take(cursor)) {
            return Found::Batch(batch);
        }
        let mut source = self.source.lock();
        // Whoever held it may have taken one.
        if let Some(batch) = self.change(|queue| queue.take(cursor)) {
            return Found::Batch(batch);
        }
        let Some(Source {
            batches,
            records,
            finishing,
            ..
        }) = &mut *source
        else {
            return Found::End;
        };
        // What comes from now on is for the others.
        if cursor.is_finishing() && !*finishing {
            return Found::End;
        }
        // The stream was found empty and has not called since.
        if !self.bell.due.swap(false, Ordering::AcqRel) {
            return Found::Nothing;
        }
        match batches.poll_batch(&mut Context::from_waker(&self.waker)) {
            Poll::Pending => Found::Nothing,
            Poll::Ready(None) => {
                let ended = source.take();
                drop(source);
                drop(ended);
                Hub::forget(&mut self.hub.entries.lock(), self);
                self.bell.ring();
                Found::End
            }
            Poll::Ready(Some(batch)) => {
                self.bell.due.store(true, Ordering::Release);
                let envelopes = records.load(batch.bytes.clone());
                let malformed = envelopes.is_err();
                let envelopes = envelopes.unwrap_or_else(|_| records.remaining()) as u64;
                records.clear();
                let alone = self.change(|queue| {
                    queue.push(cursor, &batch, envelopes);
                    queue.readers() == 1
                });
                drop(source);
                self.hub.accounts.arrived(envelopes, malformed);
                if !alone {
                    self.bell.ring();
                    let limit = self.hub.limits.request;
                    self.evict_while(|queue| queue.bytes() > limit && queue.len() > 1);
                    self.hub.shed();
                }
                Found::Batch(batch)
            }
        }
    }

    /// Whether the dopplers' stream stands, or is over. Whoever finds out tells the others.
    fn stands(&self) -> bool {
        let mut source = self.source.lock();
        let Some(Source {
            batches, stands, ..
        }) = &mut *source
        else {
            return true;
        };
        if *stands {
            return true;
        }
        if batches
            .poll_open(&mut Context::from_waker(&self.waker))
            .is_pending()
        {
            return false;
        }
        *stands = true;
        drop(source);
        self.bell.ring();
        true
    }

    /// A reader wants no more from the dopplers. When the others do not either, or the process stops, the subscription is
    /// ended, and what is under way still comes, for all of them.
    fn finish(&self, cursor: &mut Cursor, within: Duration) {
        let nobody = self.change(|queue| {
            queue.finish(cursor);
            queue.is_finishing()
        });
        if !nobody && !self.hub.stop.is_cancelled() {
            return;
        }
        // Who comes from now on asks for a subscription of its own.
        Hub::forget(&mut self.hub.entries.lock(), self);
        if let Some(source) = &mut *self.source.lock()
            && !std::mem::replace(&mut source.finishing, true)
        {
            source.batches.finish(within);
            self.bell.due.store(true, Ordering::Release);
            self.bell.ring();
        }
    }

    fn evict_while(&self, over: impl Fn(&Queue) -> bool) {
        let evict = |queue: &mut Queue| over(queue).then(|| queue.evict()).flatten();
        while let Some(missed) = self.change(evict) {
            self.hub.missed.fetch_add(missed, Ordering::Relaxed);
        }
    }

    /// Changes the queue, and the sum of what all queues hold with it.
    fn change<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        let mut queue = self.queue.lock();
        let before = queue.bytes();
        let result = change(&mut queue);
        let after = queue.bytes();
        if after > before {
            self.hub.bytes.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.hub.bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
        result
    }

    /// A reader leaves, the last one ends the subscription; returns what had arrived for it and was not taken.
    fn leave(&self, cursor: Cursor) -> Unread {
        let hub = &self.hub;
        hub.readers.fetch_sub(1, Ordering::Relaxed);
        let (mut unread, last) = {
            let mut entries = hub.entries.lock();
            let (unread, left) = self.change(|queue| (queue.leave(cursor), queue.readers()));
            if left == 0 {
                Hub::forget(&mut entries, self);
            }
            (unread, left == 0)
        };
        if !last {
            // Lets go of what the list keeps for the one that left; who stays registers again.
            self.bell.waiting.wake_all();
            return unread;
        }
        let source = self.source.lock().take();
        let arrived = source.map_or(0, |source| source.batches.close().envelopes);
        hub.accounts.arrived(arrived, false);
        unread.envelopes += arrived;
        unread
    }
}

/// How readers learn that there is news.
struct Bell {
    /// The dopplers' stream may have something: it was not polled since it called, or gave something when it was.
    due: AtomicBool,
    /// How often it rang.
    rung: AtomicU64,
    waiting: WaitList,
}

impl Bell {
    fn ring(&self) {
        self.rung.fetch_add(1, Ordering::Release);
        self.waiting.wake_all();
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.due.store(true, Ordering::Release);
        self.ring();
    }
}

/// One client's share of a subscription.
struct Reader {
    entry: Arc<Entry>,
    /// `None` when it has left.
    cursor: Option<Cursor>,
    ticket: Ticket,
}

impl Reader {
    fn leave(&mut self) -> Unread {
        let cursor = self.cursor.take();
        cursor.map_or_else(Unread::default, |cursor| self.entry.leave(cursor))
    }
}

/// Looks, and when there is nothing registers with the bell and looks again if it rang meanwhile.
fn look<T>(
    bell: &Bell,
    ticket: &mut Ticket,
    cx: &mut Context<'_>,
    mut find: impl FnMut() -> Option<T>,
) -> Poll<T> {
    for _ in 0..LOOKS {
        let rung = bell.rung.load(Ordering::Acquire);
        if let Some(found) = find() {
            return Poll::Ready(found);
        }
        bell.waiting.register(cx.waker(), ticket);
        if bell.rung.load(Ordering::Acquire) == rung {
            return Poll::Pending;
        }
    }
    // A stream that calls whenever it is polled wants others to have their turn.
    cx.waker().wake_by_ref();
    Poll::Pending
}

impl Batches for Reader {
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { entry, ticket, .. } = self;
        look(&entry.bell, ticket, cx, || entry.stands().then_some(()))
    }

    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Batch>> {
        let Self {
            entry,
            cursor: Some(cursor),
            ticket,
        } = self
        else {
            return Poll::Ready(None);
        };
        look(&entry.bell, ticket, cx, || match entry.find(cursor) {
            Found::Batch(batch) => Some(Some(batch)),
            Found::End => Some(None),
            Found::Nothing => None,
        })
    }

    fn finish(&mut self, within: Duration) {
        if let Some(cursor) = &mut self.cursor {
            self.entry.finish(cursor, within);
        }
    }

    fn take_missed(&mut self) -> u64 {
        self.cursor.as_mut().map_or(0, Cursor::take_missed)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn close(mut self: Box<Self>) -> Unread {
        self.leave()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.leave();
    }
}
