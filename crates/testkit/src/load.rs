//! Numbered lines, sent so that it is known which of them were taken.

use crate::sequence::Numbering;
use anyhow::Result;
use bytes::Bytes;
use loggregator_net::grpc::Channel;
use loggregator_proto::rpc;
use loggregator_proto::v2::EnvelopeBatch;
use prost::Message as _;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Envelopes of a batch.
const BATCH: u64 = 100;

/// An emitter that numbers its lines, source by source in turn, and waits for the answer to each batch.
pub struct Load {
    channel: Channel,
    sources: Vec<String>,
    turn: usize,
    numbering: Numbering,
    accepted: u64,
    in_doubt: u64,
}

impl Load {
    /// Lines of these sources through this channel.
    pub fn new(channel: Channel, sources: &[&str]) -> Self {
        let sources = sources.iter().map(|source| (*source).to_owned()).collect();
        Self {
            channel,
            sources,
            turn: 0,
            numbering: Numbering::default(),
            accepted: 0,
            in_doubt: 0,
        }
    }

    /// Makes the lines longer by so many bytes. Numbers start anew.
    pub fn padded(mut self, bytes: usize) -> Self {
        self.numbering = Numbering::padded(bytes);
        self
    }

    /// Sends so many lines, as fast as they are taken.
    ///
    /// # Errors
    /// When a batch is not taken; its lines are then [`in_doubt`](Self::in_doubt).
    pub async fn send(&mut self, lines: u64) -> Result<()> {
        let mut left = lines;
        while left > 0 {
            let count = left.min(BATCH);
            self.batch(count).await?;
            left -= count;
        }
        Ok(())
    }

    /// Sends at a rate, until `until` says so.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_while(
        &mut self,
        per_second: u32,
        mut wanted: impl FnMut() -> bool,
    ) -> Result<()> {
        let pause = Duration::from_secs_f64(BATCH as f64 / f64::from(per_second));
        let mut next = Instant::now();
        while wanted() {
            sleep_until(next).await;
            next += pause;
            self.batch(BATCH).await?;
        }
        Ok(())
    }

    /// One batch, sent again until it is taken. For tests in which the receiver comes back: a batch whose answer was
    /// lost arrives twice.
    pub async fn insist(&mut self, lines: u64) {
        let mut left = lines;
        while left > 0 {
            let count = left.min(BATCH);
            let batch = self.make(count);
            while self
                .channel
                .unary(rpc::INGRESS_SEND, batch.clone())
                .await
                .is_err()
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            self.accepted += count;
            left -= count;
        }
    }

    async fn batch(&mut self, count: u64) -> Result<()> {
        let batch = self.make(count);
        match self.channel.unary(rpc::INGRESS_SEND, batch).await {
            Ok(_) => {
                self.accepted += count;
                Ok(())
            }
            Err(status) => {
                self.in_doubt += count;
                Err(anyhow::anyhow!(
                    "a batch of {count} was not taken: {status}"
                ))
            }
        }
    }

    fn make(&mut self, count: u64) -> Bytes {
        let mut batch = Vec::new();
        for _ in 0..count {
            batch.push(self.numbering.next(&self.sources[self.turn]));
            self.turn = (self.turn + 1) % self.sources.len();
        }
        EnvelopeBatch { batch }.encode_to_vec().into()
    }

    /// Lines whose batches were answered.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Lines of batches that failed: taken or not, nobody knows.
    pub fn in_doubt(&self) -> u64 {
        self.in_doubt
    }

    /// Lines made for a source.
    pub fn made(&self, source: &str) -> u64 {
        self.numbering.made(source)
    }
}
