//! The components as [`Stage`]s.

use crate::part::Stage;
use anyhow::{Context as _, Result};
use loggregator_service::Lifecycle;
use std::net::SocketAddr;
use traffic_controller::{gateway, rlp};

/// A doppler as a [`Stage`].
pub struct DopplerStage;
/// An agent as a [`Stage`].
pub struct AgentStage;
/// A traffic controller as a [`Stage`].
pub struct WebStage;
/// A reverse log proxy as a [`Stage`].
pub struct RlpStage;
/// A reverse log proxy's gateway as a [`Stage`].
pub struct GatewayStage;

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

impl Stage for RlpStage {
    type Config = rlp::Config;
    type Running = rlp::Running;

    async fn start(config: Self::Config, lifecycle: Lifecycle) -> Result<Self::Running> {
        rlp::start(config, &lifecycle)
            .await
            .context("reverse log proxy")
    }

    fn keep_addresses(config: &mut Self::Config, running: &Self::Running) {
        config.grpc_addr = running.grpc_addr;
        config.admin_addr = running.admin_addr;
    }

    fn admin_addr(running: &Self::Running) -> Option<SocketAddr> {
        running.admin_addr
    }
}

impl Stage for GatewayStage {
    type Config = gateway::Config;
    type Running = gateway::Running;

    async fn start(config: Self::Config, lifecycle: Lifecycle) -> Result<Self::Running> {
        gateway::start(config, &lifecycle).await.context("gateway")
    }

    fn keep_addresses(config: &mut Self::Config, running: &Self::Running) {
        config.addr = running.addr;
        config.admin_addr = running.admin_addr;
    }

    fn admin_addr(running: &Self::Running) -> Option<SocketAddr> {
        running.admin_addr
    }
}
