//! The task that has the connection: connects, writes batches in their order, and confirms them.
//!
//! A batch is confirmed when the peer's system has acknowledged its last byte and the connection has then stood for the time
//! `settle`. When the connection breaks before, its batches fail together: the framework sends them again in their order.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use loggregator_nozzle::Reason;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::config::{Endpoints, Settings};
use crate::connection::{Acknowledged, ConnectError, Connection};
use crate::counts::Counts;
use crate::gate::Gate;
use crate::page::Page;

/// How often the system is asked while something is not acknowledged.
const ASK: Duration = Duration::from_millis(10);

/// A batch to be sent.
#[derive(Debug)]
pub(crate) struct Job {
    /// Number of its first event.
    pub first: u64,
    pub page: Page,
    /// Whether it was tried before.
    pub again: bool,
    pub done: oneshot::Sender<(Result<(), Failure>, Page)>,
}

/// Why a batch is not confirmed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was tried.
    Tried(Reason),
    /// Older ones failed and go first.
    Behind(Reason),
}

impl Job {
    fn finish(self, outcome: Result<(), Failure>) {
        // Nobody may wait for it any more.
        self.done.send((outcome, self.page)).ok();
    }
}

/// What the task is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    Send(Job),
    /// The batch that begins with this event is not sent now; nothing newer may overtake it.
    NotSent(u64),
    /// Say goodbye; everything is confirmed.
    Close(oneshot::Sender<()>),
}

/// A batch, and how far it is on the connection that it was written to.
#[derive(Debug)]
struct Sent {
    job: Job,
    /// Where it ends, in bytes of the connection.
    end: u64,
    acknowledged: Option<Instant>,
}

/// The task.
pub(crate) struct Link {
    settings: Arc<Settings>,
    counts: Arc<Counts>,
    commands: mpsc::Receiver<Command>,
    gate: Gate,
    connection: Option<Connection>,
    /// Written to the connection and not confirmed, in the order of writing.
    written: VecDeque<Sent>,
    /// The endpoint to begin with.
    next_endpoint: usize,
}

impl Link {
    pub fn new(
        settings: Arc<Settings>,
        counts: Arc<Counts>,
        commands: mpsc::Receiver<Command>,
    ) -> Link {
        Link {
            settings,
            counts,
            commands,
            gate: Gate::default(),
            connection: None,
            written: VecDeque::new(),
            next_endpoint: 0,
        }
    }

    /// Until nobody can ask for anything any more, or the time is up.
    pub async fn run(mut self, cut: CancellationToken) {
        let counts = Arc::clone(&self.counts);
        cut.run_until_cancelled(self.serve()).await;
        counts.disconnected();
    }

    async fn serve(&mut self) {
        loop {
            let wake = self.wake();
            tokio::select! {
                command = self.commands.recv(), if !self.retiring() => match command {
                    None => return,
                    Some(Command::Send(job)) => self.send(job).await,
                    Some(Command::NotSent(first)) => self.gate.failed(first),
                    Some(Command::Close(done)) => {
                        self.say_goodbye().await;
                        // Whoever asked may be gone.
                        done.send(()).ok();
                    }
                },
                error = closed(&mut self.connection) => self.broken(&error),
                () = at(wake) => {}
            }
            self.settle();
            self.retire().await;
        }
    }

    /// When something is to be done although nothing happens.
    fn wake(&self) -> Option<Instant> {
        let now = Instant::now();
        let settled = self.written.front().map(|sent| match sent.acknowledged {
            Some(since) => since + self.settings.connection.settle,
            None => now + ASK,
        });
        let open = self
            .written
            .back()
            .filter(|sent| sent.acknowledged.is_none());
        let ask = open.map(|_| now + ASK);
        let retire = self.retires().filter(|_| self.written.is_empty());
        [settled, ask, retire].into_iter().flatten().min()
    }

    /// When the connection is to be replaced.
    fn retires(&self) -> Option<Instant> {
        let age = self.settings.connection.reconnect;
        let connection = self.connection.as_ref().filter(|_| !age.is_zero())?;
        Some(connection.opened + age)
    }

    /// Whether nothing more is written to the connection, because it is about to be replaced.
    fn retiring(&self) -> bool {
        self.retires().is_some_and(|at| at <= Instant::now())
    }

