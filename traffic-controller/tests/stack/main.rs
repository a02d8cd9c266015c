//! A whole traffic controller over real ports: real WebSocket clients on one side, dopplers made for the test on the other.

mod agent;
mod answers;
mod certs;
mod client;
mod doppler;
mod python;
mod rig;
mod slow;
mod streams;
