//! A traffic controller and nothing else, as a process for the generator to drive. Takes the flags and variables of
//! `loggregator traffic-controller`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use loggregator_service::Lifecycle;
use loggregator_service::config::ProcessEnv;
use traffic_controller::TrafficControllerArgs;

/// A run that is over does not wait for anybody.
const DRAIN: Duration = Duration::from_secs(3);

#[derive(Parser)]
#[command(name = "controller-target", version, max_term_width = 110)]
struct Args {
    #[command(flatten)]
    controller: TrafficControllerArgs,
}

fn main() -> anyhow::Result<ExitCode> {
    let config = Args::parse().controller.config(ProcessEnv)?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let lifecycle = Lifecycle::new();
        lifecycle.watch_signals()?;
        traffic_controller::start(config, &lifecycle).await?;
        Ok(lifecycle.run(DRAIN).await)
    })
}
