//! Putting dead letters back through their destination.

use std::collections::VecDeque;
use std::hash::BuildHasher as _;
use std::path::Path;
use std::sync::Arc;

use foldhash::quality::RandomState;
use loggregator_net::Backoff;
use loggregator_service::Lifecycle;
use loggregator_service::metrics::Metrics;

use super::store::Store;
use super::{DeadLetters, Letter, StoreError, folder};
use crate::base::plan;
use crate::buffer::identity::BufferIdentity;
use crate::config::{BufferConfig, ConfigErrors, NozzleConfig};
use crate::destination::{Context, DynDestination, StartError};
use crate::event::Event;
use crate::kind::{Kinds, Limits};
use crate::pipeline::Retrier;

/// What came of a replay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Confirmed by the destination.
    pub delivered: u64,
    /// Refused again: dead letters anew.
    pub dead_lettered: u64,
    /// Lines that are no letter; they are gone.
    pub damaged: u64,
    /// Older letters that went because there was no room for these besides.
    pub evicted: u64,
    /// Not tried to the end because the replay was stopped: the next one begins with them, and with those of the same file that
    /// were delivered.
    pub left: u64,
}

/// Dead letters cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// What was refused again could not be kept again. The file stays: some of its letters may have been delivered.
    #[error("{} stays: what was refused again cannot be kept; is the disk full?", path.display())]
    NotKept {
        /// The file of dead letters.
        path: std::path::PathBuf,
    },
    /// The configuration has no such destination.
    #[error("there is no destination `{0}`")]
    NoDestination(String),
    /// Without a disk buffer no dead letters are kept.
    #[error("the nozzle has no [buffer.disk]: no dead letters are kept")]
    NoDisk,
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The destination cannot be started.
    #[error(transparent)]
    Destination(#[from] StartError),
    /// The letters cannot be read or removed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of letters cannot be read or removed.
    #[error("dead letters: cannot {what} {}", path.display())]
    File {
        /// What was being done.
        what: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// The dead letters of a destination, oldest first. Lines that are no letter are left out.
///
/// # Errors
/// See [`ReplayError`].
pub fn dead_letters(config: &NozzleConfig, destination: &str) -> Result<Vec<Letter>, ReplayError> {
    let mut all = config.destinations.iter();
    if all.all(|other| other.name != destination) {
        return Err(ReplayError::NoDestination(destination.to_owned()));
    }
    let BufferConfig::Disk(disk) = &config.buffer else {
        return Err(ReplayError::NoDisk);
    };
    let folder = folder(&disk.path, destination);
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut letters = Vec::new();
    for path in Store::open(folder, u64::MAX)?.all()? {
        let text = std::fs::read(&path).map_err(|source| ReplayError::File {
            what: "read",
            path,
            source,
        })?;
        letters.extend(lines(&text).filter_map(|line| serde_json::from_slice::<Letter>(line).ok()));
    }
    Ok(letters)
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
}

/// Puts the dead letters of a destination back through it, oldest first, until there are none or the lifecycle stops; with a
/// `reason` only those that were refused for it, the others stay.
///
/// Each is delivered, or becomes a dead letter again, with its number and time of receipt. It is not filtered or counted
/// against a quota again, and enriched with nothing. The nozzle may be running; letters that it writes meanwhile stay. The
/// files are moved into the folder `replaying` first. A file goes when all of its letters are settled. After a crash the
/// letters of the file under way come once more in the next replay; none is lost.
///
/// # Errors
/// See [`ReplayError`].
pub async fn replay(
    config: &NozzleConfig,
    kinds: &Kinds,
    destination: &str,
    reason: Option<&str>,
    lifecycle: &Lifecycle,
) -> Result<Replayed, ReplayError> {
    let mut all = config.destinations.iter();
    let of_name = all.find(|other| other.name == destination);
    let settings = of_name.ok_or_else(|| ReplayError::NoDestination(destination.to_owned()))?;
    let BufferConfig::Disk(disk) = &config.buffer else {
        return Err(ReplayError::NoDisk);
    };
    let planned = plan(settings, kinds)?;
    let limits = crate::pipeline::limits(settings, &*planned.plan);
    let max_bytes = settings.dead_letter.max_bytes.0;
    let mut store = Store::open(folder(&disk.path, destination), max_bytes)?;
    let letters = DeadLetters::open(destination, Some(&disk.path), max_bytes)?;
    let context = Context {
        nozzle: config.nozzle.name.clone(),
        name: destination.to_owned(),
        metrics: Metrics::new(),
        lifecycle: lifecycle.stage("replay"),
        // Not that of the nozzle, nor that of an earlier replay: the numbers of letters go up and down, and a destination that
        // keeps its place by them must not take one for delivered because of another's.
        buffer: BufferIdentity::new(format!(
            "replay-{:016x}",
            RandomState::default().hash_one(0)
        )),
        state_dir: None,
    };
    let running = planned.plan.start(context).await?;
    let mut replay = Replay {
        retrier: Retrier {
            destination: Arc::clone(&running),
            retry: settings.retry,
            backoff: Backoff::new(settings.retry.min.0, settings.retry.max.0).with_shape(2.0, 0.2),
        },
        limits,
        letters,
        lifecycle: lifecycle.clone(),
        reason,
        result: Replayed::default(),
    };
    for file in store.take_away()? {
        replay.file(&file, &mut store).await?;
    }
    DynDestination::close(&*running).await;
    replay.result.evicted += replay.letters.evicted();
    Ok(replay.result)
}

struct Replay<'a> {
    retrier: Retrier,
    limits: Limits,
    letters: DeadLetters,
    lifecycle: Lifecycle,
    reason: Option<&'a str>,
    result: Replayed,
}

impl Replay<'_> {
    async fn file(&mut self, path: &Path, store: &mut Store) -> Result<(), ReplayError> {
        let failed = |what| {
            let path = path.to_owned();
            move |source| ReplayError::File { what, path, source }
        };
        let text = std::fs::read(path).map_err(failed("read"))?;
        let mut batches: VecDeque<Vec<Event>> = VecDeque::new();
        let mut others = Vec::new();
        let mut bytes = 0;
        for line in lines(&text) {
            let letter = serde_json::from_slice::<Letter>(line).ok();
            let Some((letter, event)) = letter.and_then(|letter| {
                let event = letter.event()?;
                Some((letter, event))
            }) else {
                self.result.damaged += 1;
                continue;
            };
            if self.reason.is_some_and(|reason| reason != letter.reason) {
                others.push(letter);
                continue;
            }
            bytes += event.body().len();
            match batches.back_mut() {
                Some(batch)
                    if batch.len() < self.limits.batch_events
                        && bytes <= self.limits.batch_bytes =>
                {
                    batch.push(event);
                }
                _ => {
                    bytes = event.body().len();
                    batches.push_back(vec![event]);
                }
            }
        }
        let not_kept = self.letters.not_kept();
        while let Some(batch) = batches.pop_front() {
            let n = batch.len() as u64;
            let stop = self.lifecycle.token();
            let settled = stop.run_until_cancelled(self.retrier.deliver(batch, &self.letters));
            let Some((delivered, dead_lettered)) = settled.await else {
                let rest: usize = batches.iter().map(Vec::len).sum();
                self.result.left += n + rest as u64;
                return Ok(());
            };
            self.result.delivered += delivered;
            self.result.dead_lettered += dead_lettered;
        }
        if self.letters.not_kept() > not_kept {
            return Err(ReplayError::NotKept {
                path: path.to_owned(),
            });
        }
        // First back, then away: a crash in between makes second letters of them, never none.
        if !others.is_empty() {
            self.result.evicted += store.append(&others)?;
        }
        std::fs::remove_file(path).map_err(failed("remove"))
    }
}
