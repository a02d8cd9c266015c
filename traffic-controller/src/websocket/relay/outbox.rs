//! What goes out to a client, between the WebSocket and its connection.
//!
//! Envelopes are most of what a client gets, and each is a frame of its own, so their frames are written here directly: a
//! header and a copy of the payload, a whole batch in one go. Everything else of the protocol stays with the WebSocket
//! above, which reads the client and writes control frames. Those come through [`Outbox::poll_write`], whole or not at
//! all, so that frames of either kind never break into each other and leave in the order in which they were given.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::line::Line;

/// Final fragment, binary.
const BINARY: u8 = 0x82;

/// Room for control frames beside the data, in bytes.
const CONTROL_ROOM: usize = 4096;

/// Emptied buffers that are kept per thread, so that a client that has nothing to take holds no memory.
const SPARE: usize = 4;

thread_local! {
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A client's connection with what waits for it.
pub(crate) struct Outbox<L> {
    line: L,
    /// What was given, from `sent` on.
    buffer: Vec<u8>,
    /// How much of `buffer` the connection has.
    sent: usize,
    /// Bytes that wait before they are written without being flushed.
    write_at: usize,
    /// Bytes that the connection took so far.
    taken: u64,
}

// === impl Outbox ===

impl<L: Line> Outbox<L> {
    /// Collects `write_at` bytes before it writes.
    pub(crate) fn new(line: L, write_at: usize) -> Self {
        Self {
            line,
            buffer: Vec::new(),
            sent: 0,
            write_at,
            taken: 0,
        }
    }

    /// The connection.
    pub(crate) fn line(&self) -> &L {
        &self.line
    }

    /// Bytes that the connection took so far, before any encryption.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    fn waiting(&self) -> usize {
        self.buffer.len() - self.sent
    }

    /// Whether as much waits as is to be written at once.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting() >= self.write_at
    }

    /// Ready when data frames may be added: as many as fit before it [is full](Outbox::is_full), and the last one
    /// whatever its size.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_full() {
            ready!(self.poll_write_out(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Adds a data frame.
    pub(crate) fn add(&mut self, payload: &[u8]) {
        if self.buffer.capacity() == 0 {
            self.buffer = POOL
                .try_with(|pool| pool.borrow_mut().pop())
                .ok()
                .flatten()
                .unwrap_or_default();
        }
        let buffer = &mut self.buffer;
        match payload.len() {
            len @ ..126 => buffer.extend_from_slice(&[BINARY, len as u8]),
            len @ 126..0x1_0000 => {
                let [high, low] = (len as u16).to_be_bytes();
                buffer.extend_from_slice(&[BINARY, 126, high, low]);
            }
            len => {
                buffer.extend_from_slice(&[BINARY, 127]);
                buffer.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        buffer.extend_from_slice(payload);
    }

    /// Gives the connection what waits.
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.buffer.len() {
            let waiting = &self.buffer[self.sent..];
            let Poll::Ready(outcome) = Pin::new(&mut self.line).poll_write(cx, waiting) else {
                // What comes next is added behind; without this a connection that never takes all would make it grow.
                if self.sent >= self.buffer.len() / 2 {
                    self.buffer.drain(..self.sent);
                    self.sent = 0;
                }
                return Poll::Pending;
            };
            let count = outcome?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
            self.taken += count as u64;
        }
        self.sent = 0;
        self.buffer.clear();
        Poll::Ready(Ok(()))
    }

    /// Lets go of an empty buffer's memory.
    fn put_away(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        // One that a huge envelope has stretched is not kept.
        if buffer.capacity() > 0 && buffer.capacity() <= 4 * self.write_at {
            // Fails only while the thread ends; then the buffer is freed.
            let kept = POOL.try_with(|pool| {
                let mut pool = pool.borrow_mut();
                if pool.len() < SPARE {
                    pool.push(buffer);
                }
            });
            kept.unwrap_or_default();
        }
    }
}

impl<L: Line> AsyncRead for Outbox<L> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_read(cx, buf)
    }
}

