//! The settings of a reverse log proxy: one table, read from the environment, checked whole.

use std::net::{Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use loggregator_net::TlsFiles;
use loggregator_service::config::{ByteSize, Env, Errors, Reader, Setting, go};

use crate::upstream::SharedLimits;

/// Largest joined message: half of the 4 MiB that gRPC clients accept unless told otherwise.
const SEND_BUDGET_MAX: usize = 2 * 1024 * 1024;
/// Smallest joined message: below it, framing costs more than joining saves.
const SEND_BUDGET_MIN: usize = 4 * 1024;

/// The TLS 1.2 suites that may be chosen from.
const SUITES: [&str; 2] = [
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
];

/// What this program's own variables begin with.
pub const PREFIX: &str = "RLP_";

/// Every setting of the program, with its default. Names that the Go reverse log proxy knows are kept.
pub const SETTINGS: &[Setting] = &[
    Setting::new(
        "RLP_GRPC_ADDR",
        "[::]:8083",
        "Address of the gRPC port for readers. Port 0 takes a free one. Beside a doppler on the same machine, whose port is \
         8082, as that of this program is in Cloud Foundry.",
    ),
    Setting::optional(
        "RLP_PORT",
        "gRPC port on every interface; replaces the port of RLP_GRPC_ADDR.",
    ).covered_by("RLP_GRPC_ADDR"),
    Setting::new(
        "ROUTER_ADDRS",
        "",
        "Dopplers to read, comma-separated host:port. All addresses that a name resolves to are read.",
    ).flag("dopplers").takes("HOST:PORT,…"),
    Setting::new(
        "RLP_RESOLVE_INTERVAL",
        "5s",
        "How often the names in ROUTER_ADDRS are resolved again, to find dopplers that came and went.",
    ),
    Setting::required(
        "RLP_CA_FILE",
        "PEM bundle of the authorities that sign the certificates of readers, dopplers and the agent.",
    ),
    Setting::required(
        "RLP_CERT_FILE",
        "PEM certificate of this program, for serving (readers expect the name `reverselogproxy`) and as a client of \
         dopplers and agent.",
    ),
    Setting::required(
        "RLP_KEY_FILE",
        "PEM key of that certificate (PKCS#1, PKCS#8 or SEC1).",
    ),
    Setting::optional(
        "RLP_CIPHER_SUITES",
        "TLS 1.2 suites to allow on the gRPC port, comma-separated, out of TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 and \
         TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384. Unset: both. TLS 1.3 is always allowed.",
    ).takes("SUITES"),
    Setting::new(
        "RLP_TLS_RELOAD_INTERVAL",
        "5s",
        "How often the certificate files are looked at. Unusable new ones are reported and the old kept.",
    ),
    Setting::new(
        "MAX_EGRESS_STREAMS",
        "500",
        "Streams served at once, those being refused included; more end with RESOURCE_EXHAUSTED.",
    ).flag("max-streams"),
    Setting::new(
        "RLP_MAX_SUBSCRIPTIONS",
        "2000",
        "Subscriptions held at once; further streams end with UNKNOWN. Matters where MAX_EGRESS_STREAMS is larger.",
    ),
    Setting::new(
        "RLP_MAX_CONNECTIONS",
        "10000",
        "Connections held at once; more are closed at once and counted.",
    ),
    Setting::new(
        "RLP_SEND_BUDGET",
        "128KiB",
        "Bytes joined into one message to a reader, 4KiB to 2MiB. A single envelope above it goes alone.",
    ),
    Setting::new(
        "RLP_SHARED_BUFFER",
        "8MiB",
        "Bytes held, per subscription that readers with equal requests (and no shard id) share, for those that are behind the \
         others; beyond, they miss the oldest and are told.",
    ),
    Setting::new(
        "RLP_SHARED_BUFFER_TOTAL",
        "64MiB",
        "The same for all shared subscriptions together.",
    ),
    Setting::optional(
        "RLP_ADMIN_ADDR",
        "Address of the plain HTTP port with /metrics, /healthz, /readyz and /ledger, such as 127.0.0.1:9083. Unset: \
         none.",
    ),
    Setting::new(
        "AGENT_ADDR",
        "localhost:3458",
        "host:port of the local agent for this program's own metrics, its certificate named `metron`.",
    ).takes("HOST:PORT"),
    Setting::new(
        "RLP_METRIC_EMITTER_INTERVAL",
        "1m",
        "Interval of this program's own metrics as envelopes. 0s or less: never.",
    ).flag("metric-interval"),
    Setting::new(
        "RLP_METRIC_SOURCE_ID",
        "reverse_log_proxy",
        "Source id of this program's own metrics, and of what it tells readers about losses.",
    ).takes("ID"),
    Setting::new(
        "RLP_DRAIN_TIMEOUT",
        "30s",
        "How long a stop may take: streams get what was received for them, then end.",
    ),
    Setting::optional("RLP_WORKERS", "Worker threads. Unset: one per processor.").takes("N"),
];

/// Everything a reverse log proxy needs to know. See [`SETTINGS`] for what each does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Address of the gRPC port; port 0 takes a free one.
    pub grpc_addr: SocketAddr,
    /// Dopplers, `host:port`.
    pub dopplers: Vec<String>,
    /// How often names in `dopplers` are resolved again.
    pub resolve_interval: Duration,
    /// Certificate, key and authorities; for serving, and as a client of dopplers and agent.
    pub tls: TlsFiles,
    /// TLS 1.2 suites of the gRPC port by their standard names; empty: all that the platform uses.
    pub cipher_suites: Vec<String>,
    /// How often the certificate files are looked at.
    pub tls_reload_interval: Duration,
    /// Streams served at once.
    pub max_streams: usize,
    /// Subscriptions held at once.
    pub max_subscriptions: usize,
    /// Connections held at once.
    pub max_connections: usize,
    /// Bytes joined into one message to a reader.
    pub send_budget: usize,
    /// Bytes held for readers of shared subscriptions that are behind others.
    pub shared: SharedLimits,
    /// Address of the admin port, if there is to be one.
    pub admin_addr: Option<SocketAddr>,
    /// `host:port` of the local agent, for own metrics.
    pub agent_addr: Option<String>,
    /// Interval of own metrics as envelopes; zero: never.
    pub metric_interval: Duration,
    /// Source id of own metrics and of notices about losses.
    pub metric_source_id: String,
    /// How long a stop may take.
    pub drain_timeout: Duration,
    /// Worker threads, for whoever builds the runtime; `None`: one per processor.
    pub workers: Option<NonZeroUsize>,
}

