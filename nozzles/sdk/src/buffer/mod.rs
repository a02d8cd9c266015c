//! The hand-over point between the firehose and the destinations: one log, and a cursor per destination.
//!
//! What [`Buffer::append`] accepted has a number, and every cursor gets to it in the order of the numbers. A cursor moves
//! past an event only by [`Cursor::checkpoint`]; after a crash it starts again at its last checkpoint that was written
//! down. A destination that is behind fills its own share of the buffer and no other's.
//!
//! **Shares.** What waits for a destination beyond its share is lost to it alone. With `drop_newest` events that arrive while
//! the share is full are skipped, until a quarter of it is free again; with `drop_oldest` the cursor jumps ahead. Both leave
//! skipped numbers behind, of which there are few; they hold no space, and are told as [`Lost`] when the cursor comes to them.
//!
//! **Space.** Events lie in segments: a frame in memory, a file on disk. A segment goes when no destination needs anything in
//! it; on disk when both cursor files say so, so that the loss of one of them costs nothing.
//!
//! **Disk.** A write is done when the system has it: killing the process loses nothing that was accepted. A crash of the
//! machine costs what was written in the last `sync_interval`. Cursors are written down every 100 ms while they move: as
//! much may be delivered twice. See [`mod@format`] for the files, and `recover` for what is done about damage.

mod core;
pub mod format;
mod fs;
pub mod identity;
mod naming;
mod place;
mod reading;
mod recover;
mod saved;
mod segment;
mod sources;
mod state;
mod threads;

#[cfg(test)]
mod tests;

use std::hash::BuildHasher as _;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use loggregator_envelope::Frame;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::account::Account;
use crate::config::{Backlog, BufferConfig, DiskBuffer};
use crate::event::Event;

use self::core::Core;
use self::identity::BufferIdentity;
use self::place::{Place, Point};
pub(crate) use self::reading::BACKLOG_FULL;
use self::reading::{Block, Step};
use self::recover::{Failed, Layout};
use self::segment::{Load, Loaded};
use self::state::{Bounds, State};
use self::threads::Threads;

/// How a buffer is made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it is kept, and how big it may become.
    pub store: BufferConfig,
    /// Its destinations, each with a cursor of its own. On disk the cursors of others, from an earlier configuration, are
    /// dropped; a new one starts at the oldest event from which on nothing was given back.
    pub destinations: Vec<(String, Backlog)>,
}

/// What became of an appended frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Appended {
    /// Envelopes that have a number now.
    pub accepted: u64,
    /// Envelopes that the buffer could not take.
    pub refused: u64,
    /// Why not: `disk_full`, `disk_error`, `too_large` (longer than 64 MiB, or than a segment). Empty when nothing was
    /// refused.
    pub why: &'static str,
}

impl Appended {
    fn refuse(&mut self, why: &'static str, n: u64) {
        self.refused += n;
        self.why = why;
    }
}

/// What a cursor got.
#[derive(Debug, Default)]
pub struct Read {
    /// Events in the order of their numbers. May be empty when only losses are told.
    pub events: Vec<Event>,
    /// What lies between, before or after them and was lost to this destination.
    pub lost: Vec<Lost>,
}

/// Events that a destination will not get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Their numbers.
    pub range: Range<u64>,
    /// `backlog_full`: its share was full. `damaged`: the disk did not give back what was written, or had not got it yet
    /// when the machine crashed.
    pub reason: &'static str,
    /// How many of which source, the loudest first, as far as that is known: at most 64 of each stretch.
    pub sources: Vec<(String, u64)>,
}

/// Fill of a buffer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BufferReport {
    /// Bytes held, in memory or in segment files.
    pub bytes: u64,
    /// Bytes it may hold.
    pub max_bytes: u64,
    /// Number that the next event gets; that of the very first event was 0.
    pub next: u64,
    /// Segments held.
    pub segments: usize,
    /// Bytes of the newest events that a buffer on disk also keeps in memory.
    pub memory_bytes: u64,
    /// Per destination, in the order of the settings.
    pub cursors: Vec<CursorReport>,
    /// Envelopes that were refused, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// Events found damaged.
    pub damaged: u64,
    /// How often files were synced, and how long that took in all.
    pub syncs: u64,
    /// See `syncs`.
    pub sync_time: Duration,
    /// Syncs that failed.
    pub sync_errors: u64,
    /// Blocks that were read from the disk.
    pub block_reads: u64,
    /// Reads that failed; each is done again.
    pub read_errors: u64,
}

/// Where a destination stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CursorReport {
    /// Its name.
    pub name: String,
    /// The first event that it has not settled.
    pub next: u64,
    /// Bytes of records that wait for it; those that it will not get do not count.
    pub bytes: u64,
    /// Events that wait for it.
    pub events: u64,
    /// Bytes that may wait for it.
    pub max_bytes: u64,
    /// Its share is full: new events are skipped.
    pub full: bool,
    /// Events that it lost to a full share and was not told of yet.
    pub untold: u64,
    /// The loudest sources of these.
    pub untold_sources: Vec<(String, u64)>,
    /// Numbers of all that it lost to a full share and has not settled, in order.
    pub skips: Vec<Range<u64>>,
    /// When the oldest event that waits for it was received, in nanoseconds since 1970, to within 64 KiB of events before.
    pub oldest: Option<i64>,
}

