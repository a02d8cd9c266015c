//! A doppler and nothing else, as a process for the generator to drive. Takes the variables of `loggregator doppler`.

use std::process::ExitCode;

use loggregator_service::Lifecycle;
use loggregator_service::config::ProcessEnv;

fn main() -> anyhow::Result<ExitCode> {
    let config = doppler::Config::from_env(&ProcessEnv)?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = config.workers {
        runtime.worker_threads(workers.get());
    }
    let deadline = config.drain_timeout;
    runtime.enable_all().build()?.block_on(async {
        let lifecycle = Lifecycle::new();
        lifecycle.watch_signals()?;
        doppler::start(config, &lifecycle)?;
        Ok(lifecycle.run(deadline).await)
    })
}
