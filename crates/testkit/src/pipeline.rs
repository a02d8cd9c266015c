//! A whole deployment on loopback, on ports that the system gives: agent, dopplers, traffic controller.

use crate::certs::Certs;
use crate::consumer::Consumer;
use crate::ledger::fetch;
use crate::load::Load;
use crate::part::{Part, Stage};
use anyhow::{Context as _, Result};
use loggregator_client::ws::{Subject, WsConfig, WsStream};
use loggregator_client::{AGENT, Connector, DOPPLER, DopplerSet, EgressStream, V1Stream};
use loggregator_net::ClientTls;
use loggregator_proto::plumbing::SubscriptionRequest;
use loggregator_proto::v2::EgressBatchRequest;
use loggregator_service::Lifecycle;
use loggregator_service::ledger::Report;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// A port that the system chooses.
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// The token that opens everything.
pub const TOKEN: &str = "test-token";

/// A doppler as a [`Stage`].
pub struct DopplerStage;
/// An agent as a [`Stage`].
pub struct AgentStage;
/// A traffic controller as a [`Stage`].
pub struct WebStage;

impl Stage for DopplerStage {
    type Config = doppler::Config;
    type Running = doppler::Running;

    async fn start(config: Self::Config, lifecycle: Lifecycle) -> Result<Self::Running> {
        doppler::start(config, &lifecycle).context("doppler")
    }

    fn keep_addresses(config: &mut Self::Config, running: &Self::Running) {
        config.grpc_addr = running.grpc_addr;
        config.admin_addr = running.admin_addr;
    }

    fn admin_addr(running: &Self::Running) -> Option<SocketAddr> {
        running.admin_addr
    }
}

impl Stage for AgentStage {
    type Config = loggregator_agent::Config;
    type Running = loggregator_agent::Running;

    async fn start(config: Self::Config, lifecycle: Lifecycle) -> Result<Self::Running> {
        loggregator_agent::start(config, &lifecycle)
            .await
            .context("agent")
    }

    fn keep_addresses(config: &mut Self::Config, running: &Self::Running) {
        config.grpc_addr = running.grpc_addr;
        config.udp_addr = running.udp_addr;
        config.syslog_udp = running.syslog_udp_addr;
        config.syslog_tcp = running.syslog_tcp_addr;
        config.admin_addr = running.admin_addr;
    }

    fn admin_addr(running: &Self::Running) -> Option<SocketAddr> {
        running.admin_addr
    }
}

impl Stage for WebStage {
    type Config = traffic_controller::Config;
    type Running = traffic_controller::Running;

    async fn start(config: Self::Config, lifecycle: Lifecycle) -> Result<Self::Running> {
        traffic_controller::start(config, &lifecycle)
            .await
            .context("traffic controller")
    }

    fn keep_addresses(config: &mut Self::Config, running: &Self::Running) {
        config.listen_addr = running.addr;
        config.admin_addr = running.admin_addr;
    }

    fn admin_addr(running: &Self::Running) -> Option<SocketAddr> {
        running.admin_addr
    }
}

type Tune<C> = Box<dyn Fn(&mut C)>;

/// What a [`Pipeline`] is to be like. Own metrics are off, so that every count is exact; certificates are new.
#[derive(Default)]
pub struct Builder {
    dopplers: Option<usize>,
    tune_doppler: Option<Tune<doppler::Config>>,
    tune_agent: Option<Tune<loggregator_agent::Config>>,
    tune_web: Option<Tune<traffic_controller::Config>>,
}

impl Builder {
    /// So many dopplers; one unless told otherwise.
    pub fn dopplers(mut self, count: usize) -> Self {
        self.dopplers = Some(count);
        self
    }

    /// Changes the settings of each doppler.
    pub fn tune_doppler(mut self, tune: impl Fn(&mut doppler::Config) + 'static) -> Self {
        self.tune_doppler = Some(Box::new(tune));
        self
    }

    /// Changes the agent's settings.
    pub fn tune_agent(mut self, tune: impl Fn(&mut loggregator_agent::Config) + 'static) -> Self {
        self.tune_agent = Some(Box::new(tune));
        self
    }

