//! The settings of a doppler: one table, read from the environment, checked whole.

use std::net::{Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use loggregator_net::TlsFiles;
use loggregator_service::config::{ByteSize, Env, Errors, Reader, Setting, go};

/// Largest joined message: half of the 4 MiB that gRPC clients accept unless told otherwise.
const SEND_BUDGET_MAX: u64 = 2 * 1024 * 1024;
/// Smallest joined message: below it, framing costs more than joining saves.
const SEND_BUDGET_MIN: u64 = 4 * 1024;
/// Smallest log: a few of the largest messages must fit, or readers would be lapped by a single one.
const LOG_MIN: u64 = 32 * 1024 * 1024;
/// Largest message that may be allowed; offsets within a frame are 32 bits wide.
const MESSAGE_MAX: u64 = 1 << 30;

/// The TLS 1.2 suites that may be chosen from.
const SUITES: [&str; 2] = [
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
];

/// What this program's own variables begin with.
pub const PREFIX: &str = "DOPPLER_";

/// Every setting of the program, with its default. Names that the Go router knows are kept.
pub const SETTINGS: &[Setting] = &[
    Setting::new(
        "DOPPLER_GRPC_ADDR",
        "[::]:8082",
        "Address of the gRPC port for emitters and readers. Port 0 takes a free one.",
    ),
    Setting::optional(
        "ROUTER_PORT",
        "gRPC port on every interface; replaces the port of DOPPLER_GRPC_ADDR.",
    ).covered_by("DOPPLER_GRPC_ADDR"),
    Setting::required(
        "ROUTER_CA_FILE",
        "PEM bundle of the authorities that sign the certificates of all components.",
    ).flag("ca-file"),
    Setting::required(
        "ROUTER_CERT_FILE",
        "PEM certificate of this doppler, for serving and for the local agent; its name must be `doppler`.",
    ).flag("cert-file"),
    Setting::required(
        "ROUTER_KEY_FILE",
        "PEM key of the certificate (PKCS#1, PKCS#8 or SEC1).",
    ).flag("key-file"),
    Setting::optional(
        "ROUTER_CIPHER_SUITES",
        "TLS 1.2 suites to allow, comma-separated, out of TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 and \
         TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384. Unset: both. TLS 1.3 is always allowed.",
    ).flag("cipher-suites").takes("SUITES"),
    Setting::new(
        "DOPPLER_TLS_RELOAD_INTERVAL",
        "5s",
        "How often the certificate files are looked at. New files are used for new connections; unusable ones are \
         reported and the old ones kept.",
    ),
    Setting::new(
        "DOPPLER_LOG_BYTES",
        "256MiB",
        "Bytes of envelopes kept in memory for readers, over the whole process (at least 32MiB). When the log is full \
         the oldest are overwritten; a reader that had not read them is told how many it lost.",
    ),
    Setting::new(
        "DOPPLER_RESUME_GRACE",
        "60s",
        "How long a subscription with a shard id may be away and still go on where it stopped. 0s: not at all.",
    ),
    Setting::new(
        "DOPPLER_SEND_BUDGET",
        "128KiB",
        "Bytes joined into one message to a reader, 4KiB to 2MiB. A single envelope above it goes alone.",
    ),
    Setting::new(
        "DOPPLER_MAX_QUEUED",
        "262144",
        "Envelopes that may wait for one reader of single sources or metrics; their places in the log, 16 bytes each. \
         More are dropped and counted as queue_full.",
    ),
    Setting::new(
        "DOPPLER_LINGER",
        "3ms",
        "While much happens, readers of single sources or metrics are woken together at most this often (up to 1s); the \
         first wake-up after a pause is never held back. 0s: each at once.",
    ),
    Setting::new(
        "DOPPLER_MAX_SUBSCRIPTIONS",
        "100000",
        "Subscriptions held at once, those in their grace period included; more are refused with RESOURCE_EXHAUSTED.",
    ),
    Setting::new(
        "DOPPLER_MAX_CONNECTIONS",
        "20000",
        "Connections held at once; more are closed at once and counted.",
    ),
    Setting::new(
        "DOPPLER_MAX_MESSAGE_BYTES",
        "10MiB",
        "Largest message accepted from an emitter (at most 1GiB). A larger one ends its stream with RESOURCE_EXHAUSTED.",
    ),
    Setting::optional(
        "DOPPLER_ADMIN_ADDR",
        "Address of the plain HTTP port with /metrics, /healthz, /readyz and /ledger, such as 127.0.0.1:9082. Unset: \
         none.",
    ),
    Setting::optional(
        "AGENT_GRPC_ADDRESS",
        "host:port of the local agent for this doppler's own metrics, its certificate named `metron`. Unset: they go \
         into this doppler's own log.",
    ).flag("agent-addr").takes("HOST:PORT"),
    Setting::new(
        "ROUTER_METRIC_BATCH_INTERVAL_MILLISECONDS",
        "5000",
        "Interval of this doppler's own metrics as envelopes, in milliseconds. 0: never.",
    ).flag("metric-interval").takes("MS"),
    Setting::new(
        "ROUTER_METRIC_SOURCE_ID",
        "doppler",
        "Source id of this doppler's own metrics.",
    ).flag("metric-source-id").takes("ID"),
    Setting::new(
        "DOPPLER_DRAIN_TIMEOUT",
        "10s",
        "How long a stop may take: emitters are turned away, readers get what is in the log, then streams end.",
    ),
    Setting::optional(
        "DOPPLER_WORKERS",
        "Worker threads. Unset: one per processor.",
    ).takes("N"),
];

/// Everything a doppler needs to know. See [`SETTINGS`] for what each does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Address of the gRPC port; port 0 takes a free one.
    pub grpc_addr: SocketAddr,
    /// Certificate, key and authorities; for serving, and as a client of the local agent.
    pub tls: TlsFiles,
    /// TLS 1.2 suites by their standard names; empty: all that the platform uses.
    pub cipher_suites: Vec<String>,
    /// How often the certificate files are looked at.
    pub tls_reload_interval: Duration,
    /// Bytes of envelopes kept in memory.
    pub log_bytes: u64,
    /// How long a named subscription may be away; zero: not at all.
    pub resume_grace: Duration,
    /// Bytes joined into one message to a reader.
    pub send_budget: usize,
    /// Places in the log that may be queued for one reader of single sources or metrics.
    pub max_queued: usize,
    /// How long wake-ups of such readers may be held back under load.
    pub linger: Duration,
    /// Subscriptions held at once.
    pub max_subscriptions: usize,
    /// Connections held at once.
    pub max_connections: usize,
    /// Bytes of the largest message accepted.
    pub max_message: usize,
    /// Address of the admin port, if there is to be one.
    pub admin_addr: Option<SocketAddr>,
    /// `host:port` of the local agent for own metrics; `None`: into the own log.
    pub agent_addr: Option<String>,
    /// Interval of own metrics as envelopes; zero: never.
    pub metric_interval: Duration,
    /// Source id of own metrics.
    pub metric_source_id: String,
    /// How long a stop may take.
    pub drain_timeout: Duration,
    /// Worker threads, for whoever builds the runtime; `None`: one per processor.
    pub workers: Option<NonZeroUsize>,
}

