//! What an agent can be told.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use loggregator_net::TlsFiles;
use loggregator_service::config::{ByteSize, Env, Errors, Reader, Setting};
use time::UtcOffset;

use crate::lines::LongLines;

/// Everything an agent can be told. [`Config::default`] has the usual ports and limits, no dopplers and no certificates.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the v2 gRPC services listen. Default `127.0.0.1:3458`.
    pub grpc_addr: SocketAddr,
    /// Where dropsonde datagrams (v1) arrive. Default `127.0.0.1:3457`; none: no v1.
    pub udp_addr: Option<SocketAddr>,
    /// Where syslog datagrams arrive. Default none.
    pub syslog_udp: Option<SocketAddr>,
    /// Where syslog connections arrive. Default none.
    pub syslog_tcp: Option<SocketAddr>,
    /// Where the admin server listens. Default none.
    pub admin_addr: Option<SocketAddr>,
    /// The agent's identity: as a server its name is `metron`, dopplers are asked for `doppler`.
    pub tls: TlsFiles,
    /// The dopplers, `host:port` each; a name stands for all addresses that it resolves to.
    pub dopplers: Vec<String>,
    /// How often names of dopplers are resolved again. Default 10 s.
    pub resolve_interval: Duration,
    /// Tags that every envelope gets which has none of that name.
    pub tags: BTreeMap<String, String>,
    /// Fields of v1 envelopes that do not have them.
    pub v1: V1Defaults,
    /// Whether v2 logs are refused (and counted) at ingress. Default false.
    pub logs_disabled: bool,
    /// Bytes that may wait for dopplers; when they are full, the oldest are dropped and counted. Default 32 MiB.
    pub buffer_bytes: usize,
    /// Envelopes per batch to a doppler. Default 100.
    pub batch_envelopes: u32,
    /// How long an unfinished batch waits after the last one left, at most. After a longer pause nothing waits. Default
    /// 5 ms.
    pub linger: Duration,
    /// Streams per doppler. Default 1.
    pub streams: usize,
    /// Counters whose totals are kept; the ones not heard of for longest make room. Default 10,000.
    pub max_counters: usize,
    /// What to read besides the network.
    pub inputs: Vec<Input>,
    /// Files and standard input.
    pub lines: LineConfig,
    /// Both syslog ports.
    pub syslog: SyslogConfig,
    /// Receive buffer asked of the kernel for each UDP socket; it grants at most `net.core.rmem_max`. Default 4 MiB.
    pub udp_receive_buffer: usize,
    /// Source id of what the agent itself has to say. Default `metron`.
    pub metric_source_id: String,
    /// How often what was dropped is told downstream. Default 1 s.
    pub notice_interval: Duration,
    /// How long the agent may take to hand on what it has when it stops. Default 5 s.
    pub drain_timeout: Duration,
}

/// Fields that a v1 envelope gets when it comes without them, even as tags of its v2 form. An empty field that was sent
/// stays empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct V1Defaults {
    /// Name of the deployment.
    pub deployment: String,
    /// Name of the job.
    pub job: String,
    /// Instance of the job.
    pub index: String,
    /// Address of the machine.
    pub ip: String,
}

/// A source of lines. Each line becomes a log envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// What is read.
    pub kind: InputKind,
    /// Source id of the envelopes.
    pub source_id: String,
    /// Instance id of the envelopes.
    pub instance_id: String,
    /// Tag `source_type`, if not empty.
    pub source_type: String,
    /// More tags.
    pub tags: BTreeMap<String, String>,
}

impl Input {
    /// A file, from its end on.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>, source_id: &str) -> Input {
        Input::new(
            InputKind::File {
                path: path.into(),
                from: From::End,
            },
            source_id,
        )
    }

    /// Standard input.
    #[must_use]
    pub fn stdin(source_id: &str) -> Input {
        Input::new(InputKind::Stdin, source_id)
    }

    fn new(kind: InputKind, source_id: &str) -> Input {
        Input {
            kind,
            source_id: source_id.to_owned(),
            instance_id: String::new(),
            source_type: String::new(),
            tags: BTreeMap::new(),
        }
    }
}

