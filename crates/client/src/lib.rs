//! The client library for emitters and consumers.
//!
//! Both ends of the data path meet here. An emitter makes envelopes with [`message`] and hands them to an [`Emitter`];
//! a consumer says with [`Selectors`] what it wants.

pub mod message;
pub mod rendezvous;
mod selectors;

pub use selectors::Selectors;
