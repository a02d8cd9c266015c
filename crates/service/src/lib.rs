//! What every program of the pipeline needs around its data path: configuration, supervision and drain,
//! metrics, the ledger, the admin server and process logs.
//!
//! Nothing here sees an envelope. A stage reads its [`config`], starts its tasks on a [`Lifecycle`], counts with
//! plain atomics that [`metrics::Metrics`] collects at scrape time, answers [`ledger::Source`] with what it received,
//! delivered and dropped, and is looked at through [`admin::Admin`]. Everything is passed down through constructors;
//! the only process-wide state is the log subscriber, which `tracing` makes process-wide anyway.
//!
//! | module | is |
//! | --- | --- |
//! | [`config`] | settings tables, environment sources, Go's parsing rules, all errors at once |
//! | [`lifecycle`] | named tasks, restart policy, ordered drain with a deadline, signals |
//! | [`metrics`] | registry, the one table of metric names, scrape-time collection, Prometheus text |
//! | [`ledger`] | received = delivered + dropped + pending, per subscription and reason |
//! | [`admin`] | loopback HTTP: metrics, health, readiness, ledger, version, log level |
//! | [`logging`] | text, JSON and Go-shaped process logs, filter reload, rate limit per call site |

pub mod admin;
pub mod config;
pub mod ledger;
pub mod lifecycle;
pub mod logging;
pub mod metrics;

pub use lifecycle::{Lifecycle, RestartPolicy};
