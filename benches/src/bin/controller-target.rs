//! A traffic controller and nothing else, as a process for the generator to drive. Takes the variables of
//! `loggregator traffic-controller`.

use std::process::ExitCode;
use std::time::Duration;

use loggregator_service::Lifecycle;
use loggregator_service::config::ProcessEnv;

/// A run that is over does not wait for anybody.
const DRAIN: Duration = Duration::from_secs(3);

fn main() -> anyhow::Result<ExitCode> {
    let config = traffic_controller::Config::from_env(&ProcessEnv)?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let lifecycle = Lifecycle::new();
        lifecycle.watch_signals()?;
        traffic_controller::start(config, &lifecycle).await?;
        Ok(lifecycle.run(DRAIN).await)
    })
}
