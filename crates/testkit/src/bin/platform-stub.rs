//! UAA and Cloud Controller for tests that are other programs.
//!
//! Makes a CA and certificates in a temporary folder, starts both on free ports of loopback, prints one line of JSON on
//! standard output, and runs until SIGTERM or SIGINT (the folder is then removed). Takes no arguments. The line:
//!
//! | member | is |
//! | --- | --- |
//! | `uaa_url` | UAA, `https://127.0.0.1:…`: `POST /check_token`, `GET /token_keys` |
//! | `capi_url` | Cloud Controller, `https://127.0.0.1:…`, wants a client certificate of the CA: `GET /internal/v4/log_access/<id>`, `GET /v3/service_instances/<id>` |
//! | `capi_external_url` | the same over plain HTTP |
//! | `capi_server_name` | the name in its certificate, `cloud-controller` |
//! | `client_id`, `client_secret` | the UAA client that may check tokens |
//! | `ca` | path of the CA's certificate |
//! | `certs` | folder with `<name>.crt` and `<name>.key`, names: doppler, metron, trafficcontroller, reverselogproxy, client, uaa, cloud-controller; each is valid for its name, localhost and 127.0.0.1 |
//! | `control_url` | the control port, plain HTTP |
//!
//! The control port takes and gives JSON; mistakes are answered with 400 and what is wrong:
//!
//! - `POST /control`: makes endpoints slow or wrong, tokens known or unknown, rotates the signing key, resets the counts;
//!   every member may be absent:
//!   `{"faults": {"check_token": {"latency_ms": 2000, "mode": …}}, "tokens": {"<opaque token>": {"scopes": […],
//!   "apps": ["<guid>" or "*"], "instances": […], "lifetime_s": 60}}, "forget": ["<token>"],
//!   "rotate": "add" or "replace", "reset_calls": true}`.
//!   Endpoints are `check_token`, `token_keys`, `log_access`, `service_instances`. Modes are `"none"`,
//!   `{"status": 500}`, `"wrong_json"`, `"hang"`, `"close"`, `{"redirect": "<url>"}`. `"replace"` withdraws the keys so
//!   far, `"add"` keeps them published. Whoever has one of the scopes `doppler.firehose`, `logs.admin`,
//!   `cloud_controller.admin` sees every application.
//! - `POST /token` with a grant as above, and `"claims": {…}` to add to the JWT's or replace them: answers
//!   `{"token": "<JWT>"}`, signed with RS256 and known to both.
//! - `GET /calls`: `{"check_token": {"<token>": 3}, "log_access": {…}, …, "requests": ["GET /path", …]}`.

use anyhow::{Context as _, Result};
use loggregator_service::Lifecycle;
use loggregator_testkit::Certs;
use loggregator_testkit::platform::{CAPI_NAME, CLIENT_ID, CLIENT_SECRET, PlatformStub};
use serde_json::json;
use std::io::Write as _;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let lifecycle = Lifecycle::new();
    let certs = Certs::generate()?;
    let stub = PlatformStub::start(&certs, &lifecycle)?;
    let line = json!({
        "uaa_url": stub.uaa_url,
        "capi_url": stub.capi_url,
        "capi_external_url": stub.capi_external_url,
        "capi_server_name": CAPI_NAME,
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "ca": certs.ca(),
        "certs": certs.dir(),
        "control_url": stub.serve_control(&lifecycle)?,
    });
    writeln!(std::io::stdout(), "{line}").context("standard output")?;
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    lifecycle.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