impl Default for Config {
    /// The defaults of [`SETTINGS`]; the TLS files are empty and must be given.
    fn default() -> Self {
        Self {
            grpc_addr: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8082)),
            tls: TlsFiles {
                ca: PathBuf::new(),
                cert: PathBuf::new(),
                key: PathBuf::new(),
            },
            cipher_suites: Vec::new(),
            tls_reload_interval: Duration::from_secs(5),
            log_bytes: 256 * 1024 * 1024,
            resume_grace: Duration::from_secs(60),
            send_budget: 128 * 1024,
            max_queued: 262_144,
            linger: Duration::from_millis(3),
            max_subscriptions: 100_000,
            max_connections: 20_000,
            max_message: 10 * 1024 * 1024,
            admin_addr: None,
            agent_addr: None,
            metric_interval: Duration::from_secs(5),
            metric_source_id: "doppler".to_owned(),
            drain_timeout: Duration::from_secs(10),
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
        let mut grpc_addr: SocketAddr = reader.value("DOPPLER_GRPC_ADDR");
        if let Some(go::Uint(port)) = reader.optional::<go::Uint<u16>>("ROUTER_PORT") {
            grpc_addr.set_port(port);
        }
        let config = Self {
            grpc_addr,
            tls: TlsFiles {
                ca: reader.value("ROUTER_CA_FILE"),
                cert: reader.value("ROUTER_CERT_FILE"),
                key: reader.value("ROUTER_KEY_FILE"),
            },
            cipher_suites: reader.list("ROUTER_CIPHER_SUITES"),
            tls_reload_interval: reader.value("DOPPLER_TLS_RELOAD_INTERVAL"),
            log_bytes: reader.value::<ByteSize>("DOPPLER_LOG_BYTES").0,
            resume_grace: reader.value("DOPPLER_RESUME_GRACE"),
            send_budget: reader.value::<ByteSize>("DOPPLER_SEND_BUDGET").as_usize(),
            max_queued: reader.value::<NonZeroUsize>("DOPPLER_MAX_QUEUED").get(),
            linger: reader.value("DOPPLER_LINGER"),
            max_subscriptions: reader
                .value::<NonZeroUsize>("DOPPLER_MAX_SUBSCRIPTIONS")
                .get(),
            max_connections: reader
                .value::<NonZeroUsize>("DOPPLER_MAX_CONNECTIONS")
                .get(),
            max_message: reader
                .value::<ByteSize>("DOPPLER_MAX_MESSAGE_BYTES")
                .as_usize(),
            admin_addr: reader.optional("DOPPLER_ADMIN_ADDR"),
            agent_addr: reader.optional("AGENT_GRPC_ADDRESS"),
            metric_interval: Duration::from_millis(
                reader
                    .value::<go::Uint<u64>>("ROUTER_METRIC_BATCH_INTERVAL_MILLISECONDS")
                    .0,
            ),
            metric_source_id: reader.value("ROUTER_METRIC_SOURCE_ID"),
            drain_timeout: reader.value("DOPPLER_DRAIN_TIMEOUT"),
            workers: reader.optional("DOPPLER_WORKERS"),
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
        check(
            "DOPPLER_LOG_BYTES",
            self.log_bytes >= LOG_MIN,
            format!("must be at least {LOG_MIN} bytes"),
        );
        let budget = self.send_budget as u64;
        check(
            "DOPPLER_SEND_BUDGET",
            (SEND_BUDGET_MIN..=SEND_BUDGET_MAX).contains(&budget),
            format!("must be between {SEND_BUDGET_MIN} and {SEND_BUDGET_MAX} bytes"),
        );
        check(
            "DOPPLER_MAX_MESSAGE_BYTES",
            (1..=MESSAGE_MAX.min(self.log_bytes / 2)).contains(&(self.max_message as u64)),
            format!(
                "must be between 1 and {MESSAGE_MAX} bytes, and at most half of DOPPLER_LOG_BYTES"
            ),
        );
        check(
            "DOPPLER_TLS_RELOAD_INTERVAL",
            !self.tls_reload_interval.is_zero(),
            "must be longer than nothing".to_owned(),
        );
        check(
            "DOPPLER_LINGER",
            self.linger <= Duration::from_secs(1),
            "must be at most 1s".to_owned(),
        );
        check(
            "DOPPLER_MAX_QUEUED",
            self.max_queued > 0,
            "must be at least 1".to_owned(),
        );
        check(
            "ROUTER_METRIC_BATCH_INTERVAL_MILLISECONDS",
            self.metric_interval.is_zero() || self.metric_interval >= Duration::from_millis(1),
            "must be 0 or at least 1".to_owned(),
        );
        check(
            "DOPPLER_MAX_SUBSCRIPTIONS",
            self.max_subscriptions > 0,
            "must be at least 1".to_owned(),
        );
        check(
            "DOPPLER_MAX_CONNECTIONS",
            self.max_connections > 0,
            "must be at least 1".to_owned(),
        );
        let known = |suite: &String| SUITES.contains(&suite.as_str());
        check(
            "ROUTER_CIPHER_SUITES",
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

    const FILES: [(&str, &str); 3] = [
        ("ROUTER_CA_FILE", "ca.pem"),
        ("ROUTER_CERT_FILE", "cert.pem"),
        ("ROUTER_KEY_FILE", "key.pem"),
    ];

    fn read(vars: &[(&'static str, &'static str)]) -> Result<Config, Errors> {
        let env: BTreeMap<&str, &str> = FILES.iter().chain(vars).copied().collect();
        Config::from_env(&env)
    }

    fn files() -> TlsFiles {
        TlsFiles {
            ca: "ca.pem".into(),
            cert: "cert.pem".into(),
            key: "key.pem".into(),
        }
    }

    #[test]
    fn the_table_and_the_default_agree() {
        assert_eq!(
            read(&[]).unwrap(),
            Config {
                tls: files(),
                ..Config::default()
            }
        );
    }

    #[test]
    fn every_variable_reaches_its_field() {
        let config = read(&[
            ("DOPPLER_GRPC_ADDR", "127.0.0.1:1"),
            ("ROUTER_PORT", "70000"),
            (
                "ROUTER_CIPHER_SUITES",
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            ),
            ("DOPPLER_TLS_RELOAD_INTERVAL", "1s"),
            ("DOPPLER_LOG_BYTES", "64MiB"),
            ("DOPPLER_RESUME_GRACE", "0s"),
            ("DOPPLER_SEND_BUDGET", "64KiB"),
            ("DOPPLER_MAX_QUEUED", "9"),
            ("DOPPLER_LINGER", "7ms"),
            ("DOPPLER_MAX_SUBSCRIPTIONS", "7"),
            ("DOPPLER_MAX_CONNECTIONS", "8"),
            ("DOPPLER_MAX_MESSAGE_BYTES", "1MiB"),
            ("DOPPLER_ADMIN_ADDR", "127.0.0.1:2"),
            ("AGENT_GRPC_ADDRESS", "127.0.0.1:3458"),
            ("ROUTER_METRIC_BATCH_INTERVAL_MILLISECONDS", "10"),
            ("ROUTER_METRIC_SOURCE_ID", "router"),
            ("DOPPLER_DRAIN_TIMEOUT", "3s"),
            ("DOPPLER_WORKERS", "2"),
        ])
        .unwrap();
        assert_eq!(
            config,
            Config {
                grpc_addr: "127.0.0.1:4464".parse().unwrap(),
                tls: files(),
                cipher_suites: vec!["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256".to_owned()],
                tls_reload_interval: Duration::from_secs(1),
                log_bytes: 64 << 20,
                resume_grace: Duration::ZERO,
                send_budget: 64 << 10,
                max_queued: 9,
                linger: Duration::from_millis(7),
                max_subscriptions: 7,
                max_connections: 8,
                max_message: 1 << 20,
                admin_addr: Some("127.0.0.1:2".parse().unwrap()),
                agent_addr: Some("127.0.0.1:3458".to_owned()),
                metric_interval: Duration::from_millis(10),
                metric_source_id: "router".to_owned(),
                drain_timeout: Duration::from_secs(3),
                workers: NonZeroUsize::new(2),
            }
        );
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let env: BTreeMap<&str, &str> = BTreeMap::from([
            ("DOPPLER_LOG_BYTES", "1MiB"),
            ("DOPPLER_SEND_BUDGET", "10MiB"),
            ("DOPPLER_MAX_QUEUED", "0"),
            ("ROUTER_CIPHER_SUITES", "TLS_RSA_WITH_RC4_128_SHA"),
            ("ROUTER_PORT", "eighty"),
        ]);
        let text = Config::from_env(&env).unwrap_err().to_string();
        for name in [
            "DOPPLER_LOG_BYTES=",
            "DOPPLER_SEND_BUDGET=",
            "DOPPLER_MAX_QUEUED=",
            "ROUTER_CIPHER_SUITES=",
            "ROUTER_PORT=",
            "ROUTER_CA_FILE is required",
            "ROUTER_CERT_FILE is required",
            "ROUTER_KEY_FILE is required",
        ] {
            assert!(text.contains(name), "{name} in {text}");
        }
    }
}
