//! What one run is asked to do.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::certs::Files;
use crate::emit::Pace;
use crate::http2::Windows;
use crate::workload::Shape;

/// Who reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Readers {
    /// So many v2 firehoses, each with a shard id of its own.
    Firehoses(usize),
    /// So many v2 subscribers of one source each.
    Tails(usize),
    /// One v2 shard id with so many members.
    Members(usize),
    /// So many v1 firehoses, each with a subscription id of its own, through a traffic controller.
    WebSockets(usize),
    /// As firehoses, through a reverse log proxy.
    Proxied(usize),
}

impl Readers {
    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::Firehoses(n)
            | Self::Tails(n)
            | Self::Members(n)
            | Self::WebSockets(n)
            | Self::Proxied(n) => *n,
        }
    }
}

/// What is driven.
#[derive(Clone, Debug)]
pub enum Target {
    /// Commands to start: of the doppler, of the traffic controller when WebSockets are read, of the reverse log proxy when
    /// one is read. See [`Places`](crate::process::Places).
    Start {
        /// Shown in reports.
        name: String,
        /// The doppler or relay.
        doppler: String,
        /// The traffic controller.
        controller: Option<String>,
        /// The reverse log proxy.
        proxy: Option<String>,
    },
    /// Servers that run already.
    Running {
        /// The doppler.
        doppler: SocketAddr,
        /// The traffic controller or the reverse log proxy.
        front: Option<SocketAddr>,
        /// An identity they accept.
        files: Files,
        /// Processes to watch, by id.
        pids: Vec<u32>,
    },
}

/// All of one run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is driven.
    pub target: Target,
    /// The envelopes.
    pub shape: Shape,
    /// When they are sent.
    pub pace: Pace,
    /// Who reads.
    pub readers: Readers,
    /// Flow control of v2 readers.
    pub windows: Windows,
    /// Sent but not measured, at the beginning.
    pub warmup: Duration,
    /// Measured.
    pub time: Duration,
    /// Bound of the doppler's log, for commands that say `{log_bytes}`.
    pub log_bytes: u64,
    /// The first reader stops reading for this long at the start of the measured time.
    pub stall: Option<Duration>,
    /// The first reader reads no more than so many envelopes per second.
    pub slow: Option<f64>,
    /// One more stream sends so many envelopes per second, singly, of a source of its own.
    pub quiet: Option<f64>,
    /// Whether v2 readers prefer `tags`; otherwise a reverse log proxy moves them to `deprecated_tags`.
    pub preferred_tags: bool,
    /// `Authorization` of WebSockets.
    pub token: Option<String>,
    /// Whether WebSockets use TLS.
    pub secure_websockets: bool,
}

impl Plan {
    /// All emitting streams, the quiet one included.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.shape.streams + usize::from(self.quiet.is_some())
    }
}

impl Plan {
    /// How much each group should have seen when stream `i` sent `sent[i]`.
    #[must_use]
    pub fn expected(&self, sent: &[u64]) -> Vec<u64> {
        match self.readers {
            Readers::Tails(n) => (0..n)
                .map(|i| {
                    sent.iter()
                        .take(self.shape.streams)
                        .map(|s| self.shape.sent_of_source(i % self.shape.sources, *s))
                        .sum()
                })
                .collect(),
            Readers::Members(_) => vec![sent.iter().sum()],
            Readers::Firehoses(n) | Readers::WebSockets(n) | Readers::Proxied(n) => {
                vec![sent.iter().sum(); n]
            }
        }
    }
}
