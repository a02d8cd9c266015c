//! SIGHUP: a nozzle takes over what its file says now.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use loggregator_nozzle::config::NozzleConfig;
use loggregator_service::Lifecycle;
use tokio::signal::unix::{SignalKind, signal};

use super::live::Live;
use crate::output;

/// Reads the configuration again; an error is told in words.
pub type Again = Box<dyn Fn() -> Result<NozzleConfig, String> + Send + Sync>;

/// Reloads each nozzle at each SIGHUP until the lifecycle stops. A file that is wrong changes nothing.
///
/// # Errors
/// When the system takes no handler.
pub fn watch(nozzles: Vec<(Arc<Live>, Again)>, lifecycle: &Lifecycle) -> Result<()> {
    let mut hangups = signal(SignalKind::hangup()).context("cannot watch for SIGHUP")?;
    let stop = lifecycle.token();
    lifecycle.spawn("reload", async move {
        while stop
            .run_until_cancelled(hangups.recv())
            .await
            .flatten()
            .is_some()
        {
            for (nozzle, again) in &nozzles {
                output::tell(&reload(nozzle, again).await);
            }
        }
    });
    Ok(())
}

async fn reload(nozzle: &Arc<Live>, again: &Again) -> String {
    match again() {
        Ok(config) => nozzle.reload(config).await,
        Err(errors) => format!("{errors}\nnot reloaded: the nozzle goes on as before"),
    }
}
