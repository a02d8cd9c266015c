//! Syslog over TCP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Receiver;
use super::frame::Framer;
use crate::config::SyslogConfig;
use crate::intake::Intake;
use crate::stats::{Port, count};
use crate::udp::Handler as _;

/// Bytes read at a time.
const READ: usize = 64 * 1024;
/// Pause after an error such as "too many open files".
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound listener.
pub(crate) struct Listener {
    listener: TcpListener,
    config: Arc<SyslogConfig>,
}

impl Listener {
    pub(crate) async fn bind(addr: SocketAddr, config: Arc<SyslogConfig>) -> io::Result<Listener> {
        Ok(Listener {
            listener: TcpListener::bind(addr).await?,
            config,
        })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts until `stop`, then waits for the connections, which read what has arrived.
    pub(crate) async fn run(self, intake: Arc<Intake>, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.config.max_connections));
        let connections = TaskTracker::new();
        while let Some(accepted) = stop.run_until_cancelled(self.listener.accept()).await {
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accepting a syslog connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            count(&intake.stats.syslog_accepted, 1);
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                count(&intake.stats.syslog_refused, 1);
                tracing::warn!(%peer, limit = self.config.max_connections, "too many syslog connections, one is closed");
                continue;
            };
            let connection = Connection {
                receiver: Receiver::new(
                    Arc::clone(&intake),
                    Arc::clone(&self.config),
                    Port::SyslogTcp,
                ),
                framer: Framer::new(self.config.max_message),
                intake: Arc::clone(&intake),
                idle: self.config.idle_timeout,
            };
            let stop = stop.clone();
            connections.spawn(async move {
                count(&connection.intake.stats.syslog_open, 1);
                let stats = Arc::clone(&connection.intake.stats);
                if let Err(error) = connection.read(stream, stop).await {
                    tracing::info!(%peer, %error, "a syslog connection ended");
                }
                stats
                    .syslog_open
                    .fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
                drop(place);
            });
        }
        connections.close();
        connections.wait().await;
    }
}

struct Connection {
    receiver: Receiver,
    framer: Framer,
    intake: Arc<Intake>,
    idle: Duration,
}

impl Connection {
    async fn read(mut self, mut stream: TcpStream, stop: CancellationToken) -> io::Result<()> {
        let mut buffer = vec![0; READ];
        loop {
            let read = tokio::select! {
                biased;
                read = tokio::time::timeout(self.idle, stream.read(&mut buffer)) => read,
                // Nothing more has arrived.
                () = stop.cancelled() => break,
            };
            let len = match read {
                Ok(Ok(0)) => break,
                Ok(Ok(len)) => len,
                Ok(Err(error)) => {
                    self.end();
                    return Err(error);
                }
                Err(_) => {
                    self.end();
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        format!("silent for {:?}", self.idle),
                    ));
                }
            };
            let fed = self
                .framer
                .feed(&buffer[..len], |message| self.receiver.message(message));
            self.counted();
            if let Err(error) = fed {
                // Nobody knows where the next message begins.
                self.intake.stats.port(Port::SyslogTcp).reject("framing", 1);
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
        self.end();
        Ok(())
    }

    fn end(&mut self) {
        self.framer.end(|message| self.receiver.message(message));
        self.counted();
    }

    fn counted(&mut self) {
        count(
            &self.intake.stats.lines_truncated,
            self.framer.take_truncated(),
        );
        self.receiver.flush();
    }
}
