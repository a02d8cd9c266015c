//! What a traffic controller needs to know, read from the settings and checked whole.

use std::net::{Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use loggregator_net::TlsFiles;
use loggregator_service::config::{ByteSize, Env, Errors, Reader};

use crate::access::platform::settings::read as read_access;
use crate::access::{Access, Names, PlatformConfig, Secret, check_address};
use crate::upstream::SharedLimits;
use crate::websocket::relay::Timing;
use crate::websocket::security_log::SecurityEventLog;
use crate::websocket::settings::{PREFIX, SETTINGS};

/// Everything a traffic controller needs to know. See [`SETTINGS`] for what each does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Address of the WebSocket port; port 0 takes a free one.
    pub listen_addr: SocketAddr,
    /// Certificate and key of the WebSocket port; `None`: plain HTTP.
    pub listen_tls: Option<(PathBuf, PathBuf)>,
    /// Dopplers, `host:port`.
    pub dopplers: Vec<String>,
    /// How often names in `dopplers` are resolved again.
    pub resolve_interval: Duration,
    /// Client certificate and authorities for dopplers and agent.
    pub doppler_tls: TlsFiles,
    /// How often certificates and tokens are looked at.
    pub reload_interval: Duration,
    /// Who may read.
    pub access: Access,
    /// How long an open stream goes on when nobody can say whether its reader may still read.
    pub recheck_patience: Duration,
    /// The domain of the deployment: cookies are for `doppler.<system domain>`. `None`: for the host that is asked.
    pub system_domain: Option<String>,
    /// Where each request is logged, if anywhere.
    pub security_log: Option<SecurityEventLog>,
    /// Client streams held at once.
    pub max_subscriptions: usize,
    /// Connections held at once.
    pub max_connections: usize,
    /// What is held for clients that are behind others with the same request.
    pub shared: SharedLimits,
    /// Times and sizes of a client's connection.
    pub timing: Timing,
    /// Address of the admin port, if there is to be one.
    pub admin_addr: Option<SocketAddr>,
    /// `host:port` of the local agent, for own metrics and events.
    pub agent_addr: Option<String>,
    /// Interval of own metrics as envelopes; zero: never.
    pub metric_interval: Duration,
}

