//! Proofs about nozzles: a nozzle as a process of its own under load, real peers that are stopped and started, and the
//! question what became of every envelope.
//!
//! [`Stage`] is a whole pipeline with numbered lines going in at a rate; [`Nozzle`] runs `loggregator nozzle run`;
//! [`Broker`] and [`Rsyslog`] are the peers; [`Arrivals`] checks what came out.

mod arrivals;
mod kafka;
mod nozzle;
mod rsyslog;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use loggregator_testkit::{Load, Pipeline};
use tokio::task::JoinHandle;

pub use arrivals::Arrivals;
pub use kafka::Broker;
pub use nozzle::{Nozzle, destination};
pub use rsyslog::Rsyslog;

/// Sources of the lines.
pub const SOURCES: usize = 20;
/// What each line is padded by, bytes.
const PADDING: usize = 200;

/// A pipeline in this process, and lines that go in at its agent.
pub struct Stage {
    /// The pipeline.
    pub pipeline: Pipeline,
    wanted: Arc<AtomicBool>,
    load: Option<JoinHandle<Result<Load>>>,
}

impl Stage {
    /// Starts it, and sends nothing yet.
    ///
    /// # Errors
    /// When a component cannot start.
    pub async fn start() -> Result<Stage> {
        let pipeline = Pipeline::builder()
            .tune_doppler(|doppler| {
                doppler.log_bytes = 512 << 20;
                doppler.resume_grace = Duration::from_secs(300);
            })
            .start()
            .await?;
        Ok(Stage {
            pipeline,
            wanted: Arc::default(),
            load: None,
        })
    }

    /// Sends so many lines per second from now on, or from when there is a subscription: what comes before it is nobody's.
    ///
    /// # Errors
    /// When there is no connection to the agent.
    pub async fn send(&mut self, per_second: u32) -> Result<()> {
        while self.pipeline.open_subscriptions("v2") == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let sources: Vec<String> = (0..SOURCES).map(source).collect();
        let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
        let mut load = self.pipeline.load(&sources)?.padded(PADDING);
        self.wanted.store(true, Ordering::Relaxed);
        let wanted = Arc::clone(&self.wanted);
        self.load = Some(tokio::spawn(async move {
            load.send_while(per_second, || wanted.load(Ordering::Relaxed))
                .await?;
            Ok(load)
        }));
        Ok(())
    }

    /// Stops sending; answers how many lines of each source the agent has taken.
    ///
    /// # Errors
    /// When a batch was not taken.
    pub async fn stop_sending(&mut self) -> Result<Vec<u64>> {
        self.wanted.store(false, Ordering::Relaxed);
        let load = self.load.take().context("nothing is being sent")?;
        let load = load.await??;
        Ok((0..SOURCES).map(|i| load.made(&source(i))).collect())
    }
}

/// The id of a source.
#[must_use]
pub fn source(index: usize) -> String {
    format!("app-{index:02}")
}

/// The index of a source of this id.
#[must_use]
pub fn index_of(source: &str) -> Option<usize> {
    let index = source.strip_prefix("app-")?.parse().ok()?;
    (index < SOURCES).then_some(index)
}
