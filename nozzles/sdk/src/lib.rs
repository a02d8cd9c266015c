//! The framework for nozzles: everything between the firehose and a destination.
//!
//! ```text
//! intake ──► select ──► buffer ──┬─► cursor ─► filter ─► names ─► batch ─► deliver ─► settle   (destination 1)
//! gRPC, WebSocket,      memory   ├─► cursor ─► …                                              (destination 2)
//! SSE, in process       or disk  └─► cursor ─► …
//! ```
//!
//! - The firehose cannot be asked twice. The [`buffer`] is the first point at which anything can be promised: what it has
//!   accepted has a number, and every destination gets to it in the order of the numbers.
//! - Each destination has a cursor of its own, which moves only past what the destination confirmed. A destination that is
//!   away fills its own share of the buffer and nobody else's.
//! - A nozzle author writes a [`Destination`] and a [`Kind`] that reads its part of the [`config`]. Batches,
//!   retries, backoff, dead letters, filters, names, the counts and the metrics are the framework's.
//! - For each destination, `received = delivered + filtered + Σ dropped + dead-lettered + pending`, also after a crash.
//!
//! [`start`] runs a nozzle inside a [`Lifecycle`](loggregator_service::Lifecycle).

mod account;
pub mod answers;
mod base;
pub mod buffer;
mod cases;
pub mod compliance;
pub mod config;
mod dead_letter;
mod destination;
mod dry_run;
pub mod enrich;
mod event;
pub mod fields;
pub mod filter;
pub mod format;
mod health;
pub mod intake;
mod kind;
mod ledger;
mod observe;
mod pages;
mod pipeline;
mod places;
mod program;
mod quota;
mod reload;
mod run;
mod simple;
mod tags;
mod take_in;
mod talkers;
mod tap;
pub mod template;
mod top;

pub use account::Account;
pub use buffer::identity::BufferIdentity;
pub use cases::{CaseReport, Failure, run_tests};
pub use dead_letter::{Letter, ReplayError, Replayed, dead_letters, replay};
pub use destination::{
    BoxFuture, Context, Delivery, Destination, DynDestination, Outcome, Reason, StartError,
};
pub use event::{Batch, Event, Names};
pub use kind::{Kind, Kinds, Limits, Plan, Rendered};
pub use program::main;
pub use reload::{ReloadError, Reloaded};
pub use run::{Error, Running, start};
pub use simple::{Error as SimpleError, Simple};
pub use tags::Tags;
pub use tap::{Tap, TapError};