impl<L: Line> AsyncWrite for Outbox<L> {
    /// Takes control frames: all of `buf` or, when too much waits already, nothing.
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let limit = self.write_at + CONTROL_ROOM;
        if self.waiting() > 0 && self.waiting() + buf.len() > limit {
            ready!(self.poll_write_out(cx))?;
        }
        self.buffer.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_out(cx))?;
        self.put_away();
        Pin::new(&mut self.line).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_out(cx))?;
        Pin::new(&mut self.line).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::DuplexStream;

    use super::*;
    use crate::websocket::relay::line::Counted;

    /// An outbox over a line that holds `line` bytes, and the line's other end.
    fn outbox(line: usize, write_at: usize) -> (Outbox<Counted<DuplexStream>>, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(line);
        (Outbox::new(Counted::new(ours), write_at), theirs)
    }

    /// Both ends in one task need no waker.
    fn noop() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    /// As many bytes as have arrived, at most `len`.
    fn arrived(line: &mut DuplexStream, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut into = ReadBuf::new(&mut bytes);
        drop(Pin::new(line).poll_read(&mut noop(), &mut into));
        let count = into.filled().len();
        bytes.truncate(count);
        bytes
    }

    #[test]
    fn headers_have_the_form_that_the_length_asks_for() {
        for (len, header) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65_535, &[0x82, 126, 255, 255]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let (mut outbox, mut client) = outbox(1 << 20, 1024);
            let payload = vec![7; len];
            outbox.add(&payload);
            assert!(Pin::new(&mut outbox).poll_flush(&mut noop()).is_ready());
            let expected = [header, &payload].concat();
            assert_eq!(outbox.taken(), expected.len() as u64);
            assert!(arrived(&mut client, 1 << 20) == expected, "{len}");
        }
    }

    #[test]
    fn frames_leave_whole_and_in_the_order_in_which_they_were_given() {
        // The line takes a few bytes at a time, so that every frame is cut somewhere.
        let (mut outbox, mut client) = outbox(7, 64);
        let (mut expected, mut got) = (Vec::new(), Vec::new());
        for i in 0..200u8 {
            while outbox.poll_room(&mut noop()).is_pending() {
                got.extend(arrived(&mut client, 5));
            }
            let payload = vec![i; usize::from(i % 30)];
            outbox.add(&payload);
            expected.extend([0x82, payload.len() as u8]);
            expected.extend(&payload);
            let control = [0x8a, 2, i, i];
            let given = Pin::new(&mut outbox).poll_write(&mut noop(), &control);
            assert!(matches!(given, Poll::Ready(Ok(4))));
            expected.extend(control);
        }
        while Pin::new(&mut outbox).poll_flush(&mut noop()).is_pending() {
            got.extend(arrived(&mut client, 5));
        }
        got.extend(arrived(&mut client, 7));
        assert!(got == expected);
    }

    #[test]
    fn a_line_that_takes_nothing_is_given_a_bounded_amount() {
        let (mut outbox, mut client) = outbox(10, 1024);
        while outbox.poll_room(&mut noop()).is_ready() {
            outbox.add(&[1; 100]);
        }
        let mut pongs = 0;
        while let Poll::Ready(given) = Pin::new(&mut outbox).poll_write(&mut noop(), &[0x8a, 0]) {
            assert_eq!(given.unwrap(), 2);
            pongs += 1;
        }
        assert!(pongs > 0, "data does not keep control frames out");
        assert!(outbox.waiting() <= 1024 + CONTROL_ROOM);
        // Nor does a line that never takes all make it grow.
        for _ in 0..10_000 {
            arrived(&mut client, 10);
            if outbox.poll_room(&mut noop()).is_ready() {
                outbox.add(&[1; 100]);
            }
        }
        assert!(outbox.buffer.len() <= 2 * (1024 + CONTROL_ROOM) + 102);
    }

    #[test]
    fn an_empty_outbox_holds_no_memory() {
        let (mut outbox, _client) = outbox(1 << 20, 1024);
        outbox.add(&[1; 1000]);
        assert!(Pin::new(&mut outbox).poll_flush(&mut noop()).is_ready());
        assert_eq!(outbox.buffer.capacity(), 0);
    }
}
