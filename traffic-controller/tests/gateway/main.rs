//! A whole gateway over real ports: HTTP clients on one side, a reverse log proxy made for the test on the other.
#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

mod answers;
mod client;
mod proxy;
mod rig;
mod streams;
mod timeout;
