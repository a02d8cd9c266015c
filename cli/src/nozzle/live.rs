//! A nozzle that takes over any configuration: in place where it can, started anew in this process where it must.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use loggregator_net::Backoff;
use loggregator_nozzle::buffer::BufferError;
use loggregator_nozzle::config::{BufferConfig, NozzleConfig};
use loggregator_nozzle::intake::Upstream;
use loggregator_nozzle::{Error, Kinds, ReloadError, Reloaded, Running, start};
use loggregator_service::Lifecycle;
use loggregator_service::ledger::Report;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

/// What is under way is given so long to end before a new start. What has not ended goes again, from the buffer.
const STOP: Duration = Duration::from_secs(10);
/// What a nozzle that has stopped still holds, a port or the lock of its folder, is free after this at the latest.
const RELEASE: Duration = Duration::from_secs(10);
/// Pause between two looks at that.
const AGAIN: Duration = Duration::from_millis(50);
/// The first and the longest pause between two attempts to start it as it was.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The nozzle.
pub struct Live {
    kinds: Kinds,
    /// The pipeline in the same process, where there is one.
    upstream: Option<Arc<dyn Upstream>>,
    lifecycle: Lifecycle,
    now: Mutex<State>,
}

/// How it is.
enum State {
    /// It runs.
    Runs(Box<Now>),
    /// It could not be started again, and is tried with this until it can.
    Away(Box<NozzleConfig>),
}

/// It as it runs.
struct Now {
    running: Running,
    stage: Lifecycle,
    config: NozzleConfig,
}

impl Live {
    /// Starts it.
    ///
    /// # Errors
    /// As [`start`].
    pub async fn start(
        config: NozzleConfig,
        kinds: Kinds,
        upstream: Option<Arc<dyn Upstream>>,
        lifecycle: &Lifecycle,
    ) -> Result<Arc<Live>> {
        let live = Live {
            kinds,
            upstream,
            lifecycle: lifecycle.clone(),
            now: Mutex::new(State::Away(Box::new(config.clone()))),
        };
        let now = live.begin(config).await?;
        *live.now.lock().await = State::Runs(Box::new(now));
        Ok(Arc::new(live))
    }

