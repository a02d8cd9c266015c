//! The traffic controller: the firehose and the streams of single applications over WebSockets, merged from all dopplers.
//!
//! What one client's data passes, in order:
//!
//! 1. [`access`] decides whether the bearer of the request's token may read it;
//! 2. the front door answers what is no stream, limits how many there are, and upgrades the connection;
//! 3. the upstream subscribes at every doppler on the connection that all subscriptions share, and merges the streams;
//! 4. the relay takes a batch when the client's line is free and gives each payload, a v1 envelope that is never decoded,
//!    to the WebSocket as one binary message; it pings, listens for the end, and cuts a client that does not read;
//! 5. the accounts note what was received, delivered and dropped, and why.
//!
//! Nothing here queues: what a client does not take stays in its stream's window, then in the doppler's log, which counts
//! what falls out. [`start`] runs it all as tasks of a [`Lifecycle`].
//!
//! The protocol is that of the Go traffic controller of loggregator-release, for its unmodified clients.
//!
//! [`Lifecycle`]: loggregator_service::Lifecycle

pub mod access;
mod accounts;
mod app;
mod config;
mod front;
mod metrics;
mod records;
mod relay;
mod self_metrics;
mod upstream;
mod web;

pub use app::{Error, Running, start};
pub use config::{Access, Config, SETTINGS, TrafficControllerArgs};
pub use relay::Timing;