/// A buffer cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BufferError {
    /// Its folder or a file in it cannot be used.
    #[error("buffer: {what} {}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("buffer {}: another nozzle is using it", path.display())]
    InUse {
        /// Its folder.
        path: PathBuf,
    },
    /// A newer program wrote it.
    #[error("buffer: {} has version {version}, this program knows version 1", path.display())]
    Version {
        /// The file that says so.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
}

/// The buffer. Clones are the same one. When the last one and all cursors are gone, everything is on the disk.
#[derive(Debug, Clone)]
pub struct Buffer {
    shared: Arc<Shared>,
}

/// A destination's place in the buffer.
#[derive(Debug)]
pub struct Cursor {
    shared: Arc<Shared>,
    index: usize,
    block: Option<Block>,
    loading: Option<JoinHandle<(Load, Loaded)>>,
}

#[derive(Debug)]
struct Shared {
    core: Arc<Core>,
    threads: Option<Threads>,
}

impl Buffer {
    /// Opens it: on disk with what it held before, all of which is read once.
    ///
    /// # Errors
    /// When its files cannot be used.
    pub fn open(settings: &Settings) -> Result<Buffer, BufferError> {
        let (core, interval) = match &settings.store {
            BufferConfig::Memory(memory) => {
                let core = open_memory(memory.max_bytes.0, &settings.destinations);
                (Arc::new(core), None)
            }
            BufferConfig::Disk(disk) => {
                let core = open_disk(disk, &settings.destinations)?;
                (Arc::new(core), Some((disk.sync_interval.0, &disk.path)))
            }
        };
        let threads = match interval {
            None => None,
            Some((interval, path)) => {
                let threads = Threads::start(&core, interval);
                Some(threads.map_err(|source| BufferError::Io {
                    what: "cannot start the threads for",
                    path: path.clone(),
                    source,
                })?)
            }
        };
        Ok(Buffer {
            shared: Arc::new(Shared { core, threads }),
        })
    }

    /// Takes a frame in. `received` is the time of its arrival in nanoseconds since 1970. On disk it waits for the write, and
    /// for the sync if the interval is 0. A call that is given up may have taken the frame in or not.
    pub async fn append(&self, frame: &Frame, received: i64) -> Appended {
        let events = frame.entries().iter().map(|entry| {
            let body = frame.bytes().slice(entry.body());
            Event::new(0, received, body)
        });
        let events = events.collect();
        match &self.shared.threads {
            None => self.shared.core.append(events),
            Some(threads) => threads.append(events).await,
        }
    }

    /// The cursor of a destination; there should be one user of it at a time.
    #[must_use]
    pub fn cursor(&self, destination: &str) -> Option<Cursor> {
        let mut state = self.shared.core.state.lock();
        let mut places = state.places.iter();
        let index = places.position(|place| place.name == destination)?;
        state.rewind(index);
        Some(Cursor {
            shared: Arc::clone(&self.shared),
            index,
            block: None,
            loading: None,
        })
    }

    /// Nothing more will be appended: cursors that have read everything end.
    pub fn close(&self) {
        self.shared.core.state.lock().closed = true;
        self.shared.core.arrived.notify_waiters();
    }

    /// Returns when everything appended and checkpointed so far is on the disk.
    pub async fn sync(&self) {
        let core = Arc::clone(&self.shared.core);
        let synced = tokio::task::spawn_blocking(move || {
            core.sync();
            if let Some(disk) = &core.disk {
                core.save(disk);
            }
        });
        if let Err(error) = synced.await {
            tracing::error!(%error, "buffer: was not synced");
        }
    }

    /// Who it is, and who has numbered its events.
    #[must_use]
    pub fn identity(&self) -> &BufferIdentity {
        &self.shared.core.identity
    }

    /// How full it is.
    #[must_use]
    pub fn report(&self) -> BufferReport {
        self.shared.core.state.lock().report()
    }
}

impl Cursor {
    /// Where it stands, and the account of all events from [`birth`](Cursor::birth) to there: what was written down last.
    #[must_use]
    pub fn start(&self) -> (u64, Account) {
        let state = self.shared.core.state.lock();
        let place = &state.places[self.index];
        (place.at.seq, place.account.clone())
    }

    /// The first event that its account covers: 0 unless the destination was added to a buffer that had events already.
    /// Wherever it stands, that is `birth + account.total()`.
    #[must_use]
    pub fn birth(&self) -> u64 {
        self.shared.core.state.lock().places[self.index].birth
    }