    /// Changes the traffic controller's settings.
    pub fn tune_web(mut self, tune: impl Fn(&mut traffic_controller::Config) + 'static) -> Self {
        self.tune_web = Some(Box::new(tune));
        self
    }

    /// Starts everything.
    ///
    /// # Errors
    /// When a component cannot start.
    pub async fn start(self) -> Result<Pipeline> {
        let certs = Certs::generate()?;
        let mut dopplers = Vec::new();
        for _ in 0..self.dopplers.unwrap_or(1) {
            let mut config = doppler::Config {
                grpc_addr: ANY,
                admin_addr: Some(ANY),
                tls: certs.tls("doppler"),
                metric_interval: Duration::ZERO,
                ..doppler::Config::default()
            };
            if let Some(tune) = &self.tune_doppler {
                tune(&mut config);
            }
            dopplers.push(Part::<DopplerStage>::start(config).await?);
        }
        let addrs: Vec<String> = dopplers
            .iter()
            .map(|part| part.running().grpc_addr.to_string())
            .collect();
        let web = Part::start(self.web(&certs, &addrs)?).await?;
        let agent = Part::start(self.agent(&certs, &addrs)).await?;
        Ok(Pipeline {
            certs,
            dopplers,
            agent,
            web,
        })
    }

    fn agent(&self, certs: &Certs, dopplers: &[String]) -> loggregator_agent::Config {
        let mut config = loggregator_agent::Config {
            grpc_addr: ANY,
            udp_addr: Some(ANY),
            syslog_udp: Some(ANY),
            syslog_tcp: Some(ANY),
            admin_addr: Some(ANY),
            tls: certs.tls("metron"),
            dopplers: dopplers.to_vec(),
            ..loggregator_agent::Config::default()
        };
        if let Some(tune) = &self.tune_agent {
            tune(&mut config);
        }
        config
    }

    fn web(&self, certs: &Certs, dopplers: &[String]) -> Result<traffic_controller::Config> {
        let tokens = certs.dir().join("tokens");
        std::fs::write(&tokens, format!("{TOKEN} doppler.firehose\n"))?;
        let tls = certs.tls("trafficcontroller");
        let mut config = traffic_controller::Config {
            listen_addr: ANY,
            listen_tls: Some((tls.cert.clone(), tls.key.clone())),
            dopplers: dopplers.to_vec(),
            doppler_tls: tls,
            access: traffic_controller::Access::TokenFile(tokens),
            admin_addr: Some(ANY),
            ..traffic_controller::Config::default()
        };
        if let Some(tune) = &self.tune_web {
            tune(&mut config);
        }
        Ok(config)
    }
}

/// A running deployment; everything ends with it.
pub struct Pipeline {
    /// Its certificates.
    pub certs: Certs,
    /// Its dopplers.
    pub dopplers: Vec<Part<DopplerStage>>,
    /// Its agent.
    pub agent: Part<AgentStage>,
    /// Its traffic controller.
    pub web: Part<WebStage>,
}

impl Pipeline {
    /// One to be described.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// One doppler, one agent, one traffic controller.
    ///
    /// # Errors
    /// When a component cannot start.
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// The client's side of mutual TLS.
    ///
    /// # Errors
    /// When the certificates cannot be read.
    pub fn client_tls(&self) -> Result<Arc<ClientTls>> {
        Ok(ClientTls::mutual(&self.certs.tls("client"))?)
    }

    /// The dopplers as a client sees them.
    ///
    /// # Errors
    /// When the certificates cannot be read.
    pub fn doppler_set(&self) -> Result<DopplerSet> {
        let addrs = self
            .dopplers
            .iter()
            .map(|part| part.running().grpc_addr.to_string());
        Ok(DopplerSet::fixed(
            addrs,
            Connector::new(DOPPLER, Some(self.client_tls()?)),
        ))
    }

    /// Numbered lines of these sources, to the agent.
    ///
    /// # Errors
    /// When the certificates cannot be read.
    pub fn load(&self, sources: &[&str]) -> Result<Load> {
        let connector = Connector::new(AGENT, Some(self.client_tls()?));
        Ok(Load::new(
            connector.channel(&self.agent.running().grpc_addr.to_string()),
            sources,
        ))
    }