/// What an input reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputKind {
    /// Standard input, to its end.
    Stdin,
    /// A file and its successors of the same name. It may be absent at first.
    File {
        /// Its path.
        path: PathBuf,
        /// Where to begin in the file that is there at the start; successors are read from their beginning.
        from: From,
    },
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum From {
    /// With the first line.
    Start,
    /// With what is written from now on.
    #[default]
    End,
}

/// How lines are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineConfig {
    /// Longest line, bytes. Default 64 KiB.
    pub max_line: usize,
    /// What happens to longer ones. Default: they are split.
    pub long_lines: LongLines,
    /// How often a file is looked at when there was nothing to read. Default 100 ms.
    pub poll_interval: Duration,
}

impl Default for LineConfig {
    fn default() -> LineConfig {
        LineConfig {
            max_line: 64 * 1024,
            long_lines: LongLines::Split,
            poll_interval: Duration::from_millis(100),
        }
    }
}

/// How syslog is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyslogConfig {
    /// Longest message, bytes; longer ones lose their end. Default 65 KiB, what Cloud Foundry's syslog agents send at
    /// most.
    pub max_message: usize,
    /// A connection on which nothing arrives for so long is closed. Default 2 min.
    pub idle_timeout: Duration,
    /// Connections at a time; more are closed at once and counted. Default 1000.
    pub max_connections: usize,
    /// Source id of messages that name no program. Default `syslog`.
    pub source_id: String,
    /// Time zone of dates that have none, as RFC 3164 writes them. Default UTC.
    pub utc_offset: UtcOffset,
}

