//! Puts the parts together and runs them as tasks of a lifecycle.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use loggregator_client::{AGENT, Connector};
use loggregator_net::http::{Server, Settings};
use loggregator_net::{ClientTls, Profile, ServerTls, TlsError};
use loggregator_service::Lifecycle;
use loggregator_service::admin::{Admin, AdminError, Readiness};
use loggregator_service::metrics::Metrics;
use thiserror::Error as ThisError;
use tokio::sync::Semaphore;
use tracing::info;

use crate::access::AccessError;
use crate::accounts::Accounts;
use crate::dopplers;
use crate::upstream::Shared;
use crate::websocket::PROGRAM;
use crate::websocket::config::Config;
use crate::websocket::front::{Door, Front, Requests};
use crate::websocket::metrics::{self, Sources};
use crate::websocket::security_log::SecurityLog;
use crate::websocket::self_metrics::{SelfMetrics, SlowConsumers};
use crate::websocket::web::set_cookie::Cookies;

/// Subscriptions that are over and still listed one by one in the ledger; older ones are listed as their sum.
const CLOSED_KEPT: usize = 1000;

/// Why a traffic controller cannot start.
#[derive(Debug, ThisError)]
pub enum Error {
    /// A setting cannot be used.
    #[error("{name}: {reason}")]
    Config {
        /// The setting.
        name: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The WebSocket port cannot be bound.
    #[error("cannot listen on {addr}: {source}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The certificate of the WebSocket port cannot be used.
    #[error("certificate {cert} of the WebSocket port: {source}")]
    ListenTls {
        /// The certificate.
        cert: PathBuf,
        /// What is wrong with it.
        source: TlsError,
    },
    /// The certificates for dopplers and agent cannot be used.
    #[error("certificates for dopplers: {0}")]
    DopplerTls(#[source] TlsError),
    /// The security event log cannot be opened.
    #[error("security event log {path}: {source}")]
    SecurityLog {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Nobody can decide who may read.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The admin port cannot be served.
    #[error(transparent)]
    Admin(#[from] AdminError),
}

/// A traffic controller that is up.
#[derive(Debug, Clone)]
pub struct Running {
    /// Address of the WebSocket port.
    pub addr: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Address of the admin port, if there is one.
    pub admin_addr: Option<SocketAddr>,
}

/// Starts a traffic controller: binds its ports, then runs it as tasks of `lifecycle` until that stops. Returns when it
/// takes connections; dopplers may come later.
///
/// # Errors
/// When a setting, a file or a port cannot be used.
pub async fn start(config: Config, lifecycle: &Lifecycle) -> Result<Running, Error> {
    if let Some((name, reason)) = config.violations().into_iter().next() {
        return Err(Error::Config { name, reason });
    }
    let addr = config.listen_addr;
    let server = Server::bind(addr).map_err(|source| Error::Bind { addr, source })?;
    let addr = server.local_addr();
    let connections = server.stats();
    let listen_tls = listen_tls(&config, lifecycle)?;
    let tls = listen_tls.is_some();
    let security_log = security_log(&config, lifecycle)?;
    let judge = config.access.start(config.reload_interval, lifecycle)?;
    let client_tls = ClientTls::mutual(&config.doppler_tls).map_err(Error::DopplerTls)?;
    lifecycle.spawn(
        "client certificates",
        Arc::clone(&client_tls).watch(config.reload_interval, lifecycle.token()),
    );

    let dopplers = dopplers::set(
        &config.dopplers,
        &client_tls,
        config.timing.max_payload,
        config.resolve_interval,
        lifecycle,
    )
    .await;
    let accounts = Accounts::new(PROGRAM, addr.to_string(), CLOSED_KEPT);
    lifecycle.account_at_end(Arc::clone(&accounts) as _);
    let upstream = Shared::new(
        Arc::new(dopplers.clone()),
        config.shared,
        Arc::clone(&accounts),
        lifecycle.token(),
    );
    let requests = Arc::new(Requests::default());
    let slow_consumers = self_metrics(&config, &client_tls, &accounts, lifecycle);

    let readiness = Readiness::new();
    let condition = readiness.condition("dopplers");
    lifecycle.spawn(
        "doppler connections",
        dopplers::keep_connected(dopplers.clone(), condition, lifecycle.token()),
    );
    let admin_addr = match config.admin_addr {
        None => None,
        Some(admin_addr) => {
            let metrics = Metrics::new();
            let sources = Sources {
                accounts: Arc::clone(&accounts),
                requests: Arc::clone(&requests),
                dopplers: dopplers.clone(),
                connections,
                listen_tls: listen_tls.clone(),
                doppler_tls: client_tls,
                tokens: judge.tokens,
                hub: Arc::clone(upstream.hub()),
                platform: judge.platform,
                security_lines: security_log.as_ref().map(SecurityLog::counts),
            };
            metrics::observe(&metrics, sources);
            let ledger = Arc::clone(&accounts);
            Some(Admin::start(
                admin_addr, metrics, ledger, readiness, lifecycle,
            )?)
        }
    };

    let front = Front {
        access: judge.access,
        upstream: Arc::new(upstream),
        accounts,
        requests,
        slots: Arc::new(Semaphore::new(
            config.max_subscriptions.min(Semaphore::MAX_PERMITS),
        )),
        max_subscriptions: config.max_subscriptions,
        timing: config.timing.clone(),
        slow_consumers,
        recheck_patience: config.recheck_patience,
        cookies: Cookies::for_system_domain(config.system_domain.as_deref()),
        security_log,
        lifecycle: lifecycle.clone(),
        stop: lifecycle.token(),
    };
    let settings = Settings {
        max_connections: config.max_connections,
        drain_timeout: config.timing.drain_within,
        ..Settings::default()
    };
    let door = Arc::new(Door(Arc::new(front)));
    lifecycle.spawn(
        "listener",
        server.serve(listen_tls, door, settings, lifecycle.token()),
    );
    info!("ws bound to: {addr}");
    Ok(Running {
        addr,
        tls,
        admin_addr,
    })
}

fn listen_tls(config: &Config, lifecycle: &Lifecycle) -> Result<Option<Arc<ServerTls>>, Error> {
    let Some((cert, key)) = &config.listen_tls else {
        return Ok(None);
    };
    let tls =
        ServerTls::server_only(cert, key, Profile::Http).map_err(|source| Error::ListenTls {
            cert: cert.clone(),
            source,
        })?;
    lifecycle.spawn(
        "listener certificate",
        Arc::clone(&tls).watch(config.reload_interval, lifecycle.token()),
    );
    Ok(Some(tls))
}

fn security_log(config: &Config, lifecycle: &Lifecycle) -> Result<Option<SecurityLog>, Error> {
    let Some(log) = &config.security_log else {
        return Ok(None);
    };
    let started = SecurityLog::start(log, config.listen_addr.port(), lifecycle);
    started.map(Some).map_err(|source| Error::SecurityLog {
        path: log.path.clone(),
        source,
    })
}

fn self_metrics(
    config: &Config,
    tls: &Arc<ClientTls>,
    accounts: &Arc<Accounts>,
    lifecycle: &Lifecycle,
) -> SlowConsumers {
    let Some(agent) = &config.agent_addr else {
        return SlowConsumers::nowhere();
    };
    let channel = Connector::new(AGENT, Some(Arc::clone(tls))).channel(agent);
    let (emitter, slow_consumers) = SelfMetrics::new(accounts, config.metric_interval, channel);
    lifecycle.spawn("own metrics", emitter.run(lifecycle.token()));
    slow_consumers
}
