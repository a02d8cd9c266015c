//! SIGHUP: a nozzle takes over what its file says now.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use loggregator_nozzle::Running;
use loggregator_nozzle::config::NozzleConfig;
use loggregator_service::Lifecycle;
use tokio::signal::unix::{SignalKind, signal};

use super::live::{Live, told};
use crate::output;

/// Reads the configuration again; an error is told in words.
pub type Again = Box<dyn Fn() -> Result<NozzleConfig, String> + Send + Sync>;

/// A nozzle to be reloaded.
pub enum Subject {
    /// The one of this process.
    Own(Arc<Live>),
    /// One beside others, in the process of a pipeline.
    Part(Arc<Running>),
}

/// Reloads each nozzle at each SIGHUP until the lifecycle stops. A file that is wrong changes nothing.
///
/// # Errors
/// When the system takes no handler.
pub fn watch(nozzles: Vec<(Subject, Again)>, lifecycle: &Lifecycle) -> Result<()> {
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

async fn reload(nozzle: &Subject, again: &Again) -> String {
    let config = match again() {
        Ok(config) => config,
        Err(errors) => return format!("{errors}\nnot reloaded: the nozzle goes on as before"),
    };
    match nozzle {
        Subject::Own(live) => live.reload(config).await,
        Subject::Part(running) => {
            let name = config.nozzle.name.clone();
            told(&name, running.reload(config).await)
        }
    }
}
