//! A traffic controller with its dopplers.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use loggregator_service::Lifecycle;
use loggregator_service::ledger::Report;
use tokio::time::{Instant, sleep, timeout};
use traffic_controller::{Config, Running, start};

use crate::certs::Certs;
use crate::doppler::Doppler;

/// How long anything may take on a busy machine before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for a condition.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "still not: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for a future, but not for ever.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("still not: {what}"))
}

pub struct Rig {
    pub certs: Certs,
    pub dopplers: Vec<Doppler>,
    pub running: Running,
    pub lifecycle: Lifecycle,
}

impl Rig {
    /// A traffic controller without access control or TLS, and one doppler.
    pub async fn new() -> Self {
        Self::with(1, |_, _| {}).await
    }

    /// As [`Rig::new`], with so many dopplers and a changed configuration.
    pub async fn with(dopplers: usize, change: impl FnOnce(&mut Config, &Certs)) -> Self {
        let certs = Certs::new();
        let dopplers: Vec<_> = (0..dopplers).map(|_| Doppler::start(&certs)).collect();
        let mut config = Config {
            listen_addr: "127.0.0.1:0".parse().unwrap(),
            dopplers: dopplers
                .iter()
                .map(|doppler| doppler.addr.to_string())
                .collect(),
            doppler_tls: certs.of("trafficcontroller"),
            admin_addr: Some("127.0.0.1:0".parse().unwrap()),
            ..Config::default()
        };
        change(&mut config, &certs);
        let lifecycle = Lifecycle::new();
        let running = start(config, &lifecycle).await.unwrap();
        Self {
            certs,
            dopplers,
            running,
            lifecycle,
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.running.addr
    }

    pub fn doppler(&self) -> &Doppler {
        &self.dopplers[0]
    }

    /// What the admin port says at `/ledger`.
    pub async fn ledger(&self) -> Report {
        serde_json::from_str(&self.admin("/ledger").await.1).unwrap()
    }

    /// Status and body of a path of the admin port.
    pub async fn admin(&self, path: &str) -> (u16, String) {
        let answer = crate::client::http(self.running.admin_addr.unwrap(), "GET", path, &[]).await;
        (answer.status, answer.body)
    }

    /// Waits until the ledger has so many closed subscriptions, and returns it; it must balance.
    pub async fn ledger_with_closed(&self, closed: usize) -> Report {
        let started = Instant::now();
        loop {
            let report = self.ledger().await;
            if report
                .subscriptions
                .iter()
                .filter(|line| !line.open)
                .count()
                >= closed
            {
                assert!(report.balanced(), "{report:?}");
                return report;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "still not {closed} closed: {report:?}"
            );
            sleep(Duration::from_millis(10)).await;
        }
    }
}
