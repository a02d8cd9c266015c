//! Makes a configuration again when the files that it came from have changed.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use super::error::TlsError;

type Build<T> = Box<dyn Fn() -> Result<T, TlsError> + Send + Sync>;

/// A configuration together with how it was made.
pub(super) struct Material<T> {
    files: Vec<PathBuf>,
    build: Build<T>,
    current: ArcSwap<T>,
    seen: parking_lot::Mutex<Seen>,
    reloads: AtomicU64,
    failures: AtomicU64,
}

/// What the files looked like when they were last loaded, and whether that worked.
struct Seen {
    prints: Vec<Option<Print>>,
    failed: bool,
}

/// Enough to notice that a file was written or replaced.
#[derive(PartialEq, Eq)]
struct Print {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl<T> Material<T> {
    pub fn new(
        files: Vec<PathBuf>,
        build: impl Fn() -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        // Taken before the files are read: a change in between is then seen as one.
        let prints = prints(&files);
        let current = ArcSwap::from_pointee(build()?);
        Ok(Self {
            files,
            build: Box::new(build),
            current,
            seen: parking_lot::Mutex::new(Seen {
                prints,
                failed: false,
            }),
            reloads: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        })
    }

    /// The configuration in force.
    pub fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// How often changed files were taken over.
    pub fn reloads(&self) -> u64 {
        self.reloads.load(Ordering::Relaxed)
    }

    /// How often changed files could not be used.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Loads the files again if they changed. Files that could not be used are tried again each time
    /// (a certificate may become valid by waiting), but counted and logged once per change.
    pub fn refresh(&self) {
        let mut seen = self.seen.lock();
        let now = prints(&self.files);
        let changed = now != seen.prints;
        if !changed && !seen.failed {
            return;
        }
        match (self.build)() {
            Ok(config) => {
                self.current.store(Arc::new(config));
                self.reloads.fetch_add(1, Ordering::Relaxed);
                seen.failed = false;
                tracing::info!(files = ?self.files, "TLS files changed and were loaded");
            }
            Err(error) => {
                if changed {
                    self.failures.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%error, "TLS files changed and cannot be used; the old ones stay in force");
                }
                seen.failed = true;
            }
        }
        seen.prints = now;
    }
}

impl<T> fmt::Debug for Material<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

fn prints(files: &[PathBuf]) -> Vec<Option<Print>> {
    use std::os::unix::fs::MetadataExt;
    files
        .iter()
        .map(|file| {
            let metadata = fs::metadata(file).ok()?;
            Some(Print {
                modified: metadata.modified().ok(),
                length: metadata.len(),
                inode: metadata.ino(),
            })
        })
        .collect()
}

/// Calls `refresh` each `every`, on a thread that may block, until `stop`.
pub(super) async fn watch(
    every: Duration,
    stop: CancellationToken,
    refresh: impl Fn() + Send + Sync + 'static,
) {
    let refresh = Arc::new(refresh);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        let refresh = Arc::clone(&refresh);
        if tokio::task::spawn_blocking(move || refresh())
            .await
            .is_err()
        {
            tracing::error!("the check for changed TLS files panicked");
        }
    }
}
