//! wip
#![allow(dead_code)]
mod demo;
mod exit;
mod output;
mod state;
mod view;
fn main() {}
