//! The set of peers: a fixed list, or DNS names that are resolved again and again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A lookup that takes longer counts as failed.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// The current addresses of a set of peers, each `host:port` as a dialer takes it.
#[derive(Clone, Debug)]
pub struct Addresses {
    current: watch::Receiver<Arc<[String]>>,
}

impl Addresses {
    /// Takes each entry as it is, without duplicates; the set never changes.
    pub fn fixed(entries: impl IntoIterator<Item = String>) -> Self {
        let set: BTreeSet<String> = entries.into_iter().collect();
        let (_sender, current) = watch::channel(set.into_iter().collect());
        Self { current }
    }

    /// Whatever somebody else finds out, `host:port` each. The sender's end means that the set will not change any more.
    pub fn watched(current: watch::Receiver<Arc<[String]>>) -> Self {
        Self { current }
    }

    /// Resolves every `host:port` now and each `every`, until `stop`; the set is the union of what
    /// they resolve to, as `address:port`. An entry that does not resolve keeps its last addresses.
    ///
    /// Returns after the first round, also when nothing was found. The rounds that follow are made by
    /// a task of their own.
    pub async fn resolved(entries: Vec<String>, every: Duration, stop: CancellationToken) -> Self {
        let mut entries: Vec<Entry> = entries.into_iter().map(Entry::new).collect();
        let (sender, current) = watch::channel(round(&mut entries).await);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sender.closed() => return,
                    () = tokio::time::sleep(every) => {}
                }
                let set = round(&mut entries).await;
                sender.send_if_modified(|current| {
                    let changed = *current != set;
                    if changed {
                        tracing::info!(addresses = ?set, "the set of addresses changed");
                        *current = set;
                    }
                    changed
                });
            }
        });
        Self { current }
    }

    /// The set as it is now, sorted, without duplicates.
    pub fn current(&self) -> Arc<[String]> {
        self.current.borrow().clone()
    }

    /// Follows the set. The sender's end means that it will not change any more.
    pub fn watch(&self) -> watch::Receiver<Arc<[String]>> {
        self.current.clone()
    }
}

struct Entry {
    name: String,
    last: Vec<String>,
    failing: bool,
}

impl Entry {
    fn new(name: String) -> Self {
        Self {
            name,
            last: Vec::new(),
            failing: false,
        }
    }

    async fn resolve(&mut self) {
        let found = tokio::time::timeout(LOOKUP_TIMEOUT, lookup_host(&self.name)).await;
        let error = match found {
            Ok(Ok(addresses)) => {
                self.failing = false;
                self.last = addresses.map(|address| address.to_string()).collect();
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => "timed out".into(),
        };
        // Once per outage, not once per round.
        if !self.failing {
            tracing::warn!(name = self.name, error, kept = ?self.last, "name does not resolve");
        }
        self.failing = true;
    }
}

async fn round(entries: &mut [Entry]) -> Arc<[String]> {
    let mut set = BTreeSet::new();
    for entry in entries {
        entry.resolve().await;
        set.extend(entry.last.iter().cloned());
    }
    set.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_list_is_sorted_and_without_duplicates() {
        let addresses = Addresses::fixed(["b:1".into(), "a:1".into(), "b:1".into()]);
        assert_eq!(*addresses.current(), ["a:1", "b:1"]);
    }

    #[tokio::test]
    async fn names_become_addresses_and_a_bad_one_does_not_hurt_the_others() {
        let stop = CancellationToken::new();
        let entries = vec!["127.0.0.1:82".into(), "no port".into()];
        let every = Duration::from_millis(5);
        let addresses = Addresses::resolved(entries, every, stop.clone()).await;
        assert_eq!(*addresses.current(), ["127.0.0.1:82"]);
        let mut watch = addresses.watch();
        stop.cancel();
        assert!(watch.changed().await.is_err(), "the rounds end with stop");
        assert_eq!(*addresses.current(), ["127.0.0.1:82"]);
    }
}
