//! How the programs of this workspace are started as targets.

use std::path::{Path, PathBuf};

/// The folder of the running program, where cargo puts its siblings.
#[must_use]
pub fn sibling(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap_or_default();
    here.parent().unwrap_or(Path::new(".")).join(name)
}

/// The floor.
#[must_use]
pub fn relay() -> String {
    format!(
        "{} --listen {{addr}} --ca {{ca}} --cert {{cert}} --key {{key}}",
        sibling("relay").display()
    )
}

/// The doppler alone. Without its own metrics among the envelopes: what a reader is told to have lost is then comparable
/// with what it misses of ours. As all targets of this workspace it takes its settings from the environment.
#[must_use]
pub fn doppler() -> String {
    format!(
        "DOPPLER_GRPC_ADDR={{addr}} DOPPLER_ADMIN_ADDR={{admin}} ROUTER_CA_FILE={{ca}} ROUTER_CERT_FILE={{cert}} \
         ROUTER_KEY_FILE={{key}} DOPPLER_LOG_BYTES={{log_bytes}} ROUTER_METRIC_BATCH_INTERVAL_MILLISECONDS=0 {}",
        sibling("doppler-target").display()
    )
}

/// The traffic controller, open to everybody, over TLS.
#[must_use]
pub fn controller() -> String {
    format!(
        "TRAFFIC_CONTROLLER_OUTGOING_CERT_FILE={{cert}} TRAFFIC_CONTROLLER_OUTGOING_KEY_FILE={{key}} {}",
        plain_controller()
    )
}

/// The same without TLS towards its clients.
#[must_use]
pub fn plain_controller() -> String {
    format!(
        "TRAFFIC_CONTROLLER_LISTEN_ADDR={{addr}} ROUTER_ADDRS={{doppler}} ROUTER_CA_FILE={{ca}} ROUTER_CERT_FILE={{cert}} \
         ROUTER_KEY_FILE={{key}} TRAFFIC_CONTROLLER_DISABLE_ACCESS_CONTROL=true {}",
        sibling("controller-target").display()
    )
}

/// The reverse log proxy.
#[must_use]
pub fn rlp() -> String {
    format!(
        "RLP_GRPC_ADDR={{addr}} ROUTER_ADDRS={{doppler}} RLP_CA_FILE={{ca}} RLP_CERT_FILE={{cert}} RLP_KEY_FILE={{key}} \
         RLP_METRIC_EMITTER_INTERVAL=0s {}",
        sibling("rlp-target").display()
    )
}
