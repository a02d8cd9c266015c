//! A gateway with its reverse log proxy.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use loggregator_service::Lifecycle;
use loggregator_service::ledger::Report;
use tokio::time::{Instant, sleep, timeout};
use traffic_controller::gateway::{Config, Logs, Running, start};

use crate::client::Client;
use crate::proxy::{Opened, Proxy};

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
    pub proxy: Arc<Proxy>,
    pub opened: Opened,
    pub running: Running,
    pub lifecycle: Lifecycle,
}

impl Rig {
    /// A gateway without access control or TLS.
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// As [`Rig::new`], with a changed configuration.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let (proxy, opened) = Proxy::new();
        let mut config = Config {
            addr: "127.0.0.1:0".parse().unwrap(),
            admin_addr: Some("127.0.0.1:0".parse().unwrap()),
            ..Config::new(Logs::InProcess(proxy.clone()))
        };
        change(&mut config);
        let lifecycle = Lifecycle::new();
        let running = start(config, &lifecycle).await.unwrap();
        Self {
            proxy,
            opened,
            running,
            lifecycle,
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.running.addr
    }

    /// What the admin port says at `path`.
    pub async fn admin(&self, path: &str) -> String {
        let (mut client, head) = Client::get(self.running.admin_addr.unwrap(), path).await;
        client.body(&head).await
    }

    /// What the admin port says at `/ledger`.
    pub async fn ledger(&self) -> Report {
        serde_json::from_str(&self.admin("/ledger").await).unwrap()
    }

    /// Waits until the ledger has so many closed streams, and returns it; it must balance.
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
