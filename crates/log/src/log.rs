//! The log itself: appending, evicting, and who is told.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;

use bytes::Bytes;
use loggregator_envelope::{Entry, Frame, Index, V1Frame};
use parking_lot::{Mutex, RwLock};

use crate::ring::{Ring, Slot, View};
use crate::segment::{Segments, Stored};
use crate::wait::{Ticket, WaitList};

/// How big a log is.
#[derive(Debug, Clone, Copy)]
pub struct LogConfig {
    /// Bytes of memory for frames, their indexes and their dropsonde forms. Default 256 MiB.
    pub bytes: usize,
    /// Bytes of a segment: the unit of eviction. Default 1 MiB, and never more than an eighth of `bytes`.
    pub segment_bytes: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            bytes: 256 << 20,
            segment_bytes: 1 << 20,
        }
    }
}

/// Whoever must be told before slots leave the ring.
pub trait Reader: Send + Sync {
    /// Ordinal of the oldest frame that this reader has not read in full. Cheap; called at each eviction.
    fn oldest(&self) -> u64;

    /// These slots leave now, in order, and [`Self::oldest`] was at most the last one's ordinal. The ring is locked
    /// for writing: count what was not read, and return.
    fn evicted(&self, slots: &[Arc<Slot>]);
}

/// What the log holds at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fill {
    /// Bytes of memory in use, of the kinds that the limit counts.
    pub bytes: u64,
    /// The limit.
    pub limit: u64,
    /// Frames in the ring.
    pub frames: u64,
    /// Envelopes in the ring.
    pub envelopes: u64,
    /// Milliseconds since the oldest frame was received, 0 for an empty ring.
    pub oldest_age_ms: u64,
    /// Bytes of segments whose frames have all left the ring but which a connection still holds.
    pub held_bytes: u64,
}

/// The log. Shared by all ingress and egress tasks of a doppler.
pub struct Log {
    limit: usize,
    segment_bytes: usize,
    writer: Mutex<Segments>,
    ring: RwLock<Ring>,
    head: AtomicU64,
    /// Bytes of all segments, as the writer last left it.
    allocated: AtomicUsize,
    extra_bytes: AtomicUsize,
    v1_bytes: Arc<AtomicUsize>,
    readers: RwLock<Vec<Weak<dyn Reader>>>,
    waiters: WaitList,
}

// === impl Log ===

impl Log {
    /// An empty log.
    pub fn new(config: LogConfig) -> Arc<Self> {
        let limit = config.bytes.max(64 << 10);
        let segment_bytes = config.segment_bytes.clamp(4 << 10, limit / 8);
        Arc::new(Self {
            limit,
            segment_bytes,
            writer: Mutex::new(Segments::new(segment_bytes)),
            ring: RwLock::new(Ring::default()),
            head: AtomicU64::new(0),
            allocated: AtomicUsize::new(0),
            extra_bytes: AtomicUsize::new(0),
            v1_bytes: Arc::default(),
            readers: RwLock::default(),
            waiters: WaitList::default(),
        })
    }

    /// Appends a frame: copies `batch` once, evicts the oldest if memory is full, wakes who waits. Never waits for a
    /// reader. `index` must come from a scan of `batch` whose entries cover it exactly. Returns the new slot.
    pub fn append(&self, batch: &[u8], index: Index, v1: Option<V1Frame>) -> Arc<Slot> {
        let slot = {
            let mut writer = self.writer.lock();
            let extra = size_of::<Slot>() + index.len() * size_of::<Entry>();
            self.make_room(&mut writer, batch.len(), extra);
            let stored = writer.store(batch);
            self.push(stored, index, v1)
        };
        self.waiters.wake_all();
        slot
    }

