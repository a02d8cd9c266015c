//! A whole deployment on loopback, on ports that the system gives: agent, dopplers, traffic controller, reverse log proxy,
//! gateway.

use crate::certs::Certs;
use crate::consumer::Consumer;
use crate::ledger::fetch;
use crate::load::Load;
use crate::part::Part;
use crate::sse::SseStream;
use crate::stages::{AgentStage, DopplerStage, GatewayStage, RlpStage, WebStage};
use anyhow::{Context as _, Result};
use loggregator_client::ws::{Subject, WsConfig, WsStream};
use loggregator_client::{
    AGENT, Connector, DOPPLER, DopplerSet, EgressStream, REVERSE_LOG_PROXY, V1Stream,
};
use loggregator_net::ClientTls;
use loggregator_proto::plumbing::SubscriptionRequest;
use loggregator_proto::v2::EgressBatchRequest;
use loggregator_service::ledger::Report;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use traffic_controller::gateway::{self, Logs};
use traffic_controller::{Access, rlp};

/// A port that the system chooses.
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// The token that opens everything.
pub const TOKEN: &str = "test-token";

type Tune<C> = Box<dyn Fn(&mut C)>;

/// What a [`Pipeline`] is to be like. Own metrics are off, so that every count is exact; certificates are new.
#[derive(Default)]
pub struct Builder {
    dopplers: Option<usize>,
    tune_doppler: Option<Tune<doppler::Config>>,
    tune_agent: Option<Tune<loggregator_agent::Config>>,
    tune_web: Option<Tune<traffic_controller::Config>>,
    tune_rlp: Option<Tune<rlp::Config>>,
    tune_gateway: Option<Tune<gateway::Config>>,
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

    /// Changes the reverse log proxy's settings.
    pub fn tune_rlp(mut self, tune: impl Fn(&mut rlp::Config) + 'static) -> Self {
        self.tune_rlp = Some(Box::new(tune));
        self
    }

