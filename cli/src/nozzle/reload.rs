//! SIGHUP: a nozzle takes over what its file says now.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use loggregator_nozzle::Running;
use loggregator_nozzle::config::NozzleConfig;
use loggregator_service::Lifecycle;
use tokio::signal::unix::{SignalKind, signal};

use crate::output;

/// Reads the configuration again; an error is told in words.
pub type Again = Box<dyn Fn() -> Result<NozzleConfig, String> + Send + Sync>;

/// Reloads each nozzle at each SIGHUP until the lifecycle stops. A file that is wrong changes nothing.
///
/// # Errors
/// When the system takes no handler.
pub fn watch(nozzles: Vec<(Arc<Running>, Again)>, lifecycle: &Lifecycle) -> Result<()> {
    let mut hangups = signal(SignalKind::hangup()).context("cannot watch for SIGHUP")?;
    let stop = lifecycle.token();
    lifecycle.spawn("reload", async move {
        while stop
            .run_until_cancelled(hangups.recv())
            .await
            .flatten()
            .is_some()
        {
            for (running, again) in &nozzles {
                output::tell(&reload(running, again).await);
            }
        }
    });
    Ok(())
}

async fn reload(running: &Running, again: &Again) -> String {
    let config = match again() {
        Ok(config) => config,
        Err(errors) => return format!("{errors}\nnot reloaded: the nozzle goes on as before"),
    };
    let name = config.nozzle.name.clone();
    match running.reload(config).await {
        Ok(done) if done.restarted.is_empty() => format!("nozzle {name}: nothing has changed"),
        Ok(done) => format!(
            "nozzle {name}: reloaded; started anew: {}",
            done.restarted.join(", ")
        ),
        Err(error) => format!("nozzle {name}: not reloaded: {error}"),
    }
}