impl Default for Config {
    /// The defaults of [`SETTINGS`], but no agent; the TLS files are empty and must be given.
    fn default() -> Self {
        Self {
            grpc_addr: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8083)),
            dopplers: Vec::new(),
            resolve_interval: Duration::from_secs(5),
            tls: TlsFiles {
                ca: PathBuf::new(),
                cert: PathBuf::new(),
                key: PathBuf::new(),
            },
            cipher_suites: Vec::new(),
            tls_reload_interval: Duration::from_secs(5),
            max_streams: 500,
            max_subscriptions: 2000,
            max_connections: 10_000,
            send_budget: 128 * 1024,
            shared: SharedLimits::default(),
            admin_addr: None,
            agent_addr: None,
            metric_interval: Duration::from_secs(60),
            metric_source_id: "reverse_log_proxy".to_owned(),
            drain_timeout: Duration::from_secs(30),
            workers: None,
        }
    }
}

impl Config {
    /// Reads and checks the settings.
    ///
    /// # Errors
    /// Everything that is wrong, not only the first of it.
    pub fn from_env(env: &dyn Env) -> Result<Self, Errors> {
        let mut reader = Reader::new(env, SETTINGS);
        let mut grpc_addr: SocketAddr = reader.value("RLP_GRPC_ADDR");
        if let Some(go::Uint(port)) = reader.optional::<go::Uint<u16>>("RLP_PORT") {
            grpc_addr.set_port(port);
        }
        let config = Self {
            grpc_addr,
            dopplers: reader.list("ROUTER_ADDRS"),
            resolve_interval: reader.value("RLP_RESOLVE_INTERVAL"),
            tls: TlsFiles {
                ca: reader.value("RLP_CA_FILE"),
                cert: reader.value("RLP_CERT_FILE"),
                key: reader.value("RLP_KEY_FILE"),
            },
            cipher_suites: reader.list("RLP_CIPHER_SUITES"),
            tls_reload_interval: reader.value("RLP_TLS_RELOAD_INTERVAL"),
            max_streams: reader.value::<NonZeroUsize>("MAX_EGRESS_STREAMS").get(),
            max_subscriptions: reader.value::<NonZeroUsize>("RLP_MAX_SUBSCRIPTIONS").get(),
            max_connections: reader.value::<NonZeroUsize>("RLP_MAX_CONNECTIONS").get(),
            send_budget: reader.value::<ByteSize>("RLP_SEND_BUDGET").as_usize(),
            shared: SharedLimits {
                request: reader.value::<ByteSize>("RLP_SHARED_BUFFER").as_usize(),
                total: reader
                    .value::<ByteSize>("RLP_SHARED_BUFFER_TOTAL")
                    .as_usize(),
            },
            admin_addr: reader.optional("RLP_ADMIN_ADDR"),
            agent_addr: Some(reader.value("AGENT_ADDR")),
            metric_interval: reader
                .value::<go::Span>("RLP_METRIC_EMITTER_INTERVAL")
                .positive()
                .unwrap_or_default(),
            metric_source_id: reader.value("RLP_METRIC_SOURCE_ID"),
            drain_timeout: reader.value("RLP_DRAIN_TIMEOUT"),
            workers: reader.optional("RLP_WORKERS"),
        };
        for (name, reason) in config.violations() {
            reader.reject(name, &reason);
        }
        reader.finish(config)
    }

