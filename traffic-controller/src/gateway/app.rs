//! Puts the parts together and runs them as tasks of a lifecycle.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

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
use crate::gateway::PROGRAM;
use crate::gateway::access_log::AccessLog;
use crate::gateway::config::{Config, Logs, MetricsEndpoint};
use crate::gateway::front::{Door, Front, Requests};
use crate::gateway::grpc::{Grpc, keep_connected};
use crate::gateway::metrics::{self, Scrape, Sources};
use crate::gateway::parked::Parking;
use crate::gateway::stream::Times;
use crate::provider::Provider;

/// Streams that are over and still listed one by one in the ledger; older ones are listed as their sum.
const CLOSED_KEPT: usize = 1000;

/// Why a gateway cannot start.
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
    /// A port cannot be bound.
    #[error("cannot listen on {addr}: {source}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The certificate of a port cannot be used.
    #[error("certificate {cert} of the {port} port: {source}")]
    ListenTls {
        /// The certificate.
        cert: PathBuf,
        /// What the port is for.
        port: &'static str,
        /// What is wrong with it.
        source: TlsError,
    },
    /// The certificates for the reverse log proxy cannot be used.
    #[error("certificates for the reverse log proxy: {0}")]
    ProviderTls(#[source] TlsError),
    /// Nobody can decide who may read.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The access log's thread cannot be started.
    #[error("access log: {0}")]
    AccessLog(#[source] io::Error),
    /// The admin port cannot be served.
    #[error(transparent)]
    Admin(#[from] AdminError),
}

/// A gateway that is up.
#[derive(Debug, Clone)]
pub struct Running {
    /// Address of the HTTP port.
    pub addr: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Address of the metrics endpoint with client certificates, if there is one.
    pub metrics_addr: Option<SocketAddr>,
    /// Address of the admin port, if there is one.
    pub admin_addr: Option<SocketAddr>,
}

/// Starts a gateway: binds its ports, then runs it as tasks of `lifecycle` until that stops. Returns when it takes
/// connections; the reverse log proxy may come later.
///
/// # Errors
/// When a setting, a file or a port cannot be used.
pub async fn start(config: Config, lifecycle: &Lifecycle) -> Result<Running, Error> {
    if let Some((name, reason)) = config.violations().into_iter().next() {
        return Err(Error::Config { name, reason });
    }
    info!("starting RLP gateway");
    let server = bind(config.addr)?;
    let (addr, connections) = (server.local_addr(), server.stats());
    let listen_tls = listen_tls(&config, lifecycle)?;
    let readiness = Readiness::new();
    let provider = provider(&config, &readiness, lifecycle)?;
    let judge = config.access.start(config.reload_interval, lifecycle)?;
    let accounts = Accounts::new(PROGRAM, addr.to_string(), CLOSED_KEPT);
    lifecycle.account_at_end(Arc::clone(&accounts) as _);
    let requests = Arc::new(Requests::default());
    let access_log = access_log(&config, lifecycle)?;
    let finish_within = config.write_timeout.min(config.drain_timeout) * 2 / 3;
    let parking = Parking::new(
        config.resume_grace,
        finish_within,
        config.max_streams,
        Arc::clone(&accounts),
        lifecycle.clone(),
    );
    let sources = Sources {
        accounts: Arc::clone(&accounts),
        requests: Arc::clone(&requests),
        parking: Arc::clone(&parking),
        unlogged: access_log.dropped(),
        connections,
        channel: provider.channel,
        platform: judge.platform,
        listen_tls: listen_tls.clone(),
        provider_tls: provider.tls,
    };
    let (metrics_addr, admin_addr) = looked_at(&config, sources, readiness, lifecycle)?;

    let front = Front {
        access: judge.access,
        provider: provider.provider,
        accounts,
        parking,
        requests,
        access_log,
        slots: Arc::new(Semaphore::new(
            config.max_streams.min(Semaphore::MAX_PERMITS),
        )),
        max_streams: config.max_streams,
        max_query: config.max_query,
        max_selectors: config.max_selectors,
        times: Times {
            stream_timeout: config.stream_timeout,
            heartbeat: config.heartbeat_interval,
            recheck_patience: config.recheck_patience,
            farewell: config.write_timeout,
            finish: finish_within,
        },
        stop: lifecycle.token(),
    };
    let settings = Settings {
        max_connections: config.max_connections,
        tcp_user_timeout: config.write_timeout,
        stall_timeout: config.write_timeout,
        drain_timeout: config.drain_timeout,
        ..Settings::default()
    };
    let tls = listen_tls.is_some();
    let door = Arc::new(Door(Arc::new(front)));
    lifecycle.spawn(
        "listener",
        server.serve(listen_tls, door, settings, lifecycle.token()),
    );
    info!("http bound to: {addr}");
    Ok(Running {
        addr,
        tls,
        metrics_addr,
        admin_addr,
    })
}

fn bind(addr: SocketAddr) -> Result<Server, Error> {
    Server::bind(addr).map_err(|source| Error::Bind { addr, source })
}

fn listen_tls(config: &Config, lifecycle: &Lifecycle) -> Result<Option<Arc<ServerTls>>, Error> {
    let Some((cert, key)) = &config.listen_tls else {
        return Ok(None);
    };
    let tls =
        ServerTls::server_only(cert, key, Profile::Http2).map_err(|source| Error::ListenTls {
            cert: cert.clone(),
            port: "HTTP",
            source,
        })?;
    lifecycle.spawn(
        "listener certificate",
        Arc::clone(&tls).watch(config.reload_interval, lifecycle.token()),
    );
    Ok(Some(tls))
}

/// The provider, and its connection if it has one.
struct Reached {
    provider: Arc<dyn Provider>,
    channel: Option<loggregator_net::grpc::Channel>,
    tls: Option<Arc<ClientTls>>,
}

fn provider(
    config: &Config,
    readiness: &Readiness,
    lifecycle: &Lifecycle,
) -> Result<Reached, Error> {
    match &config.logs {
        Logs::InProcess(provider) => Ok(Reached {
            provider: Arc::clone(provider),
            channel: None,
            tls: None,
        }),
        Logs::Grpc {
            addr,
            server_name,
            tls,
        } => {
            let tls = ClientTls::mutual(tls).map_err(Error::ProviderTls)?;
            lifecycle.spawn(
                "client certificates",
                Arc::clone(&tls).watch(config.reload_interval, lifecycle.token()),
            );
            let grpc = Grpc::new(addr, server_name, Arc::clone(&tls), config.provider_wait);
            let channel = grpc.channel().clone();
            let condition = readiness.condition("reverse log proxy");
            lifecycle.spawn(
                "reverse log proxy connection",
                keep_connected(channel.clone(), condition, lifecycle.token()),
            );
            Ok(Reached {
                provider: Arc::new(grpc),
                channel: Some(channel),
                tls: Some(tls),
            })
        }
    }
}

fn access_log(config: &Config, lifecycle: &Lifecycle) -> Result<AccessLog, Error> {
    if !config.access_log {
        return Ok(AccessLog::off());
    }
    let (log, written) = AccessLog::to(io::stdout()).map_err(Error::AccessLog)?;
    lifecycle.spawn("access log", async move {
        // Ends when the listener and everybody else who logs is gone and all is written.
        drop(written.await);
    });
    Ok(log)
}

/// The ports through which operators look in.
fn looked_at(
    config: &Config,
    sources: Sources,
    readiness: Readiness,
    lifecycle: &Lifecycle,
) -> Result<(Option<SocketAddr>, Option<SocketAddr>), Error> {
    let accounts = Arc::clone(&sources.accounts);
    let platform = sources.platform.clone();
    let metrics = Metrics::new();
    metrics::observe(&metrics, sources);
    let metrics_addr = match &config.metrics {
        None => None,
        Some(endpoint) => {
            let scrape = Scrape::new(metrics.clone(), platform);
            Some(scrape_port(endpoint, config, scrape, lifecycle)?)
        }
    };
    let admin_addr = match config.admin_addr {
        None => None,
        Some(addr) => Some(Admin::start(addr, metrics, accounts, readiness, lifecycle)?),
    };
    Ok((metrics_addr, admin_addr))
}

fn scrape_port(
    endpoint: &MetricsEndpoint,
    config: &Config,
    scrape: Scrape,
    lifecycle: &Lifecycle,
) -> Result<SocketAddr, Error> {
    let server = bind(endpoint.addr)?;
    let addr = server.local_addr();
    let tls =
        ServerTls::mutual(&endpoint.tls, Profile::Http2).map_err(|source| Error::ListenTls {
            cert: endpoint.tls.cert.clone(),
            port: "metrics",
            source,
        })?;
    lifecycle.spawn(
        "metrics certificate",
        Arc::clone(&tls).watch(config.reload_interval, lifecycle.token()),
    );
    let settings = Settings {
        max_connections: Scrape::MAX_CONNECTIONS,
        ..Settings::default()
    };
    lifecycle.spawn(
        "metrics listener",
        server.serve(Some(tls), Arc::new(scrape), settings, lifecycle.token()),
    );
    info!("Metrics endpoint is listening on {addr}");
    Ok(addr)
}
