//! Batches to an agent, each one answered.

use crate::exit::{Coded, Exit};
use crate::output;
use anyhow::Result;
use bytes::Bytes;
use loggregator_client::{AGENT, Connector};
use loggregator_net::grpc::{Channel, Code, Status};
use loggregator_net::{Backoff, ClientTls, TlsFiles};
use loggregator_proto::rpc;
use loggregator_proto::v2::{Envelope, EnvelopeBatch};
use prost::Message as _;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Sends batches one after the other.
pub struct Sender {
    channel: Channel,
    addr: String,
    patience: Duration,
    sent: u64,
    accepted: u64,
}

impl Sender {
    /// Connects; an agent that is not there now is an error at once.
    ///
    /// # Errors
    /// When the agent cannot be reached or does not trust the certificate.
    pub async fn connect(addr: &str, tls: &TlsFiles, patience: Duration) -> Result<Self> {
        let mut connector = Connector::new(AGENT, Some(ClientTls::mutual(tls)?));
        // The agent is on this machine or near: it answers soon or not at all.
        connector.settings.connect_timeout = Duration::from_secs(5);
        let channel = connector.channel(addr);
        channel
            .ready()
            .await
            .map_err(|status| unreachable(addr, &status))?;
        Ok(Self {
            channel,
            addr: addr.to_owned(),
            patience,
            sent: 0,
            accepted: 0,
        })
    }

    /// Envelopes handed over, accepted or not.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Envelopes that the agent confirmed.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Sends one batch and waits for the answer; while the agent is away, or full, tries again.
    ///
    /// # Errors
    /// When the agent refuses the batch, or does not answer for the time of the patience.
    pub async fn send(&mut self, envelopes: &[Envelope]) -> Result<()> {
        let batch: Bytes = EnvelopeBatch {
            batch: envelopes.to_vec(),
        }
        .encode_to_vec()
        .into();
        self.sent += envelopes.len() as u64;
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        let mut since: Option<Instant> = None;
        loop {
            let status = match self.channel.unary(rpc::INGRESS_SEND, batch.clone()).await {
                Ok(_) => {
                    self.accepted += envelopes.len() as u64;
                    return Ok(());
                }
                Err(status) => status,
            };
            if !matches!(status.code, Code::Unavailable | Code::ResourceExhausted) {
                return Err(Coded::new(
                    Exit::Negative,
                    format!("the agent at {} refused a batch: {status}", self.addr),
                ));
            }
            let began = *since.get_or_insert_with(|| {
                output::tell(&format!(
                    "loggregator: waiting for the agent at {} ({status})",
                    self.addr
                ));
                Instant::now()
            });
            if began.elapsed() > self.patience {
                return Err(unreachable(&self.addr, &status));
            }
            sleep(backoff.next_delay()).await;
        }
    }
}

fn unreachable(addr: &str, status: &Status) -> anyhow::Error {
    let message = format!(
        "cannot send to the agent at {addr}: {status}\n\
         Is the pipeline running, and is the certificate one that it trusts? `loggregator status` tells."
    );
    Coded::new(Exit::Unreachable, message)
}