    /// The same, straight to a doppler.
    ///
    /// # Errors
    /// When the certificates cannot be read.
    pub fn load_to_doppler(&self, index: usize, sources: &[&str]) -> Result<Load> {
        let connector = Connector::new(DOPPLER, Some(self.client_tls()?));
        Ok(Load::new(
            connector.channel(&self.dopplers[index].running().grpc_addr.to_string()),
            sources,
        ))
    }

    /// A v2 subscription at all dopplers; returns when it stands.
    ///
    /// # Errors
    /// When the certificates cannot be read.
    pub async fn v2(&self, request: impl Into<EgressBatchRequest>) -> Result<Consumer> {
        Consumer::v2(
            EgressStream::open(&self.doppler_set()?, request),
            self.dopplers.len(),
        )
        .await
    }

    /// A v1 subscription over gRPC at all dopplers; returns when it stands.
    ///
    /// # Errors
    /// When the certificates cannot be read.
    pub async fn v1(&self, request: &SubscriptionRequest) -> Result<Consumer> {
        Consumer::v1(
            V1Stream::open(&self.doppler_set()?, request),
            self.dopplers.len(),
        )
        .await
    }

    /// A WebSocket subscription at the traffic controller; returns when it reaches all dopplers.
    ///
    /// # Errors
    /// When it is refused, or does not reach them in time.
    pub async fn web(&self, subject: Subject) -> Result<Consumer> {
        let before = self.v1_subscriptions().await?;
        let mut config = WsConfig::new(&format!("wss://{}", self.web.running().addr));
        config.tls = Some(ClientTls::ca_only(&self.certs.ca())?);
        config.token = Some(TOKEN.to_owned());
        config.backoff =
            loggregator_net::Backoff::new(Duration::from_millis(50), Duration::from_millis(500));
        let consumer = Consumer::web(WsStream::new(config, subject)).await?;
        let up = self.dopplers.iter().filter(|part| part.is_up()).count();
        crate::eventually(
            "the traffic controller subscribes at every doppler",
            async || {
                self.v1_subscriptions()
                    .await
                    .is_ok_and(|now| now >= before + up)
            },
        )
        .await;
        Ok(consumer)
    }

    async fn v1_subscriptions(&self) -> Result<usize> {
        let reports = self
            .dopplers
            .iter()
            .filter(|part| part.is_up())
            .map(|part| part.running().report());
        Ok(reports
            .flat_map(|report| report.subscriptions)
            .filter(|row| row.open && row.api == "v1")
            .count())
    }

    /// The ledgers of everything that runs.
    ///
    /// # Errors
    /// When a component does not answer.
    pub async fn reports(&self) -> Result<Vec<Report>> {
        let dopplers = self
            .dopplers
            .iter()
            .map(|part| (part.is_up(), part.admin_addr()));
        let others = [
            (self.agent.is_up(), self.agent.admin_addr()),
            (self.web.is_up(), self.web.admin_addr()),
        ];
        let mut reports = Vec::new();
        for (up, addr) in dopplers.chain(others) {
            if let Some(addr) = addr.filter(|_| up) {
                reports.push(fetch(addr).await?);
            }
        }
        Ok(reports)
    }

    /// The ledger of one doppler, of its last life when it does not run.
    pub fn doppler_report(&self, index: usize) -> Report {
        self.dopplers[index].running().report()
    }

    /// The agent's ledger.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn agent_report(&self) -> Result<Report> {
        fetch(self.agent.admin_addr().context("an admin address")?).await
    }

    /// The traffic controller's ledger.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn web_report(&self) -> Result<Report> {
        fetch(self.web.admin_addr().context("an admin address")?).await
    }

    /// Stops everything in order, along the data path.
    pub async fn stop(mut self, deadline: Duration) {
        self.agent.stop(deadline).await;
        for doppler in &mut self.dopplers {
            doppler.stop(deadline).await;
        }
        self.web.stop(deadline).await;
    }
}
