//! Ctrl-C and SIGTERM, for commands that have nothing to drain.

use tokio::signal::unix::{SignalKind, signal};

/// Ends when the process is asked to stop. Without handlers (a system that refuses them) never: then the signal ends
/// the process itself.
pub async fn stop() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
