//! A whole reverse log proxy over real ports: real gRPC clients on one side, dopplers made for the test on the other.
#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

mod agent;
#[path = "../stack/certs.rs"]
mod certs;
mod doppler;
mod limits;
mod rig;
mod slow;
mod stop;
mod streams;
