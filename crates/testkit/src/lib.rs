//! Whole pipelines in one process, for tests.
//!
//! A [`Pipeline`] is an agent, dopplers and a traffic controller on ports that the system gives, with certificates of
//! its own; each component is a [`Part`] that can be stopped, killed and started again under the same address. A
//! [`Load`] sends numbered lines and knows which were taken; a [`Consumer`] reads any of the three ways (v2 gRPC, v1
//! gRPC, WebSocket) and knows what came twice, out of order, or not at all. [`assert_ledger_balanced`] checks the
//! equation that every component owes: received = delivered + dropped + pending. [`platform`] stands for UAA and the Cloud
//! Controller.

mod certs;
mod consumer;
mod ledger;
mod load;
mod log_line;
mod part;
mod pipeline;
pub mod platform;
mod sequence;
mod sse;
mod stages;

pub use certs::{Certs, NAMES};
pub use consumer::Consumer;
pub use ledger::{assert_ledger_balanced, fetch, get, imbalances, sum};
pub use load::Load;
pub use log_line::log_line;
pub use part::{Part, Stage};
pub use pipeline::{Builder, Pipeline, TOKEN};
pub use sequence::{Arrived, Checker, Numbering};
pub use sse::{SseEvent, SseStream};
pub use stages::{AgentStage, DopplerStage, GatewayStage, RlpStage, WebStage};

use std::time::{Duration, Instant};

/// How long [`eventually`] waits: 30 s, or as many seconds as the variable `LOGGREGATOR_TEST_PATIENCE` says.
pub fn patience() -> Duration {
    let seconds = std::env::var("LOGGREGATOR_TEST_PATIENCE")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(30);
    Duration::from_secs(seconds)
}

/// Waits until the condition holds.
///
/// # Panics
/// When it does not in time; `what` is the message.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + patience();
    while !holds().await {
        assert!(
            Instant::now() < deadline,
            "it did not come true within {:?}: {what}",
            patience()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
