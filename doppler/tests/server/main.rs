//! A real doppler on an ephemeral port, driven over mutual TLS by our own gRPC client.
//!
//! One program for all of these tests, since linking a server costs more than running them.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod harness;

mod calls;
mod egress;
mod ingress;
mod ledger;
mod limits;
mod python;
mod robustness;
mod router_suite;
mod self_metrics;
mod stop;
