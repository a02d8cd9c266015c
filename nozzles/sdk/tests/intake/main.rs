//! Every intake at a whole deployment, and names from a Cloud Controller: restarts of either side, selection, tokens.
//!
//! One program, so that it is linked once. Each test has a deployment of its own, on ports of its own.

// Helpers of tests may unwrap as tests do: a panic is the report.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod gateway;
mod names;
mod reader;
mod rlp;
mod websocket;
