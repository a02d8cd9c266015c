//! The security event log: one CEF line for each HTTP request, whatever becomes of it.
//!
//! Lines are written in the order of the requests by a task of their own, so that a slow disk holds up no connection that
//! is served already. The queue to it is short and bounded. A request waits for its place in it, since an audit log that a
//! flood of requests can push lines out of is none; only when the disk stands still for longer than [`WAIT`] is a line
//! given up, counted, and the request goes on. When the file was moved or removed (logrotate), a new one is made.

mod record;

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use http::Request;
use loggregator_service::Lifecycle;
use tokio::sync::mpsc;

use record::Destination;

/// Lines that may wait for the disk. A line has some 25 KiB at most.
const QUEUE: usize = 1024;

/// Bytes after which a write takes no further line.
const WRITE_BYTES: usize = 1024 * 1024;

/// How long a request waits for the place of its line in the queue.
const WAIT: Duration = Duration::from_secs(1);

/// Where the security event log goes, and the address that its lines name as their destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityEventLog {
    /// The file; made if it is not there, else appended to.
    pub path: PathBuf,
    /// The address of this machine, `dst` of each line.
    pub ip: String,
}

/// What became of the lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// Written to the file.
    pub(crate) written: AtomicU64,
    /// The file could not be written to.
    pub(crate) failed: AtomicU64,
    /// The disk stood still.
    pub(crate) dropped: AtomicU64,
}

/// The log, as the front door sees it.
#[derive(Debug)]
pub(crate) struct SecurityLog {
    lines: mpsc::Sender<Vec<u8>>,
    destination: Destination,
    counts: Arc<Lines>,
}

impl SecurityLog {
    /// Opens the file and starts the task that writes to it. It ends when the log was dropped and all is written.
    ///
    /// # Errors
    /// When the file cannot be opened for appending.
    pub(crate) fn start(
        config: &SecurityEventLog,
        port: u16,
        lifecycle: &Lifecycle,
    ) -> io::Result<Self> {
        let file = LogFile::open(config.path.clone())?;
        let (lines, queue) = mpsc::channel(QUEUE);
        let counts = Arc::<Lines>::default();
        lifecycle.spawn("security log", write(queue, file, Arc::clone(&counts)));
        let destination = Destination {
            ip: config.ip.clone(),
            port,
        };
        Ok(Self {
            lines,
            destination,
            counts,
        })
    }

    /// What became of the lines so far.
    pub(crate) fn counts(&self) -> Arc<Lines> {
        Arc::clone(&self.counts)
    }

    /// Logs a request that `peer` makes.
    pub(crate) async fn log<B>(&self, request: &Request<B>, peer: SocketAddr) {
        let line = record::line(request, peer, &self.destination, SystemTime::now());
        if self.lines.send_timeout(line, WAIT).await.is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                "access handler : the security event log does not take its lines in time"
            );
        }
    }
}

async fn write(mut queue: mpsc::Receiver<Vec<u8>>, mut file: LogFile, counts: Arc<Lines>) {
    while let Some(mut text) = queue.recv().await {
        let mut count = 1;
        while text.len() < WRITE_BYTES
            && let Ok(line) = queue.try_recv()
        {
            text.extend_from_slice(&line);
            count += 1;
        }
        let write = move || {
            let result = file.append(&text);
            (file, result)
        };
        let result;
        (file, result) = match tokio::task::spawn_blocking(write).await {
            Ok(done) => done,
            Err(_) => return,
        };
        let counter = match result {
            Ok(()) => &counts.written,
            Err(error) => {
                tracing::error!("access handler : {error}");
                &counts.failed
            }
        };
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// A file that is appended to, and followed to its successor when it is moved away.
struct LogFile {
    path: PathBuf,
    file: File,
    identity: (u64, u64),
}

impl LogFile {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = open(&path)?;
        let identity = identity(&file.metadata()?);
        Ok(Self {
            path,
            file,
            identity,
        })
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        let there = std::fs::metadata(&self.path);
        if there.map(|there| identity(&there)).ok() != Some(self.identity) {
            // Until the new one can be opened, the old one takes the lines.
            match Self::open(self.path.clone()) {
                Ok(new) => *self = new,
                Err(error) => tracing::error!(
                    "access handler : {} was moved and cannot be made anew: {error}",
                    self.path.display()
                ),
            }
        }
        self.file.write_all(text)
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o666)
        .open(path)
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended_and_follow_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("cef"), dir.path().join("cef.1"));
        std::fs::write(&path, "before\n").unwrap();
        let mut log = LogFile::open(path.clone()).unwrap();
        log.append(b"one\n").unwrap();
        std::fs::rename(&path, &old).unwrap();
        log.append(b"two\n").unwrap();
        std::fs::remove_file(&path).unwrap();
        log.append(b"three\n").unwrap();
        // As logrotate's copytruncate does it.
        File::create(&path).unwrap();
        log.append(b"four\n").unwrap();
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "before\none\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "four\n");
    }

    #[test]
    fn while_no_new_file_can_be_made_the_old_one_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let (logs, moved) = (dir.path().join("logs"), dir.path().join("moved"));
        std::fs::create_dir(&logs).unwrap();
        let mut log = LogFile::open(logs.join("cef")).unwrap();
        std::fs::rename(&logs, &moved).unwrap();
        log.append(b"one\n").unwrap();
        assert_eq!(std::fs::read_to_string(moved.join("cef")).unwrap(), "one\n");
    }

    #[tokio::test]
    async fn the_log_ends_with_all_lines_written() {
        let dir = tempfile::tempdir().unwrap();
        let config = SecurityEventLog {
            path: dir.path().join("cef"),
            ip: "10.0.0.9".to_owned(),
        };
        let lifecycle = Lifecycle::new();
        let log = SecurityLog::start(&config, 8081, &lifecycle).unwrap();
        let counts = log.counts();
        for i in 0..3000 {
            let request = Request::builder().uri(format!("/{i}")).body(()).unwrap();
            log.log(&request, "10.1.2.3:4".parse().unwrap()).await;
        }
        drop(log);
        lifecycle.shutdown(Duration::from_secs(10)).await;
        let text = std::fs::read_to_string(&config.path).unwrap();
        let paths: Vec<_> = text
            .lines()
            .map(|line| line.split(['|', ' ']).nth(5).unwrap().to_owned())
            .collect();
        let expected: Vec<_> = (0..3000).map(|i| format!("/{i}")).collect();
        assert_eq!(paths, expected);
        assert_eq!(counts.written.load(Ordering::Relaxed), 3000);
    }

    #[tokio::test]
    async fn a_line_that_cannot_be_written_is_counted_and_the_request_goes_on() {
        let config = SecurityEventLog {
            path: "/dev/full".into(),
            ip: "10.0.0.9".to_owned(),
        };
        let lifecycle = Lifecycle::new();
        let log = SecurityLog::start(&config, 8081, &lifecycle).unwrap();
        let counts = log.counts();
        let request = Request::builder().uri("/a").body(()).unwrap();
        log.log(&request, "10.1.2.3:4".parse().unwrap()).await;
        drop(log);
        lifecycle.shutdown(Duration::from_secs(10)).await;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        assert_eq!((read(&counts.written), read(&counts.failed)), (0, 1));
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error() {
        assert!(LogFile::open("/nonexistent/cef".into()).is_err());
    }
}
