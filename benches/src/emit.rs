//! Emitters: paced, in bursts, or as fast as the target takes it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::SendStream;
use rustls::ClientConfig;

use crate::BenchError;
use crate::control::{Emitted, Phase, Shared, wait_for};
use crate::histogram::Histogram;
use crate::http2::{Client, Windows, capacity, send_all};
use crate::workload::{BatchRing, Shape, StampKind};

/// When batches leave. All figures are for all streams together.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pace {
    /// So many envelopes per second, evenly.
    Rate(f64),
    /// Whatever flow control lets through.
    Full,
    /// So many envelopes at once, again and again.
    Bursts {
        /// Envelopes in a burst.
        envelopes: u64,
        /// Seconds from one burst to the next.
        every: f64,
    },
}

impl Pace {
    /// Envelopes per second on average; `None` when nothing but the target decides.
    #[must_use]
    pub fn rate(self) -> Option<f64> {
        match self {
            Self::Rate(rate) => Some(rate),
            Self::Full => None,
            Self::Bursts { envelopes, every } => Some(envelopes as f64 / every),
        }
    }

    /// When batch `n` of stream `stream` is due, counted from the start. Computed from the number and not from the
    /// batch before, so that lateness never adds up.
    fn due(self, n: u64, stream: usize, shape: &Shape) -> Duration {
        let streams = shape.streams as f64;
        match self {
            Self::Full => Duration::ZERO,
            Self::Rate(rate) => {
                let interval = shape.batch as f64 * streams / rate;
                Duration::from_secs_f64(interval * (n as f64 + stream as f64 / streams))
            }
            Self::Bursts { envelopes, every } => {
                let per_stream = (envelopes as f64 / streams / shape.batch as f64)
                    .ceil()
                    .max(1.0) as u64;
                Duration::from_secs_f64(every * (n / per_stream) as f64)
            }
        }
    }
}

/// What an emitter reports at the end.
#[derive(Default)]
pub struct EmitterReport {
    /// How late batches of a paced run left, in nanoseconds.
    pub late: Histogram,
    /// Batches that had to be copied because the target was slow to take earlier ones.
    pub copies: u64,
    /// Why it ended early.
    pub error: Option<String>,
}

/// One emitting stream.
pub struct Emitter {
    /// Its number, also in every stamp.
    pub index: usize,
    /// Where to.
    pub addr: SocketAddr,
    /// With what identity.
    pub tls: Arc<ClientConfig>,
    /// What it sends.
    pub shape: Shape,
    /// Number of its first source.
    pub first_source: usize,
    /// When.
    pub pace: Pace,
    /// Its counters.
    pub progress: Arc<Emitted>,
    /// The run.
    pub control: Shared,
}

impl Emitter {
    /// Runs all phases. An error ends sending and is reported; it is for the caller to judge the run.
    pub async fn run(self) -> EmitterReport {
        let mut report = EmitterReport::default();
        if let Err(e) = self.phases(&mut report).await {
            report.error = Some(e.to_string());
        }
        self.progress.done.store(true, Ordering::Release);
        report
    }

    async fn phases(&self, report: &mut EmitterReport) -> Result<(), BenchError> {
        let mut ring = BatchRing::new(self.shape, self.index, self.first_source)?;
        let client = Client::connect(self.addr, self.tls.clone(), Windows::default()).await?;
        let (_response, mut stream) = client
            .call(loggregator_proto::rpc::INGRESS_BATCH_SENDER)
            .await?;
        let mut phase = self.control.phase();
        // One stream probes; the others only open theirs.
        let broken = |e: h2::Error| BenchError::new(format!("emitter {}: {e}", self.index));
        while self.index == 0 && *phase.borrow_and_update() == Phase::Probe {
            send_all(&mut stream, ring.next(StampKind::Probe, self.control.now()))
                .await
                .map_err(broken)?;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        ring.rewind();
        if let Phase::Send { start, length } =
            wait_for(&mut phase, |p| matches!(p, Phase::Send { .. })).await
        {
            self.send(&mut ring, &mut stream, start, length, &mut report.late)
                .await
                .map_err(broken)?;
        }
        report.copies = ring.copies;
        self.progress.done.store(true, Ordering::Release);
        // The stream stays open, and with it what it still holds, until everything has arrived.
        wait_for(&mut phase, |_| false).await;
        Ok(())
    }

    async fn send(
        &self,
        ring: &mut BatchRing,
        stream: &mut SendStream<Bytes>,
        start: Instant,
        length: Duration,
        late: &mut Histogram,
    ) -> Result<(), h2::Error> {
        let end = start + length;
        let paced = self.pace != Pace::Full;
        tokio::time::sleep_until(start.into()).await;
        for n in 0.. {
            let due = start
                + self
                    .pace
                    .due(n, self.index % self.shape.streams, &self.shape);
            if due >= end {
                return Ok(());
            }
            let mut now = Instant::now();
            if due > now {
                tokio::time::sleep_until(due.into()).await;
                now = Instant::now();
            }
            // Flow control is part of the lateness of a paced run, and of the pace itself in a full one.
            let len = self.shape.message_len();
            if stream.capacity() == 0 {
                tokio::select! {
                    granted = capacity(stream, len) => { granted?; }
                    () = tokio::time::sleep_until(end.into()) => return Ok(()),
                }
                now = Instant::now();
            }
            if now >= end {
                return Ok(());
            }
            if paced {
                late.record(now.saturating_duration_since(due).as_nanos() as u64, 1);
            }
            let message = ring.next(StampKind::Data, self.control.at(now));
            send_all(stream, message).await?;
            self.progress
                .sent
                .fetch_add(self.shape.batch as u64, Ordering::Relaxed);
            if n % 16 == 15 {
                // Several batches due at once must not keep the connection's own task from running.
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_does_not_drift_and_streams_alternate() {
        let shape = Shape::default();
        let pace = Pace::Rate(20_000.0);
        assert_eq!(pace.due(0, 0, &shape), Duration::ZERO);
        assert_eq!(pace.due(0, 1, &shape), Duration::from_millis(5));
        assert_eq!(pace.due(100, 0, &shape), Duration::from_secs(1));
        assert_eq!(pace.due(360_000, 0, &shape), Duration::from_secs(3600));
    }

    #[test]
    fn bursts_are_shared_by_the_streams() {
        let shape = Shape::default();
        let pace = Pace::Bursts {
            envelopes: 10_000,
            every: 0.5,
        };
        assert_eq!(pace.due(49, 1, &shape), Duration::ZERO);
        assert_eq!(pace.due(50, 0, &shape), Duration::from_millis(500));
        assert_eq!(pace.rate(), Some(20_000.0));
        assert_eq!(Pace::Full.rate(), None);
    }
}
