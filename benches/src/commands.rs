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

/// The doppler alone; `loggregator doppler` takes the same flags. Without its own metrics among the envelopes: what a
/// reader is told to have lost is then comparable with what it misses of ours.
#[must_use]
pub fn doppler() -> String {
    format!(
        "{} --grpc-addr {{addr}} --admin-addr {{admin}} --ca-file {{ca}} --cert-file {{cert}} --key-file {{key}} \
         --log-bytes {{log_bytes}} --metric-interval 0",
        sibling("doppler-target").display()
    )
}

/// The traffic controller, open to everybody, over TLS; `loggregator traffic-controller` takes the same flags.
#[must_use]
pub fn controller() -> String {
    format!(
        "{} --listen-cert-file {{cert}} --listen-key-file {{key}}",
        plain_controller()
    )
}

/// The same without TLS towards its clients.
#[must_use]
pub fn plain_controller() -> String {
    format!(
        "{} --listen-addr {{addr}} --dopplers {{doppler}} --ca-file {{ca}} --cert-file {{cert}} --key-file {{key}} \
         --disable-access-control",
        sibling("controller-target").display()
    )
}

/// The reverse log proxy, which takes its settings from the environment.
#[must_use]
pub fn rlp() -> String {
    format!(
        "RLP_GRPC_ADDR={{addr}} ROUTER_ADDRS={{doppler}} RLP_CA_FILE={{ca}} RLP_CERT_FILE={{cert}} RLP_KEY_FILE={{key}} \
         RLP_METRIC_EMITTER_INTERVAL=0s {}",
        sibling("rlp-target").display()
    )
}
