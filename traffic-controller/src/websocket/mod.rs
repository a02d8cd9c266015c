//! The traffic controller proper: v1 envelopes to people and nozzles, over WebSockets.
//!
//! The front door answers what is no stream, asks for access, limits how many streams there are, and upgrades the
//! connection. The relay then takes a batch when the client's line is free and gives each payload, a v1 envelope that is
//! never decoded, to the WebSocket as one binary message; it pings, listens for the end, and cuts a client that does not
//! read.

use crate::accounts::{Endpoint, Program};

mod app;
mod config;
mod front;
mod metrics;
pub(crate) mod records;
mod relay;
mod security_log;
mod self_metrics;
mod settings;
mod subscribed;
pub(crate) mod web;

pub use app::{Error, Running, start};
pub use config::Config;
pub use relay::Timing;
pub use security_log::SecurityEventLog;
pub use settings::{PREFIX, SETTINGS};

/// This program in the ledger.
const PROGRAM: Program = Program {
    component: "traffic-controller",
    api: "websocket",
    endpoints: &["firehose", "stream"],
};

/// `/firehose/{subscription-id}`.
const FIREHOSE: Endpoint = 0;
/// `/apps/{app-id}/stream`.
const STREAM: Endpoint = 1;
