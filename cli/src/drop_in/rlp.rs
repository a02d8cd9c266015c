//! `rlp`: the reverse log proxy.

use super::faults::{Fault, Faults, listen_text};
use super::go_env::{Field, Kind, Program, Values};
use super::host::DropIn;
use super::tls12_suites;
use loggregator_net::{Profile, ServerTls};
use loggregator_service::Lifecycle;
use std::net::{Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;
use traffic_controller::rlp;

/// The reverse log proxy.
pub struct Rlp;

/// Exit code after anything that keeps it from starting.
const EXIT_SETUP: u8 = 1;
/// Settings that the stage must have and that are put in afterwards.
const PLACEHOLDERS: [(&str, &str); 3] = [
    ("RLP_CA_FILE", "-"),
    ("RLP_CERT_FILE", "-"),
    ("RLP_KEY_FILE", "-"),
];

const FIELDS: &[Field] = &[
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
        "RLP_PPROF_PORT",
        "6061",
        "Port on loopback for /debug/pprof/. 0 takes a free one.",
    ),
    Field::new(
        "Config.MetricEmitterInterval",
        Kind::Duration,
        "RLP_METRIC_EMITTER_INTERVAL",
        "1m",
        "Interval of own metrics. 0s: never.",
    ),
    Field::new(
        "Config.MetricSourceID",
        Kind::Text,
        "RLP_METRIC_SOURCE_ID",
        "reverse_log_proxy",
        "Source id of own metrics, and of what readers are told about losses.",
    ),
    Field::new(
        "Config.RouterAddrs",
        Kind::List,
        "ROUTER_ADDRS",
        "",
        "Dopplers to read, comma-separated host:port. All addresses that a name resolves to are read.",
    )
    .required(),
    Field::new(
        "Config.AgentAddr",
        Kind::Text,
        "AGENT_ADDR",
        "localhost:3458",
        "host:port of the local agent for own metrics.",
    ),
    Field::new(
        "Config.MaxEgressStreams",
        Kind::Int64,
        "MAX_EGRESS_STREAMS",
        "500",
        "Streams served at once, at least 1; more end with RESOURCE_EXHAUSTED.",
    ),
    Field::new(
        "GRPC.Port",
        Kind::Int,
        "RLP_PORT",
        "0",
        "gRPC port on every interface. 0 takes a free one.",
    ),
    Field::new(
        "GRPC.CAFile",
        Kind::Text,
        "RLP_CA_FILE",
        "",
        "PEM bundle of the authorities of readers, dopplers and agent. Must be set.",
    ),
    Field::new(
        "GRPC.CertFile",
        Kind::Text,
        "RLP_CERT_FILE",
        "",
        "PEM certificate, for serving (readers expect the name `reverselogproxy`) and as a client. Must be set.",
    ),
    Field::new(
        "GRPC.KeyFile",
        Kind::Text,
        "RLP_KEY_FILE",
        "",
        "PEM key of the certificate (PKCS#1, PKCS#8 or SEC1). Must be set.",
    ),
    Field::new(
        "GRPC.CipherSuites",
        Kind::List,
        "RLP_CIPHER_SUITES",
        "",
        "TLS 1.2 suites to allow on the gRPC port, comma-separated, out of TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 and \
         TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384; others are skipped. Unset: both.",
    ),
];

impl DropIn for Rlp {
    const PROGRAM: Program = Program {
        name: "rlp",
        about: "rlp: a reverse log proxy. Gives what all dopplers have to gRPC readers.",
        fields: FIELDS,
        settings: rlp::SETTINGS,
        replaced: &["RLP_GRPC_ADDR"],
        config_error: "Failed to load config",
        config_exit: 1,
        pprof_port: "RLP_PPROF_PORT",
        seconds_only: false,
    };
    type Config = rlp::Config;

    fn read(values: &Values<'_>, faults: &mut Faults) -> Self::Config {
        let own = values.own(&PLACEHOLDERS, faults, rlp::Config::from_env);
        let max_streams = values.int("MAX_EGRESS_STREAMS");
        if max_streams < 1 {
            faults.config("MAX_EGRESS_STREAMS must be at least 1");
        }
        let config = rlp::Config {
            grpc_addr: listen_addr(values, faults),
            dopplers: values.list("ROUTER_ADDRS"),
            tls: values.tls_files(["RLP_CA_FILE", "RLP_CERT_FILE", "RLP_KEY_FILE"]),
            cipher_suites: tls12_suites(values, "RLP_CIPHER_SUITES", faults),
            max_streams: usize::try_from(max_streams).unwrap_or(usize::MAX),
            agent_addr: values.optional("AGENT_ADDR"),
            metric_interval: values.interval("RLP_METRIC_EMITTER_INTERVAL"),
            metric_source_id: values.text("RLP_METRIC_SOURCE_ID"),
            ..own.unwrap_or_default()
        };
        faults.tls(ServerTls::mutual(&config.tls, Profile::Grpc), |reason| {
            Fault::late(EXIT_SETUP, format!("Could not use TLS config: {reason}"))
        });
        config
    }

    fn workers(config: &Self::Config) -> Option<NonZeroUsize> {
        config.workers
    }

    fn drain(config: &Self::Config) -> Duration {
        config.drain_timeout
    }

    async fn start(config: Self::Config, lifecycle: &Lifecycle) -> Result<(), Fault> {
        match rlp::start(config, lifecycle).await {
            Ok(_) => Ok(()),
            Err(rlp::Error::Bind { addr, source }) => {
                let port = format!(":{}", addr.port());
                Err(Fault::late(EXIT_SETUP, listen_text(&port, &source)))
            }
            Err(error) => Err(Fault::late(EXIT_SETUP, super::chain(&error))),
        }
    }
}

fn listen_addr(values: &Values<'_>, faults: &mut Faults) -> SocketAddr {
    let port = values.int("RLP_PORT");
    let port = u16::try_from(port).unwrap_or_else(|_| {
        let text = format!("listen tcp: address {port}: invalid port");
        faults.push(Fault::late(EXIT_SETUP, text));
        0
    });
    SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
}
