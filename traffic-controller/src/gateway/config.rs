//! What a gateway needs to know, read from the settings and checked whole.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use loggregator_net::TlsFiles;
use loggregator_service::config::{ByteSize, Env, Errors, Reader};

use crate::access::platform::settings::read as read_access;
use crate::access::{Access, Names, PlatformConfig, Secret, check_address};
use crate::gateway::settings::{PREFIX, SETTINGS};
use crate::provider::Provider;

/// Where the envelopes come from.
#[derive(Clone)]
pub enum Logs {
    /// A reverse log proxy of another process.
    Grpc {
        /// `host:port`.
        addr: String,
        /// The name that its certificate must carry.
        server_name: String,
        /// Client certificate and authorities.
        tls: TlsFiles,
    },
    /// A reverse log proxy of this process.
    InProcess(Arc<dyn Provider>),
}

impl PartialEq for Logs {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::InProcess(one), Self::InProcess(other)) => Arc::ptr_eq(one, other),
            (
                Self::Grpc {
                    addr,
                    server_name,
                    tls,
                },
                Self::Grpc {
                    addr: other_addr,
                    server_name: other_name,
                    tls: other_tls,
                },
            ) => (addr, server_name, tls) == (other_addr, other_name, other_tls),
            _ => false,
        }
    }
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grpc {
                addr, server_name, ..
            } => f
                .debug_struct("Grpc")
                .field("addr", addr)
                .field("server_name", server_name)
                .finish_non_exhaustive(),
            Self::InProcess(_) => f.write_str("InProcess"),
        }
    }
}

/// The metrics endpoint of the Go gateway: HTTPS, for clients with a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsEndpoint {
    /// Where it listens; port 0 takes a free one.
    pub addr: SocketAddr,
    /// Its certificate, and the authorities of its clients'.
    pub tls: TlsFiles,
}

/// Everything a gateway needs to know. See [`SETTINGS`] for what each does.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Address of the HTTP port; port 0 takes a free one.
    pub addr: SocketAddr,
    /// Certificate and key of the HTTP port; `None`: plain HTTP.
    pub listen_tls: Option<(PathBuf, PathBuf)>,
    /// Where the envelopes come from.
    pub logs: Logs,
    /// Who may read.
    pub access: Access,
    /// How long a response lasts.
    pub stream_timeout: Duration,
    /// How long a stream is kept for its client to come back; zero: not at all.
    pub resume_grace: Duration,
    /// From the last event of a stream to a heartbeat.
    pub heartbeat_interval: Duration,
    /// How long a new stream waits for a reverse log proxy that is away.
    pub provider_wait: Duration,
    /// How long a stream goes on when nobody can say whether its reader may still read.
    pub recheck_patience: Duration,
    /// Streams open at once.
    pub max_streams: usize,
    /// Connections held at once.
    pub max_connections: usize,
    /// Longest query, in bytes.
    pub max_query: usize,
    /// Most selectors of one request.
    pub max_selectors: usize,
    /// A client whose connection takes no byte for so long is cut, as is one that does not take the rest of a stream that
    /// has ended.
    pub write_timeout: Duration,
    /// How often certificates and tokens are looked at.
    pub reload_interval: Duration,
    /// Whether requests are logged to standard output.
    pub access_log: bool,
    /// The metrics endpoint with client certificates, if there is to be one.
    pub metrics: Option<MetricsEndpoint>,
    /// Address of the admin port, if there is to be one.
    pub admin_addr: Option<SocketAddr>,
    /// How long a client may take at a stop.
    pub drain_timeout: Duration,
}

