//! The components of `up`: started back to front, drained front to back.

use super::live::Totals;
use super::nozzles::{Nozzle, Planned};
use super::plan::Plan;
use crate::nozzle::live::Live;
use crate::nozzle::reload::Again;
use crate::state::{
    AgentEndpoints, DopplerEndpoints, Endpoints, PrometheusEndpoints, RlpEndpoints,
    RlpGatewayEndpoints, StateDir, TrafficControllerEndpoints,
};
use crate::view::{Palette, count};
use anyhow::{Context as _, Result};
use loggregator_service::Lifecycle;
use loggregator_service::ledger::{Report, Subscription};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use traffic_controller::gateway::{self, Logs};
use traffic_controller::{Access, rlp};

/// Who owns the tasks of each component.
struct Stages {
    agent: Lifecycle,
    dopplers: Vec<Lifecycle>,
    web: Lifecycle,
    rlp: Lifecycle,
    gateway: Lifecycle,
    nozzles: Lifecycle,
}

impl Stages {
    /// Ends what a start that failed half way has begun.
    async fn undo(&self) {
        let others = [
            &self.web,
            &self.rlp,
            &self.gateway,
            &self.nozzles,
            &self.agent,
        ];
        for stage in self.dopplers.iter().chain(others) {
            stage.shutdown(Duration::from_millis(100)).await;
        }
    }
}

/// Whether a start failed because somebody took a port between its choice and its use.
pub fn is_port_taken(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::AddrInUse)
}

/// Everything that runs.
pub struct Stack {
    agent: loggregator_agent::Running,
    dopplers: Vec<doppler::Running>,
    web: traffic_controller::Running,
    rlp: rlp::Running,
    gateway: gateway::Running,
    nozzles: Vec<Nozzle>,
    /// Where Prometheus finds the apps' metrics.
    prometheus: Option<SocketAddr>,
}

impl Stack {
    /// Starts the dopplers, then what reads from them, then what sends to them.
    ///
    /// # Errors
    /// When a component cannot start; those that did are ended again.
    pub async fn start(plan: &Plan, nozzles: Planned, lifecycle: &Lifecycle) -> Result<Self> {
        // Stages drain in the order in which they were made: along the data path, so that what is on its way arrives.
        let stages = Stages {
            agent: lifecycle.stage("agent"),
            dopplers: (1..=plan.dopplers.len())
                .map(|n| lifecycle.stage(&format!("doppler-{n}")))
                .collect(),
            web: lifecycle.stage("traffic-controller"),
            // Before the proxy whose streams it reads: it asks them for their end, and can tell its clients that it goes.
            gateway: lifecycle.stage("rlp-gateway"),
            rlp: lifecycle.stage("rlp"),
            nozzles: lifecycle.stage("nozzles"),
        };
        let started = Self::start_on(plan, nozzles, &stages).await;
        if started.is_err() {
            stages.undo().await;
        }
        started
    }

    async fn start_on(plan: &Plan, nozzles: Planned, stages: &Stages) -> Result<Self> {
        let mut dopplers = Vec::new();
        for ((grpc, admin), stage) in plan.dopplers.iter().zip(&stages.dopplers) {
            let config = doppler::Config {
                grpc_addr: grpc.addr,
                admin_addr: Some(admin.addr),
                tls: plan.tls(&plan.pki.doppler),
                log_bytes: plan.log_bytes,
                resume_grace: plan.resume_grace,
                drain_timeout: plan.drain_timeout,
                ..doppler::Config::default()
            };
            dopplers.push(doppler::start(config, stage).context("cannot start a doppler")?);
        }
        let web = traffic_controller::start(web_config(plan), &stages.web)
            .await
            .context("cannot start the traffic controller")?;
        let rlp = rlp::start(rlp_config(plan), &stages.rlp)
            .await
            .context("cannot start the reverse log proxy")?;
        // In this process: the proxy's streams without a network in between.
        let logs = Logs::InProcess(rlp.provider());
        let gateway = gateway::start(gateway_config(plan, logs), &stages.gateway)
            .await
            .context("cannot start the reverse log proxy's gateway")?;
        let prometheus = nozzles.page();
        let nozzles = nozzles.start(&rlp.provider(), &stages.nozzles).await?;
        let agent = loggregator_agent::start(agent_config(plan), &stages.agent)
            .await
            .context("cannot start the agent")?;
        Ok(Self {
            agent,
            dopplers,
            web,
            rlp,
            gateway,
            nozzles,
            prometheus,
        })
    }

