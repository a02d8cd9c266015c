//! One component as a process of its own: `agent`, `doppler`, `traffic-controller`, `rlp`, `rlp-gateway`.
//!
//! Settings come from flags and from the variables that the flags name; everything that is wrong with them is told at
//! once, before a port is bound. The first SIGTERM or Ctrl-C drains, the second cuts the drain short.
//!
//! Exit codes: 0 after an orderly stop, 64 for unusable settings, 70 when the component failed, 75 when the drain was
//! cut short and something was lost.

use crate::settings::{self, Flags, Table};
use anyhow::{Context as _, Result};
use clap::Args;
use loggregator_service::config::{Env, Errors, ProcessEnv, Setting};
use loggregator_service::{Lifecycle, logging};
use std::future::Future;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;
use traffic_controller::{gateway, rlp};

/// A component that can be a process of its own.
pub trait Component: Table {
    /// What it is called when it cannot start.
    const NAME: &'static str;
    /// How to start it.
    const EXAMPLE: &'static str;
    /// Its settings, read and checked.
    type Config;

    /// Reads and checks its settings.
    fn read(env: &dyn Env) -> Result<Self::Config, Errors>;

    /// Worker threads; `None`: one per processor.
    fn workers(_: &Self::Config) -> Option<NonZeroUsize> {
        None
    }

    /// How long a stop may take.
    fn drain(config: &Self::Config) -> Duration;

    /// Starts it.
    fn start(config: Self::Config, lifecycle: &Lifecycle) -> impl Future<Output = Result<()>>;
}

/// A component's own flags, and those of its process.
#[derive(Debug, Clone, Args)]
#[command(after_help = format!("{}{}", settings::secrets::<C>(), C::EXAMPLE))]
pub struct ComponentArgs<C: Component> {
    #[command(flatten)]
    component: Flags<C>,
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

/// Runs a component until it is told to stop.
///
/// # Errors
/// When it cannot start.
pub fn run<C: Component>(args: ComponentArgs<C>) -> Result<ExitCode> {
    let read = C::read(&args.component.over(ProcessEnv));
    let read = read.and_then(|config| Ok((config, log_config(args.log)?)));
    let (config, log) = match read {
        Ok(read) => read,
        Err(errors) => return Ok(refuse(&errors)),
    };
    let _guard = logging::init(&log)?;
    let workers = C::workers(&config).map(NonZeroUsize::get);
    crate::runtime(workers)?.block_on(async {
        let lifecycle = Lifecycle::new();
        lifecycle
            .watch_signals()
            .context("cannot watch for signals")?;
        let drain = C::drain(&config);
        C::start(config, &lifecycle)
            .await
            .with_context(|| format!("cannot start the {}", C::NAME))?;
        Ok(lifecycle.run(drain).await)
    })
}

/// The settings of the process log.
///
/// # Errors
/// Everything that is wrong with them.
pub fn log_config(flags: Flags<LogTable>) -> Result<logging::Config, Errors> {
    let mut log = logging::Config::from_env(&flags.over(ProcessEnv))?;
    if let logging::Format::Text { color } = &mut log.format {
        *color = crate::output::ColorArg::Auto.stderr().is_on();
    }
    Ok(log)
}

/// Tells what is wrong with the settings.
pub fn refuse(errors: &Errors) -> ExitCode {
    crate::output::tell(&format!(
        "error: {errors}\nEvery flag and its variable is listed by `--help`."
    ));
    errors.exit_code()
}

/// What a stop of the traffic controller or of the gateway may take beyond the time that its setting gives to clients: for
/// close frames, and for the tasks around them.
const CLOSING: Duration = Duration::from_secs(7);

/// An agent.
#[derive(Debug, Clone, Copy)]
pub struct Agent;

impl Table for Agent {
    const PREFIX: &'static str = loggregator_agent::PREFIX;
    const SETTINGS: &'static [Setting] = loggregator_agent::SETTINGS;
}

impl Component for Agent {
    const NAME: &'static str = "agent";
    const EXAMPLE: &'static str = "\
Example:
  loggregator agent --dopplers 10.0.0.5:8082,10.0.0.6:8082 \\
    --ca-file ca.crt --cert-file metron.crt --key-file metron.key";
    type Config = loggregator_agent::Config;

    fn read(env: &dyn Env) -> Result<Self::Config, Errors> {
        Self::Config::from_env(env)
    }

    fn drain(config: &Self::Config) -> Duration {
        config.drain_timeout
    }

    async fn start(config: Self::Config, lifecycle: &Lifecycle) -> Result<()> {
        loggregator_agent::start(config, lifecycle).await?;
        Ok(())
    }
}

/// A doppler.
#[derive(Debug, Clone, Copy)]
pub struct Doppler;

impl Table for Doppler {
    const PREFIX: &'static str = doppler::PREFIX;
    const SETTINGS: &'static [Setting] = doppler::SETTINGS;
}

impl Component for Doppler {
    const NAME: &'static str = "doppler";
    const EXAMPLE: &'static str = "\
Example:
  loggregator doppler --log-bytes 512MiB --admin-addr 127.0.0.1:14825 \\
    --ca-file ca.crt --cert-file doppler.crt --key-file doppler.key";
    type Config = doppler::Config;

    fn read(env: &dyn Env) -> Result<Self::Config, Errors> {
        Self::Config::from_env(env)
    }

    fn workers(config: &Self::Config) -> Option<NonZeroUsize> {
        config.workers
    }

