//! A reverse log proxy and nothing else, as a process for the generator to drive. Takes the variables of the program.

use std::process::ExitCode;
use std::time::Duration;

use loggregator_service::Lifecycle;
use loggregator_service::config::ProcessEnv;
use traffic_controller::rlp;

/// A run that is over does not wait for anybody.
const DRAIN: Duration = Duration::from_secs(3);

fn main() -> anyhow::Result<ExitCode> {
    let config = rlp::Config::from_env(&ProcessEnv)?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let lifecycle = Lifecycle::new();
        lifecycle.watch_signals()?;
        rlp::start(config, &lifecycle).await?;
        Ok(lifecycle.run(DRAIN).await)
    })
}
