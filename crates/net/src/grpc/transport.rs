//! What a gRPC connection runs over: TCP with or without TLS, shared between the HTTP/2 state machine,
//! which reads and writes, and the connection's driver, which sends.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::tls::{Sink, TlsStream};

/// The two kinds of transport.
pub(crate) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A handle on a transport. Both holders live in the same task, so the lock is never waited for.
#[derive(Clone)]
pub(crate) struct SharedTransport(Arc<Shared>);

/// Bytes that a connection may read before other tasks get their turn. When the processors are all busy this decides who
/// gets them: a flood of input comes in pieces of this size, between which every reader may be served.
const READ_PER_TURN: usize = 128 * 1024;

struct Shared {
    transport: Mutex<Transport>,
    /// What may still be read in this turn.
    readable: AtomicUsize,
    /// Reading was put off to the next turn.
    put_off: AtomicBool,
    /// The peer has sent something (after the TLS handshake).
    heard: AtomicBool,
    /// Sending failed: once there is nothing left to read, reading fails too.
    broken: AtomicBool,
    /// Why reading or writing failed; HTTP/2 does not always pass it on.
    failure: Mutex<Option<String>>,
}

impl SharedTransport {
    pub fn new(mut transport: Transport) -> Self {
        if let Transport::Tls(stream) = &mut transport {
            stream.set_lazy_flush(true);
        }
        Self(Arc::new(Shared {
            transport: Mutex::new(transport),
            readable: AtomicUsize::new(READ_PER_TURN),
            put_off: AtomicBool::new(false),
            heard: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            failure: Mutex::new(None),
        }))
    }

    /// The driver is polled: it may read again.
    pub fn begin_turn(&self) {
        self.0.readable.store(READ_PER_TURN, Ordering::Relaxed);
        self.0.put_off.store(false, Ordering::Relaxed);
    }

    /// Whether there may be more to read, in the next turn. The connection was woken for it.
    pub fn turn_is_over(&self) -> bool {
        self.0.put_off.load(Ordering::Relaxed)
    }

    /// Sends what was collected; the one real flush of a poll.
    pub fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.0.transport.lock() {
            // Written bytes are with the kernel already.
            Transport::Plain(_) => Poll::Ready(Ok(())),
            Transport::Tls(stream) => stream.poll_send(cx).map_err(|error| {
                self.0.broken.store(true, Ordering::Relaxed);
                self.note(error)
            }),
        }
    }

    /// Whether the peer has sent anything.
    pub fn heard(&self) -> bool {
        self.0.heard.load(Ordering::Relaxed)
    }

    /// What went wrong with the transport, if something did.
    pub fn failure(&self) -> Option<String> {
        self.0.failure.lock().clone()
    }

    fn note(&self, error: io::Error) -> io::Error {
        let mut failure = self.0.failure.lock();
        if failure.is_none() {
            *failure = Some(error.to_string());
        }
        error
    }
}

struct Cursor<'a>(ReadBufCursor<'a>);

impl Sink for Cursor<'_> {
    fn room(&self) -> usize {
        self.0.remaining()
    }

    fn put(&mut self, bytes: &[u8]) {
        self.0.put_slice(bytes);
    }
}

/// Plain text is read through this much scratch space; it is for tests and tools.
const PLAIN_READ: usize = 16 * 1024;

impl Read for SharedTransport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0.readable.load(Ordering::Relaxed) == 0 {
            self.0.put_off.store(true, Ordering::Relaxed);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let room = buf.remaining();
        let mut sink = Cursor(buf);
        let outcome = match &mut *self.0.transport.lock() {
            Transport::Plain(stream) => poll_read_plain(stream, cx, &mut sink),
            Transport::Tls(stream) => stream.poll_read_into(cx, &mut sink),
        };
        let read = room - sink.room();
        if read > 0 {
            self.0.heard.store(true, Ordering::Relaxed);
            let left = self.0.readable.load(Ordering::Relaxed);
            self.0
                .readable
                .store(left.saturating_sub(read), Ordering::Relaxed);
        }
        if outcome.is_pending() && self.0.broken.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        outcome.map_err(|error| self.note(error))
    }
}

fn poll_read_plain(
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
    sink: &mut impl Sink,
) -> Poll<io::Result<()>> {
    let mut scratch = [std::mem::MaybeUninit::uninit(); PLAIN_READ];
    let limit = sink.room().min(PLAIN_READ);
    let mut buf = ReadBuf::uninit(&mut scratch[..limit]);
    ready!(Pin::new(stream).poll_read(cx, &mut buf))?;
    sink.put(buf.filled());
    Poll::Ready(Ok(()))
}

impl Write for SharedTransport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self.0.transport.lock() {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Transport::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, bufs),
        }
        .map_err(|error| self.note(error))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Asked for after every frame. The driver sends at the end of each of its polls.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.0.transport.lock() {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
        .map_err(|error| self.note(error))
    }
}