    fn drain(config: &Self::Config) -> Duration {
        config.drain_timeout
    }

    async fn start(config: Self::Config, lifecycle: &Lifecycle) -> Result<()> {
        doppler::start(config, lifecycle)?;
        Ok(())
    }
}

/// A traffic controller.
#[derive(Debug, Clone, Copy)]
pub struct TrafficController;

impl Table for TrafficController {
    const PREFIX: &'static str = traffic_controller::PREFIX;
    const SETTINGS: &'static [Setting] = traffic_controller::SETTINGS;
}

impl Component for TrafficController {
    const NAME: &'static str = "traffic controller";
    const EXAMPLE: &'static str = "\
Example:
  loggregator traffic-controller --dopplers doppler.internal:8082 \\
    --ca-file ca.crt --cert-file tc.crt --key-file tc.key \\
    --listen-cert-file web.crt --listen-key-file web.key --token-file tokens";
    type Config = traffic_controller::Config;

    fn read(env: &dyn Env) -> Result<Self::Config, Errors> {
        Self::Config::from_env(env)
    }

    fn drain(config: &Self::Config) -> Duration {
        config.timing.drain_within + CLOSING
    }

    async fn start(config: Self::Config, lifecycle: &Lifecycle) -> Result<()> {
        traffic_controller::start(config, lifecycle).await?;
        Ok(())
    }
}

/// A reverse log proxy.
#[derive(Debug, Clone, Copy)]
pub struct Rlp;

impl Table for Rlp {
    const PREFIX: &'static str = rlp::PREFIX;
    const SETTINGS: &'static [Setting] = rlp::SETTINGS;
}

impl Component for Rlp {
    const NAME: &'static str = "reverse log proxy";
    const EXAMPLE: &'static str = "\
Example:
  loggregator rlp --dopplers doppler.internal:8082 --ca-file ca.crt \\
    --cert-file reverselogproxy.crt --key-file reverselogproxy.key";
    type Config = rlp::Config;

    fn read(env: &dyn Env) -> Result<Self::Config, Errors> {
        Self::Config::from_env(env)
    }

    fn workers(config: &Self::Config) -> Option<NonZeroUsize> {
        config.workers
    }

    fn drain(config: &Self::Config) -> Duration {
        config.drain_timeout
    }

    async fn start(config: Self::Config, lifecycle: &Lifecycle) -> Result<()> {
        rlp::start(config, lifecycle).await?;
        Ok(())
    }
}

/// A reverse log proxy's gateway.
#[derive(Debug, Clone, Copy)]
pub struct Gateway;

impl Table for Gateway {
    const PREFIX: &'static str = gateway::PREFIX;
    const SETTINGS: &'static [Setting] = gateway::SETTINGS;
}

impl Component for Gateway {
    const NAME: &'static str = "reverse log proxy's gateway";
    const EXAMPLE: &'static str = "\
Example:
  loggregator rlp-gateway --listen-addr :8088 --token-file tokens \\
    --listen-cert-file web.crt --listen-key-file web.key \\
    --rlp-addr rlp.internal:8083 --rlp-ca-file ca.crt \\
    --rlp-cert-file client.crt --rlp-key-file client.key";
    type Config = gateway::Config;

    fn read(env: &dyn Env) -> Result<Self::Config, Errors> {
        Self::Config::from_env(env)
    }

    fn drain(config: &Self::Config) -> Duration {
        config.drain_timeout + CLOSING
    }

    async fn start(config: Self::Config, lifecycle: &Lifecycle) -> Result<()> {
        gateway::start(config, lifecycle).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::collections::BTreeMap;

    #[derive(Debug, Parser)]
    struct Line<C: Component> {
        #[command(flatten)]
        args: ComponentArgs<C>,
    }

    const FILES: [(&str, &str); 3] = [
        ("ROUTER_CA_FILE", "ca.pem"),
        ("ROUTER_CERT_FILE", "cert.pem"),
        ("ROUTER_KEY_FILE", "key.pem"),
    ];

    /// What the component makes of these flags over these variables.
    fn read<C: Component>(flags: &[&str], variables: &[(&'static str, &'static str)]) -> C::Config {
        let line = Line::<C>::try_parse_from(["x"].iter().chain(flags)).unwrap();
        let under: BTreeMap<&str, &str> = FILES.iter().chain(variables).copied().collect();
        C::read(&line.args.component.over(under)).unwrap()
    }

    #[test]
    fn a_flag_wins_over_its_variable_and_an_address_brings_its_port() {
        let variables = [
            ("ROUTER_PORT", "8082"),
            ("DOPPLER_LOG_BYTES", "64MiB"),
            ("DOPPLER_RESUME_GRACE", "5s"),
        ];
        let flags = ["--grpc-addr", "127.0.0.1:9", "--log-bytes", "48MiB"];
        let config = read::<Doppler>(&flags, &variables);
        assert_eq!(config.grpc_addr, "127.0.0.1:9".parse().unwrap());
        assert_eq!(config.log_bytes, 48 << 20);
        assert_eq!(config.resume_grace, Duration::from_secs(5));
    }

    #[test]
    fn access_control_is_turned_off_by_a_bare_flag() {
        let flags = ["--disable-access-control", "--dopplers", "x:1"];
        let config = read::<TrafficController>(&flags, &[("ROUTER_ADDRS", "y:1")]);
        assert_eq!(config.access, traffic_controller::Access::None);
        assert_eq!(config.dopplers, ["x:1"]);
    }
}
