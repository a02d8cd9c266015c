//! The gateway of the reverse log proxy: v2 envelopes as JSON, over HTTP, as server-sent events.
//!
//! The front door asks for access, reads the query, limits how many streams there are, and opens a stream at the provider.
//! The response's body is then pulled by the client's connection: it takes a batch from the provider when the line is free
//! and writes it as JSON straight from the batch's bytes.
//!
//! A response ends after its time. What the provider has sent for it by then is not given up: the subscription is parked
//! and the client, when it comes back, goes on with it.

use crate::accounts::{Endpoint, Program};

mod access_log;
mod answers;
mod app;
mod config;
mod front;
mod grpc;
mod metrics;
mod parked;
mod query;
mod settings;
mod stream;
#[cfg(test)]
mod tests;

pub use app::{Error, Running, start};
pub use config::{Config, Logs, MetricsEndpoint};
pub use settings::{PREFIX, SETTINGS};

/// This program in the ledger.
const PROGRAM: Program = Program {
    component: "rlp-gateway",
    api: "sse",
    endpoints: &["read"],
};

/// `/v2/read`.
const READ: Endpoint = 0;
