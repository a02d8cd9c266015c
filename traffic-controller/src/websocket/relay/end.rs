//! How a client's connection ends, and what the client is told.

use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// The reason text of a close for a client that does not answer pings; clients match on it.
const KEEP_ALIVE: &str = "Client did not respond to ping before keep-alive timeout expired.";

/// The reason text of a close for a client whose token is good no longer.
const DENIED: &str = "Authorization is no longer valid.";

/// How a client's connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The client closed, or its connection broke.
    Client,
    /// The client sent what is no WebSocket frame.
    Protocol,
    /// The client sent a message that is larger than allowed.
    TooBig,
    /// No pong in time.
    KeepAlive,
    /// No byte taken in time.
    SlowConsumer,
    /// The dopplers' stream is over.
    Upstream,
    /// The client may read no more.
    Denied,
    /// The process stops.
    Stopped,
}

impl End {
    /// All of them, in the order of their values.
    pub(crate) const ALL: [Self; 8] = [
        Self::Client,
        Self::Protocol,
        Self::TooBig,
        Self::KeepAlive,
        Self::SlowConsumer,
        Self::Upstream,
        Self::Denied,
        Self::Stopped,
    ];

    /// The reason under which undelivered envelopes are booked.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Client => "disconnected",
            Self::Protocol => "protocol_error",
            Self::TooBig => "client_message_too_big",
            Self::KeepAlive => "keep_alive_expired",
            Self::SlowConsumer => "slow_consumer",
            Self::Upstream => "upstream_ended",
            Self::Denied => "denied",
            Self::Stopped => "shutdown",
        }
    }

    /// The close frame that tells the client. A slow consumer gets one only if it takes the write after all.
    pub(super) fn close_frame(self) -> CloseFrame {
        let (code, reason) = match self {
            Self::KeepAlive => (CloseCode::Policy, KEEP_ALIVE),
            Self::Denied => (CloseCode::Policy, DENIED),
            Self::Protocol => (CloseCode::Protocol, ""),
            Self::TooBig => (CloseCode::Size, ""),
            // The Go traffic controller drops its connections when it goes; "going away" is what the standard has for it,
            // while 1000 is read as "too slow" by some consumers.
            Self::Stopped => (CloseCode::Away, ""),
            Self::Client | Self::SlowConsumer | Self::Upstream => (CloseCode::Normal, ""),
        };
        CloseFrame {
            code,
            reason: reason.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_the_order_of_values() {
        for (i, end) in End::ALL.into_iter().enumerate() {
            assert_eq!(end as usize, i);
        }
    }
}
