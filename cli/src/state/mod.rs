//! The state folder of a running `up`: who holds it, where everything listens, which files prove who one is.
//!
//! The folder is readable by its owner only (0700, files 0600): it holds private keys and a token. A lock on
//! `DIR/lock`, held by the running process for as long as it lives, tells the living from the dead; the kernel
//! drops it with the process, so that a crash never leaves a folder that looks in use.

mod endpoints;
mod files;
mod pki;

pub use endpoints::{
    AgentEndpoints, DopplerEndpoints, Endpoints, NozzleEndpoints, PrometheusEndpoints,
    RlpEndpoints, RlpGatewayEndpoints, TrafficControllerEndpoints,
};
pub use files::write_private;
pub use pki::{Identity, Pki};

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What can be wrong with a state folder.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A live process holds the folder.
    #[error(
        "{} is in use by a running pipeline (process {pid}).\n\
         Stop that one first, or start a second one beside it with `--state-dir OTHER`.", dir.display()
    )]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// The holder's process id, as it wrote it; `?` when unreadable.
        pid: String,
    },
    /// Nothing has been started here.
    #[error(
        "no pipeline is running in {}.\n\
         Start one with `loggregator up`, or say where it is with `--state-dir DIR`; \
         a deployment elsewhere is reached with `--url`.", dir.display()
    )]
    NotRunning {
        /// The folder.
        dir: PathBuf,
    },
    /// It ended, and left its files.
    #[error(
        "the pipeline of {} (process {pid}) is not running any more.\n\
         Start it again with `loggregator up`.", dir.display()
    )]
    Ended {
        /// The folder.
        dir: PathBuf,
        /// The process that wrote it.
        pid: u32,
    },
    /// `up` is still getting ready.
    #[error("the pipeline in {} is starting or stopping and has no addresses (yet); try again in a moment", dir.display())]
    NotReady {
        /// The folder.
        dir: PathBuf,
    },
    /// Somebody else's folder, which could feed us false certificates.
    #[error("{} belongs to user {owner}, not to you ({me}); choose another with `--state-dir DIR`", dir.display())]
    NotOurs {
        /// The folder.
        dir: PathBuf,
        /// Its owner.
        owner: u32,
        /// Us.
        me: u32,
    },
    /// `endpoints.json` is not what this version writes.
    #[error("{} cannot be understood: {reason}", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The operating system said no.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl StateError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io {
            what,
            path: path.to_owned(),
            source,
        }
    }
}

/// A state folder by its path; nothing is opened yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// The folder named, or this user's own.
    pub fn new(named: Option<PathBuf>) -> Self {
        let path = named.unwrap_or_else(|| {
            default_path(
                std::env::var_os("XDG_STATE_HOME").map(PathBuf::from),
                std::env::var_os("HOME").map(PathBuf::from),
            )
        });
        // Absolute, because the paths in `endpoints.json` are read from elsewhere.
        Self {
            path: std::path::absolute(&path).unwrap_or(path),
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this is the folder that commands use unasked.
    pub fn is_default(&self) -> bool {
        *self == Self::new(None)
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes the folder if need be and takes it for this process.
    ///
    /// # Errors
    /// [`StateError::InUse`] when a live process has it; [`StateError::NotOurs`] for another user's folder.
    pub fn take(&self) -> Result<StateLock, StateError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .map_err(StateError::io("cannot make the state folder", &self.path))?;
        self.check_owner()?;
        std::fs::set_permissions(&self.path, std::fs::Permissions::from_mode(0o700)).map_err(
            StateError::io("cannot restrict the state folder", &self.path),
        )?;
        let path = self.file("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(StateError::io("cannot open", &path))?;
        lock_patiently(&file, &path)
            .map_err(|error| error.unwrap_or_else(|| self.in_use(&mut file)))?;
        file.set_len(0)
            .and_then(|()| file.rewind())
            .map_err(StateError::io("cannot write", &path))?;
        write!(file, "{}", std::process::id()).map_err(StateError::io("cannot write", &path))?;
        // What a crashed predecessor left says where nothing listens any more.
        files::remove_if_there(&self.file("endpoints.json"))?;
        Ok(StateLock {
            dir: self.clone(),
            _lock: file,
        })
    }

    /// The addresses of the pipeline that runs here.
    ///
    /// # Errors
    /// When none runs here, with what to do about it.
    pub fn endpoints(&self) -> Result<Endpoints, StateError> {
        if !self.path.is_dir() {
            return Err(StateError::NotRunning {
                dir: self.path.clone(),
            });
        }
        self.check_owner()?;
        let alive = self.is_held()?;
        match (Endpoints::read(&self.file("endpoints.json"))?, alive) {
            (Some(endpoints), true) => Ok(endpoints),
            (Some(endpoints), false) => Err(StateError::Ended {
                dir: self.path.clone(),
                pid: endpoints.pid,
            }),
            (None, true) => Err(StateError::NotReady {
                dir: self.path.clone(),
            }),
            (None, false) => Err(StateError::NotRunning {
                dir: self.path.clone(),
            }),
        }
    }

    fn is_held(&self) -> Result<bool, StateError> {
        let path = self.file("lock");
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(source) => {
                return Err(StateError::Io {
                    what: "cannot open",
                    path,
                    source,
                });
            }
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false), // dropped with the file, at once
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(source)) => Err(StateError::Io {
                what: "cannot look at the lock",
                path,
                source,
            }),
        }
    }

    fn in_use(&self, lock: &mut File) -> StateError {
        let mut pid = String::new();
        let known = lock
            .rewind()
            .and_then(|()| lock.read_to_string(&mut pid))
            .is_ok()
            && !pid.is_empty();
        StateError::InUse {
            dir: self.path.clone(),
            pid: if known { pid } else { "?".to_owned() },
        }
    }

    fn check_owner(&self) -> Result<(), StateError> {
        let owner = std::fs::metadata(&self.path)
            .map_err(StateError::io("cannot look at", &self.path))?
            .uid();
        match my_uid() {
            Some(me) if me != owner => Err(StateError::NotOurs {
                dir: self.path.clone(),
                owner,
                me,
            }),
            _ => Ok(()),
        }
    }
}

