//! Benches: the load generator, the floor it compares with, and the scenarios whose figures are recorded.
//!
//! One run starts a server in a process of its own, with certificates of its own, and drives it over mutual TLS and
//! gRPC as agents and nozzles do:
//!
//! - [`workload`] encodes the envelopes once; [`emit`] stamps and sends them, paced without drift or as fast as the
//!   server takes them;
//! - [`subscribe`] (gRPC v2) and [`websocket`] (v1) read what comes out, and [`receive`] finds the stamps in it
//!   without decoding; [`tracker`] makes loss, duplicates and order of them, [`histogram`] latency;
//! - [`process`] reads from the kernel what CPU and memory the server took;
//! - [`plan`] says what a run shall do, [`run`] puts it together, [`report`] says what came of it;
//! - [`scenario`] makes the recorded cases of many runs: server and floor in turn, in the same minutes.
//!
//! [`proof`] is about nozzles: what becomes of envelopes when peers are stopped, the nozzle is killed, and its buffer is full.
//!
//! The floor is [`relay`]: the same bytes over the same protocols through a program that looks at nothing. A figure
//! that is recorded is a ratio to it, since absolute figures do not carry to another machine, nor to the next hour.

pub mod certs;
pub mod commands;
pub mod control;
pub mod emit;
pub mod histogram;
pub mod http2;
pub mod plan;
pub mod process;
pub mod proof;
pub mod receive;
pub mod relay;
pub mod report;
pub mod run;
pub mod scenario;
mod sides;
pub mod subscribe;
pub mod table;
mod target;
pub mod text;
pub mod tls;
pub mod tracker;
pub mod websocket;
pub mod workload;

/// Something that made a run impossible, in words for the person who started it.
#[derive(Debug)]
pub struct BenchError(String);

impl BenchError {
    /// An error that says `what`.
    #[must_use]
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl std::fmt::Display for BenchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BenchError {}
