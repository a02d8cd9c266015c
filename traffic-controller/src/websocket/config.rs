//! The settings of a traffic controller: one table, read from the environment, overridden by flags, checked whole.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use loggregator_net::TlsFiles;
use loggregator_service::config::{ByteSize, Env, Errors, Layered, Reader, Setting};

use crate::access::platform::is_base_address;
use crate::access::platform::settings::{access_settings, joined, read as read_access};
use crate::access::{PlatformConfig, Secret};
use crate::upstream::SharedLimits;
use crate::websocket::relay::Timing;
use crate::websocket::security_log::SecurityEventLog;

/// Every setting of the program, with its default. Names that the Go traffic controller knows are kept.
pub const SETTINGS: &[Setting] = &joined::<{ OWN.len() + ACCESS.len() }>(OWN, ACCESS);

/// Those of the checks by UAA and the Cloud Controller.
const ACCESS: &[Setting] = access_settings!("TRAFFIC_CONTROLLER_");

const OWN: &[Setting] = &[
    Setting::new(
        "TRAFFIC_CONTROLLER_LISTEN_ADDR",
        "[::]:8081",
        "Address of the WebSocket port for clients. Port 0 takes a free one.",
    ),
    Setting::optional(
        "TRAFFIC_CONTROLLER_OUTGOING_CERT_FILE",
        "PEM certificate for the WebSocket port. Unset: plain HTTP, for use on one machine or behind a proxy only.",
    ),
    Setting::optional(
        "TRAFFIC_CONTROLLER_OUTGOING_KEY_FILE",
        "PEM key of that certificate (PKCS#1, PKCS#8 or SEC1).",
    ),
    Setting::new(
        "ROUTER_ADDRS",
        "",
        "Dopplers to read, comma-separated host:port. All addresses that a name resolves to are read.",
    ),
    Setting::new(
        "TRAFFIC_CONTROLLER_RESOLVE_INTERVAL",
        "5s",
        "How often the names in ROUTER_ADDRS are resolved again, to find dopplers that came and went.",
    ),
    Setting::required(
        "ROUTER_CA_FILE",
        "PEM bundle of the authorities that sign the dopplers' and the agent's certificates.",
    ),
    Setting::required(
        "ROUTER_CERT_FILE",
        "PEM client certificate for the dopplers and the agent.",
    ),
    Setting::required("ROUTER_KEY_FILE", "PEM key of that certificate."),
    Setting::new(
        "TRAFFIC_CONTROLLER_TLS_RELOAD_INTERVAL",
        "5s",
        "How often certificate files and the token file are looked at. Unusable new ones are reported and the old kept.",
    ),
    Setting::optional(
        "TRAFFIC_CONTROLLER_TOKEN_FILE",
        "File of tokens, one a line, each followed by `doppler.firehose` or the application ids that it may read. \
         This or TRAFFIC_CONTROLLER_UAA_HOST is required unless access control is disabled.",
    ),
    Setting::new(
        "TRAFFIC_CONTROLLER_DISABLE_ACCESS_CONTROL",
        "false",
        "true: everybody who reaches the port may read everything, whatever else is set.",
    ),
    Setting::optional(
        "TRAFFIC_CONTROLLER_UAA_HOST",
        "UAA's address, such as https://uaa.service.cf.internal:8443. With it, UAA and the Cloud Controller say who may \
         read.",
    ),
    Setting::optional(
        "TRAFFIC_CONTROLLER_UAA_CA_CERT",
        "PEM bundle of the authorities that sign UAA's certificate.",
    ),
    Setting::new(
        "TRAFFIC_CONTROLLER_UAA_CLIENT",
        "doppler",
        "UAA client that checks tokens.",
    ),
    Setting::optional(
        "TRAFFIC_CONTROLLER_UAA_CLIENT_SECRET",
        "Secret of that client.",
    )
    .secret(),
    Setting::optional(
        "TRAFFIC_CONTROLLER_API_HOST",
        "The Cloud Controller's address, such as https://cloud-controller-ng.service.cf.internal:9023.",
    ),
    Setting::optional(
        "CC_CA_FILE",
        "PEM bundle of the authorities that sign the Cloud Controller's certificate.",
    ),
    Setting::optional(
        "CC_CERT_FILE",
        "PEM client certificate for the Cloud Controller.",
    ),
    Setting::optional("CC_KEY_FILE", "PEM key of that certificate."),
    Setting::optional(
        "CC_SERVER_NAME",
        "Name in the Cloud Controller's certificate. Unset: the host of its address.",
    ),
    Setting::new(
        "TRAFFIC_CONTROLLER_SKIP_CERT_VERIFY",
        "false",
        "true: the certificates of UAA and Cloud Controller are not verified. Tokens can then be read on the way.",
    ),
    Setting::new(
        "TRAFFIC_CONTROLLER_RECHECK_PATIENCE",
        "10m",
        "How long an open stream goes on when it is time to check its token again and nobody can say.",
    ),
    Setting::optional(
        "TRAFFIC_CONTROLLER_SYSTEM_DOMAIN",
        "Cookies that /set-cookie gives out are for doppler.<this domain>. Unset: for the host that is asked.",
    ),
    Setting::optional(
        "TRAFFIC_CONTROLLER_SECURITY_EVENT_LOG",
        "File for the security event log, one CEF line per HTTP request. A new one is made when it was moved away. Unset: \
         none.",
    ),
    Setting::optional(
        "TRAFFIC_CONTROLLER_IP",
        "Address of this machine, the destination address in the security event log. Required with it.",
    ),
    Setting::new(
        "TRAFFIC_CONTROLLER_MAX_SUBSCRIPTIONS",
        "2000",
        "Client streams held at once; more are answered with 503.",
    ),
    Setting::new(
        "TRAFFIC_CONTROLLER_MAX_CONNECTIONS",
        "10000",
        "Connections held at once that are no client streams (yet); more are closed at once and counted.",
    ),
    Setting::new(
        "TRAFFIC_CONTROLLER_WRITE_BUFFER",
        "64KiB",
        "Bytes collected for a client before they are written, 1KiB to 1MiB. With one batch of the dopplers, which is \
         at most their largest message, this is what a client that does not read holds.",
    ),
    Setting::new(
        "TRAFFIC_CONTROLLER_SHARED_BUFFER",
        "8MiB",
        "Clients that ask for the same application share one subscription. Bytes held of one for clients that are behind \
         others; one that falls behind by more misses envelopes, counted and told.",
    ),
    Setting::new(
        "TRAFFIC_CONTROLLER_SHARED_BUFFER_TOTAL",
        "64MiB",
        "The same for all shared subscriptions together.",
    ),
    Setting::new(
        "TRAFFIC_CONTROLLER_PING_INTERVAL",
        "15s",
        "From a client's pong to the next ping.",
    ),
    Setting::new(
        "TRAFFIC_CONTROLLER_PONG_DEADLINE",
        "30s",
        "From a ping to the latest moment for its pong; a client that misses it is closed with 1008.",
    ),
    Setting::new(
        "TRAFFIC_CONTROLLER_SLOW_CONSUMER_AFTER",
        "5s",
        "A client whose connection takes no byte for this long counts as slow and is fed no more; a second later it is \
         dropped.",
    ),
    Setting::optional(
        "TRAFFIC_CONTROLLER_ADMIN_ADDR",
        "Address of the plain HTTP port with /metrics, /healthz, /readyz and /ledger, such as 127.0.0.1:9081. Unset: \
         none.",
    ),
    Setting::optional(
        "AGENT_GRPC_ADDRESS",
        "host:port of the local agent for this traffic controller's own metrics and events, its certificate named \
         `metron`. Unset: they are not sent.",
    ),
    Setting::new(
        "TRAFFIC_CONTROLLER_METRIC_EMITTER_INTERVAL",
        "1m",
        "Interval of this traffic controller's own metrics as envelopes. 0s: never.",
    ),
    Setting::new(
        "TRAFFIC_CONTROLLER_DRAIN_TIMEOUT",
        "3s",
        "How long a client may take, at a stop, for what was already received for it.",
    ),
];