    /// Values that are well-formed and still unusable: the setting's name, and why.
    pub(crate) fn violations(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let mut check = |name, holds: bool, reason: String| {
            if !holds {
                found.push((name, reason));
            }
        };
        for (name, interval) in [
            ("RLP_RESOLVE_INTERVAL", self.resolve_interval),
            ("RLP_TLS_RELOAD_INTERVAL", self.tls_reload_interval),
        ] {
            let reason = "must be longer than nothing".to_owned();
            check(name, !interval.is_zero(), reason);
        }
        for (name, limit) in [
            ("MAX_EGRESS_STREAMS", self.max_streams),
            ("RLP_MAX_SUBSCRIPTIONS", self.max_subscriptions),
            ("RLP_MAX_CONNECTIONS", self.max_connections),
        ] {
            check(name, limit > 0, "must be at least 1".to_owned());
        }
        check(
            "RLP_SEND_BUDGET",
            (SEND_BUDGET_MIN..=SEND_BUDGET_MAX).contains(&self.send_budget),
            format!("must be between {SEND_BUDGET_MIN} and {SEND_BUDGET_MAX} bytes"),
        );
        let known = |suite: &String| SUITES.contains(&suite.as_str());
        check(
            "RLP_CIPHER_SUITES",
            self.cipher_suites.is_empty() || self.cipher_suites.iter().any(known),
            format!("must name one of {}", SUITES.join(", ")),
        );
        found
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn env(vars: &[(&str, &str)]) -> BTreeMap<String, String> {
        [
            ("RLP_CA_FILE", "ca.pem"),
            ("RLP_CERT_FILE", "cert.pem"),
            ("RLP_KEY_FILE", "key.pem"),
        ]
        .iter()
        .chain(vars)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
    }

    fn base() -> Config {
        Config {
            tls: TlsFiles {
                ca: "ca.pem".into(),
                cert: "cert.pem".into(),
                key: "key.pem".into(),
            },
            agent_addr: Some("localhost:3458".to_owned()),
            ..Config::default()
        }
    }

    #[test]
    fn defaults_are_those_of_the_table() {
        assert_eq!(Config::from_env(&env(&[])).unwrap(), base());
    }

    #[test]
    fn every_setting_is_read() {
        let config = Config::from_env(&env(&[
            ("RLP_GRPC_ADDR", "127.0.0.1:1"),
            ("RLP_PORT", "2"),
            ("ROUTER_ADDRS", "a:1, b:2"),
            ("RLP_RESOLVE_INTERVAL", "1s"),
            (
                "RLP_CIPHER_SUITES",
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,odd",
            ),
            ("RLP_TLS_RELOAD_INTERVAL", "2s"),
            ("MAX_EGRESS_STREAMS", "3"),
            ("RLP_MAX_SUBSCRIPTIONS", "4"),
            ("RLP_MAX_CONNECTIONS", "5"),
            ("RLP_SEND_BUDGET", "64KiB"),
            ("RLP_SHARED_BUFFER", "1MiB"),
            ("RLP_SHARED_BUFFER_TOTAL", "2MiB"),
            ("RLP_ADMIN_ADDR", "127.0.0.1:6"),
            ("AGENT_ADDR", "agent:7"),
            ("RLP_METRIC_EMITTER_INTERVAL", "-1s"),
            ("RLP_METRIC_SOURCE_ID", "me"),
            ("RLP_DRAIN_TIMEOUT", "8s"),
            ("RLP_WORKERS", "9"),
        ]))
        .unwrap();
        let secs = Duration::from_secs;
        let expected = Config {
            grpc_addr: "127.0.0.1:2".parse().unwrap(),
            dopplers: vec!["a:1".to_owned(), "b:2".to_owned()],
            resolve_interval: secs(1),
            cipher_suites: vec![SUITES[0].to_owned(), "odd".to_owned()],
            tls_reload_interval: secs(2),
            max_streams: 3,
            max_subscriptions: 4,
            max_connections: 5,
            send_budget: 64 * 1024,
            shared: SharedLimits {
                request: 1 << 20,
                total: 2 << 20,
            },
            admin_addr: Some("127.0.0.1:6".parse().unwrap()),
            agent_addr: Some("agent:7".to_owned()),
            metric_interval: Duration::ZERO,
            metric_source_id: "me".to_owned(),
            drain_timeout: secs(8),
            workers: NonZeroUsize::new(9),
            ..base()
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn what_cannot_work_is_refused_all_at_once() {
        let error = Config::from_env(&env(&[
            ("RLP_KEY_FILE", ""),
            ("RLP_SEND_BUDGET", "4MiB"),
            ("RLP_CIPHER_SUITES", "odd"),
            ("RLP_RESOLVE_INTERVAL", "0s"),
            ("MAX_EGRESS_STREAMS", "0"),
        ]))
        .unwrap_err();
        assert_eq!(error.0.len(), 5, "{error}");
    }
}
