//! wip
#![allow(dead_code)]
mod demo;
mod exit;
mod state;
fn main() {}
