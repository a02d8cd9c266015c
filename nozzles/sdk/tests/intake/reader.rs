//! An intake that is read as a nozzle reads it.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use loggregator_envelope::{Frame, KindSet};
use loggregator_nozzle::config::{IntakeConfig, SelectConfig};
use loggregator_nozzle::intake::{self, Monitor};
use loggregator_service::Lifecycle;
use loggregator_service::metrics::Metrics;
use loggregator_testkit::{Checker, eventually};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What one nozzle has received over all its lives.
#[derive(Clone, Default)]
pub struct Received(Arc<Mutex<Checker>>);

impl Received {
    pub fn checker(&self) -> Checker {
        self.0.lock().clone()
    }

    /// Waits for so many lines, then checks that each came once and in order.
    pub async fn exactly(&self, lines: u64, sources: &[&str]) {
        eventually("all lines are there", async || {
            self.checker().lines() >= lines
        })
        .await;
        let checker = self.checker();
        assert_eq!(
            (checker.lines(), checker.out_of_order(), checker.told_lost),
            (lines, 0, 0),
            "{checker}"
        );
        assert!(
            sources.iter().all(|source| checker.of(source).gaps == 0),
            "{checker}"
        );
    }
}

/// An intake that is being read.
pub struct Reader {
    pub monitor: Arc<Monitor>,
    pub metrics: Metrics,
    lifecycle: Lifecycle,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// What is selected.
pub fn select(text: &str) -> SelectConfig {
    toml::from_str(text).unwrap()
}

impl Reader {
    pub async fn start(config: &str, select: &SelectConfig, received: &Received) -> Reader {
        Reader::with_silence(config, select, received, Duration::ZERO).await
    }

    pub async fn with_silence(
        config: &str,
        select: &SelectConfig,
        received: &Received,
        silence: Duration,
    ) -> Reader {
        let config: IntakeConfig = toml::from_str(config).unwrap();
        let request = intake::request(select, "audit", KindSet::ALL, None).unwrap();
        let (metrics, lifecycle) = (Metrics::new(), Lifecycle::new());
        let mut intake = intake::open(&config, request, silence, None, &metrics, &lifecycle)
            .await
            .unwrap();
        let monitor = intake.monitor();
        let stop = CancellationToken::new();
        let (stopped, received) = (stop.clone(), received.clone());
        let task = tokio::spawn(async move {
            let take = |batch: Bytes| {
                let parsed = Frame::parse(batch).unwrap();
                assert_eq!(parsed.rejected, 0);
                received.0.lock().frame(&parsed.frame);
            };
            while let Some(Some(batch)) = stopped
                .run_until_cancelled(poll_fn(|cx| intake.poll_next(cx)))
                .await
            {
                take(batch);
            }
            intake.stop();
            while let Some(batch) = poll_fn(|cx| intake.poll_next(cx)).await {
                take(batch);
            }
        });
        Reader {
            monitor,
            metrics,
            lifecycle,
            stop,
            task,
        }
    }

    /// Waits until it has a stream.
    pub async fn stands(&self) {
        eventually("the intake stands", async || self.monitor.status().open > 0).await;
    }

    /// Stops as a nozzle stops.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
        self.lifecycle.shutdown(Duration::from_secs(5)).await;
    }
}