    /// Changes the gateway's settings.
    pub fn tune_gateway(mut self, tune: impl Fn(&mut gateway::Config) + 'static) -> Self {
        self.tune_gateway = Some(Box::new(tune));
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
        let rlp = Part::<RlpStage>::start(self.rlp(&certs, &addrs)).await?;
        let gateway = Part::start(self.gateway(&certs, rlp.running().grpc_addr)).await?;
        let agent = Part::start(self.agent(&certs, &addrs)).await?;
        Ok(Pipeline {
            certs,
            dopplers,
            agent,
            web,
            rlp,
            gateway,
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
        let tokens = tokens(certs);
        std::fs::write(&tokens, format!("{TOKEN} doppler.firehose\n"))?;
        let tls = certs.tls("trafficcontroller");
        let mut config = traffic_controller::Config {
            listen_addr: ANY,
            listen_tls: Some((tls.cert.clone(), tls.key.clone())),
            dopplers: dopplers.to_vec(),
            doppler_tls: tls,
            access: Access::TokenFile(tokens),
            admin_addr: Some(ANY),
            ..traffic_controller::Config::default()
        };
        if let Some(tune) = &self.tune_web {
            tune(&mut config);
        }
        Ok(config)
    }

    fn rlp(&self, certs: &Certs, dopplers: &[String]) -> rlp::Config {
        let mut config = rlp::Config {
            grpc_addr: ANY,
            admin_addr: Some(ANY),
            tls: certs.tls("reverselogproxy"),
            dopplers: dopplers.to_vec(),
            ..rlp::Config::default()
        };
        if let Some(tune) = &self.tune_rlp {
            tune(&mut config);
        }
        config
    }

    fn gateway(&self, certs: &Certs, rlp: SocketAddr) -> gateway::Config {
        let logs = Logs::Grpc {
            addr: rlp.to_string(),
            server_name: REVERSE_LOG_PROXY.to_owned(),
            tls: certs.tls("client"),
        };
        let mut config = gateway::Config {
            addr: ANY,
            admin_addr: Some(ANY),
            access: Access::TokenFile(tokens(certs)),
            ..gateway::Config::new(logs)
        };
        if let Some(tune) = &self.tune_gateway {
            tune(&mut config);
        }
        config
    }
}

/// Where the tokens are.
fn tokens(certs: &Certs) -> PathBuf {
    certs.dir().join("tokens")
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
    /// Its reverse log proxy.
    pub rlp: Part<RlpStage>,
    /// Its gateway, which reads the reverse log proxy over gRPC.
    pub gateway: Part<GatewayStage>,
}

impl Pipeline {
    /// One to be described.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// One of each component.
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
        let before = self.open_subscriptions("v1");
        let mut config = WsConfig::new(&format!("wss://{}", self.web.running().addr));
        config.tls = Some(ClientTls::ca_only(&self.certs.ca())?);
        config.token = Some(TOKEN.to_owned());
        config.backoff =
            loggregator_net::Backoff::new(Duration::from_millis(50), Duration::from_millis(500));
        let consumer = Consumer::web(WsStream::new(config, subject)).await?;
        self.reaches_dopplers("v1", before).await;
        Ok(consumer)
    }

    /// The reverse log proxy as a client sees it.
    ///
    /// # Errors
    /// When the certificates cannot be read.
    pub fn rlp_set(&self) -> Result<DopplerSet> {
        Ok(DopplerSet::fixed(
            [self.rlp.running().grpc_addr.to_string()],
            Connector::new(REVERSE_LOG_PROXY, Some(self.client_tls()?)),
        ))
    }

    /// A v2 subscription at the reverse log proxy; returns when it reaches all dopplers. One whose request somebody else's
    /// equals reaches no doppler: there, use [`Pipeline::rlp_set`].
    ///
    /// # Errors
    /// When the certificates cannot be read, or it does not reach them in time.
    pub async fn rlp(&self, request: impl Into<EgressBatchRequest>) -> Result<Consumer> {
        let before = self.open_subscriptions("v2");
        let stream = EgressStream::open(&self.rlp_set()?, request);
        let consumer = Consumer::v2(stream, 1).await?;
        self.reaches_dopplers("v2", before).await;
        Ok(consumer)
    }

    /// A stream of the gateway, `GET /v2/read?{query}`.
    pub fn sse_stream(&self, query: &str) -> SseStream {
        SseStream::new(self.gateway.running().addr, query, TOKEN)
    }

    /// The same, read; returns when it reaches all dopplers, as [`Pipeline::rlp`].
    ///
    /// # Errors
    /// When it is refused, or does not reach them in time.
    pub async fn sse(&self, query: &str) -> Result<Consumer> {
        let before = self.open_subscriptions("v2");
        let consumer = Consumer::sse(self.sse_stream(query)).await?;
        self.reaches_dopplers("v2", before).await;
        Ok(consumer)
    }

    /// Waits until each doppler that runs has one subscription more than all had `before`.
    async fn reaches_dopplers(&self, api: &str, before: usize) {
        let up = self.dopplers.iter().filter(|part| part.is_up()).count();
        crate::eventually("every doppler is subscribed at", async || {
            self.open_subscriptions(api) >= before + up
        })
        .await;
    }

    /// Open subscriptions of this kind (`v1`, `v2`) at all dopplers that run.
    pub fn open_subscriptions(&self, api: &str) -> usize {
        let reports = self
            .dopplers
            .iter()
            .filter(|part| part.is_up())
            .map(|part| part.running().report());
        reports
            .flat_map(|report| report.subscriptions)
            .filter(|row| row.open && row.api == api)
            .count()
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
            (self.rlp.is_up(), self.rlp.admin_addr()),
            (self.gateway.is_up(), self.gateway.admin_addr()),
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

    /// The reverse log proxy's ledger.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn rlp_report(&self) -> Result<Report> {
        fetch(self.rlp.admin_addr().context("an admin address")?).await
    }

    /// The gateway's ledger.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn gateway_report(&self) -> Result<Report> {
        fetch(self.gateway.admin_addr().context("an admin address")?).await
    }

    /// Stops everything in order, along the data path.
    pub async fn stop(mut self, deadline: Duration) {
        self.agent.stop(deadline).await;
        for doppler in &mut self.dopplers {
            doppler.stop(deadline).await;
        }
        self.web.stop(deadline).await;
        self.rlp.stop(deadline).await;
        self.gateway.stop(deadline).await;
    }
}
