//! A doppler and nothing else, as a process for the generator to drive. Takes the flags and variables of
//! `loggregator doppler`.

use std::process::ExitCode;

use clap::Parser;
use doppler::DopplerArgs;
use loggregator_service::Lifecycle;
use loggregator_service::config::ProcessEnv;

#[derive(Parser)]
#[command(name = "doppler-target", version, max_term_width = 110)]
struct Args {
    #[command(flatten)]
    doppler: DopplerArgs,
}

fn main() -> anyhow::Result<ExitCode> {
    let config = Args::parse().doppler.config(ProcessEnv)?;
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