    /// Address of its admin server. Nothing while it is started anew.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        match &*self.now.try_lock().ok()? {
            State::Runs(now) => now.running.admin_addr,
            State::Away(_) => None,
        }
    }

    /// What it received, delivered and lost. Nothing while it is started anew.
    pub fn report(&self) -> Option<Report> {
        match &*self.now.try_lock().ok()? {
            State::Runs(now) => Some(now.running.report()),
            State::Away(_) => None,
        }
    }

    /// Takes a configuration over; says what came of it.
    pub async fn reload(self: &Arc<Self>, config: NozzleConfig) -> String {
        let name = config.nozzle.name.clone();
        let mut state = self.now.lock().await;
        let now = match &mut *state {
            State::Runs(now) => now,
            State::Away(before) if !keeps_buffer(before, &config) => {
                return format!("nozzle {name}: not reloaded: its buffer must stay where it is");
            }
            State::Away(_) => {
                return match self.begin(config).await {
                    Ok(now) => {
                        *state = State::Runs(Box::new(now));
                        format!("nozzle {name}: reloaded; it runs again")
                    }
                    Err(error) => format!("nozzle {name}: not reloaded: {error:#}"),
                };
            }
        };
        let done = now.running.reload(config.clone()).await;
        match &done {
            Ok(_) => now.config = config,
            Err(ReloadError { restart: true, .. }) if keeps_buffer(&now.config, &config) => {
                return self.restart(&mut state, config).await;
            }
            Err(ReloadError { restart: true, .. }) => {
                return format!(
                    "{}; restart it. With the same [buffer.disk] before and after that would be done now",
                    told(&name, done)
                );
            }
            Err(_) => {}
        }
        told(&name, done)
    }

    /// Stops it and starts it anew; as it was before, when it cannot be started so.
    async fn restart(self: &Arc<Self>, state: &mut State, config: NozzleConfig) -> String {
        let name = config.nozzle.name.clone();
        let before = match &*state {
            State::Runs(now) => now.config.clone(),
            State::Away(before) => (**before).clone(),
        };
        tracing::info!(
            nozzle = name,
            "it is started anew: its configuration changed in what cannot change in place"
        );
        if let State::Runs(now) = std::mem::replace(state, State::Away(Box::new(before.clone()))) {
            now.stage.shutdown(STOP).await;
        }
        if self.lifecycle.token().is_cancelled() {
            return format!("nozzle {name}: not reloaded: it was told to stop");
        }
        let failed = match self.begin(config).await {
            Ok(now) => {
                *state = State::Runs(Box::new(now));
                return format!(
                    "nozzle {name}: reloaded; started anew as a whole, with the buffer as it was"
                );
            }
            Err(error) => format!("{error:#}"),
        };
        match self.begin(before).await {
            Ok(now) => {
                *state = State::Runs(Box::new(now));
                format!("nozzle {name}: not reloaded: {failed}; it goes on as before")
            }
            Err(error) => {
                let (live, stop) = (Arc::clone(self), self.lifecycle.token());
                let task = format!("return of nozzle {name}");
                self.lifecycle.spawn(task, async move {
                    stop.run_until_cancelled(live.come_back()).await;
                });
                format!(
                    "nozzle {name}: not reloaded: {failed}; nor can it be started as before: {error:#}; that is \
                     tried again, its events wait in the buffer"
                )
            }
        }
    }

    /// Tries to start it as it was, until that goes or somebody else did.
    async fn come_back(&self) {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        loop {
            sleep(backoff.next_delay()).await;
            let mut state = self.now.lock().await;
            let State::Away(config) = &*state else {
                return;
            };
            let nozzle = config.nozzle.name.clone();
            match self.begin((**config).clone()).await {
                Ok(now) => {
                    *state = State::Runs(Box::new(now));
                    tracing::info!(nozzle, "it runs again, as before");
                    return;
                }
                Err(error) => {
                    tracing::error!(nozzle, "it does not run, and is tried again: {error:#}");
                }
            }
        }
    }

    /// Starts it as a stage of its own. Waits for what the one before it has not let go of yet.
    async fn begin(&self, config: NozzleConfig) -> Result<Now> {
        let since = Instant::now();
        loop {
            // Without a name: its tasks are called as those of a nozzle alone.
            let stage = self.lifecycle.stage("");
            let upstream = self.upstream.clone();
            match start(config.clone(), &self.kinds, upstream, &stage).await {
                Ok(running) => {
                    if let Some(addr) = running.admin_addr {
                        tracing::info!(%addr, "admin server");
                    }
                    return Ok(Now {
                        running,
                        stage,
                        config,
                    });
                }
                Err(error) => {
                    let error = anyhow::Error::new(error);
                    stage.shutdown(STOP).await;
                    if !is_busy(&error) || since.elapsed() > RELEASE {
                        return Err(error);
                    }
                    sleep(AGAIN).await;
                }
            }
        }
    }
}

/// Whether what is in the buffer stays where it is.
fn keeps_buffer(before: &NozzleConfig, after: &NozzleConfig) -> bool {
    match (&before.buffer, &after.buffer) {
        (BufferConfig::Disk(before), BufferConfig::Disk(after)) => before.path == after.path,
        _ => false,
    }
}

/// Whether somebody has what it needs, perhaps the one before it.
fn is_busy(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
        matches!(
            cause.downcast_ref(),
            Some(Error::Buffer(BufferError::InUse { .. }))
        ) || cause.downcast_ref().is_some_and(in_use)
    })
}

/// What came of it, in words.
fn told(name: &str, done: std::result::Result<Reloaded, ReloadError>) -> String {
    match done {
        Ok(done) if done.restarted.is_empty() => format!("nozzle {name}: nothing has changed"),
        Ok(done) => format!(
            "nozzle {name}: reloaded; started anew: {}",
            done.restarted.join(", ")
        ),
        Err(error) => format!("nozzle {name}: not reloaded: {error}"),
    }
}
