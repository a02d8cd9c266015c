//! The reverse log proxy: v2 envelopes over gRPC, merged from all dopplers.
//!
//! A call of `loggregator.v2.Egress` passes the [`proxy`], which answers what cannot be served and limits how many streams
//! there are, and becomes a [`reader`]: it takes batches from the dopplers' merged stream whenever the client's line is
//! free, moves the tags to where the client wants them ([`form`]), and joins what has gathered up to a byte budget. A batch
//! in which nothing has to be moved goes on as the bytes that came in.
//!
//! The HTTP gateway reads the same proxy without a network in between, through [`Running::provider`].

use crate::accounts::{Endpoint, Program};

mod app;
mod config;
mod form;
mod in_process;
mod metrics;
mod notice;
mod proxy;
mod reader;
mod request;
mod self_metrics;
mod service;

pub use app::{Error, Running, start};
pub use config::{Config, PREFIX, SETTINGS};

/// Tag `origin` of what the proxy says about itself.
const ORIGIN: &str = "loggregator.rlp";

/// The gRPC port in the ledger.
const PROGRAM: Program = Program {
    component: "rlp",
    api: "v2",
    endpoints: &["batched_receiver", "receiver"],
};

/// `Egress/BatchedReceiver`.
const BATCHED_RECEIVER: Endpoint = 0;
/// `Egress/Receiver`.
const RECEIVER: Endpoint = 1;

/// Readers in the same process, in the ledger.
const IN_PROCESS: Program = Program {
    component: "rlp",
    api: "in_process",
    endpoints: &["in_process"],
};