impl Default for SyslogConfig {
    fn default() -> SyslogConfig {
        SyslogConfig {
            max_message: 65 * 1024,
            idle_timeout: Duration::from_secs(120),
            max_connections: 1000,
            source_id: "syslog".to_owned(),
            utc_offset: UtcOffset::UTC,
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            grpc_addr: (Ipv4Addr::LOCALHOST, 3458).into(),
            udp_addr: Some((Ipv4Addr::LOCALHOST, 3457).into()),
            syslog_udp: None,
            syslog_tcp: None,
            admin_addr: None,
            tls: TlsFiles {
                ca: PathBuf::new(),
                cert: PathBuf::new(),
                key: PathBuf::new(),
            },
            dopplers: Vec::new(),
            resolve_interval: Duration::from_secs(10),
            tags: BTreeMap::new(),
            v1: V1Defaults::default(),
            logs_disabled: false,
            buffer_bytes: 32 * 1024 * 1024,
            batch_envelopes: 100,
            linger: Duration::from_millis(5),
            streams: 1,
            max_counters: 10_000,
            inputs: Vec::new(),
            lines: LineConfig::default(),
            syslog: SyslogConfig::default(),
            udp_receive_buffer: 4 * 1024 * 1024,
            metric_source_id: "metron".to_owned(),
            notice_interval: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// What this program's variables begin with.
pub const PREFIX: &str = "AGENT_";

/// The environment variables of an agent.
pub const SETTINGS: &[Setting] = &[
    Setting::new(
        "AGENT_GRPC_ADDR",
        "127.0.0.1:3458",
        "Where the v2 gRPC services listen.",
    ),
    Setting::new(
        "AGENT_UDP_ADDR",
        "127.0.0.1:3457",
        "Where dropsonde datagrams (v1) arrive.",
    ),
    Setting::new("AGENT_DISABLE_UDP", "false", "true: no v1 at all."),
    Setting::optional("AGENT_SYSLOG_UDP_ADDR", "Where syslog datagrams arrive."),
    Setting::optional("AGENT_SYSLOG_TCP_ADDR", "Where syslog connections arrive."),
    Setting::optional("AGENT_ADMIN_ADDR", "Where the admin server listens."),
    Setting::required(
        "AGENT_CA_FILE",
        "PEM file of the certificate authority of all components.",
    ),
    Setting::required(
        "AGENT_CERT_FILE",
        "PEM file of the agent's certificate; its name is `metron`.",
    ),
    Setting::required(
        "AGENT_KEY_FILE",
        "PEM file of the certificate's private key.",
    ),
    Setting::required(
        "AGENT_DOPPLERS",
        "Comma-separated dopplers, `host:port`; names are resolved again and again.",
    )
    .takes("HOST:PORT,…"),
    Setting::new(
        "AGENT_RESOLVE_INTERVAL",
        "10s",
        "How often names of dopplers are resolved.",
    ),
    Setting::optional(
        "AGENT_TAGS",
        "Comma-separated `key:value` tags for every envelope that does not have them.",
    )
    .takes("KEY:VALUE,…"),
    Setting::optional(
        "AGENT_DEPLOYMENT",
        "Deployment of v1 envelopes that come without one.",
    )
    .takes("NAME"),
    Setting::optional("AGENT_JOB", "Job of v1 envelopes that come without one.").takes("NAME"),
    Setting::optional(
        "AGENT_INDEX",
        "Index of v1 envelopes that come without one.",
    )
    .takes("INDEX"),
    Setting::optional("AGENT_IP", "IP of v1 envelopes that come without one.").takes("IP"),
    Setting::new("LOGS_DISABLED", "false", "true: v2 logs are refused."),
    Setting::new(
        "AGENT_BUFFER_BYTES",
        "32MiB",
        "Bytes that may wait for dopplers; then the oldest are dropped.",
    ),
    Setting::new(
        "AGENT_BATCH_ENVELOPES",
        "100",
        "Envelopes per batch to a doppler.",
    ),
    Setting::new(
        "AGENT_LINGER",
        "5ms",
        "How long an unfinished batch waits at most; 100ms is what the Go agent does.",
    ),
    Setting::new("AGENT_STREAMS", "1", "Streams per doppler."),
    Setting::new(
        "AGENT_MAX_COUNTERS",
        "10000",
        "Counters whose totals are kept; then the oldest make room.",
    ),
    Setting::optional(
        "AGENT_FILES",
        "Comma-separated `path:source-id` of files to follow, from their end.",
    )
    .takes("FILE:ID,…"),
    Setting::new(
        "AGENT_MAX_LINE",
        "64KiB",
        "Longest line of a file; longer ones are split.",
    ),
    Setting::new(
        "AGENT_SYSLOG_MAX_MESSAGE",
        "65KiB",
        "Longest syslog message; longer ones lose their end.",
    ),
    Setting::new(
        "AGENT_SYSLOG_IDLE_TIMEOUT",
        "2m",
        "Syslog connections that are silent for so long are closed.",
    ),
    Setting::new(
        "AGENT_SYSLOG_MAX_CONNECTIONS",
        "1000",
        "Syslog connections at a time; more are refused.",
    ),
    Setting::new(
        "AGENT_UDP_RECEIVE_BUFFER",
        "4MiB",
        "Receive buffer asked of the kernel for each UDP socket.",
    ),
    Setting::new(
        "AGENT_METRIC_SOURCE_ID",
        "metron",
        "Source id of what the agent itself has to say.",
    )
    .takes("ID"),
    Setting::new(
        "AGENT_DRAIN_TIMEOUT",
        "5s",
        "How long the agent may take to hand on what it has when it stops.",
    ),
];

impl Config {
    /// Reads [`SETTINGS`].
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn from_env(env: &dyn Env) -> Result<Config, Errors> {
        let mut r = Reader::new(env, SETTINGS);
        let defaults = Config::default();
        let udp: SocketAddr = r.value("AGENT_UDP_ADDR");
        let no_udp: bool = r.value("AGENT_DISABLE_UDP");
        let text = |r: &mut Reader<'_>, name: &str| r.optional::<String>(name).unwrap_or_default();
        let mut inputs = Vec::new();
        for entry in r.list::<String>("AGENT_FILES") {
            match entry.rsplit_once(':') {
                Some((path, source)) => inputs.push(Input::file(path, source)),
                None => r.reject(
                    "AGENT_FILES",
                    &format!("{entry:?} is not of the form path:source-id"),
                ),
            }
        }
        let config = Config {
            grpc_addr: r.value("AGENT_GRPC_ADDR"),
            udp_addr: (!no_udp).then_some(udp),
            syslog_udp: r.optional("AGENT_SYSLOG_UDP_ADDR"),
            syslog_tcp: r.optional("AGENT_SYSLOG_TCP_ADDR"),
            admin_addr: r.optional("AGENT_ADMIN_ADDR"),
            tls: TlsFiles {
                ca: r.value("AGENT_CA_FILE"),
                cert: r.value("AGENT_CERT_FILE"),
                key: r.value("AGENT_KEY_FILE"),
            },
            dopplers: r.list("AGENT_DOPPLERS"),
            resolve_interval: r.value("AGENT_RESOLVE_INTERVAL"),
            tags: r.map("AGENT_TAGS"),
            v1: V1Defaults {
                deployment: text(&mut r, "AGENT_DEPLOYMENT"),
                job: text(&mut r, "AGENT_JOB"),
                index: text(&mut r, "AGENT_INDEX"),
                ip: text(&mut r, "AGENT_IP"),
            },
            logs_disabled: r.value("LOGS_DISABLED"),
            buffer_bytes: r.value::<ByteSize>("AGENT_BUFFER_BYTES").as_usize(),
            batch_envelopes: r.value("AGENT_BATCH_ENVELOPES"),
            linger: r.value("AGENT_LINGER"),
            streams: r.value("AGENT_STREAMS"),
            max_counters: r.value("AGENT_MAX_COUNTERS"),
            inputs,
            lines: LineConfig {
                max_line: r.value::<ByteSize>("AGENT_MAX_LINE").as_usize(),
                ..defaults.lines
            },
            syslog: SyslogConfig {
                max_message: r.value::<ByteSize>("AGENT_SYSLOG_MAX_MESSAGE").as_usize(),
                idle_timeout: r.value("AGENT_SYSLOG_IDLE_TIMEOUT"),
                max_connections: r.value("AGENT_SYSLOG_MAX_CONNECTIONS"),
                ..defaults.syslog
            },
            udp_receive_buffer: r.value::<ByteSize>("AGENT_UDP_RECEIVE_BUFFER").as_usize(),
            metric_source_id: r.value("AGENT_METRIC_SOURCE_ID"),
            notice_interval: defaults.notice_interval,
            drain_timeout: r.value("AGENT_DRAIN_TIMEOUT"),
        };
        r.finish(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUIRED: [(&str, &str); 4] = [
        ("AGENT_CA_FILE", "ca.pem"),
        ("AGENT_CERT_FILE", "cert.pem"),
        ("AGENT_KEY_FILE", "key.pem"),
        ("AGENT_DOPPLERS", "doppler.service:8082, 10.0.0.1:8082"),
    ];

    #[test]
    fn the_defaults_of_the_settings_are_the_defaults() {
        let env = BTreeMap::from(REQUIRED);
        let config = Config::from_env(&env).unwrap();
        let expected = Config {
            tls: config.tls.clone(),
            dopplers: vec![
                "doppler.service:8082".to_owned(),
                "10.0.0.1:8082".to_owned(),
            ],
            ..Config::default()
        };
        assert_eq!(format!("{config:?}"), format!("{expected:?}"));
    }

    #[test]
    fn what_is_given_is_taken() {
        let mut env = BTreeMap::from(REQUIRED);
        env.extend([
            ("AGENT_DISABLE_UDP", "true"),
            ("AGENT_TAGS", "deployment:cf,ip:10.0.0.1"),
            ("AGENT_FILES", "/var/log/a.log:app-a,/var/log/b:c.log:app-b"),
            ("AGENT_BUFFER_BYTES", "1MiB"),
        ]);
        let config = Config::from_env(&env).unwrap();
        assert_eq!((config.udp_addr, config.buffer_bytes), (None, 1 << 20));
        assert_eq!(config.tags["ip"], "10.0.0.1");
        assert_eq!(config.inputs[1], Input::file("/var/log/b:c.log", "app-b"));
        env.insert("AGENT_FILES", "oops");
        env.remove("AGENT_CA_FILE");
        assert_eq!(Config::from_env(&env).unwrap_err().0.len(), 2);
    }
}
