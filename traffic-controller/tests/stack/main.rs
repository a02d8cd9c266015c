//! A whole traffic controller over real ports: real WebSocket clients on one side, dopplers made for the test on the other.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a panic in a test is its report, and a skipped test must be heard"
)]

mod agent;
mod answers;
mod certs;
mod client;
mod doppler;
mod python;
mod rig;
mod slow;
mod streams;