    /// A consistent look at the ring.
    pub fn view(&self) -> View<'_> {
        View {
            ring: self.ring.read(),
        }
    }

    /// Ordinal that the next frame will get.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// Wakes `waker` at the next append. The caller must compare [`Self::head`] once more afterwards.
    pub fn wait(&self, waker: &Waker, ticket: &mut Ticket) {
        self.waiters.register(waker, ticket);
    }

    /// Wakes everybody who waits for a frame, for another reason than a frame.
    pub fn wake_all(&self) {
        self.waiters.wake_all();
    }

    /// Bytes the log may use.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// True when less than an eighth of the limit is left: soon the oldest will have to go.
    pub fn is_nearly_full(&self) -> bool {
        self.memory(self.allocated.load(Ordering::Relaxed)) >= self.limit / 8 * 7
    }

    /// From now on `reader` is told what leaves the ring. Forgotten when its last strong reference goes.
    pub fn register(&self, reader: Weak<dyn Reader>) {
        let mut readers = self.readers.write();
        readers.retain(|known| known.strong_count() > 0);
        readers.push(reader);
    }

    /// What the log holds now.
    pub fn fill(&self) -> Fill {
        let (allocated, free, current) = {
            let mut writer = self.writer.lock();
            (writer.allocated(), writer.free(), writer.number())
        };
        let ring = self.ring.read();
        let oldest = ring.slots.front();
        let used_segments = oldest.map_or(1, |slot| current - slot.segment + 1) as usize;
        Fill {
            bytes: self.memory(allocated) as u64,
            limit: self.limit as u64,
            frames: ring.slots.len() as u64,
            envelopes: ring.envelopes,
            oldest_age_ms: oldest.map_or(0, |slot| {
                u64::try_from(slot.at.elapsed().as_millis()).unwrap_or(u64::MAX)
            }),
            held_bytes: allocated.saturating_sub(used_segments * self.segment_bytes + free) as u64,
        }
    }

    /// Sees to it that a frame of `len` bytes, and `extra` bytes about it, can be stored within the limit.
    fn make_room(&self, writer: &mut Segments, len: usize, extra: usize) {
        if writer.must_rotate(len) {
            while !writer.rotate(!self.must_evict(writer, self.segment_bytes + extra)) {
                self.evict_segment();
            }
            if writer.allocated() > self.limit {
                writer.release(self.limit);
            }
            self.allocated.store(writer.allocated(), Ordering::Relaxed);
        }
        let own = extra + if len > self.segment_bytes / 2 { len } else { 0 };
        while self.must_evict(writer, own) && self.evict_segment() {
            writer.release(self.limit.saturating_sub(self.other_bytes() + own));
        }
    }

    /// True if `more` bytes go beyond the limit and evicting is the remedy. Connections may hold what was evicted long
    /// ago. They must not eat the ring: half of the limit stays for what can be read, even if that means an excess
    /// for as long as they hold it, which [`Fill::held_bytes`] shows.
    fn must_evict(&self, writer: &Segments, more: usize) -> bool {
        self.memory(writer.allocated()) + more > self.limit
            && self.ring_bytes() + self.other_bytes() > self.limit / 2
    }

    fn push(&self, stored: Stored, index: Index, v1: Option<V1Frame>) -> Arc<Slot> {
        let Stored {
            bytes,
            segment,
            own,
        } = stored;
        let len = bytes.len() as u64;
        let extra = own + size_of::<Slot>() + index.len() * size_of::<Entry>();
        let frame = match v1 {
            Some(v1) => Frame::with_v1(bytes, index, v1),
            None => Frame::from_parts(bytes, index),
        };
        self.extra_bytes.fetch_add(extra, Ordering::Relaxed);
        let mut ring = self.ring.write();
        let ordinal = ring.base + ring.slots.len() as u64;
        let slot = Arc::new(Slot::new(
            ordinal,
            ring.head_offset,
            segment,
            extra,
            self.v1_bytes.clone(),
            frame,
        ));
        ring.head_offset += len;
        ring.envelopes += slot.frame().len() as u64;
        ring.slots.push_back(slot.clone());
        self.head.store(ordinal + 1, Ordering::Release);
        slot
    }

    /// Takes the oldest segment's slots out of the ring, telling every reader that has not read them.
    /// False if the ring is empty.
    fn evict_segment(&self) -> bool {
        let mut gone: Vec<Arc<Slot>> = Vec::new();
        {
            let mut ring = self.ring.write();
            let Some(segment) = ring.slots.front().map(|slot| slot.segment) else {
                return false;
            };
            while ring
                .slots
                .front()
                .is_some_and(|slot| slot.segment == segment)
            {
                let Some(slot) = ring.slots.pop_front() else {
                    break;
                };
                ring.base += 1;
                ring.envelopes -= slot.frame().len() as u64;
                self.extra_bytes.fetch_sub(slot.extra, Ordering::Relaxed);
                gone.push(slot);
            }
            let last = ring.base - 1;
            let readers = self.readers.read();
            for reader in readers.iter().filter_map(Weak::upgrade) {
                if reader.oldest() <= last {
                    reader.evicted(&gone);
                }
            }
        }
        true
    }

    fn memory(&self, allocated: usize) -> usize {
        allocated + self.other_bytes()
    }

    fn other_bytes(&self) -> usize {
        self.extra_bytes.load(Ordering::Relaxed) + self.v1_bytes.load(Ordering::Relaxed)
    }

    /// Frame bytes in the ring.
    fn ring_bytes(&self) -> usize {
        let ring = self.ring.read();
        ring.slots.front().map_or(0, |slot| {
            usize::try_from(ring.head_offset - slot.offset).unwrap_or(usize::MAX)
        })
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("limit", &self.limit)
            .field("head", &self.head())
            .finish_non_exhaustive()
    }
}

/// Keeps [`Bytes`] in the crate's vocabulary: a slot's frame is a shared slice, never a copy.
const _: fn(&Slot) -> &Bytes = |slot| slot.frame().bytes();
