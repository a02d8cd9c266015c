//! The client library for emitters and consumers.
//!
//! Both ends of the data path meet here.
//!
//! - An emitter makes envelopes with [`message`] and hands them to an [`Emitter`], which sends them to an agent.
//! - An agent sends frames to dopplers with a [`DopplerPool`].
//! - A consumer says with [`Selectors`] what it wants and reads an [`EgressStream`] (v2), or a [`V1Stream`], from all
//!   dopplers of a [`DopplerSet`]; or, from outside, a [`ws::WsStream`] of the traffic controller.
//!
//! All of them connect by themselves, connect again with a backoff, hold a bounded number of bytes, and count what they
//! lose. None of them decodes what it need not.

mod consume;
mod emitter;
mod merge;
pub mod message;
mod pool;
pub mod rendezvous;
mod selectors;
mod set;
pub mod ws;

pub use consume::{EgressStream, V1Stream, payloads};
pub use emitter::{EmitError, Emitter, EmitterConfig, EmitterStats};
pub use merge::{Batch, Records, Retry, StreamStats, Unread};
pub use pool::{Counts, DopplerPool, DropReason, LinkReport, PoolReport, PoolSettings};
pub use selectors::Selectors;
pub use set::{AGENT, Connector, DOPPLER, DopplerSet, Peer, Peers, REVERSE_LOG_PROXY};