impl Default for Config {
    /// The defaults of [`SETTINGS`]; access control is off and the TLS files are empty and must be given.
    fn default() -> Self {
        Self {
            listen_addr: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8081)),
            listen_tls: None,
            dopplers: Vec::new(),
            resolve_interval: Duration::from_secs(5),
            doppler_tls: TlsFiles {
                ca: PathBuf::new(),
                cert: PathBuf::new(),
                key: PathBuf::new(),
            },
            reload_interval: Duration::from_secs(5),
            access: Access::None,
            recheck_patience: Duration::from_secs(600),
            system_domain: None,
            security_log: None,
            max_subscriptions: 2000,
            max_connections: 10_000,
            shared: SharedLimits::default(),
            timing: Timing::default(),
            admin_addr: None,
            agent_addr: None,
            metric_interval: Duration::from_secs(60),
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
        let slow_after: Duration = reader.value("TRAFFIC_CONTROLLER_SLOW_CONSUMER_AFTER");
        let timing = Timing {
            ping_interval: reader.value("TRAFFIC_CONTROLLER_PING_INTERVAL"),
            pong_deadline: reader.value("TRAFFIC_CONTROLLER_PONG_DEADLINE"),
            slow_after,
            drop_after: slow_after + Duration::from_secs(1),
            drain_within: reader.value("TRAFFIC_CONTROLLER_DRAIN_TIMEOUT"),
            write_buffer: reader
                .value::<ByteSize>("TRAFFIC_CONTROLLER_WRITE_BUFFER")
                .as_usize(),
            ..Timing::default()
        };
        let config = Self {
            listen_addr: reader.value("TRAFFIC_CONTROLLER_LISTEN_ADDR"),
            listen_tls: listen_tls(&mut reader),
            dopplers: reader.list("ROUTER_ADDRS"),
            resolve_interval: reader.value("TRAFFIC_CONTROLLER_RESOLVE_INTERVAL"),
            doppler_tls: TlsFiles {
                ca: reader.value("ROUTER_CA_FILE"),
                cert: reader.value("ROUTER_CERT_FILE"),
                key: reader.value("ROUTER_KEY_FILE"),
            },
            reload_interval: reader.value("TRAFFIC_CONTROLLER_TLS_RELOAD_INTERVAL"),
            access: ACCESS.read(&mut reader, platform),
            recheck_patience: reader.value("TRAFFIC_CONTROLLER_RECHECK_PATIENCE"),
            system_domain: reader.optional("TRAFFIC_CONTROLLER_SYSTEM_DOMAIN"),
            security_log: security_log(&mut reader),
            max_subscriptions: reader
                .value::<NonZeroUsize>("TRAFFIC_CONTROLLER_MAX_SUBSCRIPTIONS")
                .get(),
            max_connections: reader
                .value::<NonZeroUsize>("TRAFFIC_CONTROLLER_MAX_CONNECTIONS")
                .get(),
            shared: SharedLimits {
                request: reader
                    .value::<ByteSize>("TRAFFIC_CONTROLLER_SHARED_BUFFER")
                    .as_usize(),
                total: reader
                    .value::<ByteSize>("TRAFFIC_CONTROLLER_SHARED_BUFFER_TOTAL")
                    .as_usize(),
            },
            timing,
            admin_addr: reader.optional("TRAFFIC_CONTROLLER_ADMIN_ADDR"),
            agent_addr: reader.optional("AGENT_GRPC_ADDRESS"),
            metric_interval: reader.value("TRAFFIC_CONTROLLER_METRIC_EMITTER_INTERVAL"),
        };
        for (name, reason) in config.violations() {
            reader.reject(name, reason);
        }
        reader.finish(config)
    }

    /// Values that are well-formed and still unusable: the setting's name, and why.
    pub(crate) fn violations(&self) -> Vec<(&'static str, &'static str)> {
        let positive = "must be longer than nothing";
        [
            (
                "TRAFFIC_CONTROLLER_RESOLVE_INTERVAL",
                !self.resolve_interval.is_zero(),
                positive,
            ),
            (
                "TRAFFIC_CONTROLLER_TLS_RELOAD_INTERVAL",
                !self.reload_interval.is_zero(),
                positive,
            ),
            (
                "TRAFFIC_CONTROLLER_PING_INTERVAL",
                !self.timing.ping_interval.is_zero(),
                positive,
            ),
            (
                "TRAFFIC_CONTROLLER_PONG_DEADLINE",
                !self.timing.pong_deadline.is_zero(),
                positive,
            ),
            (
                "TRAFFIC_CONTROLLER_SLOW_CONSUMER_AFTER",
                !self.timing.slow_after.is_zero(),
                positive,
            ),
            (
                "TRAFFIC_CONTROLLER_MAX_SUBSCRIPTIONS",
                self.max_subscriptions > 0,
                "must be at least 1",
            ),
            (
                "TRAFFIC_CONTROLLER_MAX_CONNECTIONS",
                self.max_connections > 0,
                "must be at least 1",
            ),
            (
                "TRAFFIC_CONTROLLER_WRITE_BUFFER",
                (1 << 10..=1 << 20).contains(&self.timing.write_buffer),
                "must be between 1KiB and 1MiB",
            ),
        ]
        .into_iter()
        .filter_map(|(name, holds, reason)| (!holds).then_some((name, reason)))
        .collect()
    }
}

fn listen_tls(reader: &mut Reader<'_>) -> Option<(PathBuf, PathBuf)> {
    let cert = reader.optional("TRAFFIC_CONTROLLER_OUTGOING_CERT_FILE");
    let key = reader.optional("TRAFFIC_CONTROLLER_OUTGOING_KEY_FILE");
    if cert.is_some() != key.is_some() {
        reader.conflict(
            "TRAFFIC_CONTROLLER_OUTGOING_CERT_FILE and TRAFFIC_CONTROLLER_OUTGOING_KEY_FILE go together: one is set",
        );
    }
    cert.zip(key)
}

fn security_log(reader: &mut Reader<'_>) -> Option<SecurityEventLog> {
    let path = reader.optional("TRAFFIC_CONTROLLER_SECURITY_EVENT_LOG")?;
    let ip = reader.optional("TRAFFIC_CONTROLLER_IP");
    if ip.is_none() {
        reader.conflict(
            "TRAFFIC_CONTROLLER_IP is required with TRAFFIC_CONTROLLER_SECURITY_EVENT_LOG",
        );
    }
    Some(SecurityEventLog { path, ip: ip? })
}

const ACCESS: Names = Names {
    disable: "TRAFFIC_CONTROLLER_DISABLE_ACCESS_CONTROL",
    token_file: "TRAFFIC_CONTROLLER_TOKEN_FILE",
    uaa: "TRAFFIC_CONTROLLER_UAA_HOST",
};

