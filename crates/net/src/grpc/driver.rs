//! Runs a connection and everything that belongs to it inside one task.
//!
//! HTTP/2 implementations hand each stream to an executor. Here the executor is the connection's own
//! future: streams are polled beside the connection, woken through flags instead of through the
//! scheduler, and when nothing more can be done the collected bytes leave in one write. A message that
//! is appended for a reader costs one wake-up of one task and one system call.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::stream::{FuturesUnordered, StreamExt};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use super::transport::SharedTransport;

/// Rounds of a poll before other tasks get their turn.
const MAX_ROUNDS: u32 = 32;

type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes the streams of one connection and keeps them for its [`Driver`].
#[derive(Clone, Default)]
pub(crate) struct Executor(Arc<Mutex<Vec<Stream>>>);

impl Executor {
    /// Lets go of what will not be run any more.
    pub fn clear(&self) {
        let left = std::mem::take(&mut *self.0.lock());
        drop(left);
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, stream: F) {
        self.0.lock().push(Box::pin(stream));
    }
}

/// The connection wants to be polled.
const CONNECTION: u8 = 1;
/// A stream wants to be polled.
const STREAMS: u8 = 2;
/// The driver is being polled and will look at the flags again before it sleeps.
const ACTIVE: u8 = 4;

/// Who wants to be polled, and how to wake the task that does it.
struct Wakeups {
    flags: AtomicU8,
    task: AtomicWaker,
}

impl Wakeups {
    fn wake(&self, flag: u8) {
        // Only the first wake-up of a sleeping driver reaches the scheduler.
        if self.flags.fetch_or(flag, Ordering::AcqRel) == 0 {
            self.task.wake();
        }
    }
}

struct Side {
    wakeups: Arc<Wakeups>,
    flag: u8,
}

impl Wake for Side {
    fn wake(self: Arc<Self>) {
        self.wakeups.wake(self.flag);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wakeups.wake(self.flag);
    }
}

/// Drives connection `C` with its streams and its transport.
pub(crate) struct Driver<C> {
    /// Gone when it has ended: a client's connection closes when this is dropped.
    connection: Option<Pin<Box<C>>>,
    outcome: Option<hyper::Error>,
    /// Sending failed.
    broken: bool,
    streams: FuturesUnordered<Stream>,
    executor: Executor,
    transport: SharedTransport,
    wakeups: Arc<Wakeups>,
    connection_waker: Waker,
    stream_waker: Waker,
}

impl<C: Future<Output = Result<(), hyper::Error>>> Driver<C> {
    /// `executor` is the one that the connection was built with, and `transport` its transport.
    pub fn new(connection: C, executor: Executor, transport: SharedTransport) -> Self {
        let wakeups = Arc::new(Wakeups {
            flags: AtomicU8::new(CONNECTION | STREAMS),
            task: AtomicWaker::new(),
        });
        let side = |flag| {
            let wakeups = Arc::clone(&wakeups);
            Waker::from(Arc::new(Side { wakeups, flag }))
        };
        Self {
            connection: Some(Box::pin(connection)),
            outcome: None,
            broken: false,
            streams: FuturesUnordered::new(),
            executor,
            transport,
            connection_waker: side(CONNECTION),
            stream_waker: side(STREAMS),
            wakeups,
        }
    }

    /// The connection, to steer it, if it has not ended. Wakes it up.
    pub fn connection(&mut self) -> Option<Pin<&mut C>> {
        self.wakeups.wake(CONNECTION);
        self.connection.as_mut().map(Pin::as_mut)
    }

    /// The transport below.
    pub fn transport(&self) -> &SharedTransport {
        &self.transport
    }

    /// Has every stream polled again, whatever it waits for.
    pub fn wake_streams(&mut self) {
        let streams = std::mem::take(&mut self.streams);
        self.streams.extend(streams);
        self.wakeups.wake(STREAMS);
    }

    /// Runs until the connection has ended. Streams that are left are dropped with the driver, or
    /// finished by [`Driver::poll_rest`].
    pub fn poll_connection(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        if self.poll_rounds(cx, false) {
            return Poll::Ready(self.outcome.take().map_or(Ok(()), Err));
        }
        Poll::Pending
    }

    /// Runs until connection and streams have ended.
    pub fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.poll_rounds(cx, true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Polls whatever is flagged until nothing is, then sends. Returns whether the connection has
    /// ended (`to_the_end`: and all streams).
    fn poll_rounds(&mut self, cx: &mut Context<'_>, to_the_end: bool) -> bool {
        self.wakeups.task.register(cx.waker());
        self.wakeups.flags.fetch_or(ACTIVE, Ordering::AcqRel);
        self.transport.begin_turn();
        for _ in 0..MAX_ROUNDS {
            let flags = self.wakeups.flags.swap(ACTIVE, Ordering::AcqRel);
            if flags & CONNECTION != 0 {
                self.poll_once();
            }
            if self.connection.is_none() && !to_the_end {
                // Wake-ups of streams may have been taken note of and not been acted upon.
                self.wakeups.flags.store(STREAMS, Ordering::Release);
                return true;
            }
            let flags = flags | self.wakeups.flags.fetch_and(!STREAMS, Ordering::AcqRel);
            self.poll_streams(flags & STREAMS != 0);
            if self.connection.is_none() && self.streams.is_empty() {
                self.wakeups.flags.fetch_and(!ACTIVE, Ordering::AcqRel);
                return true;
            }
            if !tokio::task::coop::has_budget_remaining() || self.transport.turn_is_over() {
                break;
            }
            if self.wakeups.flags.load(Ordering::Acquire) != ACTIVE {
                continue;
            }
            self.send();
            let quiet =
                self.wakeups
                    .flags
                    .compare_exchange(ACTIVE, 0, Ordering::AcqRel, Ordering::Acquire);
            if quiet.is_ok() {
                return false;
            }
        }
        // Others' turn. The flags say what is left to do; as they are not zero, a wake-up would not
        // reach the scheduler by itself.
        self.send();
        self.wakeups.flags.fetch_and(!ACTIVE, Ordering::AcqRel);
        cx.waker().wake_by_ref();
        false
    }

    fn poll_once(&mut self) {
        let mut cx = Context::from_waker(&self.connection_waker);
        if let Some(connection) = &mut self.connection
            && let Poll::Ready(outcome) = connection.as_mut().poll(&mut cx)
        {
            self.connection = None;
            self.outcome = outcome.err();
        }
    }

    /// Polls streams that are new or were woken.
    fn poll_streams(&mut self, woken: bool) {
        let mut poll = woken;
        loop {
            let new = std::mem::take(&mut *self.executor.0.lock());
            if new.is_empty() && !poll {
                return;
            }
            poll = false;
            self.streams.extend(new);
            let mut cx = Context::from_waker(&self.stream_waker);
            while let Poll::Ready(Some(())) = self.streams.poll_next_unpin(&mut cx) {}
        }
    }

    fn send(&mut self) {
        let mut cx = Context::from_waker(&self.connection_waker);
        match self.transport.poll_send(&mut cx) {
            Poll::Ready(Ok(())) | Poll::Pending => {}
            // The transport remembers it, and lets the connection read what the peer sent before and
            // then fail; have the connection look.
            Poll::Ready(Err(_)) if !self.broken => {
                self.broken = true;
                self.wakeups.wake(CONNECTION);
            }
            Poll::Ready(Err(_)) => {}
        }
    }
}
