//! `[destination.syslog]`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use loggregator_net::{ClientTls, Profile};
use loggregator_nozzle::config::{ConfigErrors, Section, Size, Time};
use serde::Deserialize;

use crate::endpoint::{Endpoint, Transport};
use crate::format::{Format, InvalidName, InvalidUtf8, LineBreaks, Oversize, Policy};
use crate::page::{Framing, Prefix};

/// The largest message that can be asked for: what the digits of a frame's length may say to any receiver that we know.
const LARGEST: u64 = 16 << 20;

/// A datagram of IPv4 cannot be longer.
const LARGEST_DATAGRAM: u64 = 65_507;

/// What stands in the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    url: Option<String>,
    #[serde(default)]
    urls: Vec<String>,
    #[serde(default)]
    endpoints: Endpoints,
    #[serde(default)]
    format: Format,
    #[serde(default)]
    framing: Framing,
    #[serde(default)]
    line_breaks: LineBreaks,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    omit_metadata: bool,
    max_message: Option<Size>,
    #[serde(default)]
    oversize: Oversize,
    #[serde(default)]
    invalid_utf8: InvalidUtf8,
    #[serde(default)]
    invalid_name: InvalidName,
    #[serde(default = "any_name")]
    max_tag_name: usize,
    #[serde(default = "settle")]
    settle: Time,
    #[serde(default)]
    reconnect: Time,
    #[serde(default = "ten_seconds")]
    connect_timeout: Time,
    #[serde(default = "ten_seconds")]
    write_timeout: Time,
    #[serde(default = "half_a_minute")]
    user_timeout: Time,
    #[serde(default = "ten_seconds")]
    keep_alive: Time,
    tls: Option<RawTls>,
}

/// `[destination.syslog.tls]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawTls {
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    server_name: Option<String>,
    skip_verify: bool,
}

/// Which of several endpoints is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Endpoints {
    /// The first one that can be reached; after a failure, and after each planned reconnect, it begins with the first again.
    #[default]
    Failover,
    /// The next one with each connection.
    RoundRobin,
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub transport: Transport,
    pub endpoints: Vec<Endpoint>,
    pub order: Endpoints,
    pub format: Format,
    pub prefix: Prefix,
    pub policy: Policy,
    pub tls: Option<Tls>,
    pub connection: Connection,
}

/// How TLS is spoken.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    pub client: Arc<ClientTls>,
    /// The name that the server must have, if it is not the endpoint's host.
    pub server_name: Option<String>,
}

/// Times of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connection {
    /// How long what the peer's system has acknowledged waits for a break before it counts as delivered.
    pub settle: Duration,
    /// Age at which a connection is replaced; zero: never.
    pub reconnect: Duration,
    pub connect_timeout: Duration,
    pub write_timeout: Duration,
    pub user_timeout: Duration,
    pub keep_alive: Duration,
}

fn any_name() -> usize {
    usize::MAX
}
fn settle() -> Time {
    Time(Duration::from_millis(500))
}
fn ten_seconds() -> Time {
    Time(Duration::from_secs(10))
}
fn half_a_minute() -> Time {
    Time(Duration::from_secs(30))
}

impl Settings {
    /// Reads and checks a section.
    pub fn read(section: &Section) -> Result<Settings, ConfigErrors> {
        let raw: Raw = section.read()?;
        let mut errors = Errors::new(section);
        let endpoints = endpoints(&raw, &mut errors);
        let transport = endpoints.first().map_or(Transport::Tcp, |e| e.transport);
        let max_message = max_message(&raw, transport, &mut errors);
        let stream = matches!(transport, Transport::Tcp | Transport::Tls);
        let json = matches!(
            raw.format,
            Format::FirehoseToSyslog | Format::FirehoseToSyslogCee
        );
        let (prefix, line_breaks) = match raw.framing {
            _ if !stream => (Prefix::None, None),
            Framing::OctetCounting => (Prefix::Length, None),
            // JSON has no line breaks within.
            Framing::Newline if json => (Prefix::None, None),
            Framing::Newline => (Prefix::None, Some(raw.line_breaks)),
        };
        if json && raw.oversize == Oversize::Split {
            errors.add(
                "oversize",
                "a JSON object cannot be split; use truncate or dead_letter",
            );
        }
        if raw.max_tag_name == 0 {
            errors.add("max_tag_name", "must be at least 1");
        }
        if raw.connect_timeout.0.is_zero() || raw.write_timeout.0.is_zero() {
            errors.add(
                "connect_timeout",
                "connecting and writing need time: both timeouts above 0",
            );
        }
        let tls = tls(&raw, transport, &mut errors);
        errors.finish()?;
        Ok(Settings {
            transport,
            endpoints,
            order: raw.endpoints,
            format: raw.format,
            prefix,
            policy: Policy {
                max_message,
                oversize: raw.oversize,
                invalid_utf8: raw.invalid_utf8,
                invalid_name: raw.invalid_name,
                max_tag_name: raw.max_tag_name,
                hostname: raw.hostname,
                omit_metadata: raw.omit_metadata,
                line_breaks,
            },
            tls,
            connection: Connection {
                settle: raw.settle.0,
                reconnect: raw.reconnect.0,
                connect_timeout: raw.connect_timeout.0,
                write_timeout: raw.write_timeout.0,
                user_timeout: raw.user_timeout.0,
                keep_alive: raw.keep_alive.0,
            },
        })
    }
}