fn platform(reader: &mut Reader<'_>, uaa_url: String) -> PlatformConfig {
    let (tokens, limits) = read_access(reader, PREFIX);
    let skip_verify: bool = reader.value("TRAFFIC_CONTROLLER_SKIP_CERT_VERIFY");
    check_address(reader, ACCESS.uaa, &uaa_url);
    let capi_url = ACCESS.service(reader, "TRAFFIC_CONTROLLER_API_HOST");
    let verifies = |url: &str| !skip_verify && url.starts_with("https:");
    let (check_uaa, check_capi) = (verifies(&uaa_url), verifies(&capi_url));
    let mut text = |name, required| ACCESS.beside_uaa(reader, name, required);
    PlatformConfig {
        uaa_ca: text("TRAFFIC_CONTROLLER_UAA_CA_CERT", check_uaa).into(),
        capi_tls: TlsFiles {
            ca: text("CC_CA_FILE", check_capi).into(),
            cert: text("CC_CERT_FILE", check_capi).into(),
            key: text("CC_KEY_FILE", check_capi).into(),
        },
        uaa_secret: Secret::new(text("TRAFFIC_CONTROLLER_UAA_CLIENT_SECRET", true)),
        capi_server_name: text("CC_SERVER_NAME", false),
        uaa_client: reader.value("TRAFFIC_CONTROLLER_UAA_CLIENT"),
        uaa_url,
        capi_url,
        capi_external_url: None,
        skip_verify,
        tokens,
        limits,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const NEEDED: [(&str, &str); 4] = [
        ("ROUTER_CA_FILE", "ca.pem"),
        ("ROUTER_CERT_FILE", "cert.pem"),
        ("ROUTER_KEY_FILE", "key.pem"),
        ("TRAFFIC_CONTROLLER_TOKEN_FILE", "tokens"),
    ];

    fn env(vars: &[(&'static str, &'static str)]) -> BTreeMap<&'static str, &'static str> {
        NEEDED.iter().chain(vars).copied().collect()
    }

    fn base() -> Config {
        Config {
            doppler_tls: TlsFiles {
                ca: "ca.pem".into(),
                cert: "cert.pem".into(),
                key: "key.pem".into(),
            },
            access: Access::TokenFile("tokens".into()),
            ..Config::default()
        }
    }

    #[test]
    fn the_table_and_the_default_agree() {
        assert_eq!(Config::from_env(&env(&[])).unwrap(), base());
    }

    #[test]
    fn every_variable_reaches_its_field() {
        let config = Config::from_env(&env(&[
            ("TRAFFIC_CONTROLLER_LISTEN_ADDR", "127.0.0.1:1"),
            ("TRAFFIC_CONTROLLER_OUTGOING_CERT_FILE", "web.pem"),
            ("TRAFFIC_CONTROLLER_OUTGOING_KEY_FILE", "web.key"),
            ("ROUTER_ADDRS", "a:1, b:2,"),
            ("TRAFFIC_CONTROLLER_RESOLVE_INTERVAL", "1s"),
            ("TRAFFIC_CONTROLLER_TLS_RELOAD_INTERVAL", "2s"),
            ("TRAFFIC_CONTROLLER_DISABLE_ACCESS_CONTROL", "true"),
            ("TRAFFIC_CONTROLLER_MAX_SUBSCRIPTIONS", "7"),
            ("TRAFFIC_CONTROLLER_MAX_CONNECTIONS", "8"),
            ("TRAFFIC_CONTROLLER_WRITE_BUFFER", "8KiB"),
            ("TRAFFIC_CONTROLLER_PING_INTERVAL", "3s"),
            ("TRAFFIC_CONTROLLER_PONG_DEADLINE", "4s"),
            ("TRAFFIC_CONTROLLER_SLOW_CONSUMER_AFTER", "9s"),
            ("TRAFFIC_CONTROLLER_ADMIN_ADDR", "127.0.0.1:2"),
            ("AGENT_GRPC_ADDRESS", "127.0.0.1:3458"),
            ("TRAFFIC_CONTROLLER_METRIC_EMITTER_INTERVAL", "0s"),
            ("TRAFFIC_CONTROLLER_DRAIN_TIMEOUT", "6s"),
        ]))
        .unwrap();
        let secs = Duration::from_secs;
        let expected = Config {
            listen_addr: "127.0.0.1:1".parse().unwrap(),
            listen_tls: Some(("web.pem".into(), "web.key".into())),
            dopplers: vec!["a:1".to_owned(), "b:2".to_owned()],
            resolve_interval: secs(1),
            reload_interval: secs(2),
            access: Access::None,
            recheck_patience: Duration::from_secs(600),
            system_domain: None,
            security_log: None,
            max_subscriptions: 7,
            max_connections: 8,
            timing: Timing {
                write_buffer: 8192,
                ping_interval: secs(3),
                pong_deadline: secs(4),
                slow_after: secs(9),
                drop_after: secs(10),
                drain_within: secs(6),
                ..Timing::default()
            },
            admin_addr: Some("127.0.0.1:2".parse().unwrap()),
            agent_addr: Some("127.0.0.1:3458".to_owned()),
            metric_interval: Duration::ZERO,
            ..base()
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn nobody_runs_without_access_control_by_accident() {
        let mut vars = env(&[("TRAFFIC_CONTROLLER_DISABLE_ACCESS_CONTROL", "yes")]);
        vars.remove("TRAFFIC_CONTROLLER_TOKEN_FILE");
        let error = Config::from_env(&vars).unwrap_err().to_string();
        assert!(
            error.contains(
                "TRAFFIC_CONTROLLER_TOKEN_FILE or TRAFFIC_CONTROLLER_UAA_HOST is required"
            ),
            "{error}"
        );
    }

    const UAA: [(&str, &str); 8] = [
        ("TRAFFIC_CONTROLLER_UAA_HOST", "https://uaa:8443"),
        ("TRAFFIC_CONTROLLER_UAA_CA_CERT", "uaa.pem"),
        ("TRAFFIC_CONTROLLER_UAA_CLIENT_SECRET", "hush"),
        ("TRAFFIC_CONTROLLER_API_HOST", "https://cc:9023"),
        ("CC_CA_FILE", "cc-ca.pem"),
        ("CC_CERT_FILE", "cc.pem"),
        ("CC_KEY_FILE", "cc.key"),
        ("CC_SERVER_NAME", "cloud-controller"),
    ];

    /// With UAA instead of a token file.
    fn env_uaa(vars: &[(&'static str, &'static str)]) -> BTreeMap<&'static str, &'static str> {
        let mut all = env(&UAA);
        all.remove("TRAFFIC_CONTROLLER_TOKEN_FILE");
        all.extend(vars.iter().copied());
        all
    }

    #[test]
    fn with_uaa_the_platform_says_who_may_read() {
        let expected = PlatformConfig {
            uaa_url: "https://uaa:8443".to_owned(),
            uaa_ca: "uaa.pem".into(),
            uaa_client: "doppler".to_owned(),
            uaa_secret: Secret::new("hush"),
            capi_url: "https://cc:9023".to_owned(),
            capi_tls: TlsFiles {
                ca: "cc-ca.pem".into(),
                cert: "cc.pem".into(),
                key: "cc.key".into(),
            },
            capi_server_name: "cloud-controller".to_owned(),
            ..PlatformConfig::default()
        };
        let config = Config::from_env(&env_uaa(&[])).unwrap();
        assert_eq!(config.access, Access::Platform(Box::new(expected)));
        let disabled = env_uaa(&[("TRAFFIC_CONTROLLER_DISABLE_ACCESS_CONTROL", "true")]);
        assert_eq!(Config::from_env(&disabled).unwrap().access, Access::None);
    }

    #[test]
    fn what_contradicts_or_lacks_beside_uaa_is_named_without_the_secret() {
        let both = env_uaa(&[("TRAFFIC_CONTROLLER_TOKEN_FILE", "tokens")]);
        let error = Config::from_env(&both).unwrap_err();
        assert_eq!(error.0.len(), 1, "{error}");
        let mut lacking = env_uaa(&[
            ("TRAFFIC_CONTROLLER_API_HOST", "cc:9023/x?y"),
            ("TRAFFIC_CONTROLLER_ACCESS_TIMEOUT", "0s"),
            ("TRAFFIC_CONTROLLER_TOKEN_CHECK", "guess"),
        ]);
        lacking.remove("TRAFFIC_CONTROLLER_UAA_CA_CERT");
        let error = Config::from_env(&lacking).unwrap_err();
        assert_eq!(error.0.len(), 4, "{error}");
        assert!(!error.to_string().contains("hush"));
        let local = ("TRAFFIC_CONTROLLER_TOKEN_CHECK", "local");
        let error = Config::from_env(&env_uaa(&[local])).unwrap_err();
        let issuer = "TRAFFIC_CONTROLLER_TOKEN_CHECK=local needs TRAFFIC_CONTROLLER_TOKEN_ISSUER: UAA's other zones may \
                      sign with the same keys";
        assert!(error.to_string().contains(issuer), "{error}");
        let issuer = ("TRAFFIC_CONTROLLER_TOKEN_ISSUER", "https://uaa");
        Config::from_env(&env_uaa(&[local, issuer])).unwrap();
    }

    #[test]
    fn what_cannot_work_is_refused_all_at_once() {
        let error = Config::from_env(&env(&[
            ("TRAFFIC_CONTROLLER_OUTGOING_KEY_FILE", "web.key"),
            ("TRAFFIC_CONTROLLER_WRITE_BUFFER", "2MiB"),
            ("TRAFFIC_CONTROLLER_PONG_DEADLINE", "0s"),
            ("TRAFFIC_CONTROLLER_MAX_SUBSCRIPTIONS", "0"),
        ]))
        .unwrap_err();
        assert_eq!(error.0.len(), 4, "{error}");
    }
}