impl Config {
    /// The defaults of [`SETTINGS`] for a gateway that reads from `logs`; access control is off, and so are TLS, the access
    /// log and all ports but the one for clients.
    pub fn new(logs: Logs) -> Self {
        Self {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 8088)),
            listen_tls: None,
            logs,
            access: Access::None,
            stream_timeout: Duration::from_secs(14 * 60),
            resume_grace: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(15),
            provider_wait: Duration::from_secs(2),
            recheck_patience: Duration::from_secs(600),
            max_streams: 2000,
            max_connections: 10_000,
            max_query: 48 * 1024,
            max_selectors: 10_000,
            write_timeout: Duration::from_secs(60),
            reload_interval: Duration::from_secs(5),
            access_log: false,
            metrics: None,
            admin_addr: None,
            drain_timeout: Duration::from_secs(3),
        }
    }

    /// Reads and checks the settings.
    ///
    /// # Errors
    /// Everything that is wrong, not only the first of it.
    pub fn from_env(env: &dyn Env) -> Result<Self, Errors> {
        let mut reader = Reader::new(env, SETTINGS);
        let config = Self {
            addr: listen_addr(&mut reader),
            listen_tls: listen_tls(&mut reader),
            logs: Logs::Grpc {
                addr: reader.value("LOGS_PROVIDER_ADDR"),
                server_name: reader.value("LOGS_PROVIDER_COMMON_NAME"),
                tls: TlsFiles {
                    ca: reader.value("LOGS_PROVIDER_CA_PATH"),
                    cert: reader.value("LOGS_PROVIDER_CLIENT_CERT_PATH"),
                    key: reader.value("LOGS_PROVIDER_CLIENT_KEY_PATH"),
                },
            },
            access: ACCESS.read(&mut reader, platform),
            stream_timeout: reader.value("STREAM_TIMEOUT"),
            resume_grace: reader.value("GATEWAY_RESUME_GRACE"),
            heartbeat_interval: reader.value("GATEWAY_HEARTBEAT_INTERVAL"),
            provider_wait: reader.value("GATEWAY_PROVIDER_WAIT"),
            recheck_patience: reader.value("GATEWAY_RECHECK_PATIENCE"),
            max_streams: reader.value::<NonZeroUsize>("GATEWAY_MAX_STREAMS").get(),
            max_connections: reader
                .value::<NonZeroUsize>("GATEWAY_MAX_CONNECTIONS")
                .get(),
            max_query: reader
                .value::<ByteSize>("GATEWAY_MAX_QUERY_BYTES")
                .as_usize(),
            max_selectors: reader.value::<NonZeroUsize>("GATEWAY_MAX_SELECTORS").get(),
            write_timeout: reader.value("GATEWAY_WRITE_TIMEOUT"),
            reload_interval: reader.value("GATEWAY_TLS_RELOAD_INTERVAL"),
            access_log: reader.value("GATEWAY_ACCESS_LOG"),
            metrics: metrics(&mut reader),
            admin_addr: reader.optional("GATEWAY_ADMIN_ADDR"),
            drain_timeout: reader.value("GATEWAY_DRAIN_TIMEOUT"),
        };
        for (name, reason) in config.violations() {
            reader.reject(name, reason);
        }
        reader.finish(config)
    }

    /// Values that are well-formed and still unusable: the setting's name, and why.
    pub(crate) fn violations(&self) -> Vec<(&'static str, &'static str)> {
        let (positive, one) = ("must be longer than nothing", "must be at least 1");
        [
            ("STREAM_TIMEOUT", !self.stream_timeout.is_zero(), positive),
            (
                "GATEWAY_HEARTBEAT_INTERVAL",
                !self.heartbeat_interval.is_zero(),
                positive,
            ),
            (
                "GATEWAY_WRITE_TIMEOUT",
                !self.write_timeout.is_zero(),
                positive,
            ),
            (
                "GATEWAY_TLS_RELOAD_INTERVAL",
                !self.reload_interval.is_zero(),
                positive,
            ),
            ("GATEWAY_MAX_STREAMS", self.max_streams > 0, one),
            ("GATEWAY_MAX_CONNECTIONS", self.max_connections > 0, one),
            ("GATEWAY_MAX_QUERY_BYTES", self.max_query > 0, one),
            ("GATEWAY_MAX_SELECTORS", self.max_selectors > 0, one),
        ]
        .into_iter()
        .filter_map(|(name, holds, reason)| (!holds).then_some((name, reason)))
        .collect()
    }
}

