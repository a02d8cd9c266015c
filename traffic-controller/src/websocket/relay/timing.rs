//! Times and sizes of a client's connection.

use std::time::Duration;

/// Times and sizes of a client's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// From a pong to the next ping.
    pub ping_interval: Duration,
    /// From a ping to the latest moment for its pong; then the client is closed with 1008.
    pub pong_deadline: Duration,
    /// A connection that takes no byte for this long is a slow consumer: counted, reported, fed no more.
    pub slow_after: Duration,
    /// A connection that takes no byte for this long is dropped.
    pub drop_after: Duration,
    /// How long the closing handshake may take.
    pub close_within: Duration,
    /// How long a client may take, when the process stops, for what was already received for it.
    pub drain_within: Duration,
    /// Bytes that are collected before they are written to the connection.
    pub write_buffer: usize,
    /// The largest payload of one envelope; it is the dopplers' largest message.
    pub max_payload: usize,
    /// The largest message of a client. Clients have nothing to say, so this only bounds memory.
    pub max_client_message: usize,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(15),
            pong_deadline: Duration::from_secs(30),
            slow_after: Duration::from_secs(5),
            drop_after: Duration::from_secs(6),
            close_within: Duration::from_secs(1),
            drain_within: Duration::from_secs(3),
            write_buffer: 64 << 10,
            max_payload: 10 << 20,
            max_client_message: 64 << 10,
        }
    }
}
