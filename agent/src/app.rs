//! Putting an agent together, and taking it apart.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use loggregator_client::{Connector, DOPPLER, DopplerPool, DopplerSet, PoolSettings};
use loggregator_net::dns::Addresses;
use loggregator_net::grpc::{Server, ServerSettings};
use loggregator_net::{ClientTls, Profile, ServerTls, TlsError};
use loggregator_service::Lifecycle;
use loggregator_service::admin::{Admin, AdminError, Readiness};
use loggregator_service::ledger::Source;
use loggregator_service::metrics::Metrics;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, InputKind};
use crate::dropsonde::Dropsonde;
use crate::grpc::IngressService;
use crate::input::{Follower, LineReader, chunks_of_stdin, follow, read_all};
use crate::intake::Intake;
use crate::notice::Notices;
use crate::observe::Observer;
use crate::stats::{Port, Stats};
use crate::syslog::{Listener, Receiver};
use crate::udp::{Handler, Udp};

/// How often certificate files are looked at.
const TLS_INTERVAL: Duration = Duration::from_secs(5);
/// How often the kernel is asked for its drop counters.
const KERNEL_INTERVAL: Duration = Duration::from_secs(1);

/// An agent that runs.
pub struct Running {
    /// Where the v2 services listen.
    pub grpc_addr: SocketAddr,
    /// Where v1 datagrams arrive.
    pub udp_addr: Option<SocketAddr>,
    /// Where syslog datagrams arrive.
    pub syslog_udp_addr: Option<SocketAddr>,
    /// Where syslog connections arrive.
    pub syslog_tcp_addr: Option<SocketAddr>,
    /// Where the admin server listens.
    pub admin_addr: Option<SocketAddr>,
    /// What came in, went out and was lost.
    pub ledger: Arc<dyn Source>,
}

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A port cannot be taken.
    #[error("cannot listen for {what} on {addr}")]
    Bind {
        /// What the port is for.
        what: &'static str,
        /// The address asked for.
        addr: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// The certificates cannot be used.
    #[error("the agent's certificates cannot be used")]
    Tls(#[from] TlsError),
    /// The admin server cannot start.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// Standard input cannot be read.
    #[error("standard input cannot be read")]
    Stdin(#[source] io::Error),
    /// No doppler is configured.
    #[error("no doppler is configured")]
    NoDopplers,
}

/// Starts an agent as tasks of `lifecycle`: binds every port, then returns. Dopplers need not be there yet. When the
/// lifecycle stops, the agent takes in what has arrived, hands on what it has, and says what it could not.
///
/// # Errors
/// When the configuration cannot work here: see [`Error`].
pub async fn start(config: Config, lifecycle: &Lifecycle) -> Result<Running, Error> {
    if config.dopplers.is_empty() {
        return Err(Error::NoDopplers);
    }
    let stop = lifecycle.token();
    let server_tls = ServerTls::mutual(&config.tls, Profile::Grpc)?;
    let client_tls = ClientTls::mutual(&config.tls)?;
    let ports = Ports::bind(&config).await?;
    lifecycle.spawn(
        "server certificates",
        Arc::clone(&server_tls).watch(TLS_INTERVAL, stop.clone()),
    );
    lifecycle.spawn(
        "client certificates",
        Arc::clone(&client_tls).watch(TLS_INTERVAL, stop.clone()),
    );

    let addresses = addresses(&config, &stop).await;
    let set = DopplerSet::new(
        &addresses,
        Connector::new(DOPPLER, Some(Arc::clone(&client_tls))),
    );
    let pool = DopplerPool::new(&set, pool_settings(&config));
    let intake = Arc::new(Intake::new(
        config.tags.clone(),
        config.max_counters,
        config.logs_disabled,
        pool.clone(),
    ));
    let observer = Arc::new(Observer {
        instance: ports.grpc.local_addr().to_string(),
        intake: Arc::clone(&intake),
        buffer_bytes: config.buffer_bytes,
        grpc: ports.grpc.stats(),
        server_tls: Arc::clone(&server_tls),
        client_tls,
    });
    lifecycle.account_at_end(Arc::clone(&observer) as Arc<dyn Source>);
    let mut running = Running {
        grpc_addr: ports.grpc.local_addr(),
        udp_addr: ports.udp.as_ref().and_then(|udp| udp.local_addr().ok()),
        syslog_udp_addr: ports
            .syslog_udp
            .as_ref()
            .and_then(|udp| udp.local_addr().ok()),
        syslog_tcp_addr: ports
            .syslog_tcp
            .as_ref()
            .and_then(|tcp| tcp.local_addr().ok()),
        admin_addr: None,
        ledger: Arc::clone(&observer) as Arc<dyn Source>,
    };
    if let Some(addr) = config.admin_addr {
        running.admin_addr = Some(admin(addr, observer, &set, lifecycle)?);
    }
    // The inputs end first; then what they took in is handed on.
    let inputs = Inputs {
        lifecycle: lifecycle.clone(),
        stop: stop.clone(),
        tracker: TaskTracker::new(),
    };
    inputs.network(ports, server_tls, &config, &intake);
    inputs.lines(&config, &intake).await?;
    let notices = Notices::new(Arc::clone(&intake), config.metric_source_id.clone());
    let (every, within, cut) = (
        config.notice_interval,
        config.drain_timeout,
        lifecycle.cut(),
    );
    lifecycle.spawn("drain", async move {
        notices.run(every, stop).await;
        inputs.tracker.close();
        drain(&inputs.tracker, &pool, within, &cut).await;
        drop(set);
    });
    Ok(running)
}

async fn addresses(config: &Config, stop: &CancellationToken) -> Addresses {
    if config
        .dopplers
        .iter()
        .all(|entry| entry.parse::<SocketAddr>().is_ok())
    {
        return Addresses::fixed(config.dopplers.clone());
    }
    Addresses::resolved(
        config.dopplers.clone(),
        config.resolve_interval,
        stop.clone(),
    )
    .await
}

fn pool_settings(config: &Config) -> PoolSettings {
    PoolSettings {
        buffer_bytes: config.buffer_bytes,
        batch_envelopes: config.batch_envelopes,
        linger: config.linger,
        streams: config.streams,
        ..PoolSettings::default()
    }
}

fn admin(
    addr: SocketAddr,
    observer: Arc<Observer>,
    set: &DopplerSet,
    lifecycle: &Lifecycle,
) -> Result<SocketAddr, Error> {
    let metrics = Metrics::new();
    let readiness = Readiness::new();
    let connected = readiness.condition("dopplers");
    connected.not_ready("no doppler is connected yet");
    let (seen, stop) = (set.clone(), lifecycle.token());
    lifecycle.spawn("readiness", async move {
        while stop
            .run_until_cancelled(tokio::time::sleep(Duration::from_millis(200)))
            .await
            .is_some()
        {
            match seen.connected() {
                0 => connected.not_ready("no doppler is connected"),
                _ => connected.ready(),
            }
        }
    });
    let collector = Arc::clone(&observer);
    metrics.collect(move |samples| collector.collect(samples));
    Ok(Admin::start(addr, metrics, observer, readiness, lifecycle)?)
}

/// Waits for the inputs, then for the dopplers.
async fn drain(
    inputs: &TaskTracker,
    pool: &DopplerPool,
    within: Duration,
    cut: &CancellationToken,
) {
    let started = tokio::time::Instant::now();
    let half = within / 2;
    let ended = async {
        // Inputs that wait for room in the buffer may have to wait for dopplers that are away.
        let ended = tokio::time::timeout(half, inputs.wait()).await.is_ok();
        pool.close(within.saturating_sub(started.elapsed())).await;
        ended
    };
    let ended = cut.run_until_cancelled(ended).await;
    if ended.is_none() {
        // No more time at all: count what is left.
        pool.close(Duration::ZERO).await;
    }
    let report = pool.report();
    let lost = report.total().dropped_total();
    if ended == Some(true) && report.pending() == 0 {
        tracing::info!(dropped_since_start = lost, took = ?started.elapsed(), "everything is handed on");
    } else {
        tracing::warn!(
            dropped_since_start = lost,
            unsettled = report.pending(),
            inputs_running = inputs.len(),
            "the agent stops before everything was handed on"
        );
    }
}

/// Every port, taken.
struct Ports {
    grpc: Server,
    udp: Option<Udp>,
    syslog_udp: Option<Udp>,
    syslog_tcp: Option<Listener>,
}

impl Ports {
    async fn bind(config: &Config) -> Result<Ports, Error> {
        let named = |what: &'static str, addr: SocketAddr| {
            move |source: io::Error| Error::Bind { what, addr, source }
        };
        let udp = |what: &'static str, addr: Option<SocketAddr>| {
            addr.map(|addr| Udp::bind(addr, config.udp_receive_buffer).map_err(named(what, addr)))
                .transpose()
        };
        Ok(Ports {
            grpc: Server::bind(config.grpc_addr).map_err(named("gRPC", config.grpc_addr))?,
            udp: udp("dropsonde datagrams", config.udp_addr)?,
            syslog_udp: udp("syslog datagrams", config.syslog_udp)?,
            syslog_tcp: match config.syslog_tcp {
                Some(addr) => {
                    let syslog = Arc::new(config.syslog.clone());
                    Some(
                        Listener::bind(addr, syslog)
                            .await
                            .map_err(named("syslog connections", addr))?,
                    )
                }
                None => None,
            },
        })
    }
}

