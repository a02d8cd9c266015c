//! One component as a process of its own: `agent`, `doppler`, `traffic-controller`, `rlp`, `rlp-gateway`.
//!
//! Settings come from flags and from the variables that the flags name; everything that is wrong with them is told at
//! once, before a port is bound. The first SIGTERM or Ctrl-C drains, the second cuts the drain short.
//!
//! Exit codes: 0 after an orderly stop, 64 for unusable settings, 70 when the component failed, 75 when the drain was
//! cut short and something was lost.

use crate::settings::{Flags, Table};
use anyhow::{Context as _, Result};
use clap::Args;
use loggregator_service::config::{Errors, ProcessEnv, Setting};
use loggregator_service::{Lifecycle, logging};
use std::future::Future;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;
use traffic_controller::{gateway, rlp};

/// A component's own flags, and those of its process.
#[derive(Debug, Clone, Args)]
pub struct ComponentArgs<A: Args> {
    #[command(flatten)]
    stage: A,
    #[command(flatten, next_help_heading = "Process log")]
    log: Flags<LogTable>,
}

/// The settings of the process log as flags.
#[derive(Debug, Clone, Copy)]
pub struct LogTable;

impl Table for LogTable {
    const PREFIX: &'static str = "";
    const SETTINGS: &'static [Setting] = logging::SETTINGS;
}

pub const AGENT_EXAMPLES: &str = "\
Example:
  loggregator agent --dopplers 10.0.0.5:8082,10.0.0.6:8082 --ca-file ca.crt --cert-file metron.crt --key-file metron.key";

pub const DOPPLER_EXAMPLES: &str = "\
Example:
  loggregator doppler --ca-file ca.crt --cert-file doppler.crt --key-file doppler.key --log-bytes 512MiB \\
                      --admin-addr 127.0.0.1:14825";

pub const TRAFFIC_CONTROLLER_EXAMPLES: &str = "\
Example:
  loggregator traffic-controller --dopplers doppler.internal:8082 --ca-file ca.crt --cert-file tc.crt --key-file tc.key \\
                                 --listen-cert-file web.crt --listen-key-file web.key --token-file tokens";

pub const RLP_EXAMPLES: &str = "\
Example:
  loggregator rlp --router-addrs doppler.internal:8082 --ca-file ca.crt --cert-file reverselogproxy.crt \\
                  --key-file reverselogproxy.key";

pub const GATEWAY_EXAMPLES: &str = "\
Example:
  loggregator rlp-gateway --addr :8088 --http-cert-path web.crt --http-key-path web.key --token-file tokens \\
                          --logs-provider-addr rlp.internal:8083 --logs-provider-ca-path ca.crt \\
                          --logs-provider-client-cert-path client.crt --logs-provider-client-key-path client.key";

/// Runs a doppler until it is told to stop.
///
/// # Errors
/// When it cannot start.
pub fn doppler(args: ComponentArgs<doppler::DopplerArgs>) -> Result<ExitCode> {
    let config = match args.stage.config(ProcessEnv) {
        Ok(config) => config,
        Err(errors) => return Ok(refuse(&errors)),
    };
    let (workers, drain) = (config.workers, config.drain_timeout);
    run(args.log, workers, drain, async |lifecycle| {
        doppler::start(config, lifecycle)
            .context("cannot start the doppler")
            .map(drop)
    })
}

/// The agent's settings as flags.
#[derive(Debug, Clone, Copy)]
pub struct AgentTable;

impl Table for AgentTable {
    const PREFIX: &'static str = "AGENT_";
    const SETTINGS: &'static [Setting] = loggregator_agent::SETTINGS;
}

/// Runs an agent until it is told to stop.
///
/// # Errors
/// When it cannot start.
pub fn agent(args: ComponentArgs<Flags<AgentTable>>) -> Result<ExitCode> {
    let config = match loggregator_agent::Config::from_env(&args.stage.env()) {
        Ok(config) => config,
        Err(errors) => return Ok(refuse(&errors)),
    };
    run(args.log, None, config.drain_timeout, async |lifecycle| {
        loggregator_agent::start(config, lifecycle)
            .await
            .context("cannot start the agent")
            .map(drop)
    })
}

