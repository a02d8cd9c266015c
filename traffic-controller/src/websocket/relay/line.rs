//! The connection below a WebSocket, with a count of the bytes that it took.
//!
//! Whether a client reads is judged by the bytes that the kernel takes for it, below any encryption: a client on a slow
//! line makes progress long before a whole batch is through. The kernel is told to hold little that is not under way, so
//! that it does not hide a client that stopped reading behind megabytes of its own.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use loggregator_net::TlsStream;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes of a connection that the kernel may hold without having sent them.
const KERNEL_UNSENT: u32 = 128 << 10;

/// A client's connection.
pub(crate) trait Line: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Bytes that the transport took so far, encryption included.
    fn taken(&self) -> u64;

    /// Bytes that were written and that the transport does not have, encryption included. Never fewer than there are.
    fn unsent(&self) -> u64 {
        0
    }
}

/// The connections of the WebSocket port.
pub(crate) enum ClientLine {
    /// Without TLS.
    Plain(Counted<TcpStream>),
    /// With TLS.
    Tls(Box<TlsStream<TcpStream>>),
    /// One that the HTTP server wrapped in something else.
    Other(Counted<TokioIo<Upgraded>>),
}

impl ClientLine {
    /// Takes the connection out of an upgraded one, with what the client sent behind its request.
    pub(crate) fn new(upgraded: Upgraded) -> (Self, Bytes) {
        let (line, early) = match upgraded.downcast::<TokioIo<TcpStream>>() {
            Ok(parts) => (
                Self::Plain(Counted::new(parts.io.into_inner())),
                parts.read_buf,
            ),
            Err(upgraded) => match upgraded.downcast::<TokioIo<Box<TlsStream<TcpStream>>>>() {
                Ok(parts) => (Self::Tls(parts.io.into_inner()), parts.read_buf),
                Err(upgraded) => {
                    debug_assert!(
                        false,
                        "the HTTP server hands out connections of another type"
                    );
                    (
                        Self::Other(Counted::new(TokioIo::new(upgraded))),
                        Bytes::new(),
                    )
                }
            },
        };
        let tcp = match &line {
            Self::Plain(plain) => Some(&plain.io),
            Self::Tls(tls) => Some(tls.get_ref()),
            Self::Other(_) => None,
        };
        if let Some(tcp) = tcp
            && let Err(error) = SockRef::from(tcp).set_tcp_notsent_lowat(KERNEL_UNSENT)
        {
            tracing::debug!(%error, "the kernel holds as much as it likes");
        }
        (line, early)
    }
}

impl Line for ClientLine {
    fn taken(&self) -> u64 {
        match self {
            Self::Plain(plain) => plain.taken(),
            Self::Tls(tls) => tls.sent(),
            Self::Other(other) => other.taken(),
        }
    }

    fn unsent(&self) -> u64 {
        match self {
            Self::Tls(tls) => tls.unsent(),
            Self::Plain(_) | Self::Other(_) => 0,
        }
    }
}

macro_rules! each {
    ($line:expr, $io:ident => $call:expr) => {
        match $line.get_mut() {
            ClientLine::Plain($io) => $call,
            ClientLine::Tls($io) => $call,
            ClientLine::Other($io) => $call,
        }
    };
}

impl AsyncRead for ClientLine {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for ClientLine {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_shutdown(cx))
    }
}

/// A connection that counts what is written to it.
#[derive(Debug)]
pub(crate) struct Counted<IO> {
    io: IO,
    taken: u64,
}

impl<IO> Counted<IO> {
    pub(crate) fn new(io: IO) -> Self {
        Self { io, taken: 0 }
    }

    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static> Line for Counted<IO> {
    fn taken(&self) -> u64 {
        self.taken
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Counted<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Counted<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(bytes)) = result {
            self.taken += bytes as u64;
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
