//! One component on a runtime of its own, so that it can be killed like a process.

use anyhow::{Context as _, Result, bail};
use loggregator_service::Lifecycle;
use loggregator_service::lifecycle::DrainReport;
use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// How to start a component.
pub trait Stage: Send + 'static {
    /// Its settings.
    type Config: Clone + Send + 'static;
    /// What it returns when it is up.
    type Running: Send + 'static;

    /// Starts it on the lifecycle.
    fn start(
        config: Self::Config,
        lifecycle: Lifecycle,
    ) -> impl Future<Output = Result<Self::Running>> + Send;

    /// Writes the addresses that it got into the settings, so that it comes back under the same.
    fn keep_addresses(config: &mut Self::Config, running: &Self::Running);

    /// Where its admin server listens.
    fn admin_addr(running: &Self::Running) -> Option<SocketAddr>;
}

struct Up {
    runtime: Runtime,
    lifecycle: Lifecycle,
}

/// A component that can be stopped, killed and started again under the same addresses.
pub struct Part<S: Stage> {
    config: S::Config,
    running: S::Running,
    up: Option<Up>,
}

impl<S: Stage> Part<S> {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot start.
    pub async fn start(config: S::Config) -> Result<Self> {
        let (up, running) = launch::<S>(config.clone()).await?;
        let mut config = config;
        S::keep_addresses(&mut config, &running);
        Ok(Self {
            config,
            running,
            up: Some(up),
        })
    }

    /// What it said when it was started last.
    pub fn running(&self) -> &S::Running {
        &self.running
    }

    /// Its settings, for the next start.
    pub fn config_mut(&mut self) -> &mut S::Config {
        &mut self.config
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.up.is_some()
    }

    /// Stops it in order.
    pub async fn stop(&mut self, deadline: Duration) -> DrainReport {
        let Some(up) = self.up.take() else {
            return DrainReport::default();
        };
        let report = up.lifecycle.shutdown(deadline).await;
        up.runtime.shutdown_background();
        report
    }

    /// Drops everything it does where it stands, as `kill -9` would: sockets are closed, buffers are gone. Returns when
    /// nothing of it runs any more, so that its last counts are final.
    pub async fn kill(&mut self) {
        if let Some(up) = self.up.take() {
            // The admin server has a thread of its own, which ends when the lifecycle has.
            up.lifecycle.ended().cancel();
            let dead = tokio::task::spawn_blocking(move || {
                up.runtime.shutdown_timeout(Duration::from_secs(5))
            });
            dead.await.ok();
        }
    }

    /// Starts it again, under the same addresses. Waits for the ports to be free.
    ///
    /// # Errors
    /// When it still runs, or cannot start within ten seconds.
    pub async fn restart(&mut self) -> Result<()> {
        if self.is_up() {
            bail!("it runs already");
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match launch::<S>(self.config.clone()).await {
                Ok((up, running)) => {
                    self.up = Some(up);
                    self.running = running;
                    return Ok(());
                }
                Err(error) if Instant::now() > deadline => {
                    return Err(error.context("it does not start again"));
                }
                // A killed runtime closes its sockets a moment later.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Where its admin server listens.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        S::admin_addr(&self.running)
    }
}

impl<S: Stage> Drop for Part<S> {
    fn drop(&mut self) {
        if let Some(up) = self.up.take() {
            up.lifecycle.ended().cancel();
            up.runtime.shutdown_background();
        }
    }
}

async fn launch<S: Stage>(config: S::Config) -> Result<(Up, S::Running)> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(
            std::any::type_name::<S>()
                .rsplit("::")
                .next()
                .unwrap_or("part"),
        )
        .enable_all()
        .build()?;
    let lifecycle = Lifecycle::new();
    let started = runtime.spawn(S::start(config, lifecycle.clone())).await;
    let up = Up { runtime, lifecycle };
    match started
        .context("it panicked while starting")
        .and_then(|result| result)
    {
        Ok(running) => Ok((up, running)),
        Err(error) => {
            // Dropping a runtime within another one panics.
            up.runtime.shutdown_background();
            Err(error)
        }
    }
}
