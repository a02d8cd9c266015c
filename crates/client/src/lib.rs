//! The client library for emitters and consumers.
//!
//! Both ends of the data path meet here. An emitter makes envelopes with [`message`] and hands them to an [`Emitter`];
//! a consumer says with [`Selectors`] what it wants.

mod consume;
mod merge;
pub mod message;
pub mod rendezvous;
mod selectors;
mod set;
pub mod ws;

pub use consume::{EgressStream, V1Stream, payloads};
pub use merge::{Batch, Records, Retry, StreamStats, Unread};
pub use selectors::Selectors;
pub use set::{AGENT, Connector, DOPPLER, DopplerSet, Peer, Peers, REVERSE_LOG_PROXY};
