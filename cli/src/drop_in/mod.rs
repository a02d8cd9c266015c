//! Programs that stand in for the platform's Go programs: same variables, same lines on standard error, same exit codes.
//!
//! Each program is one file here: a table of the Go program's variables ([`go_env::Program`]), how they become the settings of our
//! stage, and what is announced when it runs. What they share:
//!
//! 1. [`go_env`] checks every variable by the rules of the Go program; everything that is wrong, unusable certificate
//!    files included, is told at once and before a port is bound ([`faults`]);
//! 2. [`report`] prints the table of the configuration;
//! 3. the stage starts; [`pprof`] serves the profiler's port;
//! 4. the first SIGTERM or SIGINT drains, the second cuts the drain short.
//!
//! Settings of ours that the Go program does not have (`DOPPLER_LOG_BYTES`, `TRAFFIC_CONTROLLER_ADMIN_ADDR`, …) are honoured
//! when they are set.

mod command_line;
mod faults;
mod go_env;
mod host;
mod pprof;
mod report;
mod rlp;
mod rlp_gateway;
mod router;
mod traffic_controller;

pub use host::DropIn;

use std::process::ExitCode;

/// The reference of all four programs as a Markdown page: every variable that each takes.
pub fn reference() -> String {
    let mut page = String::from(
        "# Programs with the Go names\n\n\
         `router`, `trafficcontroller`, `rlp` and `rlp-gateway` are started with environment variables and nothing else. An\n\
         empty variable is the same as an unset one. Numbers, switches, durations and lists are read as the Go programs read\n\
         them. [Operations](operations.md) says how to run them, [compatibility](compatibility.md) how they differ.\n\n\
         This page is rendered from the programs' tables; a test compares the two.\n",
    );
    for program in [
        &router::Router::PROGRAM,
        &traffic_controller::TrafficController::PROGRAM,
        &rlp::Rlp::PROGRAM,
        &rlp_gateway::RlpGateway::PROGRAM,
    ] {
        page.push('\n');
        page.push_str(&command_line::markdown(program));
    }
    page
}

/// The program `router`.
pub fn router() -> ExitCode {
    host::main::<router::Router>()
}

/// The program `rlp`.
pub fn rlp() -> ExitCode {
    host::main::<rlp::Rlp>()
}

/// The program `rlp-gateway`.
pub fn rlp_gateway() -> ExitCode {
    host::main::<rlp_gateway::RlpGateway>()
}

/// The program `trafficcontroller`.
pub fn traffic_controller() -> ExitCode {
    host::main::<traffic_controller::TrafficController>()
}

/// The TLS 1.2 suites that the Go programs know.
const TLS12_SUITES: [&str; 2] = [
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
];

/// A list of suites; one without any that is known is where the Go programs panic.
fn tls12_suites(
    values: &go_env::Values<'_>,
    name: &str,
    faults: &mut faults::Faults,
) -> Vec<String> {
    let named = values.list(name);
    let known: Vec<String> = named
        .iter()
        .filter(|suite| TLS12_SUITES.contains(&suite.as_str()))
        .cloned()
        .collect();
    if known.is_empty() && !named.is_empty() {
        let text = "no valid ciphers provided for TLS configuration".to_owned();
        faults.push(faults::Fault::late(2, text));
    }
    known
}

/// What the Go programs log about the dopplers that they were given.
fn announce_dopplers(dopplers: &[String]) {
    tracing::info!(
        "Event from finder: {{GRPCDopplers:[{}]}}",
        dopplers.join(" ")
    );
    for doppler in dopplers {
        tracing::info!("adding doppler {doppler}");
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Base URLs that cannot be used. Go's program starts with one, and then denies everybody everything.
fn base_urls(values: &go_env::Values<'_>, names: &[&str], faults: &mut faults::Faults) {
    for name in names {
        let url = values.text(name);
        if !::traffic_controller::access::is_base_address(&url) {
            faults.config(format!("{name} is not of the form https://host:port"));
        }
    }
}
