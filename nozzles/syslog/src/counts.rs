//! What a destination counts of itself.

use std::io;

use loggregator_service::metrics::{Metrics, names};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Counts of one destination. Their label `destination` has its name.
#[derive(Debug)]
pub(crate) struct Counts {
    /// Name of the destination.
    pub destination: String,
    messages: AtomicU64,
    bytes: AtomicU64,
    again: AtomicU64,
    connections: AtomicU64,
    connected: AtomicBool,
    unacknowledged: AtomicU64,
    failures: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counts {
    /// Counts that are part of these metrics.
    pub fn new(destination: &str, metrics: &Metrics) -> Arc<Counts> {
        let counts = Arc::new(Counts {
            destination: destination.to_owned(),
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            again: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            connected: AtomicBool::new(false),
            unacknowledged: AtomicU64::new(0),
            failures: Mutex::default(),
        });
        let shown = Arc::clone(&counts);
        metrics.collect(move |samples| {
            let labels = [("destination", shown.destination.as_str())];
            for (def, value) in [
                (&names::SYSLOG_MESSAGES, &shown.messages),
                (&names::SYSLOG_BYTES, &shown.bytes),
                (&names::SYSLOG_AGAIN, &shown.again),
                (&names::SYSLOG_CONNECTIONS, &shown.connections),
            ] {
                samples.counter(def, &labels, value.load(Relaxed));
            }
            let connected = f64::from(u8::from(shown.connected.load(Relaxed)));
            samples.gauge(&names::SYSLOG_CONNECTED, &labels, connected);
            let open = shown.unacknowledged.load(Relaxed) as f64;
            samples.gauge(&names::SYSLOG_UNACKNOWLEDGED, &labels, open);
            for (reason, value) in &*shown.failures.lock() {
                let labels = [labels[0], ("reason", *reason)];
                samples.counter(&names::SYSLOG_FAILURES, &labels, *value);
            }
        });
        counts
    }

    /// Messages were written, for the first time or `again`.
    pub fn written(&self, messages: usize, bytes: usize, again: bool) {
        self.messages.fetch_add(messages as u64, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
        if again {
            self.again.fetch_add(messages as u64, Relaxed);
        }
    }

    pub fn connected(&self) {
        self.connections.fetch_add(1, Relaxed);
        self.connected.store(true, Relaxed);
    }

    pub fn disconnected(&self) {
        self.connected.store(false, Relaxed);
        self.unacknowledged(0);
    }

    /// Connecting failed.
    pub fn not_connected(&self, reason: &'static str) {
        *self.failures.lock().entry(reason).or_default() += 1;
    }

    /// A connection broke.
    pub fn broken(&self, error: &io::Error) {
        self.disconnected();
        self.not_connected(match error.kind() {
            io::ErrorKind::UnexpectedEof => "closed",
            io::ErrorKind::TimedOut => "timeout",
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "reset",
            _ => "broken",
        });
    }

    pub fn unacknowledged(&self, bytes: u64) {
        self.unacknowledged.store(bytes, Relaxed);
    }
}
