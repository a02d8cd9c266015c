//! A whole gateway over real ports: HTTP clients on one side, a reverse log proxy made for the test on the other.
#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

mod answers;
#[path = "../stack/certs.rs"]
mod certs;
mod client;
mod floods;
mod proxy;
mod rig;
mod streams;
mod timeout;
mod tls;
