//! The hand-over point between the firehose and the destinations: one log, and a cursor per destination.
//!
//! What [`Buffer::append`] accepted has a number, and every cursor gets to it in the order of the numbers. A cursor moves
//! past an event only by [`Cursor::checkpoint`]; after a crash it starts again at its last checkpoint that was written
//! down. A destination that is behind fills its own share of the buffer and no other's.

use std::collections::VecDeque;
use std::hash::BuildHasher as _;
use std::ops::Range;
use std::sync::Arc;

use loggregator_envelope::Frame;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::account::Account;
use crate::config::{Backlog, BufferConfig};
use crate::event::Event;

/// How a buffer is made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it is kept, and how big it may become.
    pub store: BufferConfig,
    /// Its destinations, each with a cursor of its own. On disk the cursors of others, from an earlier configuration, are
    /// dropped.
    pub destinations: Vec<(String, Backlog)>,
}

/// What became of an appended frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Appended {
    /// Envelopes that have a number now.
    pub accepted: u64,
    /// Envelopes that the buffer could not take.
    pub refused: u64,
    /// Why not: `disk_full`, `disk_error`, `too_large`. Empty when nothing was refused.
    pub why: &'static str,
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
    /// `backlog_full` or `damaged`.
    pub reason: &'static str,
    /// How many of which source, as far as that is known; bounded.
    pub sources: Vec<(String, u64)>,
}

/// Fill of a buffer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BufferReport {
    /// Bytes held.
    pub bytes: u64,
    /// Bytes it may hold.
    pub max_bytes: u64,
    /// Number that the next event gets; that of the very first event was 0.
    pub next: u64,
    /// Per destination, in the order of the settings: the first event not checkpointed, and the bytes that wait for it.
    pub cursors: Vec<(String, u64, u64)>,
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
        path: std::path::PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("buffer {}: another nozzle is using it", path.display())]
    InUse {
        /// Its folder.
        path: std::path::PathBuf,
    },
}

/// The buffer. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Buffer {
    shared: Arc<Shared>,
}

/// A destination's place in the buffer.
#[derive(Debug)]
pub struct Cursor {
    shared: Arc<Shared>,
    index: usize,
    at: u64,
}

#[derive(Debug)]
struct Shared {
    id: String,
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug)]
struct State {
    max_bytes: u64,
    bytes: u64,
    first: u64,
    events: VecDeque<Event>,
    cursors: Vec<(String, u64)>,
    closed: bool,
}

impl Buffer {
    /// Opens it: on disk with what it held before.
    ///
    /// # Errors
    /// When its files cannot be used.
    pub fn open(settings: &Settings) -> Result<Buffer, BufferError> {
        let max_bytes = match &settings.store {
            BufferConfig::Memory(memory) => memory.max_bytes.0,
            BufferConfig::Disk(disk) => disk.max_bytes.0,
        };
        let cursors = settings
            .destinations
            .iter()
            .map(|(name, _)| (name.clone(), 0));
        Ok(Buffer {
            shared: Arc::new(Shared {
                id: format!(
                    "{:016x}",
                    foldhash::quality::RandomState::default().hash_one(0)
                ),
                state: Mutex::new(State {
                    max_bytes,
                    bytes: 0,
                    first: 0,
                    events: VecDeque::new(),
                    cursors: cursors.collect(),
                    closed: false,
                }),
                arrived: Notify::new(),
            }),
        })
    }

    /// Takes a frame in. `received` is the time of its arrival in nanoseconds since 1970.
    pub async fn append(&self, frame: &Frame, received: i64) -> Appended {
        let mut state = self.shared.state.lock();
        for entry in frame.entries() {
            let body = frame.bytes().slice(entry.body());
            let seq = state.next();
            state.bytes += body.len() as u64;
            state.events.push_back(Event::new(seq, received, body));
        }
        state.trim();
        drop(state);
        self.shared.arrived.notify_waiters();
        Appended {
            accepted: frame.len() as u64,
            ..Appended::default()
        }
    }

    /// The cursor of a destination; there should be one user of it at a time.
    #[must_use]
    pub fn cursor(&self, destination: &str) -> Option<Cursor> {
        let state = self.shared.state.lock();
        let index = state
            .cursors
            .iter()
            .position(|(name, _)| name == destination)?;
        Some(Cursor {
            shared: Arc::clone(&self.shared),
            index,
            at: state.cursors[index].1,
        })
    }

    /// Nothing more will be appended: cursors that have read everything end.
    pub fn close(&self) {
        self.shared.state.lock().closed = true;
        self.shared.arrived.notify_waiters();
    }

    /// Its identity, made when it was empty for the first time. One on disk keeps it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// How full it is.
    #[must_use]
    pub fn report(&self) -> BufferReport {
        let state = self.shared.state.lock();
        BufferReport {
            bytes: state.bytes,
            max_bytes: state.max_bytes,
            next: state.next(),
            cursors: state
                .cursors
                .iter()
                .map(|(name, at)| (name.clone(), *at, 0))
                .collect(),
        }
    }
}

impl Cursor {
    /// Where it stands, and the account of all events before: what was written down last.
    #[must_use]
    pub fn start(&self) -> (u64, Account) {
        (self.at, Account::default())
    }

    /// Waits for events and takes at most so many, and so many bytes of them (at least one event). `None` when the buffer
    /// is closed and everything was read. May be cancelled without losing anything.
    pub async fn next(&mut self, max_events: usize, max_bytes: usize) -> Option<Read> {
        loop {
            let shared = Arc::clone(&self.shared);
            let arrived = shared.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            {
                let state = shared.state.lock();
                let mut read = Read::default();
                if self.at < state.first {
                    read.lost.push(Lost {
                        range: self.at..state.first,
                        reason: "backlog_full",
                        sources: Vec::new(),
                    });
                    self.at = state.first;
                }
                let mut bytes = 0;
                let from = usize::try_from(self.at - state.first).unwrap_or(usize::MAX);
                for event in state
                    .events
                    .range(from.min(state.events.len())..)
                    .take(max_events)
                {
                    bytes += event.body().len();
                    if bytes > max_bytes && !read.events.is_empty() {
                        break;
                    }
                    read.events.push(event.clone());
                }
                self.at += read.events.len() as u64;
                if !read.events.is_empty() || !read.lost.is_empty() {
                    return Some(read);
                }
                if state.closed {
                    return None;
                }
            }
            arrived.await;
        }
    }

    /// Everything below `next` is settled as `account` says. Written down with the next sync.
    pub fn checkpoint(&self, next: u64, account: &Account) {
        debug_assert_eq!(next, account.total());
        let mut state = self.shared.state.lock();
        state.cursors[self.index].1 = next;
        state.release();
    }
}

impl State {
    fn next(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    fn trim(&mut self) {
        while self.bytes > self.max_bytes {
            self.pop();
        }
    }

    fn release(&mut self) {
        let needed = self.cursors.iter().map(|(_, at)| *at).min();
        while needed.is_some_and(|needed| self.first < needed) && !self.events.is_empty() {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(event) = self.events.pop_front() {
            self.bytes -= event.body().len() as u64;
            self.first += 1;
        }
    }
}
