//! SIGTERM and SIGINT.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Lifecycle, StopReason};

/// Installs the handlers. The watching task belongs to no lifecycle: it must live through the drain.
pub(super) fn watch(root: &Lifecycle) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let lifecycle = root.clone();
    tokio::spawn(async move {
        let first = next(&mut terminate, &mut interrupt).await;
        lifecycle.stop(StopReason::Signal(first));
        let second = next(&mut terminate, &mut interrupt).await;
        tracing::warn!(signal = second, "second signal: the drain is cut short");
        lifecycle.cut().cancel();
    });
    Ok(())
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
