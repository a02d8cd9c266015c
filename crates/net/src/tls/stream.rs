//! A TLS connection as a byte stream.
//!
//! Three things make it cheaper than the usual adapter. Ciphertext is read from the socket 128 KiB at
//! a time. Encrypted records are collected until a flush, or until 128 KiB wait. And the stream can
//! be told that flushes are not meant ([`TlsStream::set_lazy_flush`]): HTTP/2 asks for one after each
//! frame; whoever drives the connection then calls [`TlsStream::poll_send`] once, at the end of each
//! poll, with the same waker.

use std::io::{self, BufRead, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use rustls::{Connection, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::buffer::ReadBuffer;

/// Encrypted bytes that may wait for the socket.
const SEND_LIMIT: usize = 128 * 1024;

/// Below this much room no plaintext is taken, so that records do not get tiny at the limit.
const SEND_ROOM: usize = 16 * 1024;

/// What a record of TLS 1.3 adds to its plaintext: header, content type, tag.
const OVERHEAD_1_3: usize = 5 + 1 + 16;

/// At most what a record of TLS 1.2 adds to its plaintext: header, nonce, tag.
const OVERHEAD_1_2: usize = 5 + 8 + 16;

/// The longest plaintext of one record.
const RECORD_SIZE: usize = 16 * 1024;

/// A TLS connection over `IO`: `AsyncRead` and `AsyncWrite`, with vectored writes.
///
/// Written bytes are encrypted at once, and leave at the next flush or shutdown, or when 128 KiB
/// wait.
pub struct TlsStream<IO> {
    io: IO,
    /// Boxed: it is large, and streams are moved about while they are set up.
    tls: Box<Connection>,
    /// Ciphertext that came and that the TLS connection has not seen.
    incoming: ReadBuffer,
    /// About how many encrypted bytes wait in `tls`; exact when it is zero.
    queued: usize,
    /// Encrypted bytes that the transport took, over the connection's life.
    sent: u64,
    /// Who was told to wait until more can be sent. Needed because the transport remembers only the
    /// last one that asked it, and that may be the caller of [`TlsStream::poll_send`].
    blocked: Option<Waker>,
    lazy_flush: bool,
    close_notify_sent: bool,
}

/// Where plaintext is read into.
pub(crate) trait Sink {
    /// Bytes that still fit.
    fn room(&self) -> usize;
    /// Appends bytes that fit.
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for ReadBuf<'_> {
    fn room(&self) -> usize {
        self.remaining()
    }

    fn put(&mut self, bytes: &[u8]) {
        self.put_slice(bytes);
    }
}

impl<IO> TlsStream<IO> {
    pub(super) fn new(io: IO, mut tls: Connection) -> Self {
        tls.set_buffer_limit(Some(SEND_LIMIT));
        Self {
            io,
            tls: Box::new(tls),
            incoming: ReadBuffer::default(),
            queued: 0,
            sent: 0,
            blocked: None,
            lazy_flush: false,
            close_notify_sent: false,
        }
    }

    /// The transport below.
    pub fn get_ref(&self) -> &IO {
        &self.io
    }

    /// The TLS connection: version, suite, application protocol, the peer's certificates.
    pub fn connection(&self) -> &Connection {
        &self.tls
    }

    /// Encrypted bytes that the transport took so far. That it grows is the sign that the peer reads: plaintext
    /// is taken long before.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Encrypted bytes that wait for the transport: what was written and would be lost if the stream were dropped now. At
    /// least as many as the plaintext that has not left.
    pub fn unsent(&self) -> u64 {
        self.queued as u64
    }

    /// With `true`, `poll_flush` does nothing; the owner calls [`TlsStream::poll_send`] at the end of
    /// each of its own polls instead. Only safe if it always does.
    pub fn set_lazy_flush(&mut self, lazy: bool) {
        self.lazy_flush = lazy;
    }

    /// The transport, past the TLS layer.
    pub(super) fn io_mut(&mut self) -> &mut IO {
        &mut self.io
    }

    pub(super) fn unread(&self) -> &[u8] {
        self.incoming.unread()
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> TlsStream<IO> {
    /// Sends everything that waits. Ready when the transport has it all.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = self.poll_drain(cx);
        if self.queued + SEND_ROOM <= SEND_LIMIT
            && let Some(blocked) = self.blocked.take()
        {
            blocked.wake();
        }
        ready!(outcome)?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// One step of the handshake, until it is finished and its last bytes are sent. `false`: the
    /// peer's first bytes are to be looked at with [`TlsStream::unread`] and, if they are what they
    /// should be, this is to be called again.
    pub(super) fn poll_handshake(
        &mut self,
        cx: &mut Context<'_>,
        looked: bool,
    ) -> Poll<Result<bool, HandshakeStep>> {
        loop {
            if self.tls.wants_write() {
                ready!(self.poll_drain(cx)).map_err(HandshakeStep::Io)?;
            }
            if !self.tls.is_handshaking() {
                ready!(Pin::new(&mut self.io).poll_flush(cx)).map_err(HandshakeStep::Io)?;
                return Poll::Ready(Ok(true));
            }
            if self.incoming.unread().is_empty() {
                let count =
                    ready!(self.incoming.poll_fill(&mut self.io, cx)).map_err(HandshakeStep::Io)?;
                if count == 0 {
                    let closed = io::ErrorKind::UnexpectedEof.into();
                    return Poll::Ready(Err(HandshakeStep::Io(closed)));
                }
                if !looked {
                    return Poll::Ready(Ok(false));
                }
            }
            self.feed(cx).map_err(|error| match error {
                FeedError::Io(error) => HandshakeStep::Io(error),
                FeedError::Tls(error) => HandshakeStep::Tls(error),
            })?;
        }
    }

    /// Hands ciphertext that was read to the TLS connection: as much as it takes in one go.
    fn feed(&mut self, cx: &mut Context<'_>) -> Result<(), FeedError> {
        let mut unread = self.incoming.unread();
        let before = unread.len();
        let taken = match self.tls.read_tls(&mut unread) {
            Ok(_) => before - unread.len(),
            Err(error) => return Err(FeedError::Io(error)),
        };
        if taken == 0 {
            // After the peer's goodbye nothing more counts.
            self.incoming.clear();
            return Ok(());
        }
        self.incoming.consume(taken);
        if let Err(error) = self.tls.process_new_packets() {
            // Tell the peer why, if that is possible right now; the error is what matters.
            if let Poll::Ready(Err(send)) = self.poll_drain(cx) {
                tracing::debug!(error = %send, "TLS alert not sent");
            }
            return Err(FeedError::Tls(error));
        }
        Ok(())
    }

    /// Moves plaintext into `sink`. Ready with nothing in it is the end.
    pub(crate) fn poll_read_into(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut impl Sink,
    ) -> Poll<io::Result<()>> {
        let room = sink.room();
        loop {
            match self.take_plaintext(sink) {
                Ok(Plaintext::End) => return Poll::Ready(Ok(())),
                Ok(Plaintext::Nothing) => {}
                // What came before a broken end is delivered; the next read meets it again.
                Err(_) if sink.room() < room => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error)),
            }
            if sink.room() == 0 {
                return Poll::Ready(Ok(()));
            }
            if self.incoming.unread().is_empty() {
                if sink.room() < room {
                    return Poll::Ready(Ok(()));
                }
                if ready!(self.incoming.poll_fill(&mut self.io, cx))? == 0 {
                    // Lets the TLS connection know; its reader then tells a clean end from a cut.
                    self.tls.read_tls(&mut io::empty())?;
                    continue;
                }
            }
            if let Err(error) = self.feed(cx) {
                return Poll::Ready(Err(error.into()));
            }
        }
    }

    /// Copies decrypted bytes until there are none or `sink` is full.
    fn take_plaintext(&mut self, sink: &mut impl Sink) -> io::Result<Plaintext> {
        let mut reader = self.tls.reader();
        while sink.room() > 0 {
            let chunk = match reader.fill_buf() {
                Ok([]) => return Ok(Plaintext::End),
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            let count = chunk.len().min(sink.room());
            sink.put(&chunk[..count]);
            reader.consume(count);
        }
        Ok(Plaintext::Nothing)
    }

    /// Encrypts what is given, or the beginning of it.
    fn poll_encrypt(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.close_notify_sent {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.queued + SEND_ROOM > SEND_LIMIT {
            if let Poll::Ready(outcome) = self.poll_drain(cx) {
                outcome?;
            }
            if self.queued + SEND_ROOM > SEND_LIMIT {
                self.block(cx);
                return Poll::Pending;
            }
        }
        let count = self.tls.writer().write_vectored(bufs)?;
        if count > 0 {
            let overhead = match self.tls.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => OVERHEAD_1_3,
                _ => OVERHEAD_1_2,
            };
            self.queued += count + count.div_ceil(RECORD_SIZE) * overhead;
        }
        Poll::Ready(Ok(count))
    }

    fn block(&mut self, cx: &Context<'_>) {
        match &mut self.blocked {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.blocked = Some(cx.waker().clone()),
        }
    }

    /// Writes encrypted bytes to the transport until none wait or it takes no more.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            let mut transport = Transport {
                io: &mut self.io,
                cx,
            };
            match self.tls.write_tls(&mut transport) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    self.queued = self.queued.saturating_sub(count);
                    self.sent += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.queued = 0;
        Poll::Ready(Ok(()))
    }
}

enum Plaintext {
    End,
    Nothing,
}

enum FeedError {
    Io(io::Error),
    Tls(rustls::Error),
}

impl From<FeedError> for io::Error {
    fn from(error: FeedError) -> Self {
        match error {
            FeedError::Io(error) => error,
            FeedError::Tls(error) => Self::new(io::ErrorKind::InvalidData, error),
        }
    }
}

/// Why a handshake cannot go on.
pub(super) enum HandshakeStep {
    Io(io::Error),
    Tls(rustls::Error),
}

/// The transport as the TLS connection wants it: non-blocking, not asynchronous.
struct Transport<'a, 'b, IO> {
    io: &'a mut IO,
    cx: &'a mut Context<'b>,
}

impl<IO: AsyncWrite + Unpin> Write for Transport<'_, '_, IO> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match Pin::new(&mut *self.io).poll_write_vectored(self.cx, bufs) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().poll_read_into(cx, buf)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_encrypt(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_encrypt(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lazy_flush {
            return Poll::Ready(Ok(()));
        }
        this.poll_send(cx)
    }

    /// Says goodbye, sends everything that waits and closes the transport's sending side. Reading
    /// goes on working until the peer says goodbye too.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.close_notify_sent {
            this.tls.send_close_notify();
            this.close_notify_sent = true;
        }
        if this.poll_drain(cx)?.is_pending() {
            this.block(cx);
            return Poll::Pending;
        }
        match ready!(Pin::new(&mut this.io).poll_shutdown(cx)) {
            // The peer was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            outcome => Poll::Ready(outcome),
        }
    }
}

impl<IO> std::fmt::Debug for TlsStream<IO> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream")
            .field("version", &self.tls.protocol_version())
            .field("queued", &self.queued)
            .finish_non_exhaustive()
    }
}
