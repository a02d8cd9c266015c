//! The nozzle against an Apache Kafka broker, started by these tests.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests"
)]

mod broker;
mod compliance;
mod exactly_once;
mod mapping;
mod outcomes;
mod recovery;
mod secure;
mod support;