/// The state folder is ours until this is dropped.
#[derive(Debug)]
pub struct StateLock {
    dir: StateDir,
    _lock: File,
}

impl StateLock {
    /// Says where everything is; readers see the whole file or none.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn publish(&self, endpoints: &Endpoints) -> Result<(), StateError> {
        endpoints.write(&self.dir.file("endpoints.json"))
    }

    /// Takes the addresses back, so that nobody connects to a pipeline that is going away.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn withdraw(&self) -> Result<(), StateError> {
        files::remove_if_there(&self.dir.file("endpoints.json"))
    }
}

/// `$XDG_STATE_HOME/loggregator`, else `~/.local/state/loggregator`, else a folder of this user's in `/tmp`.
fn default_path(xdg: Option<PathBuf>, home: Option<PathBuf>) -> PathBuf {
    // The XDG base directory specification: a relative path is to be ignored.
    if let Some(xdg) = xdg.filter(|path| path.is_absolute()) {
        return xdg.join("loggregator");
    }
    if let Some(home) = home.filter(|path| path.is_absolute() && path.is_dir()) {
        return home.join(".local/state/loggregator");
    }
    PathBuf::from(format!(
        "/tmp/loggregator-{}",
        my_uid().map_or_else(|| "unknown".to_owned(), |uid| uid.to_string())
    ))
}

fn my_uid() -> Option<u32> {
    std::fs::metadata("/proc/self").ok().map(|meta| meta.uid())
}

/// Half a second of tries: a client that asks whether the folder is held holds the lock for an instant itself.
fn lock_patiently(file: &File, path: &Path) -> Result<(), Option<StateError>> {
    const TRIES: u32 = 10;
    for attempt in 1..=TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if attempt < TRIES => {
                std::thread::sleep(Duration::from_millis(50))
            }
            Err(TryLockError::WouldBlock) => break,
            Err(TryLockError::Error(source)) => {
                return Err(Some(StateError::io("cannot lock", path)(source)));
            }
        }
    }
    Err(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints() -> Endpoints {
        Endpoints::example()
    }

    #[test]
    fn the_default_follows_xdg_then_home_then_tmp() {
        let home = tempfile::tempdir().unwrap();
        let at = |xdg: Option<&str>, home: Option<&Path>| {
            default_path(xdg.map(PathBuf::from), home.map(PathBuf::from))
        };
        assert_eq!(
            at(Some("/x"), Some(home.path())),
            Path::new("/x/loggregator")
        );
        assert_eq!(
            at(Some("relative"), Some(home.path())),
            home.path().join(".local/state/loggregator")
        );
        assert_eq!(
            at(None, Some(Path::new("/nonexistent-home"))),
            at(None, None)
        );
        assert!(
            at(None, None)
                .to_string_lossy()
                .starts_with("/tmp/loggregator-")
        );
    }

    #[test]
    fn a_held_folder_is_refused_with_its_holder_and_free_again_afterwards() {
        let temp = tempfile::tempdir().unwrap();
        let dir = StateDir::new(Some(temp.path().join("state")));
        let held = dir.take().unwrap();
        let message = dir.take().unwrap_err().to_string();
        assert!(
            message.contains(&format!("process {}", std::process::id())),
            "{message}"
        );
        assert!(message.contains("--state-dir"), "{message}");
        drop(held);
        dir.take().unwrap();
    }

    #[test]
    fn only_the_owner_can_look_in() {
        let temp = tempfile::tempdir().unwrap();
        let dir = StateDir::new(Some(temp.path().join("state")));
        let lock = dir.take().unwrap();
        lock.publish(&endpoints()).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(dir.path()), 0o700);
        assert_eq!(mode(&dir.file("endpoints.json")), 0o600);
        assert_eq!(mode(&dir.file("lock")), 0o600);
    }

    #[test]
    fn a_reader_is_told_apart_never_started_starting_running_and_ended() {
        let temp = tempfile::tempdir().unwrap();
        let dir = StateDir::new(Some(temp.path().join("state")));
        assert!(matches!(
            dir.endpoints(),
            Err(StateError::NotRunning { .. })
        ));
        let lock = dir.take().unwrap();
        assert!(matches!(dir.endpoints(), Err(StateError::NotReady { .. })));
        lock.publish(&endpoints()).unwrap();
        assert_eq!(dir.endpoints().unwrap(), endpoints());
        drop(lock);
        assert!(matches!(
            dir.endpoints(),
            Err(StateError::Ended { pid: 7, .. })
        ));
        // The next start cleans up what the last one left.
        let _again = dir.take().unwrap();
        assert!(matches!(dir.endpoints(), Err(StateError::NotReady { .. })));
    }

    #[test]
    fn a_damaged_file_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let dir = StateDir::new(Some(temp.path().to_owned()));
        let _lock = dir.take().unwrap();
        std::fs::write(dir.file("endpoints.json"), "{\"version\":9}").unwrap();
        let message = dir.endpoints().unwrap_err().to_string();
        assert!(message.contains("endpoints.json"), "{message}");
    }
}
