//! Batches to an agent, each one answered.

use crate::exit::{Coded, Exit};
use crate::http_get::get;
use crate::output;
use anyhow::Result;
use bytes::Bytes;
use loggregator_client::{AGENT, Connector};
use loggregator_net::grpc::{Channel, Code, Status};
use loggregator_net::{Backoff, ClientTls, TlsFiles};
use loggregator_proto::rpc;
use loggregator_proto::v2::{Envelope, EnvelopeBatch};
use loggregator_service::ledger::{Report, Subscription};
use prost::Message as _;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The agent's buffer is looked at each time so much was sent.
const LOOK_AFTER: usize = 2 * 1024 * 1024;
/// How full it may be while we go on sending.
const FULL_ENOUGH: f64 = 0.5;

/// Where an agent is.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its gRPC port, `host:port`.
    pub addr: String,
    /// What to show and to trust.
    pub tls: TlsFiles,
    /// Its admin server, where known: it tells how full the buffer is, and what was lost of it.
    pub admin: Option<String>,
}

/// Sends batches one after the other.
pub struct Sender {
    channel: Channel,
    addr: String,
    admin: Option<String>,
    /// What the agent had dropped before we began.
    dropped_before: u64,
    /// Bytes sent since the buffer was looked at.
    unlooked: usize,
    patience: Duration,
    sent: u64,
    accepted: u64,
}

impl Sender {
    /// Connects; an agent that is not there now is an error at once.
    ///
    /// # Errors
    /// When the agent cannot be reached or does not trust the certificate.
    pub async fn connect(place: Place, patience: Duration) -> Result<Self> {
        let Place { addr, tls, admin } = place;
        let mut connector = Connector::new(AGENT, Some(ClientTls::mutual(&tls)?));
        // The agent is on this machine or near: it answers soon or not at all.
        connector.settings.connect_timeout = Duration::from_secs(5);
        let channel = connector.channel(&addr);
        channel
            .ready()
            .await
            .map_err(|status| unreachable(&addr, &status))?;
        let mut sender = Self {
            channel,
            addr,
            admin,
            dropped_before: 0,
            unlooked: 0,
            patience,
            sent: 0,
            accepted: 0,
        };
        sender.dropped_before = sender.look().await.map_or(0, |report| dropped(&report));
        Ok(sender)
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
        self.unlooked += batch.len();
        if self.unlooked >= LOOK_AFTER {
            self.unlooked = 0;
            self.wait_for_room().await;
        }
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
                return Err(Coded::error(
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

    /// What the agent dropped since we began, ours or others'.
    pub async fn dropped_meanwhile(&self) -> u64 {
        let now = self.look().await.map_or(0, |report| dropped(&report));
        now.saturating_sub(self.dropped_before)
    }

    /// Waits while the agent's buffer is more than half full: an agent never holds an emitter up, it drops.
    async fn wait_for_room(&self) {
        let began = Instant::now();
        while began.elapsed() < self.patience {
            let fill = self.look().await.and_then(|report| report.log);
            match fill {
                Some(fill) if fill.bytes as f64 > fill.limit as f64 * FULL_ENOUGH => {
                    sleep(Duration::from_millis(20)).await
                }
                _ => return,
            }
        }
    }

    /// The agent's ledger, where it can be asked.
    async fn look(&self) -> Option<Report> {
        let body = get(self.admin.as_deref()?, "/ledger").await.ok()?;
        serde_json::from_slice(&body).ok()
    }
}

fn dropped(report: &Report) -> u64 {
    report.ingress.dropped_total()
        + report
            .subscriptions
            .iter()
            .map(Subscription::dropped_total)
            .sum::<u64>()
}

fn unreachable(addr: &str, status: &Status) -> anyhow::Error {
    let message = format!(
        "cannot send to the agent at {addr}: {status}\n\
         Is the pipeline running, and is the certificate one that it trusts? `loggregator status` tells."
    );
    Coded::error(Exit::Unreachable, message)
}