    /// Waits for events and takes at most so many, and so many bytes of them (at least one event). `None` when the buffer
    /// is closed and everything was read. May be cancelled without losing anything.
    ///
    /// Events that were appended lately are the very bytes that came in. Older ones of a buffer on disk are read in blocks of
    /// 1 MiB, off the runtime's threads, and keep their block in memory.
    pub async fn next(&mut self, max_events: usize, max_bytes: usize) -> Option<Read> {
        let shared = Arc::clone(&self.shared);
        loop {
            if let Some(loading) = &mut self.loading {
                // Kept where it is until it is done: whoever gives up this call has it go on.
                let loaded = loading.await;
                self.loading = None;
                if let Ok((load, loaded)) = loaded {
                    self.block = shared.core.state.lock().loaded(&load, self.index, loaded);
                }
            }
            let arrived = shared.core.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            let step = {
                let mut state = shared.core.state.lock();
                state.step(self.index, max_events.max(1), max_bytes, &mut self.block)
            };
            match step {
                Step::Ready(read) => return Some(read),
                Step::End => return None,
                Step::Wait => arrived.await,
                Step::Load(load) => {
                    self.loading = Some(tokio::task::spawn_blocking(move || {
                        let loaded = load.run();
                        (load, loaded)
                    }));
                }
            }
        }
    }

    /// Everything below `next` is settled as `account` says, whose total is the distance from [`birth`](Cursor::birth).
    /// Written down within 100 ms.
    pub fn checkpoint(&self, next: u64, account: &Account) {
        self.shared.core.settle(self.index, next, account);
        if let Some(threads) = &self.shared.threads {
            threads.wake();
        }
    }
}

impl State {
    /// Hands out again what is not settled.
    fn rewind(&mut self, index: usize) {
        let place = &mut self.places[index];
        place.read = place.at;
        place.flight.clear();
    }

    fn report(&self) -> BufferReport {
        let cursor = |place: &Place| {
            let (bytes, events) = place.waiting(self.end);
            CursorReport {
                name: place.name.clone(),
                next: place.at.seq,
                bytes,
                events,
                max_bytes: place.share,
                full: place.is_full,
                untold: place.untold(),
                untold_sources: place.untold_sources(),
                skips: place.needed().skips,
                oldest: self.oldest(place),
            }
        };
        BufferReport {
            bytes: self.bytes,
            max_bytes: self.bounds.max_bytes,
            next: self.end.seq,
            segments: self.segments.len(),
            memory_bytes: self.recent_bytes,
            cursors: self.places.iter().map(cursor).collect(),
            refused: self.counts.refused(),
            damaged: self.counts.damaged,
            syncs: self.counts.syncs,
            sync_time: self.counts.sync_time,
            sync_errors: self.counts.sync_errors,
            block_reads: self.counts.loads,
            read_errors: self.counts.read_errors,
        }
    }
}

fn open_memory(max_bytes: u64, destinations: &[(String, Backlog)]) -> Core {
    let bounds = Bounds {
        max_bytes,
        slack: 0,
        segment_header: 0,
        recent_bytes: 0,
        mark_bytes: (max_bytes / 256).clamp(1, 64 << 10),
    };
    let shares = shares(max_bytes, destinations);
    let places = destinations
        .iter()
        .zip(shares)
        .map(|((name, backlog), share)| {
            Place::new(name.clone(), share, backlog.full, 0, Point::default())
        });
    let id = foldhash::quality::RandomState::default().hash_one(0);
    Core {
        id,
        identity: BufferIdentity::new(format!("{id:016x}")),
        state: Mutex::new(State::new(bounds, places.collect())),
        arrived: Notify::new(),
        disk: None,
    }
}

fn open_disk(disk: &DiskBuffer, destinations: &[(String, Backlog)]) -> Result<Core, BufferError> {
    let path = disk.path.join("buffer");
    let io = |what| {
        let path = path.clone();
        move |source| BufferError::Io { what, path, source }
    };
    let folder = fs::Folder::lock(&path).map_err(io("cannot make or lock"))?;
    let folder = folder.ok_or_else(|| BufferError::InUse { path: path.clone() })?;
    let layout = Layout::new(disk, destinations.len());
    recover::open(Arc::new(folder), layout, destinations).map_err(|failed| match failed {
        Failed::List(source) => io("cannot list")(source),
        Failed::Open { name, source } => BufferError::Io {
            what: "cannot open or read",
            path: path.join(name),
            source,
        },
        Failed::Version { name, version } => BufferError::Version {
            path: path.join(name),
            version,
        },
    })
}

/// Bytes that may wait for each destination: what its backlog says, or an equal part. All of them together are no more than
/// there is, so that nobody takes from another: where the settings promise more, all are made smaller alike.
fn shares(usable: u64, destinations: &[(String, Backlog)]) -> Vec<u64> {
    let equal = usable / (destinations.len() as u64).max(1);
    let asked = |(_, backlog): &(String, Backlog)| backlog.max_bytes.map_or(equal, |size| size.0);
    let asked: Vec<u64> = destinations.iter().map(asked).collect();
    let all: u128 = asked.iter().map(|share| u128::from(*share)).sum();
    if all <= u128::from(usable) {
        return asked;
    }
    tracing::warn!(
        backlogs = %all,
        buffer = usable,
        "buffer: the destinations' backlogs together are more than the buffer holds and are made smaller alike"
    );
    let part = |share: u64| u64::try_from(u128::from(share) * u128::from(usable) / all);
    asked
        .into_iter()
        .map(|share| part(share).unwrap_or(0))
        .collect()
}
