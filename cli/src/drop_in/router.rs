//! `router`: the doppler.

use super::faults::{Fault, Faults, io_text};
use super::go_env::{Field, Kind, Program, Values};
use super::host::DropIn;
use super::tls12_suites;
use loggregator_net::{Profile, ServerTls, TlsFiles};
use loggregator_service::Lifecycle;
use std::net::{Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

/// The doppler under the name that it has in the platform's source.
pub struct Router;

/// What the doppler is made of.
pub struct Config {
    doppler: doppler::Config,
    /// The two sizes of buffers that are not there.
    buffers: [Option<i64>; 2],
}

/// Exit code for certificates and for an agent's address that cannot be used.
const EXIT_SETUP: u8 = 1;
/// Exit code where the Go program panics.
const EXIT_PANIC: u8 = 2;
/// The longest interval of own metrics; a longer one is as good as never.
const LONGEST: Duration = Duration::from_secs(60 * 60 * 24 * 365);

const FIELDS: &[Field] = &[
    Field::new(
        "GRPC.Port",
        Kind::Uint16,
        "ROUTER_PORT",
        "0",
        "gRPC port on every interface. 0 takes a free one; larger numbers are taken modulo 65536.",
    ),
    Field::new(
        "GRPC.CertFile",
        Kind::Text,
        "ROUTER_CERT_FILE",
        "",
        "PEM certificate, for serving and for the local agent; its name must be `doppler`. Must be set.",
    ),
    Field::new(
        "GRPC.KeyFile",
        Kind::Text,
        "ROUTER_KEY_FILE",
        "",
        "PEM key of the certificate (PKCS#1, PKCS#8 or SEC1). Must be set.",
    ),
    Field::new(
        "GRPC.CAFile",
        Kind::Text,
        "ROUTER_CA_FILE",
        "",
        "PEM bundle of the authorities for clients and for the local agent. Must be set.",
    ),
    Field::new(
        "GRPC.CipherSuites",
        Kind::List,
        "ROUTER_CIPHER_SUITES",
        "",
        "TLS 1.2 suites to allow, comma-separated, out of TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 and \
         TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384; others are skipped. Unset: both.",
    ),
    Field::new(
        "Config.IngressBufferSize",
        Kind::Int,
        "INGRESS_BUFFER_SIZE",
        "0",
        "Read and without effect: the log is bounded in bytes, by DOPPLER_LOG_BYTES.",
    ),
    Field::new(
        "Config.EgressBufferSize",
        Kind::Int,
        "EGRESS_BUFFER_SIZE",
        "0",
        "Read and without effect: readers have no buffers of their own.",
    ),
    Field::new(
        "Config.UseRFC339",
        Kind::Bool,
        "USE_RFC339",
        "false",
        "`true` or `1`: log lines begin with UTC in the form of RFC 3339.",
    ),
    Field::new(
        "Config.PProfPort",
        Kind::Uint32,
        "ROUTER_PPROF_PORT",
        "0",
        "Port on loopback for /debug/pprof/. 0 takes a free one.",
    ),
    Field::new(
        "Agent.GRPCAddress",
        Kind::Text,
        "AGENT_GRPC_ADDRESS",
        "",
        "host:port of the local agent for own metrics. Unset: they go into the doppler's own log.",
    ),
    Field::new(
        "Config.MetricBatchIntervalMilliseconds",
        Kind::Uint,
        "ROUTER_METRIC_BATCH_INTERVAL_MILLISECONDS",
        "5000",
        "Interval of own metrics. 0: never.",
    ),
    Field::new(
        "Config.MetricSourceID",
        Kind::Text,
        "ROUTER_METRIC_SOURCE_ID",
        "doppler",
        "Source id of own metrics.",
    ),
];

impl DropIn for Router {
    const PROGRAM: Program = Program {
        name: "router",
        about: "router: a doppler. Takes envelopes from agents and gives them to whoever subscribes.",
        fields: FIELDS,
        settings: doppler::SETTINGS,
        replaced: &["DOPPLER_GRPC_ADDR"],
        config_error: "Unable to parse config",
        config_exit: 1,
        pprof_port: "ROUTER_PPROF_PORT",
        seconds_only: false,
    };
    type Config = Config;

    fn read(values: &Values<'_>, faults: &mut Faults) -> Config {
        let tls = values.tls_files(["ROUTER_CA_FILE", "ROUTER_CERT_FILE", "ROUTER_KEY_FILE"]);
        for (path, name) in [
            (&tls.ca, "CAFile"),
            (&tls.cert, "CertFile"),
            (&tls.key, "KeyFile"),
        ] {
            if path.as_os_str().is_empty() {
                faults.config(format!("invalid router config, no GRPC.{name} provided"));
            }
        }
        let placeholders = [
            ("ROUTER_CA_FILE", "-"),
            ("ROUTER_CERT_FILE", "-"),
            ("ROUTER_KEY_FILE", "-"),
        ];
        let own = values.own(&placeholders, faults, doppler::Config::from_env);
        let cipher_suites = tls12_suites(values, "ROUTER_CIPHER_SUITES", faults);
        check_files(&tls, faults);
        let agent_addr = values.optional("AGENT_GRPC_ADDRESS");
        if let Some(reason) = agent_addr.as_deref().and_then(unusable_target) {
            let text = format!("Could not configure metric emitter: {reason}");
            faults.push(Fault::late(EXIT_SETUP, text));
        }
        let interval =
            Duration::from_millis(values.uint("ROUTER_METRIC_BATCH_INTERVAL_MILLISECONDS"));
        Config {
            doppler: doppler::Config {
                grpc_addr: SocketAddr::from((Ipv6Addr::UNSPECIFIED, values.port16("ROUTER_PORT"))),
                tls,
                cipher_suites,
                agent_addr,
                metric_interval: interval.min(LONGEST),
                metric_source_id: values.text("ROUTER_METRIC_SOURCE_ID"),
                ..own.unwrap_or_default()
            },
            buffers: ["INGRESS_BUFFER_SIZE", "EGRESS_BUFFER_SIZE"]
                .map(|name| values.optional(name).map(|_| values.int(name))),
        }
    }

    fn workers(config: &Config) -> Option<NonZeroUsize> {
        config.doppler.workers
    }

    fn drain(config: &Config) -> Duration {
        config.doppler.drain_timeout
    }

    async fn start(config: Config, lifecycle: &Lifecycle) -> Result<(), Fault> {
        tracing::info!("Startup: Setting up the router server");
        let [ingress, egress] = config.buffers.map(Option::unwrap_or_default);
        tracing::info!(
            "INGRESS_BUFFER_SIZE {ingress} and EGRESS_BUFFER_SIZE {egress} have no effect: the log holds {} bytes \
             (DOPPLER_LOG_BYTES)",
            config.doppler.log_bytes
        );
        let running =
            doppler::start(config.doppler, lifecycle).map_err(|error| unstarted(&error))?;
        let addr = running.grpc_addr;
        tracing::info!("grpc bound to: {addr}");
        tracing::info!("Startup: router server started.");
        tracing::info!("MessageRouter:Starting");
        tracing::info!("Starting gRPC server on {addr}");
        Ok(())
    }
}

/// The files as the port and the agent's client use them.
fn check_files(tls: &TlsFiles, faults: &mut Faults) {
    let all_named = [&tls.ca, &tls.cert, &tls.key]
        .iter()
        .all(|path| !path.as_os_str().is_empty());
    if all_named {
        faults.tls(ServerTls::mutual(tls, Profile::Grpc), |reason| {
            Fault::late(
                EXIT_SETUP,
                format!("Could not use GRPC creds for server: {reason}"),
            )
        });
    }
}

/// Why a gRPC client cannot make a target of an address: Go parses it as a URL.
fn unusable_target(address: &str) -> Option<String> {
    let parse = |reason: String| Some(format!("parse {:?}: {reason}", format!("dns:///{address}")));
    if address.chars().any(|letter| letter.is_ascii_control()) {
        return parse("net/url: invalid control character in URL".to_owned());
    }
    let mut rest = address;
    while let Some(at) = rest.find('%') {
        let escape: String = rest[at..].chars().take(3).collect();
        if escape.len() != 3 || !escape[1..].bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return parse(format!("invalid URL escape {escape:?}"));
        }
        rest = &rest[at + 3..];
    }
    None
}

fn unstarted(error: &doppler::Error) -> Fault {
    match error {
        doppler::Error::Bind { addr, source } => {
            let port = addr.port();
            let reason = format!(
                "Failed to start listener (port={port}) for gRPC: listen tcp :{port}: bind: {}",
                io_text(source)
            );
            tracing::error!("{reason}");
            Fault::late(
                EXIT_PANIC,
                format!("Failed to create router server: {reason}"),
            )
        }
        other => Fault::late(
            EXIT_PANIC,
            format!("Failed to create router server: {}", super::chain(other)),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_that_go_cannot_parse() {
        assert_eq!(unusable_target("127.0.0.1:3458"), None);
        assert_eq!(unusable_target("[fe80::1%25eth0]:3458"), None);
        assert_eq!(
            unusable_target("%zz:1").unwrap(),
            r#"parse "dns:///%zz:1": invalid URL escape "%zz""#
        );
        assert!(
            unusable_target("a\u{7f}:1")
                .unwrap()
                .contains("invalid control character")
        );
        assert!(
            unusable_target("a%é:1")
                .unwrap()
                .contains("invalid URL escape")
        );
    }
}
