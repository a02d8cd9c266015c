//! Events that a destination refused for good.
//!
//! Where the nozzle has a folder they are kept there, as lines of JSON in files of a bounded size; the oldest file goes when
//! there are too many, and its letters are counted as gone. A letter is on the disk before its event settles: a crash in
//! between makes a second letter of it, never none. Without a folder, or when the disk fails, a letter is only counted
//! and logged.

mod letter;
mod replay;
mod store;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

pub(crate) use letter::Dead;
pub use letter::Letter;
pub use replay::{ReplayError, Replayed, dead_letters, replay};
pub use store::StoreError;
pub(crate) use store::{folder, folder_name};

use crate::event::Event;
use store::Store;

/// The dead letters of one destination.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    destination: String,
    store: Option<Arc<Mutex<Store>>>,
    bytes: AtomicU64,
    evicted: AtomicU64,
    not_kept: AtomicU64,
}

impl DeadLetters {
    /// Kept under `state`, the nozzle's folder, in at most so many bytes; only counted without.
    pub(crate) fn open(
        destination: &str,
        state: Option<&Path>,
        max_bytes: u64,
    ) -> Result<DeadLetters, StoreError> {
        let store = match state {
            None => None,
            Some(state) => Some(Store::open(folder(state, destination), max_bytes)?),
        };
        Ok(DeadLetters {
            destination: destination.to_owned(),
            bytes: AtomicU64::new(store.as_ref().map_or(0, Store::bytes)),
            store: store.map(|store| Arc::new(Mutex::new(store))),
            evicted: AtomicU64::new(0),
            not_kept: AtomicU64::new(0),
        })
    }

    /// Keeps these, and tells of each whether it is kept.
    pub(crate) async fn keep(&self, letters: &[Dead]) {
        let kept = self.store(letters).await;
        if !kept {
            let n = letters.len() as u64;
            self.not_kept.fetch_add(n, Ordering::Relaxed);
        }
        for dead in letters {
            self.tell(dead, kept);
        }
    }

    /// Whether they are on the disk now.
    async fn store(&self, letters: &[Dead]) -> bool {
        let Some(store) = &self.store else {
            return false;
        };
        let now = crate::take_in::now();
        let letters: Vec<Letter> = letters
            .iter()
            .map(|dead| Letter::new(&self.destination, dead, now))
            .collect();
        let store = Arc::clone(store);
        // Waits for the disk, so not on a thread that others wait for.
        let kept = tokio::task::spawn_blocking(move || {
            let mut store = store.lock();
            let evicted = store.append(&letters);
            (evicted, store.bytes())
        })
        .await;
        let failed = match kept {
            Ok((Ok(evicted), bytes)) => {
                self.bytes.store(bytes, Ordering::Relaxed);
                self.evicted.fetch_add(evicted, Ordering::Relaxed);
                return true;
            }
            Ok((Err(error), _)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(
            destination = self.destination,
            error = failed,
            "dead letters cannot be kept"
        );
        false
    }

    fn tell(&self, dead: &Dead, kept: bool) {
        let Dead {
            event,
            why,
            attempts,
        } = dead;
        // What is kept need not be repeated; of what is not, the beginning may help.
        let excerpt = if kept { String::new() } else { excerpt(event) };
        tracing::warn!(
            destination = self.destination,
            seq = event.seq,
            source_id = event.envelope().source_id(),
            attempts,
            kept,
            excerpt,
            %why,
            "dead letter"
        );
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Letters that went because there was no room for newer ones.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Letters that could not be kept.
    pub(crate) fn not_kept(&self) -> u64 {
        self.not_kept.load(Ordering::Relaxed)
    }

    /// Letters that are not there any more, or never were, by reason.
    pub(crate) fn gone(&self) -> [(&'static str, u64); 2] {
        [("evicted", self.evicted()), ("not_kept", self.not_kept())]
    }
}

/// Characters of a line that are logged.
const EXCERPT: usize = 100;

fn excerpt(event: &Event) -> String {
    let text = event
        .envelope()
        .log()
        .map(|log| String::from_utf8_lossy(log.payload).into_owned());
    text.unwrap_or_default().chars().take(EXCERPT).collect()
}
