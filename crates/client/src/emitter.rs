//! Sending envelopes to an agent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use loggregator_net::ClientTls;
use loggregator_proto::v2;

use crate::pool::{DopplerPool, PoolSettings, SendError};
use crate::set::{AGENT, Connector, DopplerSet};

/// Where an [`Emitter`] sends and how.
#[derive(Debug, Clone)]
pub struct EmitterConfig {
    /// `host:port` of the agent. Default `localhost:3458`.
    pub addr: String,
    /// How to connect; the default server name is [`AGENT`].
    pub connector: Connector,
    /// Tags that every envelope gets which has none of that name.
    pub tags: Vec<(String, String)>,
    /// Batches of 100 envelopes, after 5 ms at the latest, and a buffer of 4 MiB.
    pub pool: PoolSettings,
}

impl EmitterConfig {
    /// An emitter to this agent; none of TLS is for tests.
    #[must_use]
    pub fn new(addr: &str, tls: Option<Arc<ClientTls>>) -> EmitterConfig {
        EmitterConfig {
            addr: addr.to_owned(),
            connector: Connector::new(AGENT, tls),
            tags: Vec::new(),
            pool: PoolSettings {
                buffer_bytes: 4 * 1024 * 1024,
                ..PoolSettings::default()
            },
        }
    }
}

/// What an emitter has done. `emitted = sent + dropped + pending`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EmitterStats {
    /// Envelopes it was given.
    pub emitted: u64,
    /// Envelopes that the connection took.
    pub sent: u64,
    /// Envelopes dropped: the buffer was full, they were too large, or closing ran out of time.
    pub dropped: u64,
    /// Envelopes that wait or are in flight.
    pub pending: u64,
    /// Of those sent, the ones that were possibly lost with a connection that broke: an upper bound.
    pub in_doubt: u64,
}

/// Why an envelope was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// The buffer is full: the agent is away or slow.
    #[error("the buffer is full")]
    Full,
    /// The envelope is larger than an agent takes.
    #[error("the envelope is larger than an agent takes")]
    TooLarge,
    /// The emitter is closed.
    #[error("the emitter is closed")]
    Closed,
}

/// Sends envelopes to an agent: in batches when there are many, at once when there are few; connects again when the
/// connection breaks. Clones are the same emitter.
///
/// ```no_run
/// # async fn f() {
/// use loggregator_client::{Emitter, EmitterConfig, message};
/// let emitter = Emitter::new(EmitterConfig::new("localhost:3458", None));
/// emitter.emit(message::log("hello").source("app-1", "0")).await.expect("open");
/// emitter.close(std::time::Duration::from_secs(1)).await;
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Emitter {
    pool: DopplerPool,
    tags: Arc<[(String, String)]>,
    refused: Arc<AtomicU64>,
}

impl Emitter {
    /// Begins to connect. Must be called within a tokio runtime.
    #[must_use]
    pub fn new(config: EmitterConfig) -> Emitter {
        let set = DopplerSet::fixed([config.addr], config.connector);
        Emitter {
            pool: DopplerPool::new(&set, config.pool),
            tags: config.tags.into(),
            refused: Arc::default(),
        }
    }

    /// Takes an envelope without waiting.
    ///
    /// # Errors
    /// When it cannot be taken; the envelope is then dropped and counted.
    pub fn try_emit(&self, envelope: impl Into<v2::Envelope>) -> Result<(), EmitError> {
        let mut envelope = envelope.into();
        self.tag(&mut envelope);
        self.pool.try_send_envelope(&envelope).map_err(|error| {
            self.refused.fetch_add(1, Ordering::Relaxed);
            error.into()
        })
    }

    /// Takes an envelope, waiting for room in the buffer if need be. May be cancelled; the envelope is then not taken and
    /// not counted.
    ///
    /// # Errors
    /// When the envelope is too large or the emitter is closed; it is then dropped and counted.
    pub async fn emit(&self, envelope: impl Into<v2::Envelope>) -> Result<(), EmitError> {
        let mut envelope = envelope.into();
        self.tag(&mut envelope);
        loop {
            match self.pool.try_send_envelope(&envelope) {
                Err(SendError::Full) => {
                    self.pool.room(prost::Message::encoded_len(&envelope)).await
                }
                Err(error) => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    return Err(error.into());
                }
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Waits until the connection took everything; false when the time is up first.
    pub async fn flush(&self, within: Duration) -> bool {
        self.pool.flush(within).await
    }

    /// Sends what waits, ends the stream and waits for the agent to have read it; what cannot be sent in time is dropped
    /// and counted. The emitter takes nothing more.
    pub async fn close(&self, within: Duration) -> EmitterStats {
        self.pool.close(within).await;
        self.stats()
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> EmitterStats {
        let report = self.pool.report();
        let (total, pending) = (report.total(), report.pending());
        let refused = self.refused.load(Ordering::Relaxed);
        EmitterStats {
            emitted: total.received + refused,
            sent: total.delivered,
            dropped: total.dropped_total() + refused,
            pending,
            in_doubt: total.in_doubt,
        }
    }

    fn tag(&self, envelope: &mut v2::Envelope) {
        for (name, value) in self.tags.iter() {
            envelope
                .tags
                .entry(name.clone())
                .or_insert_with(|| value.clone());
        }
    }
}

impl From<SendError> for EmitError {
    fn from(error: SendError) -> EmitError {
        match error {
            SendError::Full => EmitError::Full,
            SendError::TooLarge => EmitError::TooLarge,
            SendError::Closed => EmitError::Closed,
        }
    }
}
