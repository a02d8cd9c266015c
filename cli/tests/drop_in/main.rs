//! The programs that stand in for the platform's Go programs, started as its tests and its jobs start them: with
//! environment variables and nothing else.

// Helpers of tests may unwrap as tests do: a panic is the report.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod certificates;
mod deployment;
mod pages;
mod process;
mod rlp;
mod rlp_gateway;
mod router;
mod traffic_controller;