/// Who may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody, everything.
    None,
    /// Who has a token of this file, what the file says; see [`crate::access::TokenFile`].
    TokenFile(PathBuf),
    /// Whom UAA and the Cloud Controller allow; see [`crate::access::Platform`].
    Platform(Box<PlatformConfig>),
}

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
            access: access(&mut reader),
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

/// Off, or by a token file, or by UAA; neither of them, or both, is an error.
fn access(reader: &mut Reader<'_>) -> Access {
    const REQUIRED: &str = "TRAFFIC_CONTROLLER_TOKEN_FILE or TRAFFIC_CONTROLLER_UAA_HOST is required unless \
                            TRAFFIC_CONTROLLER_DISABLE_ACCESS_CONTROL is true";
    const BOTH: &str = "TRAFFIC_CONTROLLER_TOKEN_FILE and TRAFFIC_CONTROLLER_UAA_HOST exclude each other: both are set";
    let disabled = reader.value("TRAFFIC_CONTROLLER_DISABLE_ACCESS_CONTROL");
    let file = reader.optional("TRAFFIC_CONTROLLER_TOKEN_FILE");
    let uaa: Option<String> = reader.optional("TRAFFIC_CONTROLLER_UAA_HOST");
    match (file, uaa) {
        _ if disabled => Access::None,
        (Some(path), None) => Access::TokenFile(path),
        (None, Some(uaa)) => Access::Platform(Box::new(platform(reader, uaa))),
        (file, _) => {
            reader.conflict(if file.is_some() { BOTH } else { REQUIRED });
            Access::None
        }
    }
}

