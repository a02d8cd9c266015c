//! Where readers come to: the traffic controller's WebSockets, the reverse log proxy and its HTTP gateway, merged from all
//! dopplers.
//!
//! What one client's data passes, in order:
//!
//! 1. [`access`] decides whether the bearer of the request's token may read it;
//! 2. the front door of the [`websocket`] port answers what is no stream, limits how many there are, and upgrades the
//!    connection;
//! 3. the upstream subscribes at every doppler on the connection that all subscriptions share, and merges the streams;
//!    clients with equal requests share one subscription;
//! 4. the relay takes a batch when the client's line is free;
//! 5. the accounts note what was received, delivered and dropped, and why.
//!
//! Nothing here queues: what a client does not take stays in its stream's window, then in the doppler's log, which counts
//! what falls out. The one exception is what the slower of several readers of one shared subscription still have to take.
//! [`start`] runs it all as tasks of a [`Lifecycle`].
//!
//! The protocol is that of the Go programs of loggregator-release, for their unmodified clients.
//!
//! [`Lifecycle`]: loggregator_service::Lifecycle

pub mod access;
mod accounts;
mod dopplers;
mod emitter;
pub mod gateway;
mod ports;
pub mod provider;
pub mod rlp;
mod upstream;
mod urls;
pub mod websocket;

pub use access::Access;
pub use upstream::SharedLimits;
pub use websocket::{Config, Error, PREFIX, Running, SETTINGS, SecurityEventLog, Timing, start};
