//! Who may read, through a real traffic controller that asks a stand-in for UAA and one for the Cloud Controller.
#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

mod answers;
mod failures;
mod gateway;
mod local;
mod log;
mod rig;
mod storm;