    /// The addresses as they are.
    pub fn endpoints(&self, plan: &Plan) -> Endpoints {
        let admin = |addr: Option<SocketAddr>| {
            addr.map(|addr| format!("http://{addr}"))
                .unwrap_or_default()
        };
        let text = |addr: Option<SocketAddr>| addr.map(|addr| addr.to_string());
        Endpoints {
            version: Endpoints::VERSION,
            pid: std::process::id(),
            agent: AgentEndpoints {
                grpc: self.agent.grpc_addr.to_string(),
                udp: text(self.agent.udp_addr),
                syslog_udp: text(self.agent.syslog_udp_addr),
                syslog_tcp: text(self.agent.syslog_tcp_addr),
                admin: admin(self.agent.admin_addr),
            },
            doppler: self
                .dopplers
                .iter()
                .map(|doppler| DopplerEndpoints {
                    grpc: doppler.grpc_addr.to_string(),
                    admin: admin(doppler.admin_addr),
                })
                .collect(),
            traffic_controller: TrafficControllerEndpoints {
                url: format!(
                    "{}://{}",
                    if self.web.tls { "wss" } else { "ws" },
                    self.web.addr
                ),
                admin: admin(self.web.admin_addr),
            },
            rlp: Some(RlpEndpoints {
                grpc: self.rlp.grpc_addr.to_string(),
                admin: admin(self.rlp.admin_addr),
            }),
            rlp_gateway: Some(RlpGatewayEndpoints {
                url: format!(
                    "{}://{}",
                    if self.gateway.tls { "https" } else { "http" },
                    self.gateway.addr
                ),
                admin: admin(self.gateway.admin_addr),
            }),
            prometheus: self.prometheus.map(|addr| PrometheusEndpoints {
                url: format!("http://{addr}/metrics"),
            }),
            nozzles: self.nozzles.iter().map(Nozzle::endpoints).collect(),
            ca_file: plan.pki.ca.clone(),
            client_cert_file: plan.pki.client.cert.clone(),
            client_key_file: plan.pki.client.key.clone(),
            token_file: plan.token_file.clone(),
        }
    }

    /// The dopplers' ledgers: what everybody's envelopes went through.
    pub fn reports(&self) -> Vec<Report> {
        self.dopplers.iter().map(doppler::Running::report).collect()
    }

    /// The numbers of the live line.
    pub fn totals(&self) -> Totals {
        Totals::of(&self.reports())
    }

    /// The nozzles that can take over what their files say now.
    pub fn reloads(&self, dir: &StateDir, palette: Palette) -> Vec<(Arc<Live>, Again)> {
        let each = self.nozzles.iter();
        each.filter_map(|nozzle| nozzle.reload(dir, palette))
            .collect()
    }

    /// What the nozzles' destinations have not got, a line each, and whether it is lost.
    pub fn left_in_nozzles(&self) -> Vec<(String, bool)> {
        self.nozzles.iter().flat_map(Nozzle::left).collect()
    }

    /// What the drain did not bring to a reader that was there when it began.
    pub fn undelivered(&self, before: &[Report]) -> Vec<String> {
        before
            .iter()
            .zip(self.reports())
            .flat_map(|(before, after)| undelivered(before, &after))
            .collect()
    }
}