/// All errors of a section.
struct Errors<'a> {
    section: &'a Section,
    found: Option<ConfigErrors>,
}

impl<'a> Errors<'a> {
    fn new(section: &'a Section) -> Errors<'a> {
        Errors {
            section,
            found: None,
        }
    }

    fn add(&mut self, key: &str, message: impl Into<String>) {
        let error = self.section.error(key, message);
        match &mut self.found {
            None => self.found = Some(error),
            Some(found) => found.errors.extend(error.errors),
        }
    }

    fn finish(self) -> Result<(), ConfigErrors> {
        self.found.map_or(Ok(()), Err)
    }
}

fn endpoints(raw: &Raw, errors: &mut Errors<'_>) -> Vec<Endpoint> {
    if raw.url.is_some() && !raw.urls.is_empty() {
        errors.add("urls", "give `url` or `urls`, not both");
    }
    let key = if raw.url.is_some() { "url" } else { "urls" };
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for url in raw.url.iter().chain(&raw.urls) {
        match Endpoint::parse(url) {
            Ok(endpoint) => endpoints.push(endpoint),
            Err(message) => errors.add(key, message),
        }
    }
    if raw.url.is_none() && raw.urls.is_empty() {
        errors.add(
            "url",
            "is missing: where to send to, such as \"syslog-tls://siem.example.com\"",
        );
    }
    if endpoints
        .iter()
        .any(|e| e.transport != endpoints[0].transport)
    {
        errors.add(
            "urls",
            "all endpoints of a destination have the same scheme",
        );
    }
    endpoints
}

fn max_message(raw: &Raw, transport: Transport, errors: &mut Errors<'_>) -> usize {
    let (default, largest) = match transport {
        Transport::Udp => (LARGEST_DATAGRAM, LARGEST_DATAGRAM),
        _ => (64 << 10, LARGEST),
    };
    let size = raw.max_message.map_or(default, |size| size.0);
    if !(480..=largest).contains(&size) {
        errors.add(
            "max_message",
            format!("{size} is not within 480 and {largest}"),
        );
    }
    usize::try_from(size).unwrap_or(usize::MAX)
}

fn tls(raw: &Raw, transport: Transport, errors: &mut Errors<'_>) -> Option<Tls> {
    if matches!(transport, Transport::Tcp | Transport::Udp) {
        if raw.tls.is_some() {
            errors.add("tls", "the scheme of the URL speaks no TLS; use syslog-tls");
        }
        return None;
    }
    let tls = raw.tls.clone().unwrap_or_default();
    let profile = if transport == Transport::Tls {
        Profile::Bytes
    } else {
        Profile::Http
    };
    let identity = match (&tls.cert_file, &tls.key_file) {
        (Some(cert), Some(key)) => Some((cert.as_path(), key.as_path())),
        (None, None) => None,
        _ => {
            errors.add("tls", "`cert_file` and `key_file` belong together");
            return None;
        }
    };
    let client = if tls.skip_verify {
        ClientTls::unverified(identity, profile)
    } else {
        ClientTls::verified(tls.ca_file.as_deref(), identity, profile)
    };
    match client {
        Ok(client) => Some(Tls {
            client,
            server_name: tls.server_name,
        }),
        Err(error) => {
            errors.add("tls", error.to_string());
            None
        }
    }
}
