//! Lines on their way to standard error.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait for the writer.
const QUEUED_LINES: usize = 4096;
/// How long the guard waits for the rest to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

enum Entry {
    Line(Vec<u8>),
    Stop,
}

/// The sending side: what the log layer writes to.
#[derive(Clone)]
pub(super) struct Queue {
    lines: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

/// Writes out what is queued when it is dropped; keep it until the end of `main`.
#[must_use = "dropping the guard ends logging"]
#[derive(Debug)]
pub struct Guard {
    lines: SyncSender<Entry>,
    done: Receiver<()>,
    _thread: JoinHandle<()>,
}

/// One line being formatted.
pub(super) struct Line<'a> {
    queue: &'a Queue,
    bytes: Vec<u8>,
}

/// Starts the thread that writes to `out`.
pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<(Queue, Guard)> {
    let (lines, queued) = sync_channel(QUEUED_LINES);
    let (finished, done) = sync_channel(1);
    let dropped = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&dropped);
    let thread = std::thread::Builder::new()
        .name("log writer".to_owned())
        .spawn(move || {
            write_lines(out, &queued, &told);
            finished.send(()).ok();
        })?;
    Ok((
        Queue {
            lines: lines.clone(),
            dropped,
        },
        Guard {
            lines,
            done,
            _thread: thread,
        },
    ))
}

fn write_lines(mut out: impl Write, queued: &Receiver<Entry>, dropped: &AtomicU64) {
    let mut told = 0;
    while let Ok(Entry::Line(line)) = queued.recv() {
        let lost = dropped.load(Ordering::Relaxed);
        if lost > told {
            // Standard error that cannot be written to has nowhere to report to.
            writeln!(
                out,
                "{} log lines were lost: standard error was not read",
                lost - told
            )
            .ok();
            told = lost;
        }
        out.write_all(&line).ok();
    }
    out.flush().ok();
}

impl Queue {
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line {
            queue: self,
            bytes: Vec::new(),
        }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let line = std::mem::take(&mut self.bytes);
        if line.is_empty() {
            return;
        }
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.queue.lines.try_send(Entry::Line(line))
        {
            self.queue.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let until = Instant::now() + FLUSH_TIMEOUT;
        let mut stop = Entry::Stop;
        // A full queue in front of a reader that sleeps: wait for room, but not for ever.
        while let Err(TrySendError::Full(back)) = self.lines.try_send(stop) {
            if Instant::now() >= until {
                return;
            }
            stop = back;
            std::thread::sleep(Duration::from_millis(5));
        }
        match self
            .done
            .recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }
}