fn undelivered(before: &Report, after: &Report) -> Vec<String> {
    let lost_earlier = |this: &Subscription| {
        before
            .subscriptions
            .iter()
            .find(|other| {
                (&other.id, &other.peer, &other.selector) == (&this.id, &this.peer, &this.selector)
            })
            .map_or(0, Subscription::dropped_total)
    };
    after
        .subscriptions
        .iter()
        .filter_map(|this| {
            let left = this.pending + this.dropped_total().saturating_sub(lost_earlier(this));
            let name = if this.id.is_empty() {
                &this.selector
            } else {
                &this.id
            };
            (left > 0).then(|| {
                format!(
                    "not delivered: {} for {name} ({}, {})",
                    count(left, "envelope"),
                    this.api,
                    this.peer
                )
            })
        })
        .collect()
}

fn agent_config(plan: &Plan) -> loggregator_agent::Config {
    let named = |mut input: loggregator_agent::Input, source_type: &str| {
        input.source_type = source_type.to_owned();
        input.instance_id = "0".to_owned();
        input
    };
    let files = plan.follow.iter().map(|follow| {
        named(
            loggregator_agent::Input::file(&follow.path, &follow.source_id),
            "FILE",
        )
    });
    let stdin = plan
        .stdin
        .as_deref()
        .map(|source_id| named(loggregator_agent::Input::stdin(source_id), "STDIN"));
    let inputs = files.chain(stdin).collect();
    loggregator_agent::Config {
        grpc_addr: plan.agent_grpc.addr,
        udp_addr: Some(plan.agent_udp.addr),
        syslog_udp: plan.syslog_udp.map(|choice| choice.addr),
        syslog_tcp: plan.syslog_tcp.map(|choice| choice.addr),
        admin_addr: Some(plan.agent_admin.addr),
        tls: plan.tls(&plan.pki.agent),
        dopplers: plan.doppler_addrs(),
        tags: plan.tags.clone(),
        inputs,
        drain_timeout: plan.drain_timeout,
        ..loggregator_agent::Config::default()
    }
}

fn web_config(plan: &Plan) -> traffic_controller::Config {
    let identity = &plan.pki.traffic_controller;
    traffic_controller::Config {
        listen_addr: plan.web.addr,
        listen_tls: Some((identity.cert.clone(), identity.key.clone())),
        dopplers: plan.doppler_addrs(),
        doppler_tls: plan.tls(identity),
        access: Access::TokenFile(plan.grants_file.clone()),
        admin_addr: Some(plan.web_admin.addr),
        agent_addr: Some(plan.agent_grpc.addr.to_string()),
        ..traffic_controller::Config::default()
    }
}

fn rlp_config(plan: &Plan) -> rlp::Config {
    rlp::Config {
        grpc_addr: plan.rlp.addr,
        dopplers: plan.doppler_addrs(),
        tls: plan.tls(&plan.pki.reverse_log_proxy),
        admin_addr: Some(plan.rlp_admin.addr),
        agent_addr: Some(plan.agent_grpc.addr.to_string()),
        drain_timeout: plan.drain_timeout,
        ..rlp::Config::default()
    }
}

fn gateway_config(plan: &Plan, logs: Logs) -> gateway::Config {
    let identity = &plan.pki.reverse_log_proxy;
    gateway::Config {
        addr: plan.gateway.addr,
        listen_tls: Some((identity.cert.clone(), identity.key.clone())),
        access: Access::TokenFile(plan.grants_file.clone()),
        admin_addr: Some(plan.gateway_admin.addr),
        ..gateway::Config::new(logs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(pending: u64, dropped: u64) -> Report {
        Report {
            subscriptions: vec![Subscription {
                id: "nozzle".to_owned(),
                api: "v2".to_owned(),
                peer: "127.0.0.1:5".to_owned(),
                pending,
                dropped: [("disconnected".to_owned(), dropped)].into(),
                ..Subscription::default()
            }],
            ..Report::default()
        }
    }

    #[test]
    fn only_what_the_drain_left_is_reported() {
        assert!(undelivered(&report(40, 3), &report(0, 3)).is_empty());
        assert_eq!(
            undelivered(&report(40, 3), &report(2, 8)),
            ["not delivered: 7 envelopes for nozzle (v2, 127.0.0.1:5)"]
        );
    }
}