/// Runs a traffic controller until it is told to stop.
///
/// # Errors
/// When it cannot start.
pub fn traffic_controller(
    args: ComponentArgs<traffic_controller::TrafficControllerArgs>,
) -> Result<ExitCode> {
    let config = match args.stage.config(ProcessEnv) {
        Ok(config) => config,
        Err(errors) => return Ok(refuse(&errors)),
    };
    let drain = config.timing.drain_within + CLOSING;
    run(args.log, None, drain, async |lifecycle| {
        traffic_controller::start(config, lifecycle)
            .await
            .context("cannot start the traffic controller")
            .map(drop)
    })
}

/// The reverse log proxy's settings as flags.
#[derive(Debug, Clone, Copy)]
pub struct RlpTable;

impl Table for RlpTable {
    const PREFIX: &'static str = "RLP_";
    const SETTINGS: &'static [Setting] = rlp::SETTINGS;
}

/// Runs a reverse log proxy until it is told to stop.
///
/// # Errors
/// When it cannot start.
pub fn rlp(args: ComponentArgs<Flags<RlpTable>>) -> Result<ExitCode> {
    let config = match rlp::Config::from_env(&args.stage.env()) {
        Ok(config) => config,
        Err(errors) => return Ok(refuse(&errors)),
    };
    let (workers, drain) = (config.workers, config.drain_timeout);
    run(args.log, workers, drain, async |lifecycle| {
        rlp::start(config, lifecycle)
            .await
            .context("cannot start the reverse log proxy")
            .map(drop)
    })
}

/// The gateway's settings as flags.
#[derive(Debug, Clone, Copy)]
pub struct GatewayTable;

impl Table for GatewayTable {
    const PREFIX: &'static str = "GATEWAY_";
    const SETTINGS: &'static [Setting] = gateway::SETTINGS;
}

/// Runs a reverse log proxy's gateway until it is told to stop.
///
/// # Errors
/// When it cannot start.
pub fn rlp_gateway(args: ComponentArgs<Flags<GatewayTable>>) -> Result<ExitCode> {
    let config = match gateway::Config::from_env(&args.stage.env()) {
        Ok(config) => config,
        Err(errors) => return Ok(refuse(&errors)),
    };
    let drain = config.drain_timeout + CLOSING;
    run(args.log, None, drain, async |lifecycle| {
        gateway::start(config, lifecycle)
            .await
            .context("cannot start the reverse log proxy's gateway")
            .map(drop)
    })
}

/// What a stop of the traffic controller or of the gateway may take beyond the time that its setting gives to clients: for close frames,
/// and for the tasks around them.
const CLOSING: Duration = Duration::from_secs(7);

fn refuse(errors: &Errors) -> ExitCode {
    crate::output::tell(&format!(
        "error: {errors}\nEvery flag and its variable is listed by `--help`."
    ));
    errors.exit_code()
}

fn run<F>(
    log: Flags<LogTable>,
    workers: Option<NonZeroUsize>,
    drain: Duration,
    start: F,
) -> Result<ExitCode>
where
    F: AsyncFnOnce(&Lifecycle) -> Result<()>,
{
    let mut log = match logging::Config::from_env(&log.env()) {
        Ok(log) => log,
        Err(errors) => return Ok(refuse(&errors)),
    };
    if let logging::Format::Text { color } = &mut log.format {
        *color = crate::output::ColorArg::Auto.stderr().is_on();
    }
    let _guard = logging::init(&log)?;
    block_on(workers, async {
        let lifecycle = Lifecycle::new();
        lifecycle
            .watch_signals()
            .context("cannot watch for signals")?;
        start(&lifecycle).await?;
        Ok(lifecycle.run(drain).await)
    })
}

fn block_on<T>(
    workers: Option<NonZeroUsize>,
    future: impl Future<Output = Result<T>>,
) -> Result<T> {
    crate::runtime(workers.map(NonZeroUsize::get))?.block_on(future)
}