/// Go takes an address without a host as all addresses.
fn listen_addr(reader: &mut Reader<'_>) -> SocketAddr {
    let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let text: String = reader.value("GATEWAY_ADDR");
    let parsed = match text.strip_prefix(':') {
        Some(port) => port
            .parse()
            .ok()
            .map(|port| SocketAddr::new(all.ip(), port)),
        None => text
            .replace("localhost:", "127.0.0.1:")
            .parse::<SocketAddr>()
            .ok(),
    };
    parsed.unwrap_or_else(|| {
        reader.reject(
            "GATEWAY_ADDR",
            "not an address such as 127.0.0.1:8088 or :8088",
        );
        all
    })
}

fn listen_tls(reader: &mut Reader<'_>) -> Option<(PathBuf, PathBuf)> {
    let cert = reader.optional("HTTP_CERT_PATH");
    let key = reader.optional("HTTP_KEY_PATH");
    if cert.is_some() != key.is_some() {
        reader.conflict("HTTP_CERT_PATH and HTTP_KEY_PATH go together: one is set");
    }
    cert.zip(key)
}

fn metrics(reader: &mut Reader<'_>) -> Option<MetricsEndpoint> {
    let port: u16 = reader.value("METRICS_PORT");
    let ca: Option<PathBuf> = reader.optional("METRICS_CA_FILE_PATH");
    let cert: Option<PathBuf> = reader.optional("METRICS_CERT_FILE_PATH");
    let key: Option<PathBuf> = reader.optional("METRICS_KEY_FILE_PATH");
    match (ca, cert, key) {
        (None, None, None) => None,
        (Some(ca), Some(cert), Some(key)) => Some(MetricsEndpoint {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            tls: TlsFiles { ca, cert, key },
        }),
        _ => {
            reader.conflict(
                "METRICS_CA_FILE_PATH, METRICS_CERT_FILE_PATH and METRICS_KEY_FILE_PATH go together: not all are set",
            );
            None
        }
    }
}

const ACCESS: Names = Names {
    disable: "GATEWAY_DISABLE_ACCESS_CONTROL",
    token_file: "GATEWAY_TOKEN_FILE",
    uaa: "LOG_ADMIN_ADDR",
};

fn platform(reader: &mut Reader<'_>, uaa: String) -> PlatformConfig {
    let (tokens, limits) = read_access(reader, PREFIX);
    let skip_verify: bool = reader.value("SKIP_CERT_VERIFY");
    check_address(reader, ACCESS.uaa, &uaa);
    let uaa_url = without_path(&uaa).to_owned();
    let capi_url = ACCESS.service(reader, "LOG_ACCESS_ADDR");
    let external = ACCESS.service(reader, "LOG_ACCESS_ADDR_EXTERNAL");
    let verifies = |url: &str| !skip_verify && url.starts_with("https:");
    let check_uaa = verifies(&uaa_url);
    let check_capi = verifies(&capi_url) || verifies(&external);
    let mut text = |name, required| ACCESS.beside_uaa(reader, name, required);
    PlatformConfig {
        uaa_ca: text("LOG_ADMIN_CA_PATH", check_uaa).into(),
        capi_tls: TlsFiles {
            ca: text("LOG_ACCESS_CA_PATH", check_capi).into(),
            cert: text("LOG_ACCESS_CERT_PATH", check_capi).into(),
            key: text("LOG_ACCESS_KEY_PATH", check_capi).into(),
        },
        uaa_client: text("LOG_ADMIN_CLIENT_ID", true),
        uaa_secret: Secret::new(text("LOG_ADMIN_CLIENT_SECRET", true)),
        capi_server_name: text("LOG_ACCESS_COMMON_NAME", false),
        uaa_url,
        capi_url,
        capi_external_url: Some(external),
        skip_verify,
        tokens,
        limits,
    }
}

