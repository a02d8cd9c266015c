//! The doppler: takes envelopes in, keeps them in one byte-bounded log, and gives them to whoever
//! subscribed.
//!
//! ```text
//!  agents ──► ingress ──► Router: log, groups, selections ──► egress ──► traffic controllers, nozzles
//!             frames       append never waits               polled when a line is free
//! ```
//!
//! [`router`] is the heart and knows nothing of the network. Around it, [`start`] puts the two sides of
//! a gRPC server (`ingress`: v2 `Sender`, `BatchSender`, `Send`, v1 `Pusher`; `egress`: v2 `BatchedReceiver`,
//! `Receiver`, v1 `BatchSubscribe`, `Subscribe`) on one mutual-TLS port, its own metrics into the
//! pipeline, and an admin port beside it.
//!
//! What is refused or lost has a number in the ledger ([`Running::report`], `GET /ledger`).

mod app;
mod config;
mod egress;
mod ingress;
mod metrics;
mod refused;
pub mod router;
mod rpc;
mod self_metrics;

pub use app::{Error, Running, start};
pub use config::{Config, PREFIX, SETTINGS};
pub use router::{Router, Stats};
