//! TLS over a socket as a careful user of rustls writes it: no tricks, so that the relay stays a fair floor and the
//! generator does not change when the product's own stream does.
//!
//! Reads take what rustls takes (4 KiB at a time), or come through a large buffer where the generator wants to be
//! cheap; writes encrypt at once and leave on flush or when 64 KiB wait.

use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A TLS connection over a socket.
pub struct PlainTls {
    io: TcpStream,
    tls: Connection,
    eof: bool,
    /// Ciphertext that was read and not yet taken by rustls; empty storage reads without it.
    buffer: Box<[u8]>,
    unread: std::ops::Range<usize>,
}

/// Lets rustls read and write a non-blocking socket.
struct Socket<'a, 'b> {
    io: &'a mut TcpStream,
    cx: &'a mut Context<'b>,
}

impl Read for Socket<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut buf = ReadBuf::new(buf);
        match Pin::new(&mut *self.io).poll_read(self.cx, &mut buf) {
            Poll::Ready(Ok(())) => Ok(buf.filled().len()),
            Poll::Ready(Err(e)) => Err(e),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Socket<'_, '_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match Pin::new(&mut *self.io).poll_write_vectored(self.cx, bufs) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn would_block<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        other => Poll::Ready(other),
    }
}

impl PlainTls {
    /// Shakes hands as the client.
    ///
    /// # Errors
    /// When the peer or its certificate is not acceptable.
    pub async fn connect(io: TcpStream, config: Arc<ClientConfig>, name: &str) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
        Self::handshake(io, tls.into()).await
    }

    /// Shakes hands as the server.
    ///
    /// # Errors
    /// When the peer or its certificate is not acceptable.
    pub async fn accept(io: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        let tls = ServerConnection::new(config).map_err(io::Error::other)?;
        Self::handshake(io, tls.into()).await
    }

    async fn handshake(io: TcpStream, tls: Connection) -> io::Result<Self> {
        io.set_nodelay(true)?;
        let mut stream = Self {
            io,
            tls,
            eof: false,
            buffer: Box::default(),
            unread: 0..0,
        };
        std::future::poll_fn(|cx| {
            while stream.tls.is_handshaking() {
                ready!(stream.poll_drain(cx))?;
                if stream.tls.is_handshaking() {
                    ready!(stream.poll_fill(cx))?;
                    if stream.eof {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                }
            }
            stream.poll_drain(cx)
        })
        .await?;
        Ok(stream)
    }

    /// Reads `bytes` at a time from now on, whatever rustls asks for.
    #[must_use]
    pub fn buffered(mut self, bytes: usize) -> Self {
        self.buffer = vec![0; bytes].into();
        self
    }

    /// One read from the socket, or from the buffer, into rustls.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut socket = Socket {
            io: &mut self.io,
            cx,
        };
        let read = if self.buffer.is_empty() {
            ready!(would_block(self.tls.read_tls(&mut socket)))?
        } else {
            if self.unread.is_empty() {
                let read = ready!(would_block(socket.read(&mut self.buffer)))?;
                self.unread = 0..read;
            }
            let taken = self.tls.read_tls(&mut &self.buffer[self.unread.clone()])?;
            self.unread.start += taken;
            taken
        };
        self.eof |= read == 0;
        if let Err(e) = self.tls.process_new_packets() {
            // An alert may be waiting; whether it gets out does not change what is reported.
            let _sent = self.tls.write_tls(&mut Socket {
                io: &mut self.io,
                cx,
            });
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, e)));
        }
        Poll::Ready(Ok(()))
    }

    /// Writes all that rustls has ready.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            ready!(would_block(self.tls.write_tls(&mut Socket {
                io: &mut self.io,
                cx
            })))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for PlainTls {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match this.tls.reader().read(buf.initialize_unfilled()) {
                Ok(read) => {
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
            if this.eof {
                return Poll::Ready(Ok(()));
            }
            ready!(this.poll_fill(cx))?;
        }
    }
}

impl AsyncWrite for PlainTls {
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
        let this = self.get_mut();
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        loop {
            let written = this.tls.writer().write_vectored(bufs)?;
            if written > 0 {
                return Poll::Ready(Ok(written));
            }
            ready!(this.poll_drain(cx))?;
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_drain(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.tls.send_close_notify();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}
