//! Puts the parts together and runs them as tasks of a lifecycle.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use loggregator_client::{AGENT, Connector, DopplerSet, Peers};
use loggregator_net::grpc::{Server, ServerSettings};
use loggregator_net::{ClientTls, Profile, ServerTls, TlsError};
use loggregator_service::Lifecycle;
use loggregator_service::admin::{Admin, AdminError, Readiness};
use loggregator_service::ledger::{Report, Source};
use loggregator_service::metrics::Metrics;
use thiserror::Error as ThisError;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::accounts::Accounts;
use crate::dopplers::{self, Connections};
use crate::emitter::Emitter;
use crate::provider::Provider;
use crate::rlp::config::Config;
use crate::rlp::in_process::InProcess;
use crate::rlp::metrics::{self, Sources};
use crate::rlp::proxy::{Gate, Proxy, Refusals};
use crate::rlp::service::Calls;
use crate::rlp::{IN_PROCESS, ORIGIN, PROGRAM, self_metrics};
use crate::upstream::Shared;

/// Subscriptions that are over and still listed one by one in the ledger; older ones are listed as their sum.
const CLOSED_KEPT: usize = 1000;

/// Largest message that is taken from a doppler, bytes: as the Go proxy.
const MAX_BATCH: usize = 10 * 1024 * 1024;

/// Largest request that is taken from a client, bytes: what gRPC libraries have unless told otherwise.
const MAX_REQUEST: usize = 4 * 1024 * 1024;