/// Scheme and host of an address: Go replaces whatever path it has.
fn without_path(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?', '#']);
    end.map_or(url, |end| &url[..host + end])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const NEEDED: [(&str, &str); 5] = [
        ("LOGS_PROVIDER_ADDR", "rlp:8082"),
        ("LOGS_PROVIDER_CA_PATH", "ca.pem"),
        ("LOGS_PROVIDER_CLIENT_CERT_PATH", "cert.pem"),
        ("LOGS_PROVIDER_CLIENT_KEY_PATH", "key.pem"),
        ("GATEWAY_TOKEN_FILE", "tokens"),
    ];

    fn env(vars: &[(&'static str, &'static str)]) -> BTreeMap<&'static str, &'static str> {
        NEEDED.iter().chain(vars).copied().collect()
    }

    fn files(ca: &str, cert: &str, key: &str) -> TlsFiles {
        TlsFiles {
            ca: ca.into(),
            cert: cert.into(),
            key: key.into(),
        }
    }

    fn logs(server_name: &str) -> Logs {
        Logs::Grpc {
            addr: "rlp:8082".to_owned(),
            server_name: server_name.to_owned(),
            tls: files("ca.pem", "cert.pem", "key.pem"),
        }
    }

    #[test]
    fn the_table_and_the_default_agree() {
        let expected = Config {
            access: Access::TokenFile("tokens".into()),
            access_log: true,
            ..Config::new(logs("reverselogproxy"))
        };
        assert_eq!(Config::from_env(&env(&[])).unwrap(), expected);
    }

    #[test]
    fn every_variable_reaches_its_field() {
        let config = Config::from_env(&env(&[
            ("GATEWAY_ADDR", ":1"),
            ("HTTP_CERT_PATH", "web.pem"),
            ("HTTP_KEY_PATH", "web.key"),
            ("LOGS_PROVIDER_COMMON_NAME", "rlp"),
            ("GATEWAY_DISABLE_ACCESS_CONTROL", "1"),
            ("STREAM_TIMEOUT", "1s"),
            ("GATEWAY_RESUME_GRACE", "0s"),
            ("GATEWAY_HEARTBEAT_INTERVAL", "2s"),
            ("GATEWAY_PROVIDER_WAIT", "13s"),
            ("GATEWAY_RECHECK_PATIENCE", "12s"),
            ("GATEWAY_MAX_STREAMS", "3"),
            ("GATEWAY_MAX_CONNECTIONS", "4"),
            ("GATEWAY_MAX_QUERY_BYTES", "5KiB"),
            ("GATEWAY_MAX_SELECTORS", "6"),
            ("GATEWAY_WRITE_TIMEOUT", "7s"),
            ("GATEWAY_TLS_RELOAD_INTERVAL", "8s"),
            ("GATEWAY_ACCESS_LOG", "false"),
            ("METRICS_PORT", "9"),
            ("METRICS_CA_FILE_PATH", "mca"),
            ("METRICS_CERT_FILE_PATH", "mcert"),
            ("METRICS_KEY_FILE_PATH", "mkey"),
            ("GATEWAY_ADMIN_ADDR", "127.0.0.1:10"),
            ("GATEWAY_DRAIN_TIMEOUT", "11s"),
        ]))
        .unwrap();
        let secs = Duration::from_secs;
        let expected = Config {
            addr: "[::]:1".parse().unwrap(),
            listen_tls: Some(("web.pem".into(), "web.key".into())),
            logs: logs("rlp"),
            access: Access::None,
            stream_timeout: secs(1),
            resume_grace: Duration::ZERO,
            heartbeat_interval: secs(2),
            provider_wait: secs(13),
            recheck_patience: secs(12),
            max_streams: 3,
            max_connections: 4,
            max_query: 5 * 1024,
            max_selectors: 6,
            write_timeout: secs(7),
            reload_interval: secs(8),
            access_log: false,
            metrics: Some(MetricsEndpoint {
                addr: "127.0.0.1:9".parse().unwrap(),
                tls: files("mca", "mcert", "mkey"),
            }),
            admin_addr: Some("127.0.0.1:10".parse().unwrap()),
            drain_timeout: secs(11),
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn addresses_are_written_as_for_the_go_gateway() {
        let addr =
            |text| Config::from_env(&env(&[("GATEWAY_ADDR", text)])).map(|config| config.addr);
        assert_eq!(addr(":8088").unwrap(), "[::]:8088".parse().unwrap());
        assert_eq!(addr("localhost:1").unwrap(), "127.0.0.1:1".parse().unwrap());
        assert_eq!(addr("[::1]:1").unwrap(), "[::1]:1".parse().unwrap());
        assert!(addr("8088").is_err());
        assert!(addr(":").is_err());
    }

    #[test]
    fn nobody_runs_without_access_control_by_accident() {
        let mut vars = env(&[("GATEWAY_DISABLE_ACCESS_CONTROL", "yes")]);
        vars.remove("GATEWAY_TOKEN_FILE");
        let error = Config::from_env(&vars).unwrap_err().to_string();
        assert!(error.contains("is required unless"), "{error}");
    }

    #[test]
    fn with_uaa_the_platform_says_who_may_read() {
        let mut vars = env(&[
            ("LOG_ADMIN_ADDR", "https://uaa:8443/some/path"),
            ("LOG_ADMIN_CA_PATH", "uaa-ca"),
            ("LOG_ADMIN_CLIENT_ID", "id"),
            ("LOG_ADMIN_CLIENT_SECRET", "hush"),
            ("LOG_ACCESS_ADDR", "https://cc:9023"),
            ("LOG_ACCESS_ADDR_EXTERNAL", "http://cc:9022"),
            ("LOG_ACCESS_CA_PATH", "cc-ca"),
            ("LOG_ACCESS_CERT_PATH", "cc-cert"),
            ("LOG_ACCESS_KEY_PATH", "cc-key"),
            ("LOG_ACCESS_COMMON_NAME", "cloud-controller"),
            ("GATEWAY_ACCESS_DENIED_FOR", "1s"),
        ]);
        let both = Config::from_env(&vars).unwrap_err().to_string();
        assert!(both.contains("exclude each other"), "{both}");
        vars.remove("GATEWAY_TOKEN_FILE");
        let mut expected = PlatformConfig {
            uaa_url: "https://uaa:8443".to_owned(),
            uaa_ca: "uaa-ca".into(),
            uaa_client: "id".to_owned(),
            uaa_secret: Secret::new("hush"),
            capi_url: "https://cc:9023".to_owned(),
            capi_external_url: Some("http://cc:9022".to_owned()),
            capi_tls: files("cc-ca", "cc-cert", "cc-key"),
            capi_server_name: "cloud-controller".to_owned(),
            ..PlatformConfig::default()
        };
        expected.limits.denied_for = Duration::from_secs(1);
        let access = Config::from_env(&vars).unwrap().access;
        assert_eq!(access, Access::Platform(Box::new(expected)));

        for missing in [
            "LOG_ADMIN_CA_PATH",
            "LOG_ADMIN_CLIENT_ID",
            "LOG_ADMIN_CLIENT_SECRET",
            "LOG_ACCESS_ADDR",
            "LOG_ACCESS_ADDR_EXTERNAL",
            "LOG_ACCESS_KEY_PATH",
        ] {
            let mut vars = vars.clone();
            vars.remove(missing);
            let error = Config::from_env(&vars).unwrap_err().to_string();
            assert!(error.contains(missing), "{error}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_all_at_once() {
        let error = Config::from_env(&env(&[
            ("LOGS_PROVIDER_ADDR", ""),
            ("HTTP_KEY_PATH", "web.key"),
            ("METRICS_CA_FILE_PATH", "mca"),
            ("STREAM_TIMEOUT", "0s"),
            ("GATEWAY_MAX_STREAMS", "0"),
            ("METRICS_PORT", "x"),
        ]))
        .unwrap_err();
        assert_eq!(error.0.len(), 6, "{error}");
    }
}
