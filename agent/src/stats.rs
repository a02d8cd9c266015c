//! What came in, per input: plain counters, touched once per frame.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Where envelopes come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    Grpc,
    Udp,
    SyslogUdp,
    SyslogTcp,
    File,
    Stdin,
    /// What the agent itself has to say.
    Own,
}

impl Port {
    pub(crate) const ALL: [Port; 7] = [
        Port::Grpc,
        Port::Udp,
        Port::SyslogUdp,
        Port::SyslogTcp,
        Port::File,
        Port::Stdin,
        Port::Own,
    ];

    /// The value of the `input` label.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Port::Grpc => "grpc",
            Port::Udp => "udp",
            Port::SyslogUdp => "syslog_udp",
            Port::SyslogTcp => "syslog_tcp",
            Port::File => "file",
            Port::Stdin => "stdin",
            Port::Own => "own",
        }
    }
}

/// Counts of one input.
#[derive(Debug, Default)]
pub(crate) struct PortStats {
    pub accepted: AtomicU64,
    pub bytes: AtomicU64,
    rejected: Mutex<BTreeMap<&'static str, u64>>,
}

impl PortStats {
    /// Counts refused envelopes. `reason` is one of a fixed set.
    pub(crate) fn reject(&self, reason: &'static str, envelopes: u64) {
        if envelopes > 0 {
            *self.rejected.lock().entry(reason).or_default() += envelopes;
        }
    }

    pub(crate) fn rejected(&self) -> BTreeMap<&'static str, u64> {
        self.rejected.lock().clone()
    }
}

/// All counts of the agent that are not its pool's.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    ports: [PortStats; Port::ALL.len()],
    /// Envelopes that got their source id from the tag `origin`.
    pub origin_mappings: AtomicU64,
    /// Lines and syslog messages that were longer than the limit: in several pieces, or without their end.
    pub lines_split: AtomicU64,
    pub lines_truncated: AtomicU64,
    /// Lines without text, which are left out.
    pub lines_blank: AtomicU64,
    /// Syslog connections.
    pub syslog_open: AtomicU64,
    pub syslog_accepted: AtomicU64,
    pub syslog_refused: AtomicU64,
    pub files: AtomicU64,
    /// Datagrams that the kernel dropped because nobody read fast enough.
    pub udp_kernel_drops: AtomicU64,
    pub syslog_udp_kernel_drops: AtomicU64,
}

impl Stats {
    pub(crate) fn port(&self, port: Port) -> &PortStats {
        &self.ports[port as usize]
    }
}

/// Adds to a counter that nothing else is ordered by.
pub(crate) fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// Reads one.
pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