/// Why a reverse log proxy cannot start.
#[derive(Debug, ThisError)]
pub enum Error {
    /// A setting has an impossible value.
    #[error("{}", .0.join("; "))]
    Config(Vec<String>),
    /// The certificate files cannot be used.
    #[error("certificates of the reverse log proxy: {0}")]
    Tls(#[source] TlsError),
    /// The gRPC port cannot be listened on.
    #[error("cannot listen on {addr}: {source}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The admin port cannot be served.
    #[error(transparent)]
    Admin(#[from] AdminError),
}

/// A reverse log proxy that is up.
#[derive(Clone)]
pub struct Running {
    /// Address of the gRPC port.
    pub grpc_addr: SocketAddr,
    /// Address of the admin port, if there is one.
    pub admin_addr: Option<SocketAddr>,
    provider: Arc<dyn Provider>,
    ledger: Arc<dyn Source>,
}

impl Running {
    /// The same proxy for a reader in the same process, with the same limits.
    #[must_use]
    pub fn provider(&self) -> Arc<dyn Provider> {
        Arc::clone(&self.provider)
    }

    /// The ledger: of the gRPC port and of readers in the same process.
    #[must_use]
    pub fn ledger(&self) -> Arc<dyn Source> {
        Arc::clone(&self.ledger)
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

/// Both ledgers as one.
struct Ledger {
    accounts: Arc<Accounts>,
    in_process: Arc<Accounts>,
}

impl Source for Ledger {
    fn report(&self) -> Report {
        let mut report = self.accounts.report();
        let other = self.in_process.report();
        report.ingress.received += other.ingress.received;
        report.ingress.accepted += other.ingress.accepted;
        for (reason, count) in other.ingress.rejected {
            *report.ingress.rejected.entry(reason).or_default() += count;
        }
        report.subscriptions.extend(other.subscriptions);
        report
    }
}

/// Starts a reverse log proxy: binds its ports, then runs it as tasks of `lifecycle` until that stops. Returns when it takes
/// calls; dopplers may come later.
///
/// When the lifecycle stops, no more calls are taken, every stream gets what was received for it and ends with OK, within
/// [`Config::drain_timeout`].
///
/// # Errors
/// When a setting, a file or a port cannot be used.
pub async fn start(config: Config, lifecycle: &Lifecycle) -> Result<Running, Error> {
    let violations = config.violations();
    if !violations.is_empty() {
        let texts = violations.iter();
        return Err(Error::Config(
            texts
                .map(|(name, reason)| format!("{name} {reason}"))
                .collect(),
        ));
    }
    let server_tls =
        ServerTls::mutual_with_suites(&config.tls, Profile::Grpc, &config.cipher_suites)
            .map_err(Error::Tls)?;
    let client_tls = ClientTls::mutual(&config.tls).map_err(Error::Tls)?;
    let addr = config.grpc_addr;
    let server = Server::bind(addr).map_err(|source| Error::Bind { addr, source })?;
    let grpc_addr = server.local_addr();
    watch_certificates(&config, &server_tls, &client_tls, lifecycle);

    let dopplers = dopplers::set(
        &config.dopplers,
        &client_tls,
        MAX_BATCH,
        config.resolve_interval,
        lifecycle,
    )
    .await;
    let readiness = Readiness::new();
    let condition = readiness.condition("dopplers");
    lifecycle.spawn(
        "doppler connections",
        dopplers::keep_connected(dopplers.clone(), condition, lifecycle.token()),
    );
    lifecycle.spawn("doppler log", tell_of(dopplers.clone(), lifecycle.token()));

    let ledger = Arc::new(Ledger {
        accounts: Accounts::new(PROGRAM, grpc_addr.to_string(), CLOSED_KEPT),
        in_process: Accounts::new(IN_PROCESS, grpc_addr.to_string(), CLOSED_KEPT),
    });
    lifecycle.account_at_end(Arc::clone(&ledger) as _);
    let upstream = Shared::new(
        Arc::new(dopplers.clone()),
        config.shared,
        Arc::clone(&ledger.accounts),
        lifecycle.token(),
    );
    let hub = Arc::clone(upstream.hub());
    let proxy = Arc::new(Proxy {
        upstream: Arc::new(upstream),
        streams: Gate::new(config.max_streams),
        subscriptions: Gate::new(config.max_subscriptions),
        refusals: Refusals::default(),
        budget: config.send_budget,
        source_id: config.metric_source_id.as_str().into(),
        finish_within: config.drain_timeout * 2 / 3,
        stop: lifecycle.token(),
    });
    if let Some(agent) = &config.agent_addr {
        let metrics = self_metrics::metrics(
            [&ledger.accounts, &ledger.in_process],
            &proxy,
            Connections::of(&dopplers),
        );
        let channel = Connector::new(AGENT, Some(Arc::clone(&client_tls))).channel(agent);
        let (source_id, every) = (config.metric_source_id.clone(), config.metric_interval);
        let emitter = Emitter::new(source_id, ORIGIN, metrics, every, channel);
        lifecycle.spawn("own metrics", emitter.run(lifecycle.token()));
    }
    let admin_addr = match config.admin_addr {
        None => None,
        Some(admin_addr) => {
            let metrics = Metrics::new();
            let sources = Sources {
                proxy: Arc::clone(&proxy),
                accounts: Arc::clone(&ledger.accounts),
                in_process: Arc::clone(&ledger.in_process),
                hub,
                dopplers,
                server: server.stats(),
                server_tls: Arc::clone(&server_tls),
                client_tls,
            };
            metrics::observe(&metrics, sources);
            let ledger = Arc::clone(&ledger);
            Some(Admin::start(
                admin_addr, metrics, ledger, readiness, lifecycle,
            )?)
        }
    };

    let calls = Calls {
        proxy: Arc::clone(&proxy),
        accounts: Arc::clone(&ledger.accounts),
    };
    let settings = ServerSettings {
        max_message: MAX_REQUEST,
        max_connections: config.max_connections,
        drain_timeout: config.drain_timeout,
        // A reader knows when its subscription stands; the Go proxy says nothing until the first message.
        early_headers: true,
        ..ServerSettings::default()
    };
    lifecycle.spawn(
        "grpc",
        server.serve(
            Some(server_tls),
            Arc::new(calls),
            settings,
            lifecycle.token(),
        ),
    );
    info!("grpc bound to: {grpc_addr}");
    let provider = Arc::new(InProcess {
        proxy,
        accounts: Arc::clone(&ledger.in_process),
    });
    Ok(Running {
        grpc_addr,
        admin_addr,
        provider,
        ledger,
    })
}

fn watch_certificates(
    config: &Config,
    server: &Arc<ServerTls>,
    client: &Arc<ClientTls>,
    lifecycle: &Lifecycle,
) {
    let every = config.tls_reload_interval;
    lifecycle.spawn(
        "server certificates",
        Arc::clone(server).watch(every, lifecycle.token()),
    );
    lifecycle.spawn(
        "client certificates",
        Arc::clone(client).watch(every, lifecycle.token()),
    );
}

/// Logs which dopplers are read, in the words of the Go proxy.
async fn tell_of(dopplers: DopplerSet, stop: CancellationToken) {
    let mut change = dopplers.watch();
    let mut before = Peers::default();
    loop {
        let now = change.borrow_and_update().clone();
        tell(&before, &now);
        before = now;
        match stop.run_until_cancelled(change.changed()).await {
            Some(Ok(())) => {}
            _ => return tell(&before, &Peers::default()),
        }
    }
}

fn tell(before: &Peers, now: &Peers) {
    let addresses: Vec<_> = now.iter().map(|peer| peer.addr().as_ref()).collect();
    info!(
        "Event from finder: {{GRPCDopplers:[{}]}}",
        addresses.join(" ")
    );
    let without = |peers: &Peers, others: &Peers| -> Vec<Arc<str>> {
        let missing = peers
            .iter()
            .filter(|peer| !others.iter().any(|other| Arc::ptr_eq(peer, other)));
        missing.map(|peer| Arc::clone(peer.addr())).collect()
    };
    for addr in without(now, before) {
        info!("adding doppler {addr}");
    }
    for addr in without(before, now) {
        info!("Disabling reconnects for doppler {addr}");
        info!("closing doppler connection {addr}...");
    }
}