/// Starts the inputs and knows when they have ended.
struct Inputs {
    lifecycle: Lifecycle,
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Inputs {
    fn spawn(
        &self,
        name: impl Into<std::borrow::Cow<'static, str>>,
        input: impl Future<Output = ()> + Send + 'static,
    ) {
        self.lifecycle.spawn(name, self.tracker.track_future(input));
    }

    fn network(&self, ports: Ports, tls: Arc<ServerTls>, config: &Config, intake: &Arc<Intake>) {
        let stop = self.stop.clone();
        let service = Arc::new(IngressService {
            intake: Arc::clone(intake),
            stop: stop.clone(),
        });
        let settings = ServerSettings {
            drain_timeout: config.drain_timeout / 4,
            ..ServerSettings::default()
        };
        self.spawn(
            "gRPC",
            ports.grpc.serve(Some(tls), service, settings, stop.clone()),
        );
        if let Some(udp) = ports.udp {
            let handler = Dropsonde::new(Arc::clone(intake), config.v1.clone());
            self.datagrams(
                "dropsonde datagrams",
                udp,
                handler,
                intake,
                |stats, drops| {
                    stats
                        .udp_kernel_drops
                        .store(drops, std::sync::atomic::Ordering::Relaxed);
                },
            );
        }
        let syslog = Arc::new(config.syslog.clone());
        if let Some(udp) = ports.syslog_udp {
            let handler = Receiver::new(Arc::clone(intake), syslog, Port::SyslogUdp);
            self.datagrams("syslog datagrams", udp, handler, intake, |stats, drops| {
                stats
                    .syslog_udp_kernel_drops
                    .store(drops, std::sync::atomic::Ordering::Relaxed);
            });
        }
        if let Some(tcp) = ports.syslog_tcp {
            self.spawn("syslog connections", tcp.run(Arc::clone(intake), stop));
        }
    }

    fn datagrams(
        &self,
        name: &'static str,
        udp: Udp,
        handler: impl Handler + 'static,
        intake: &Arc<Intake>,
        store: fn(&Stats, u64),
    ) {
        let stats = Arc::clone(&intake.stats);
        let watching = udp
            .kernel_drops()
            .watch(KERNEL_INTERVAL, self.stop.clone(), move |n| {
                store(&stats, n)
            });
        self.lifecycle
            .spawn(format!("kernel drops of {name}"), watching);
        let (tracker, stop) = (self.tracker.clone(), self.stop.clone());
        self.lifecycle
            .spawn(name, tracker.track_future(udp.run(handler, stop)));
    }

    async fn lines(&self, config: &Config, intake: &Arc<Intake>) -> Result<(), Error> {
        for input in &config.inputs {
            let reader =
                |port| LineReader::new(Arc::clone(intake), port, input.clone(), &config.lines);
            match &input.kind {
                InputKind::Stdin => {
                    let chunks = chunks_of_stdin().map_err(Error::Stdin)?;
                    self.spawn(
                        "standard input",
                        read_all(chunks, reader(Port::Stdin), self.stop.clone()),
                    );
                }
                InputKind::File { path, from } => {
                    let follower =
                        Follower::new(path.clone(), *from, config.lines.poll_interval).await;
                    let (lines, stop) = (reader(Port::File), self.stop.clone());
                    let stats = Arc::clone(&intake.stats);
                    self.spawn(format!("file {}", path.display()), async move {
                        crate::stats::count(&stats.files, 1);
                        follow(follower, lines, stop).await;
                        stats
                            .files
                            .fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
                    });
                }
            }
        }
        Ok(())
    }
}
