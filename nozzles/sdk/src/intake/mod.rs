//! Where envelopes come from.
//!
//! An intake subscribes, stays subscribed through failures of the other side, and yields batches as they came. What is not
//! asked for is not read: it stays at the doppler, under the nozzle's named cursor, and is counted there should it be lost.

mod in_process;
mod rlp;

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use loggregator_client::Selectors;
use loggregator_envelope::{Kind, KindSet};
use loggregator_proto::v2::EgressBatchRequest;
use loggregator_service::Lifecycle;

pub use in_process::{Envelopes, Opening, Upstream};

use crate::config::{IntakeConfig, SelectConfig};

/// A subscription to everything that the nozzle wants.
pub trait Intake: Send {
    /// The next encoded `loggregator.v2.EnvelopeBatch`. `None`: there will never be another.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>>;

    /// How it is.
    fn status(&self) -> Status;
}

/// How an intake is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Streams that stand.
    pub open: usize,
    /// Streams that ended and were or will be opened again.
    pub reconnects: u64,
    /// How the latest of them ended.
    pub last_error: Option<String>,
}

/// An intake cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// Its certificates cannot be used.
    #[error("intake")]
    Tls(#[from] loggregator_net::TlsError),
    /// `[intake.in_process]`, or no `[intake]`, in a program that holds no pipeline.
    #[error(
        "there is no pipeline in this process: say in [intake.rlp], [intake.websocket] or [intake.gateway] where one is"
    )]
    NoPipeline,
    /// `select` asks for what there is not.
    #[error("select.kinds: `{0}` is none of log, counter, gauge, timer, event")]
    Kind(String),
}

/// Makes the intake that the configuration asks for.
///
/// # Errors
/// See [`IntakeError`].
pub async fn open(
    config: &IntakeConfig,
    request: EgressBatchRequest,
    upstream: Option<Arc<dyn Upstream>>,
    lifecycle: &Lifecycle,
) -> Result<Box<dyn Intake>, IntakeError> {
    match config {
        IntakeConfig::Rlp(config) => {
            Ok(Box::new(rlp::Rlp::open(config, request, lifecycle).await?))
        }
        IntakeConfig::InProcess(_) => match upstream {
            Some(upstream) => Ok(Box::new(in_process::InProcess::new(upstream, request))),
            None => Err(IntakeError::NoPipeline),
        },
        IntakeConfig::WebSocket(_) | IntakeConfig::Gateway(_) => Err(IntakeError::NoPipeline),
    }
}

/// What is asked of the dopplers. `shard` is the subscription's name unless `select` has one; `wanted` are the kinds asked
/// for unless it has those: what the destinations can use.
///
/// # Errors
/// When `select` names a kind that there is not.
pub fn request(
    select: &SelectConfig,
    shard: &str,
    wanted: KindSet,
) -> Result<EgressBatchRequest, IntakeError> {
    let mut selectors = Selectors::new().shard(select.shard_id.as_deref().unwrap_or(shard));
    if let Some(name) = &select.deterministic_name {
        selectors = selectors.deterministic(name);
    }
    let names: Vec<&str> = match select.kinds.as_slice() {
        [] => [
            Kind::Log,
            Kind::Counter,
            Kind::Gauge,
            Kind::Timer,
            Kind::Event,
        ]
        .into_iter()
        .filter(|kind| wanted.contains(*kind))
        .map(Kind::name)
        .collect(),
        some => some.iter().map(String::as_str).collect(),
    };
    for name in names {
        selectors = match name {
            "log" => selectors.logs(),
            "counter" => selectors.counters(),
            "gauge" => selectors.gauges(),
            "timer" => selectors.timers(),
            "event" => selectors.events(),
            other => return Err(IntakeError::Kind(other.to_owned())),
        };
    }
    let mut request = selectors.request();
    request.use_preferred_tags = true;
    Ok(request)
}
