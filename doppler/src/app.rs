//! Putting a doppler together, and taking it down in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use loggregator_log::LogConfig;
use loggregator_net::grpc::{
    Channel, ClientSettings, Endpoint, Server, ServerSettings, ServerStats,
};
use loggregator_net::{ClientTls, Profile, ServerTls, TlsError};
use loggregator_service::Lifecycle;
use loggregator_service::admin::{Admin, AdminError, Readiness};
use loggregator_service::ledger::{Report, Source};
use loggregator_service::metrics::Metrics;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::egress::Egress;
use crate::ingress::Ingress;
use crate::metrics::Observed;
use crate::refused::Refused;
use crate::router::{Router, RouterConfig};
use crate::rpc::{Calls, Shared};
use crate::self_metrics::{Agent, Destination, SelfMetrics};

/// The name that the local agent's certificate must carry.
const AGENT_NAME: &str = "metron";
/// How long emitters that go on sending are listened to after a stop, but never for more than half of the drain. They were
/// told to go (GOAWAY, then the end of their stream), and this is for those that do not.
const INGRESS_GRACE: Duration = Duration::from_secs(1);

/// A doppler could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting has an impossible value.
    #[error("{}", .0.join("; "))]
    Config(Vec<String>),
    /// The certificate files cannot be used.
    #[error("certificates of the doppler")]
    Tls(#[source] TlsError),
    /// The gRPC port cannot be listened on.
    #[error("gRPC port {addr}")]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The admin port cannot be served.
    #[error(transparent)]
    Admin(#[from] AdminError),
}

/// A doppler that takes calls.
#[derive(Clone)]
pub struct Running {
    /// Address of the gRPC port.
    pub grpc_addr: SocketAddr,
    /// Address of the admin port, where one was asked for.
    pub admin_addr: Option<SocketAddr>,
    /// The router, for tests and for a program that holds several stages.
    pub router: Arc<Router>,
    /// What the gRPC port has seen.
    pub server: Arc<ServerStats>,
    /// The port's certificates, with counts of their reloads.
    pub tls: Arc<ServerTls>,
    ledger: Arc<Ledger>,
}

impl Running {
    /// The ledger as of now: the router's, and what was refused before it.
    pub fn report(&self) -> Report {
        self.ledger.report()
    }

    /// The ledger as a source, for an admin server of several stages.
    pub fn ledger(&self) -> Arc<dyn Source> {
        Arc::clone(&self.ledger) as Arc<dyn Source>
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("grpc_addr", &self.grpc_addr)
            .field("admin_addr", &self.admin_addr)
            .finish_non_exhaustive()
    }
}

/// The doppler's page of the ledger.
struct Ledger {
    router: Arc<Router>,
    refused: Arc<Refused>,
    instance: String,
}

impl Source for Ledger {
    fn report(&self) -> Report {
        let mut report = self.router.report(&self.instance);
        self.refused.add_to(&mut report.ingress);
        report
    }
}

/// Starts a doppler: binds its ports, so that an error is known now, and runs it on `lifecycle` until
/// that stops. Must be called within a tokio runtime.
///
/// When the lifecycle stops, emitters are turned away first; then readers get what the log still has for
/// them; then their streams end with UNAVAILABLE. [`Config::drain_timeout`] bounds all of it.
///
/// # Errors
/// Impossible settings, unusable certificate files, a port that is taken.
pub fn start(config: Config, lifecycle: &Lifecycle) -> Result<Running, Error> {
    let violations = config.violations();
    if !violations.is_empty() {
        return Err(Error::Config(
            violations
                .iter()
                .map(|(name, reason)| format!("{name} {reason}"))
                .collect(),
        ));
    }
    let tls = ServerTls::mutual_with_suites(&config.tls, Profile::Grpc, &config.cipher_suites)
        .map_err(Error::Tls)?;
    let addr = config.grpc_addr;
    let server = Server::bind(addr).map_err(|source| Error::Bind { addr, source })?;
    let grpc_addr = server.local_addr();

    let router = Router::new(router_config(&config));
    let observed = Arc::new(Observed {
        router: Arc::clone(&router),
        refused: Arc::default(),
        ingress: Arc::default(),
        egress: Arc::default(),
        server: server.stats(),
        tls: Arc::clone(&tls),
    });
    let ledger = Arc::new(Ledger {
        router: Arc::clone(&router),
        refused: Arc::clone(&observed.refused),
        instance: grpc_addr.to_string(),
    });
    lifecycle.account_at_end(Arc::clone(&ledger) as Arc<dyn Source>);
    let readiness = Readiness::new();
    let admin_addr = match config.admin_addr {
        Some(addr) => {
            let metrics = Metrics::new();
            let collected = Arc::clone(&observed);
            metrics.collect(move |samples| collected.collect(samples));
            let source = Arc::clone(&ledger) as Arc<dyn Source>;
            Some(Admin::start(addr, metrics, source, readiness, lifecycle)?)
        }
        None => None,
    };
    self_metrics(&config, &router, lifecycle)?;
    let running = Running {
        grpc_addr,
        admin_addr,
        router: Arc::clone(&router),
        server: server.stats(),
        tls: Arc::clone(&tls),
        ledger,
    };
    lifecycle.spawn(
        "certificates",
        Arc::clone(&tls).watch(config.tls_reload_interval, lifecycle.token()),
    );
    let (runs, stop) = (Arc::clone(&router), lifecycle.token());
    lifecycle.spawn("router", async move { runs.run(stop).await });
    lifecycle.spawn(
        "grpc",
        serve(server, tls, observed, config, lifecycle.token()),
    );
    tracing::info!(grpc = %grpc_addr, admin = ?admin_addr, "doppler started");
    Ok(running)
}

fn router_config(config: &Config) -> RouterConfig {
    RouterConfig {
        log: LogConfig {
            bytes: usize::try_from(config.log_bytes).unwrap_or(usize::MAX),
            ..LogConfig::default()
        },
        resume_grace: config.resume_grace,
        max_subscriptions: config.max_subscriptions,
        max_queued: config.max_queued,
        linger: config.linger,
        ..RouterConfig::default()
    }
}

fn self_metrics(config: &Config, router: &Arc<Router>, lifecycle: &Lifecycle) -> Result<(), Error> {
    if config.metric_interval.is_zero() {
        return Ok(());
    }
    let destination = match &config.agent_addr {
        None => Destination::Own,
        Some(addr) => {
            let tls = ClientTls::mutual(&config.tls).map_err(Error::Tls)?;
            let watch = Arc::clone(&tls).watch(config.tls_reload_interval, lifecycle.token());
            lifecycle.spawn("certificates for the agent", watch);
            Destination::Agent(Box::new(Agent::new(Channel::new(Endpoint {
                addr: addr.clone(),
                server_name: AGENT_NAME.to_owned(),
                tls: Some(tls),
                settings: ClientSettings::default(),
            }))))
        }
    };
    let metrics = SelfMetrics {
        router: Arc::clone(router),
        interval: config.metric_interval,
        source_id: config.metric_source_id.clone(),
        destination,
        stop: lifecycle.token(),
    };
    lifecycle.spawn("own metrics", metrics.run());
    Ok(())
}

/// Serves until `stop`, then takes the doppler down in order.
async fn serve(
    server: Server,
    tls: Arc<ServerTls>,
    observed: Arc<Observed>,
    config: Config,
    stop: CancellationToken,
) {
    let router = Arc::clone(&observed.router);
    let ingress_cut = CancellationToken::new();
    let ingress_calls = TaskTracker::new();
    let calls = Calls {
        ingress: Ingress::new(
            Arc::clone(&router),
            Arc::clone(&observed.refused),
            Arc::clone(&observed.ingress),
            ingress_cut.clone(),
        ),
        egress: Egress::new(
            Arc::clone(&router),
            config.send_budget,
            Arc::clone(&observed.egress),
        ),
        ingress_calls: ingress_calls.clone(),
    };
    let settings = ServerSettings {
        max_message: config.max_message,
        max_connections: config.max_connections,
        drain_timeout: config.drain_timeout,
        // A reader knows when its subscription stands; the Go router says nothing until the first message.
        early_headers: true,
        ..ServerSettings::default()
    };
    let served = server.serve(
        Some(tls),
        Arc::new(Shared(Arc::new(calls))),
        settings,
        stop.clone(),
    );
    let ingress_grace = INGRESS_GRACE.min(config.drain_timeout / 2);
    let drained = async {
        stop.cancelled().await;
        ingress_calls.close();
        if tokio::time::timeout(ingress_grace, ingress_calls.wait())
            .await
            .is_err()
        {
            ingress_cut.cancel();
            ingress_calls.wait().await;
        }
        // From here on nothing is appended: readers read to the end, and their streams end.
        router.close();
    };
    tokio::join!(served, drained);
    report(&router);
}

/// Says what a stop left undone.
fn report(router: &Router) {
    let rows = router.report("").subscriptions;
    let left: Vec<_> = rows
        .iter()
        .filter(|row| row.pending > 0 || row.open)
        .collect();
    for row in &left {
        tracing::warn!(
            subscription = row.id,
            peer = row.peer,
            pending = row.pending,
            "a reader did not take all that was in the log"
        );
    }
    tracing::info!(readers = rows.len(), behind = left.len(), "doppler drained");
}
