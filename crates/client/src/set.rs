//! The dopplers (or other servers) that a client talks to: who they are now, and one connection to each.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use loggregator_net::dns::Addresses;
use loggregator_net::grpc::{Channel, ChannelState, ClientSettings, Endpoint};
use loggregator_net::{Backoff, ClientTls};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The name that a doppler's certificate carries.
pub const DOPPLER: &str = "doppler";
/// The name that an agent's certificate carries.
pub const AGENT: &str = "metron";
/// The name that a reverse log proxy's certificate carries.
pub const REVERSE_LOG_PROXY: &str = "reverselogproxy";

/// How to connect to a server, whatever its address.
#[derive(Clone, Debug)]
pub struct Connector {
    /// The name that its certificate must carry: [`DOPPLER`], [`AGENT`], ….
    pub server_name: String,
    /// Mutual TLS; none is plain text, for tests.
    pub tls: Option<Arc<ClientTls>>,
    /// Windows, limits and backoff of the connection.
    pub settings: ClientSettings,
}

impl Connector {
    /// Connects to servers of this name with the default settings, except that a server that does not answer is given
    /// up after 5 s and tried again after at most 5 s: a backoff of 50 ms to 5 s.
    #[must_use]
    pub fn new(server_name: &str, tls: Option<Arc<ClientTls>>) -> Connector {
        let settings = ClientSettings {
            connect_timeout: Duration::from_secs(5),
            backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(5)),
            ..ClientSettings::default()
        };
        Connector {
            server_name: server_name.to_owned(),
            tls,
            settings,
        }
    }

    /// A channel to `host:port`, connected at its first use.
    #[must_use]
    pub fn channel(&self, addr: &str) -> Channel {
        Channel::new(Endpoint {
            addr: addr.to_owned(),
            server_name: self.server_name.clone(),
            tls: self.tls.clone(),
            settings: self.settings.clone(),
        })
    }
}

/// One server of a [`DopplerSet`], with the connection that all who use the set share.
#[derive(Debug)]
pub struct Peer {
    addr: Arc<str>,
    channel: Channel,
    left: CancellationToken,
}

impl Peer {
    /// `host:port`, its identity in the set.
    #[must_use]
    pub fn addr(&self) -> &Arc<str> {
        &self.addr
    }

    /// The shared connection.
    #[must_use]
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Cancelled when the server is no longer one of the set.
    #[must_use]
    pub fn left(&self) -> &CancellationToken {
        &self.left
    }

    /// Whether the connection stands.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        *self.channel.state().borrow() == ChannelState::Ready
    }
}

/// The current peers, sorted by address.
pub type Peers = Arc<[Arc<Peer>]>;

/// The servers that stand behind a list of addresses or a DNS name, and one [`Channel`] to each of them.
///
/// Clones share the channels: a traffic controller makes one set and puts all its subscriptions on it. A server that
/// leaves the addresses and comes back is a new [`Peer`]; one that stays keeps its connection.
#[derive(Clone, Debug)]
pub struct DopplerSet {
    peers: watch::Receiver<Peers>,
    /// Ends the task that follows the addresses when the last clone is dropped.
    _follower: Arc<DropGuard>,
}

impl DopplerSet {
    /// Follows the addresses. Must be called within a tokio runtime; connects nowhere yet.
    #[must_use]
    pub fn new(addresses: &Addresses, connector: Connector) -> DopplerSet {
        let mut changes = addresses.watch();
        let first = follow(&Peers::default(), &changes.borrow_and_update(), &connector);
        let (sender, peers) = watch::channel(first);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            // A fixed list has nobody who could change it.
            while let Some(Ok(())) = stopped.run_until_cancelled(changes.changed()).await {
                let next = follow(&sender.borrow(), &changes.borrow_and_update(), &connector);
                sender.send_replace(next);
            }
            stopped.cancelled().await;
            drop(sender);
        });
        DopplerSet {
            peers,
            _follower: Arc::new(stop.drop_guard()),
        }
    }

    /// A set that never changes. Must be called within a tokio runtime.
    #[must_use]
    pub fn fixed(addresses: impl IntoIterator<Item = String>, connector: Connector) -> DopplerSet {
        DopplerSet::new(&Addresses::fixed(addresses), connector)
    }

    /// Who is in the set now.
    #[must_use]
    pub fn peers(&self) -> Peers {
        self.peers.borrow().clone()
    }

    /// Follows the set.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Peers> {
        self.peers.clone()
    }

    /// How many connections of the set stand.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.peers
            .borrow()
            .iter()
            .filter(|peer| peer.is_connected())
            .count()
    }
}

/// The peers for these addresses; those that stay are taken over, those that go are told.
fn follow(before: &Peers, addresses: &[String], connector: &Connector) -> Peers {
    let mut known: HashMap<&str, &Arc<Peer>> = before
        .iter()
        .map(|peer| (peer.addr.as_ref(), peer))
        .collect();
    let mut peers: Vec<Arc<Peer>> = Vec::with_capacity(addresses.len());
    let mut sorted: Vec<&String> = addresses.iter().collect();
    sorted.sort();
    sorted.dedup();
    for addr in sorted {
        peers.push(match known.remove(addr.as_str()) {
            Some(peer) => Arc::clone(peer),
            None => Arc::new(Peer {
                addr: addr.as_str().into(),
                channel: connector.channel(addr),
                left: CancellationToken::new(),
            }),
        });
    }
    for peer in known.into_values() {
        peer.left.cancel();
    }
    peers.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(peers: &Peers) -> Vec<&str> {
        peers.iter().map(|p| p.addr.as_ref()).collect()
    }

    #[test]
    fn who_stays_keeps_its_connection_and_who_goes_is_told() {
        let connector = Connector::new(DOPPLER, None);
        let text =
            |list: &[&str]| -> Vec<String> { list.iter().map(|a| (*a).to_owned()).collect() };
        let first = follow(&Peers::default(), &text(&["b:1", "a:1", "b:1"]), &connector);
        assert_eq!(addrs(&first), ["a:1", "b:1"]);
        let second = follow(&first, &text(&["c:1", "b:1"]), &connector);
        assert_eq!(addrs(&second), ["b:1", "c:1"]);
        assert!(Arc::ptr_eq(&first[1], &second[0]));
        assert!(first[0].left.is_cancelled() && !second[0].left.is_cancelled());
    }

    #[tokio::test]
    async fn a_dropped_set_ends_its_task() {
        let set = DopplerSet::fixed(["a:1".to_owned()], Connector::new(DOPPLER, None));
        let mut watch = set.watch();
        drop(set);
        assert!(
            watch.changed().await.is_err(),
            "the sender lives in the task"
        );
    }
}