    /// Confirms what can be confirmed.
    fn settle(&mut self) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        let now = Instant::now();
        if self
            .written
            .back()
            .is_some_and(|sent| sent.acknowledged.is_none())
        {
            let (acknowledged, unacknowledged) = match connection.acknowledged() {
                Acknowledged::Unknown => (u64::MAX, 0),
                Acknowledged::UpTo(bytes) => (bytes, connection.sent() - bytes),
            };
            self.counts.unacknowledged(unacknowledged);
            let open = self.written.iter_mut().rev();
            for sent in open.take_while(|sent| sent.acknowledged.is_none()) {
                if sent.end <= acknowledged {
                    sent.acknowledged = Some(now);
                }
            }
        }
        let settle = self.settings.connection.settle;
        while let Some(sent) = self.written.pop_front() {
            match sent.acknowledged {
                Some(since) if now.duration_since(since) >= settle => sent.job.finish(Ok(())),
                _ => {
                    self.written.push_front(sent);
                    break;
                }
            }
        }
    }

    /// Writes a batch.
    async fn send(&mut self, job: Job) {
        if job.done.is_closed() {
            self.gate.failed(job.first);
            return;
        }
        if !self.gate.passes(job.first) {
            let detail = "older events failed and go first";
            let reason = Reason::new("after_a_failure", detail);
            self.gate.failed(job.first);
            return job.finish(Err(Failure::Behind(reason)));
        }
        let patience = self.settings.connection.write_timeout;
        let connection = match self.connected().await {
            Ok(connection) => connection,
            Err(error) => {
                let reason = Reason::new(error.code(), error.to_string());
                return self.fail(job, &reason);
            }
        };
        let written = connection.write(&job.page.bytes, patience).await;
        let end = connection.sent();
        let (messages, bytes) = (job.page.ends.len(), job.page.bytes.len());
        self.counts.written(messages, bytes, job.again);
        self.written.push_back(Sent {
            job,
            end,
            acknowledged: None,
        });
        if let Err(error) = written {
            self.broken(&error);
        }
    }

    /// Replaces a connection that is old enough, once everything on it is confirmed.
    async fn retire(&mut self) {
        if self.retiring() && self.written.is_empty() {
            self.say_goodbye().await;
        }
    }

    fn fail(&mut self, job: Job, reason: &Reason) {
        self.gate.failed(job.first);
        job.finish(Err(Failure::Tried(reason.clone())));
    }

    /// The connection, made now if there is none.
    async fn connected(&mut self) -> Result<&mut Connection, ConnectError> {
        if self.connection.is_none() {
            let connection = self.connect().await?;
            tracing::info!(
                endpoint = connection.endpoint,
                protocol = connection.protocol(),
                destination = self.counts.destination,
                "connected"
            );
            self.counts.connected();
            self.connection = Some(connection);
        }
        match &mut self.connection {
            Some(connection) => Ok(connection),
            // Not reached: it was set just now.
            None => Err(ConnectError::Connect {
                endpoint: String::new(),
                source: io::ErrorKind::NotConnected.into(),
            }),
        }
    }

    /// Tries every endpoint once.
    async fn connect(&mut self) -> Result<Connection, ConnectError> {
        let settings = Arc::clone(&self.settings);
        let endpoints = &settings.endpoints;
        let from = self.next_endpoint;
        let mut failed = None;
        for at in 0..endpoints.len() {
            let at = (from + at) % endpoints.len();
            let endpoint = &endpoints[at];
            match Connection::open(endpoint, settings.tls.as_ref(), &settings.connection).await {
                Ok(connection) => {
                    if settings.order == Endpoints::RoundRobin {
                        self.next_endpoint = at + 1;
                    }
                    return Ok(connection);
                }
                Err(error) => {
                    self.counts.not_connected(error.code());
                    failed = Some(error);
                }
            }
        }
        Err(failed.unwrap_or_else(|| ConnectError::Connect {
            endpoint: "no endpoint".to_owned(),
            source: io::ErrorKind::AddrNotAvailable.into(),
        }))
    }

    /// The connection is gone: what was not confirmed goes again.
    fn broken(&mut self, error: &io::Error) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        let lost = self.written.len();
        self.counts.broken(error);
        tracing::warn!(
            endpoint = connection.endpoint,
            destination = self.counts.destination,
            %error,
            unconfirmed_batches = lost,
            "connection lost; what is not confirmed goes again"
        );
        let detail = format!("{}: {error}", connection.endpoint);
        let reason = Reason::new("connection_lost", detail);
        for sent in std::mem::take(&mut self.written) {
            self.fail(sent.job, &reason);
        }
    }

    async fn say_goodbye(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.counts.disconnected();
            connection.goodbye().await;
        }
    }
}

async fn closed(connection: &mut Option<Connection>) -> io::Error {
    match connection {
        Some(connection) => connection.closed().await,
        None => std::future::pending().await,
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when.into()).await,
        None => std::future::pending().await,
    }
}