fn platform(reader: &mut Reader<'_>, uaa_url: String) -> PlatformConfig {
    let (tokens, limits) = read_access(reader, "TRAFFIC_CONTROLLER_");
    let skip_verify: bool = reader.value("TRAFFIC_CONTROLLER_SKIP_CERT_VERIFY");
    address(reader, "TRAFFIC_CONTROLLER_UAA_HOST", &uaa_url);
    let capi_url = needed(reader, "TRAFFIC_CONTROLLER_API_HOST", true);
    if !capi_url.is_empty() {
        address(reader, "TRAFFIC_CONTROLLER_API_HOST", &capi_url);
    }
    let verifies = |url: &str| !skip_verify && url.starts_with("https:");
    let (check_uaa, check_capi) = (verifies(&uaa_url), verifies(&capi_url));
    let mut file = |name, required| PathBuf::from(needed(reader, name, required));
    PlatformConfig {
        uaa_ca: file("TRAFFIC_CONTROLLER_UAA_CA_CERT", check_uaa),
        capi_tls: TlsFiles {
            ca: file("CC_CA_FILE", check_capi),
            cert: file("CC_CERT_FILE", check_capi),
            key: file("CC_KEY_FILE", check_capi),
        },
        uaa_client: reader.value("TRAFFIC_CONTROLLER_UAA_CLIENT"),
        uaa_secret: Secret::new(needed(reader, "TRAFFIC_CONTROLLER_UAA_CLIENT_SECRET", true)),
        capi_server_name: needed(reader, "CC_SERVER_NAME", false),
        uaa_url,
        capi_url,
        capi_external_url: None,
        skip_verify,
        tokens,
        limits,
    }
}

/// A text that may be required because UAA is used.
fn needed(reader: &mut Reader<'_>, name: &str, required: bool) -> String {
    let text: Option<String> = reader.optional(name);
    if required && text.is_none() {
        reader.conflict(format!(
            "{name} is required with TRAFFIC_CONTROLLER_UAA_HOST"
        ));
    }
    text.unwrap_or_default()
}

fn address(reader: &mut Reader<'_>, name: &str, url: &str) {
    if !is_base_address(url) {
        reader.reject(name, "is not of the form https://host:port");
    }
}

