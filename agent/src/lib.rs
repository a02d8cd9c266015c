//! Everything on the emitter's machine.
//!
//! ```text
//! gRPC v2 ───────────────┐
//! dropsonde UDP ─ v1→v2 ─┤          (on the connection's task)          (one worker per doppler)
//! syslog UDP, TCP ───────┼─► source id, tags, totals ─► split by source ─► queue ─► BatchSender ─► doppler
//! files, standard input ─┘            by bytes            rendezvous      bounded
//! ```
//!
//! - The network is never held up: what does not fit into the buffer is dropped, oldest first, and counted. Files and
//!   standard input can be read later, so they wait instead.
//! - Frames stay bytes. One that needs nothing passes as it came; otherwise each envelope is copied once, with bytes put
//!   before and behind it. Nothing is decoded but counters, whose totals are kept.
//! - What was dropped is told downstream as a counter `dropped`, in the ledger, in metrics and in the process log.
//!
//! [`start`] runs an agent inside a [`Lifecycle`](loggregator_service::Lifecycle).

mod app;
mod config;
mod dropsonde;
mod encode;
mod grpc;
mod input;
mod intake;
mod lines;
mod notice;
mod observe;
mod stats;
mod syslog;
mod totals;
mod udp;

pub use app::{Error, Running, start};
pub use config::{
    Config, From, Input, InputKind, LineConfig, PREFIX, SETTINGS, SyslogConfig, V1Defaults,
};
pub use lines::LongLines;
