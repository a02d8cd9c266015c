//! One connection to a receiver, over TCP or TLS.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use loggregator_net::{HandshakeError, TlsStream, tls_connect};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;

use crate::config::{self, Tls};
use crate::endpoint::Endpoint;
use crate::outstanding::Outstanding;

/// How long a peer may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("{endpoint}: no connection within {within:?}")]
    Timeout { endpoint: String, within: Duration },
    #[error("{endpoint}: cannot connect: {source}")]
    Connect { endpoint: String, source: io::Error },
    #[error("{endpoint}: {source}")]
    Handshake {
        endpoint: String,
        source: HandshakeError,
    },
}

impl ConnectError {
    /// `connect_timeout`, `connect`, `tls`: no connection in time, none at all, none with TLS.
    pub fn code(&self) -> &'static str {
        match self {
            ConnectError::Timeout { .. } => "connect_timeout",
            ConnectError::Connect { .. } => "connect",
            ConnectError::Handshake { .. } => "tls",
        }
    }
}

enum Stream {
    Plain { io: TcpStream, sent: u64 },
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection.
pub(crate) struct Connection {
    stream: Stream,
    outstanding: Option<Outstanding>,
    /// Where it goes.
    pub endpoint: String,
    /// When it was made.
    pub opened: Instant,
}

/// How far the peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acknowledged {
    /// The first so many bytes of the connection are acknowledged.
    UpTo(u64),
    /// The system does not say.
    Unknown,
}

impl Connection {
    /// Connects, and with TLS shakes hands.
    pub async fn open(
        endpoint: &Endpoint,
        tls: Option<&Tls>,
        times: &config::Connection,
    ) -> Result<Connection, ConnectError> {
        let name = endpoint.to_string();
        let within = times.connect_timeout;
        let deadline = tokio::time::Instant::now() + within;
        let target = (endpoint.host.as_str(), endpoint.port);
        let connected = tokio::time::timeout_at(deadline, TcpStream::connect(target)).await;
        let connect = |source| ConnectError::Connect {
            endpoint: name.clone(),
            source,
        };
        let io = connected
            .map_err(|_elapsed| ConnectError::Timeout {
                endpoint: name.clone(),
                within,
            })?
            .map_err(connect)?;
        tune(&io, times).map_err(connect)?;
        let outstanding = Outstanding::of(&io)
            .inspect_err(
                |error| tracing::debug!(%error, "the system does not say what is acknowledged"),
            )
            .ok();
        let stream = match tls {
            None => Stream::Plain { io, sent: 0 },
            Some(tls) => {
                let server = tls.server_name.as_deref().unwrap_or(&endpoint.host);
                let left = deadline.saturating_duration_since(tokio::time::Instant::now());
                let stream = tls_connect(io, &tls.client, server, left).await;
                Stream::Tls(Box::new(stream.map_err(|source| {
                    ConnectError::Handshake {
                        endpoint: name.clone(),
                        source,
                    }
                })?))
            }
        };
        Ok(Connection {
            stream,
            outstanding,
            endpoint: name,
            opened: Instant::now(),
        })
    }

    /// Protocol version, for people.
    pub fn protocol(&self) -> String {
        match &self.stream {
            Stream::Plain { .. } => "TCP".to_owned(),
            Stream::Tls(tls) => {
                let version = tls.connection().protocol_version();
                version.map_or_else(|| "TLS".to_owned(), |version| format!("{version:?}"))
            }
        }
    }

    /// Bytes that the system took so far.
    pub fn sent(&self) -> u64 {
        match &self.stream {
            Stream::Plain { sent, .. } => *sent,
            Stream::Tls(tls) => tls.sent(),
        }
    }

    /// How many of these the peer's system has acknowledged.
    pub fn acknowledged(&mut self) -> Acknowledged {
        let sent = self.sent();
        match self.outstanding.as_mut().map(Outstanding::bytes) {
            None => Acknowledged::Unknown,
            Some(Ok(bytes)) => Acknowledged::UpTo(sent.saturating_sub(bytes.into())),
            // The connection is gone; reading tells why.
            Some(Err(_)) => Acknowledged::UpTo(0),
        }
    }

    /// Writes all of it. An error also if the peer closes the connection meanwhile, or takes nothing for `patience`.
    pub async fn write(&mut self, bytes: &[u8], patience: Duration) -> io::Result<()> {
        let mut at = 0;
        loop {
            let before = self.sent();
            let writing = poll_fn(|cx| {
                if let Poll::Ready(error) = self.poll_closed(cx) {
                    return Poll::Ready(Err(error));
                }
                self.poll_write(cx, bytes, &mut at)
            });
            match tokio::time::timeout(patience, writing).await {
                Ok(written) => return written,
                Err(_) if self.sent() > before => {}
                Err(_) => {
                    let what = format!("the receiver took nothing for {patience:?}");
                    return Err(io::Error::new(io::ErrorKind::TimedOut, what));
                }
            }
        }
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        at: &mut usize,
    ) -> Poll<io::Result<()>> {
        while *at < bytes.len() {
            let written = match &mut self.stream {
                Stream::Plain { io, sent } => {
                    let written = ready!(Pin::new(io).poll_write(cx, &bytes[*at..]))?;
                    *sent += written as u64;
                    written
                }
                Stream::Tls(tls) => ready!(Pin::new(&mut **tls).poll_write(cx, &bytes[*at..]))?,
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *at += written;
        }
        match &mut self.stream {
            Stream::Plain { .. } => Poll::Ready(Ok(())),
            Stream::Tls(tls) => Pin::new(&mut **tls).poll_flush(cx),
        }
    }

    /// Ends when the connection does. What a receiver says is not looked at: the protocol has no answers.
    pub async fn closed(&mut self) -> io::Error {
        poll_fn(|cx| self.poll_closed(cx)).await
    }

    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let mut scratch = [0; 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = match &mut self.stream {
                Stream::Plain { io, .. } => Pin::new(io).poll_read(cx, &mut buffer),
                Stream::Tls(tls) => Pin::new(&mut **tls).poll_read(cx, &mut buffer),
            };
            match ready!(read) {
                Err(error) => return Poll::Ready(error),
                Ok(()) if buffer.filled().is_empty() => {
                    let what = "the receiver closed the connection";
                    return Poll::Ready(io::Error::new(io::ErrorKind::UnexpectedEof, what));
                }
                Ok(()) => {}
            }
        }
    }

    /// Says that nothing more comes, and waits a moment for the peer to have read that.
    pub async fn goodbye(mut self) {
        let goodbye = async {
            match &mut self.stream {
                Stream::Plain { io, .. } => io.shutdown().await?,
                Stream::Tls(tls) => tls.shutdown().await?,
            }
            self.closed().await;
            Ok::<_, io::Error>(())
        };
        // Everything that was written is settled; how it ends changes nothing.
        drop(tokio::time::timeout(GOODBYE, goodbye).await);
    }
}

fn tune(stream: &TcpStream, times: &config::Connection) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    if !times.user_timeout.is_zero() {
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(times.user_timeout))?;
    }
    if !times.keep_alive.is_zero() {
        let keep_alive = TcpKeepalive::new()
            .with_time(times.keep_alive)
            .with_interval(times.keep_alive);
        socket.set_tcp_keepalive(&keep_alive)?;
    }
    Ok(())
}
