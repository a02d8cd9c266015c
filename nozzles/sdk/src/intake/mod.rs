//! Where envelopes come from.
//!
//! An intake subscribes, stays subscribed through failures of the other side, and yields batches as they came. What is not
//! asked for is not read: it stays at the doppler, under the nozzle's named cursor, and is counted there should it be lost.
//!
//! | intake | reads | selects at the doppler by |
//! | --- | --- | --- |
//! | `rlp` | a reverse log proxy's or dopplers' v2 batches, as they are | kind and source id |
//! | `websocket` | a traffic controller's v1 envelopes, converted | logs, or all but logs |
//! | `gateway` | a gateway's JSON, converted | kind and source id |
//! | `in_process` | the pipeline of the same process | kind and source id |
//!
//! What a selection asks for and the other side cannot leave out is left out here.

pub(crate) mod address;
mod credentials;
mod gateway;
mod in_process;
mod monitor;
pub(crate) mod oauth;
mod rlp;
mod select;
mod watch;
mod websocket;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use loggregator_proto::v2::EgressBatchRequest;
use loggregator_service::Lifecycle;
use loggregator_service::metrics::Metrics;

pub use in_process::{Envelopes, Opening, Upstream};
pub use monitor::{Monitor, Status, TokenState};
pub(crate) use select::check_shard_id;
pub use select::request;

use crate::config::{IntakeConfig, Size};

/// A subscription to everything that the nozzle wants.
pub trait Intake: Send {
    /// The next encoded `loggregator.v2.EnvelopeBatch`. `None`: there will never be another.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>>;

    /// Asks for no more. [`poll_next`](Intake::poll_next) yields what has already arrived, and then `None`.
    fn stop(&mut self);

    /// How it is, for those who do not hold the intake.
    fn monitor(&self) -> Arc<Monitor>;

    /// How it is.
    fn status(&self) -> Status {
        self.monitor().status()
    }
}

/// An intake cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IntakeError {
    /// Its certificates cannot be used.
    #[error("{key}: {source}")]
    Tls {
        /// Where in the configuration.
        key: String,
        /// What is wrong with them.
        source: loggregator_net::TlsError,
    },
    /// `[intake.in_process]`, or no `[intake]`, in a program that holds no pipeline.
    #[error(
        "there is no pipeline in this process: say in [intake.rlp], [intake.websocket] or [intake.gateway] where one is"
    )]
    NoPipeline,
    /// `select` asks for what there is not.
    #[error("select.kinds: `{0}` is none of log, counter, gauge, timer, event")]
    Kind(String),
    /// Nothing is asked for: no destination can do anything with any kind that `select` leaves.
    #[error("select.kinds: nothing is left that a destination accepts")]
    Nothing,
    /// The subscription cannot have this name.
    #[error("select.shard_id: {0:?} cannot name a subscription: {1}")]
    ShardId(String, &'static str),
    /// `select` asks for what this intake cannot give.
    #[error(
        "select.deterministic_name: a WebSocket's members share at random; use [intake.rlp] or [intake.gateway]"
    )]
    Deterministic,
    /// An address cannot be used.
    #[error("{key}: {reason}")]
    Address {
        /// Where in the configuration.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There are two tokens.
    #[error("{0}: give either a token or [{0}.oauth]")]
    TwoTokens(&'static str),
    /// Tokens cannot be had in the way that is configured.
    #[error("{key}: {reason}")]
    Oauth {
        /// Where in the configuration.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Checks what can be checked without touching a file or the network: addresses, and that the intake can do what is asked of
/// it. [`open`] does so too.
///
/// # Errors
/// See [`IntakeError`].
pub fn check(config: &IntakeConfig, request: &EgressBatchRequest) -> Result<(), IntakeError> {
    match config {
        IntakeConfig::Rlp(_) | IntakeConfig::InProcess(_) => Ok(()),
        IntakeConfig::WebSocket(config) => websocket::check(config, request),
        IntakeConfig::Gateway(config) => gateway::check(config),
    }
}

fn bytes(size: Size) -> usize {
    usize::try_from(size.0).unwrap_or(usize::MAX)
}

/// Makes the intake that the configuration asks for. Without any envelope for `max_silence` its streams are opened again;
/// zero: never. Must be called within a tokio runtime.
///
/// # Errors
/// See [`IntakeError`].
pub async fn open(
    config: &IntakeConfig,
    request: EgressBatchRequest,
    max_silence: Duration,
    upstream: Option<Arc<dyn Upstream>>,
    metrics: &Metrics,
    lifecycle: &Lifecycle,
) -> Result<Box<dyn Intake>, IntakeError> {
    check(config, &request)?;
    let monitor = Arc::new(Monitor::default());
    let source: Box<dyn watch::Source> = match config {
        IntakeConfig::Rlp(config) => {
            Box::new(rlp::Rlp::open(config, request, &monitor, lifecycle).await?)
        }
        IntakeConfig::WebSocket(config) => Box::new(websocket::WebSocket::open(
            config, &request, &monitor, lifecycle,
        )?),
        IntakeConfig::Gateway(config) => Box::new(gateway::Gateway::open(
            config, &request, &monitor, lifecycle,
        )?),
        IntakeConfig::InProcess(_) => {
            let upstream = upstream.ok_or(IntakeError::NoPipeline)?;
            let monitor = Arc::clone(&monitor);
            Box::new(in_process::InProcess::new(upstream, request, monitor))
        }
    };
    Monitor::publish(&monitor, metrics);
    Ok(Box::new(watch::Watched::new(source, monitor, max_silence)))
}
