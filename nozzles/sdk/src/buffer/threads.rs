//! The threads of a buffer on disk: one writes, one makes things last.
//!
//! The disk's pace is nobody else's: no task of the runtime waits in a write. Appends stand in a queue of
//! [`QUEUE`] frames; when the disk stalls and it is full, they wait, the intake reads no further, and the doppler's log is
//! the queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{mpsc, oneshot};

use crate::event::Event;

use super::Appended;
use super::core::Core;

/// Frames that wait to be written.
const QUEUE: usize = 16;
/// The cursors are written down no more often than this.
const SAVE_INTERVAL: Duration = Duration::from_millis(100);

/// Events to append, and who wants to know.
struct Request {
    events: Vec<Event>,
    reply: oneshot::Sender<Appended>,
}

/// The threads. Dropping them waits until everything is on the disk.
#[derive(Debug)]
pub(super) struct Threads {
    queue: Option<mpsc::Sender<Request>>,
    keeper: Arc<Keeper>,
    handles: Vec<JoinHandle<()>>,
}

/// What wakes the thread that makes things last.
#[derive(Debug, Default)]
struct Keeper {
    /// There is something to do; kept beside the lock so that most calls take none.
    work: AtomicBool,
    state: Mutex<Wanted>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Wanted {
    work: bool,
    stop: bool,
}

impl Keeper {
    fn wake(&self) {
        if !self.work.swap(true, Ordering::AcqRel) {
            self.state.lock().work = true;
            self.changed.notify_one();
        }
    }
}

impl Threads {
    pub(super) fn start(core: &Arc<Core>, sync_interval: Duration) -> std::io::Result<Threads> {
        let keeper = Arc::new(Keeper::default());
        let (queue, requests) = mpsc::channel(QUEUE);
        let mut threads = Threads {
            queue: Some(queue),
            keeper: Arc::clone(&keeper),
            handles: Vec::new(),
        };
        let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let writer = {
            let (core, keeper) = (Arc::clone(core), Arc::clone(&keeper));
            move || write_all(&core, &keeper, requests, sync_interval.is_zero())
        };
        threads
            .handles
            .push(named("nozzle-buffer-write").spawn(writer)?);
        let core = Arc::clone(core);
        let keep = move || keep(&core, &keeper, sync_interval);
        threads
            .handles
            .push(named("nozzle-buffer-sync").spawn(keep)?);
        Ok(threads)
    }

    /// Has these events written.
    pub(super) async fn append(&self, events: Vec<Event>) -> Appended {
        let all = events.len() as u64;
        let (reply, answer) = oneshot::channel();
        let gone = Appended {
            refused: all,
            why: "disk_error",
            ..Appended::default()
        };
        let Some(queue) = &self.queue else {
            return gone;
        };
        if queue.send(Request { events, reply }).await.is_err() {
            return gone;
        }
        answer.await.unwrap_or(gone)
    }

    /// A cursor has moved.
    pub(super) fn wake(&self) {
        self.keeper.wake();
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.queue = None;
        self.keeper.state.lock().stop = true;
        self.keeper.changed.notify_one();
        for handle in self.handles.drain(..) {
            if handle.join().is_err() {
                tracing::error!("buffer: a thread has panicked");
            }
        }
    }
}

fn write_all(core: &Core, keeper: &Keeper, mut requests: mpsc::Receiver<Request>, sync_each: bool) {
    let mut replies = Vec::with_capacity(QUEUE);
    while let Some(request) = requests.blocking_recv() {
        let mut next = Some(request);
        // Those that have come meanwhile share a sync.
        while let Some(request) = next {
            replies.push((request.reply, core.append(request.events)));
            next = if replies.len() < QUEUE {
                requests.try_recv().ok()
            } else {
                None
            };
            if !sync_each {
                break;
            }
        }
        if sync_each {
            core.sync();
        }
        keeper.wake();
        for (reply, appended) in replies.drain(..) {
            // Whoever does not wait any more does not want to know.
            reply.send(appended).ok();
        }
    }
}

fn keep(core: &Core, keeper: &Keeper, sync_interval: Duration) {
    let Some(disk) = &core.disk else { return };
    let tick = SAVE_INTERVAL.min(sync_interval.max(Duration::from_millis(1)));
    let (mut synced, mut saved) = (Instant::now(), Instant::now());
    loop {
        let stop = {
            let mut wanted = keeper.state.lock();
            while !wanted.work && !wanted.stop {
                keeper.changed.wait(&mut wanted);
            }
            if !wanted.stop {
                keeper.changed.wait_for(&mut wanted, tick);
            }
            wanted.work = false;
            keeper.work.store(false, Ordering::Release);
            wanted.stop
        };
        if stop || synced.elapsed() >= sync_interval {
            core.sync();
            synced = Instant::now();
        }
        if core.is_behind(disk) && (stop || saved.elapsed() >= SAVE_INTERVAL) {
            core.save(disk);
            saved = Instant::now();
        }
        if stop {
            return;
        }
        if core.is_unsynced() || core.is_behind(disk) {
            keeper.wake();
        }
    }
}