/// The command line of `loggregator traffic-controller`. Every flag stands for a variable and wins over it; both go
/// through the same parser.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TrafficControllerArgs {
    /// Address of the WebSocket port [env: TRAFFIC_CONTROLLER_LISTEN_ADDR] [default: port 8081, all addresses]
    #[arg(long, value_name = "ADDR")]
    pub listen_addr: Option<String>,
    /// PEM certificate for the WebSocket port [env: TRAFFIC_CONTROLLER_OUTGOING_CERT_FILE] [default: plain HTTP]
    #[arg(long, value_name = "FILE")]
    pub listen_cert_file: Option<String>,
    /// PEM key of that certificate [env: TRAFFIC_CONTROLLER_OUTGOING_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    pub listen_key_file: Option<String>,
    /// Dopplers to read, comma-separated; a name stands for all its addresses [env: ROUTER_ADDRS]
    #[arg(long, value_name = "HOST:PORT,…")]
    pub dopplers: Option<String>,
    /// How often names of dopplers are resolved again [env: TRAFFIC_CONTROLLER_RESOLVE_INTERVAL] [default: 5s]
    #[arg(long, value_name = "DURATION")]
    pub resolve_interval: Option<String>,
    /// PEM bundle of the authorities for dopplers and agent [env: ROUTER_CA_FILE]
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<String>,
    /// PEM client certificate for dopplers and agent [env: ROUTER_CERT_FILE]
    #[arg(long, value_name = "FILE")]
    pub cert_file: Option<String>,
    /// PEM key of that certificate [env: ROUTER_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<String>,
    /// Tokens and what each may read [env: TRAFFIC_CONTROLLER_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<String>,
    /// UAA's address; with it UAA and the Cloud Controller say who may read [env: TRAFFIC_CONTROLLER_UAA_HOST]
    #[arg(long, value_name = "URL")]
    pub uaa_url: Option<String>,
    /// PEM bundle of the authorities for UAA [env: TRAFFIC_CONTROLLER_UAA_CA_CERT]
    #[arg(long, value_name = "FILE")]
    pub uaa_ca_file: Option<String>,
    /// UAA client that checks tokens; its secret comes from TRAFFIC_CONTROLLER_UAA_CLIENT_SECRET only
    /// [env: TRAFFIC_CONTROLLER_UAA_CLIENT] [default: doppler]
    #[arg(long, value_name = "NAME")]
    pub uaa_client: Option<String>,
    /// The Cloud Controller's address [env: TRAFFIC_CONTROLLER_API_HOST]
    #[arg(long, value_name = "URL")]
    pub capi_url: Option<String>,
    /// PEM bundle of the authorities for the Cloud Controller [env: CC_CA_FILE]
    #[arg(long, value_name = "FILE")]
    pub capi_ca_file: Option<String>,
    /// PEM client certificate for the Cloud Controller [env: CC_CERT_FILE]
    #[arg(long, value_name = "FILE")]
    pub capi_cert_file: Option<String>,
    /// PEM key of that certificate [env: CC_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    pub capi_key_file: Option<String>,
    /// Name in the Cloud Controller's certificate [env: CC_SERVER_NAME] [default: the address's host]
    #[arg(long, value_name = "NAME")]
    pub capi_server_name: Option<String>,
    /// Who judges tokens: remote or local [env: TRAFFIC_CONTROLLER_TOKEN_CHECK] [default: remote]
    #[arg(long, value_name = "HOW")]
    pub token_check: Option<String>,
    /// Let everybody who reaches the port read everything [env: TRAFFIC_CONTROLLER_DISABLE_ACCESS_CONTROL]
    #[arg(long)]
    pub disable_access_control: bool,
    /// Client streams held at once [env: TRAFFIC_CONTROLLER_MAX_SUBSCRIPTIONS] [default: 2000]
    #[arg(long, value_name = "N")]
    pub max_subscriptions: Option<String>,
    /// Connections held at once [env: TRAFFIC_CONTROLLER_MAX_CONNECTIONS] [default: 10000]
    #[arg(long, value_name = "N")]
    pub max_connections: Option<String>,
    /// Time without progress after which a client counts as slow
    /// [env: TRAFFIC_CONTROLLER_SLOW_CONSUMER_AFTER] [default: 5s]
    #[arg(long, value_name = "DURATION")]
    pub slow_consumer_after: Option<String>,
    /// Address of the plain HTTP port with /metrics, /healthz, /readyz and /ledger
    /// [env: TRAFFIC_CONTROLLER_ADMIN_ADDR] [default: none]
    #[arg(long, value_name = "ADDR")]
    pub admin_addr: Option<String>,
    /// The local agent, for own metrics and events [env: AGENT_GRPC_ADDRESS] [default: none]
    #[arg(long, value_name = "HOST:PORT")]
    pub agent_addr: Option<String>,
    /// Interval of own metrics as envelopes, 0s for never
    /// [env: TRAFFIC_CONTROLLER_METRIC_EMITTER_INTERVAL] [default: 1m]
    #[arg(long, value_name = "DURATION")]
    pub metric_interval: Option<String>,
    /// How long a client may take at a stop [env: TRAFFIC_CONTROLLER_DRAIN_TIMEOUT] [default: 3s]
    #[arg(long, value_name = "DURATION")]
    pub drain_timeout: Option<String>,
}

