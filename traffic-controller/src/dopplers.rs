//! The dopplers that a program here reads, and its connections to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use loggregator_client::{Connector, DOPPLER, DopplerSet, Peers};
use loggregator_net::ClientTls;
use loggregator_net::dns::Addresses;
use loggregator_service::Lifecycle;
use loggregator_service::admin::Condition;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// How often dopplers that are not connected are looked at.
const KEEP_CONNECTED_EVERY: Duration = Duration::from_secs(1);

/// The dopplers behind these addresses, which are resolved again and again until the lifecycle stops.
pub(crate) async fn set(
    addresses: &[String],
    tls: &Arc<ClientTls>,
    max_message: usize,
    resolve_interval: Duration,
    lifecycle: &Lifecycle,
) -> DopplerSet {
    let mut connector = Connector::new(DOPPLER, Some(Arc::clone(tls)));
    connector.settings.max_message = max_message;
    let addresses =
        Addresses::resolved(addresses.to_vec(), resolve_interval, lifecycle.token()).await;
    DopplerSet::new(&addresses, connector)
}

/// Connects to the dopplers before anybody subscribes, and again after a connection was lost, so that a first client does
/// not wait for it and the readiness tells the truth.
pub(crate) async fn keep_connected(
    dopplers: DopplerSet,
    condition: Condition,
    stop: CancellationToken,
) {
    let mut change = dopplers.watch();
    loop {
        let peers = change.borrow_and_update().clone();
        let away = peers.iter().filter(|peer| !peer.is_connected());
        let attempts = join_all(away.map(|peer| {
            let left = peer.left().clone();
            async move {
                left.run_until_cancelled(tokio::time::timeout(
                    KEEP_CONNECTED_EVERY,
                    peer.channel().ready(),
                ))
                .await
            }
        }));
        if stop.run_until_cancelled(attempts).await.is_none() {
            return;
        }
        match dopplers.connected() {
            0 => condition.not_ready(format!("none of {} is connected", peers.len())),
            _ => condition.ready(),
        }
        let pause = tokio::time::timeout(KEEP_CONNECTED_EVERY, change.changed());
        if stop.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

/// How often connections to dopplers came about and ended, those to dopplers that have left the set included.
pub(crate) struct Connections {
    dopplers: DopplerSet,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Of those that were in the set when it was last looked at.
    peers: Peers,
    /// Sums of those that are gone.
    gone: (u64, u64),
}

impl Connections {
    pub(crate) fn of(dopplers: &DopplerSet) -> Self {
        Self {
            dopplers: dopplers.clone(),
            seen: Mutex::default(),
        }
    }

    /// How many came about, and how many ended.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let mut seen = self.seen.lock();
        let now = self.dopplers.peers();
        let before = std::mem::replace(&mut seen.peers, now.clone());
        for peer in before.iter() {
            if !now.iter().any(|other| Arc::ptr_eq(peer, other)) {
                // A connection that has not ended yet does so now.
                let connected = read(&peer.channel().stats().connected);
                seen.gone.0 += connected;
                seen.gone.1 += connected;
            }
        }
        now.iter().fold(seen.gone, |(connects, ends), peer| {
            let stats = peer.channel().stats();
            (connects + read(&stats.connected), ends + read(&stats.lost))
        })
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