impl TrafficControllerArgs {
    /// The configuration of these flags over the variables of `env`.
    ///
    /// # Errors
    /// Everything that is wrong, not only the first of it.
    pub fn config(self, env: impl Env) -> Result<Config, Errors> {
        Config::from_env(&Layered {
            over: self.variables(),
            under: env,
        })
    }

    /// The flags that were given, under the names of their variables.
    fn variables(self) -> BTreeMap<String, String> {
        [
            ("TRAFFIC_CONTROLLER_LISTEN_ADDR", self.listen_addr),
            (
                "TRAFFIC_CONTROLLER_OUTGOING_CERT_FILE",
                self.listen_cert_file,
            ),
            ("TRAFFIC_CONTROLLER_OUTGOING_KEY_FILE", self.listen_key_file),
            ("ROUTER_ADDRS", self.dopplers),
            ("TRAFFIC_CONTROLLER_RESOLVE_INTERVAL", self.resolve_interval),
            ("ROUTER_CA_FILE", self.ca_file),
            ("ROUTER_CERT_FILE", self.cert_file),
            ("ROUTER_KEY_FILE", self.key_file),
            ("TRAFFIC_CONTROLLER_TOKEN_FILE", self.token_file),
            ("TRAFFIC_CONTROLLER_UAA_HOST", self.uaa_url),
            ("TRAFFIC_CONTROLLER_UAA_CA_CERT", self.uaa_ca_file),
            ("TRAFFIC_CONTROLLER_UAA_CLIENT", self.uaa_client),
            ("TRAFFIC_CONTROLLER_API_HOST", self.capi_url),
            ("CC_CA_FILE", self.capi_ca_file),
            ("CC_CERT_FILE", self.capi_cert_file),
            ("CC_KEY_FILE", self.capi_key_file),
            ("CC_SERVER_NAME", self.capi_server_name),
            ("TRAFFIC_CONTROLLER_TOKEN_CHECK", self.token_check),
            (
                "TRAFFIC_CONTROLLER_DISABLE_ACCESS_CONTROL",
                self.disable_access_control.then(|| "true".to_owned()),
            ),
            (
                "TRAFFIC_CONTROLLER_MAX_SUBSCRIPTIONS",
                self.max_subscriptions,
            ),
            ("TRAFFIC_CONTROLLER_MAX_CONNECTIONS", self.max_connections),
            (
                "TRAFFIC_CONTROLLER_SLOW_CONSUMER_AFTER",
                self.slow_consumer_after,
            ),
            ("TRAFFIC_CONTROLLER_ADMIN_ADDR", self.admin_addr),
            ("AGENT_GRPC_ADDRESS", self.agent_addr),
            (
                "TRAFFIC_CONTROLLER_METRIC_EMITTER_INTERVAL",
                self.metric_interval,
            ),
            ("TRAFFIC_CONTROLLER_DRAIN_TIMEOUT", self.drain_timeout),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: TrafficControllerArgs,
    }

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

    #[test]
    fn flags_win_over_variables() {
        let words = [
            "tc",
            "--dopplers",
            "x:1",
            "--disable-access-control",
            "--slow-consumer-after",
            "2s",
        ];
        let args = Program::try_parse_from(words).unwrap().args;
        let config = args.config(env(&[("ROUTER_ADDRS", "y:1")])).unwrap();
        assert_eq!(config.dopplers, ["x:1"]);
        assert_eq!(config.access, Access::None);
        assert_eq!(config.timing.slow_after, Duration::from_secs(2));
    }
}
