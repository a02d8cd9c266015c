//! `[destination.prometheus]`, and what follows from it.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use loggregator_nozzle::config::{ConfigErrors, Secret, Section, Size, Time};
use serde::Deserialize;

use crate::name;

/// The section as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where the page is served. Not with `remote_write`.
    pub listen_addr: Option<SocketAddr>,
    /// The page's path.
    #[serde(default = "path")]
    pub path: String,
    /// Basic authentication of the page.
    pub auth: Option<Auth>,
    /// TLS of the page.
    pub tls: Option<ServeTls>,
    /// Scrapes that are rendered at a time; further ones are told to come later.
    #[serde(default = "max_scrapes")]
    pub max_scrapes: usize,
    /// Open connections; further ones are closed at once.
    #[serde(default = "max_connections")]
    pub max_connections: usize,
    /// Pushes instead of being scraped.
    pub remote_write: Option<RemoteWrite>,

    /// Names and labels.
    #[serde(default)]
    pub profile: Profile,
    /// First word of every name.
    pub namespace: Option<String>,
    /// Label `environment` of every series of the profile `firehose_exporter`.
    pub environment: Option<String>,
    /// Label of the HTTP series of the profile `firehose_exporter`.
    #[serde(default)]
    pub node_index: u32,
    /// Labels of every series of the profile `clean`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Tags that become labels of counters and gauges beside the fixed ones; `*`: all.
    #[serde(default = "all_tags")]
    pub tags: Vec<String>,
    /// Tags that never become labels.
    #[serde(default)]
    pub drop_tags: Vec<String>,
    /// Labels of HTTP, timer and log series beside their own.
    #[serde(default = "rollup_tags")]
    pub rollup_tags: Vec<String>,
    /// Whether timers named `http` become requests, latencies and sizes.
    #[serde(default = "yes")]
    pub http: bool,
    /// Whether other timers become histograms. Profile `clean`.
    #[serde(default = "yes")]
    pub timers: bool,
    /// Whether log lines and their bytes are counted. Profile `clean`.
    #[serde(default)]
    pub log_rates: bool,
    /// Series of the deltas of counters too. Profile `firehose_exporter`.
    #[serde(default)]
    pub enable_delta: bool,
    /// The exporter's shorter names. Profile `firehose_exporter`.
    #[serde(default)]
    pub disable_retro_compat: bool,
    /// A series lives for so long after its last sample.
    #[serde(default = "expire")]
    pub expire: Time,
    /// Upper bounds of the buckets of times, in seconds.
    #[serde(default = "duration_buckets")]
    pub duration_buckets: Vec<f64>,
    /// Upper bounds of the buckets of sizes, in bytes. Profile `clean`.
    #[serde(default = "size_buckets")]
    pub size_buckets: Vec<f64>,
    /// Whether histograms are native too, for scrapers that ask for protobuf.
    #[serde(default = "yes")]
    pub native_histograms: bool,
    /// Requests that took at least so long leave their id on their bucket; 0: none.
    #[serde(default = "exemplars_above")]
    pub exemplars_above: Time,
    /// Series in all. A histogram is one.
    #[serde(default = "max_series")]
    pub max_series: usize,
    /// Series of one name.
    #[serde(default = "max_series_per_family")]
    pub max_series_per_family: usize,
    /// Bytes of the labels of all series and of what tells streams apart.
    #[serde(default = "max_bytes")]
    pub max_bytes: Size,
    /// Different values of the label `host`; further ones are `other`. Profile `clean`.
    #[serde(default = "max_hosts")]
    pub max_hosts: usize,
}

/// How series are named and labelled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// By the conventions of Prometheus.
    #[default]
    Clean,
    /// As `firehose_exporter` does, for its dashboards.
    FirehoseExporter,
}

/// `[destination.prometheus.auth]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Auth {
    pub username: String,
    pub password: Secret,
}

/// `[destination.prometheus.tls]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServeTls {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// Authorities of clients; without, no client certificate is asked for.
    pub client_ca_file: Option<PathBuf>,
}

/// `[destination.prometheus.remote_write]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RemoteWrite {
    pub url: String,
    /// What is tried first.
    #[serde(default)]
    pub protocol: Protocol,
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    #[serde(default)]
    pub skip_verify: bool,
    pub auth: Option<Auth>,
    pub bearer: Option<Secret>,
    /// Further headers, such as `X-Scope-OrgID`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// One request may take so long.
    #[serde(default = "timeout")]
    pub timeout: Time,
    /// Samples of one request at most.
    #[serde(default = "max_samples")]
    pub max_samples: usize,
}

/// Version of the remote write protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum Protocol {
    #[default]
    #[serde(rename = "1.0")]
    V1,
    /// Falls back to 1.0 where the receiver does not know it.
    #[serde(rename = "2.0")]
    V2,
}

/// What the store needs of the section.
#[derive(Debug, Clone)]
pub(crate) struct Mapping {
    pub profile: Profile,
    /// With the `_` at its end, or empty.
    pub prefix: String,
    pub environment: String,
    pub node_index: String,
    pub labels: Vec<(String, String)>,
    /// `None`: all.
    pub tags: Option<HashSet<String>>,
    pub drop_tags: HashSet<String>,
    pub rollup_tags: Vec<String>,
    pub http: bool,
    pub timers: bool,
    pub log_rates: bool,
    pub enable_delta: bool,
    pub retro_compat: bool,
    pub expire_ms: u64,
    pub durations: Arc<[f64]>,
    pub sizes: Arc<[f64]>,
    pub native: bool,
    /// Seconds.
    pub exemplars_above: Option<f64>,
    pub max_series: usize,
    pub max_series_per_family: usize,
    pub max_bytes: usize,
    pub max_hosts: usize,
}

/// Port of the page where nothing else is said, the one of `firehose_exporter`.
pub(crate) const USUAL_PORT: u16 = 9186;

impl Config {
    /// Reads the section.
    pub(crate) fn read(section: &Section) -> Result<Config, ConfigErrors> {
        let config: Config = section.read()?;
        let mut all: Option<ConfigErrors> = None;
        for (key, message) in config.faults() {
            let mut error = section.error(key, message);
            match &mut all {
                Some(all) => all.errors.append(&mut error.errors),
                None => all = Some(error),
            }
        }
        all.map_or(Ok(config), Err)
    }

    fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let mut fault = |key, message: String| faults.push((key, message));
        if !self.path.starts_with('/') {
            fault("path", format!("`{}` does not begin with /", self.path));
        }
        if self.remote_write.is_some()
            && (self.listen_addr.is_some() || self.auth.is_some() || self.tls.is_some())
        {
            fault(
                "listen_addr",
                "a destination is scraped or writes: `listen_addr`, `auth` and `tls` do not go with `remote_write`"
                    .to_owned(),
            );
        }
        let exporter = self.profile == Profile::FirehoseExporter;
        if exporter && self.environment.as_deref().unwrap_or_default().is_empty() {
            fault(
                "environment",
                "the profile `firehose_exporter` needs it".to_owned(),
            );
        }
        let foreign: &[(&str, bool)] = if exporter {
            &[
                ("log_rates", self.log_rates),
                ("labels", !self.labels.is_empty()),
            ]
        } else {
            &[
                ("environment", self.environment.is_some()),
                ("enable_delta", self.enable_delta),
                ("disable_retro_compat", self.disable_retro_compat),
            ]
        };
        for (key, set) in foreign {
            if *set {
                fault(key, "is not of this profile".to_owned());
            }
        }
        if let Some(namespace) = &self.namespace
            && !namespace.is_empty()
            && !name::is_metric_name(namespace)
        {
            fault(
                "namespace",
                format!("`{namespace}` cannot begin a metric's name"),
            );
        }
        for label in self.labels.keys() {
            if !name::is_label_name(label) || name::RESERVED_LABELS.contains(&label.as_str()) {
                fault("labels", format!("`{label}` cannot be a label"));
            }
        }
        for (key, buckets) in [
            ("duration_buckets", &self.duration_buckets),
            ("size_buckets", &self.size_buckets),
        ] {
            let ascending = buckets.windows(2).all(|pair| pair[0] < pair[1]);
            if buckets.is_empty()
                || buckets.len() > 64
                || !ascending
                || !buckets.iter().all(|bound| bound.is_finite())
            {
                fault(
                    key,
                    format!("{buckets:?} are not 1 to 64 ascending finite numbers"),
                );
            }
        }
        if self.expire.0 < Duration::from_secs(1) {
            fault(
                "expire",
                format!("{:?} is less than a second", self.expire.0),
            );
        }
        for (key, number) in [
            ("max_series", self.max_series),
            ("max_series_per_family", self.max_series_per_family),
            ("max_scrapes", self.max_scrapes),
            ("max_connections", self.max_connections),
        ] {
            if number == 0 {
                fault(key, "must not be 0".to_owned());
            }
        }
        if self.max_bytes.0 == 0 {
            fault("max_bytes", "must not be 0".to_owned());
        }
        if let Some(remote) = &self.remote_write {
            faults.extend(remote.faults());
        }
        faults
    }

    /// Where the page is served.
    pub(crate) fn listen_addr(&self) -> SocketAddr {
        self.listen_addr
            .unwrap_or_else(|| (Ipv4Addr::LOCALHOST, USUAL_PORT).into())
    }

    pub(crate) fn mapping(&self) -> Mapping {
        let exporter = self.profile == Profile::FirehoseExporter;
        let namespace = match (&self.namespace, exporter) {
            (Some(namespace), _) => namespace.as_str(),
            (None, true) => "firehose",
            (None, false) => "cf",
        };
        let millis = |time: Time| u64::try_from(time.0.as_millis()).unwrap_or(u64::MAX);
        Mapping {
            profile: self.profile,
            prefix: match namespace {
                "" => String::new(),
                some => format!("{some}_"),
            },
            environment: self.environment.clone().unwrap_or_default(),
            node_index: self.node_index.to_string(),
            labels: self.labels.clone().into_iter().collect(),
            tags: (!self.tags.iter().any(|tag| tag == "*"))
                .then(|| self.tags.iter().cloned().collect()),
            drop_tags: self.drop_tags.iter().cloned().collect(),
            rollup_tags: self.rollup_tags.clone(),
            http: self.http,
            timers: self.timers && !exporter,
            log_rates: self.log_rates,
            enable_delta: self.enable_delta,
            retro_compat: !self.disable_retro_compat,
            expire_ms: millis(self.expire),
            durations: self.duration_buckets.clone().into(),
            sizes: self.size_buckets.clone().into(),
            native: self.native_histograms && self.remote_write.is_none(),
            exemplars_above: (!self.exemplars_above.0.is_zero())
                .then_some(self.exemplars_above.0.as_secs_f64()),
            max_series: self.max_series,
            max_series_per_family: self.max_series_per_family,
            max_bytes: usize::try_from(self.max_bytes.0).unwrap_or(usize::MAX),
            max_hosts: self.max_hosts,
        }
    }
}

impl RemoteWrite {
    fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let uri = self.url.parse::<http::Uri>().ok();
        let scheme = uri.as_ref().and_then(|uri| uri.scheme_str());
        if !matches!(scheme, Some("http" | "https")) {
            faults.push((
                "remote_write.url",
                "is no http:// or https:// address".to_owned(),
            ));
        }
        let host = uri.as_ref().and_then(|uri| uri.host()).unwrap_or_default();
        if scheme == Some("http") && !is_this_machine(host) {
            for (key, set) in [
                ("remote_write.auth", self.auth.is_some()),
                ("remote_write.bearer", self.bearer.is_some()),
            ] {
                if set {
                    faults.push((
                        key,
                        "needs a `url` that begins with https://, or the secret could be read on its way"
                            .to_owned(),
                    ));
                }
            }
        }
        if self.cert_file.is_some() != self.key_file.is_some() {
            faults.push((
                "remote_write.cert_file",
                "`cert_file` and `key_file` go together".to_owned(),
            ));
        }
        if self.max_samples == 0 {
            faults.push(("remote_write.max_samples", "must not be 0".to_owned()));
        }
        if self.auth.is_some() && self.bearer.is_some() {
            faults.push((
                "remote_write.auth",
                "`auth` and `bearer` exclude each other".to_owned(),
            ));
        }
        for (name, value) in &self.headers {
            let own = ["content-type", "content-encoding", "authorization", "host"];
            if own.contains(&name.to_ascii_lowercase().as_str())
                || name.to_ascii_lowercase().starts_with("x-prometheus-")
                || http::HeaderName::try_from(name.as_str()).is_err()
                || http::HeaderValue::try_from(value.as_str()).is_err()
            {
                faults.push((
                    "remote_write.headers",
                    format!("`{name}` cannot be set as a header"),
                ));
            }
        }
        faults
    }
}

fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|addr| addr.is_loopback())
}

fn path() -> String {
    "/metrics".to_owned()
}
fn max_scrapes() -> usize {
    2
}
fn max_connections() -> usize {
    64
}
fn all_tags() -> Vec<String> {
    vec!["*".to_owned()]
}
fn rollup_tags() -> Vec<String> {
    [
        "origin",
        "source_id",
        "app_name",
        "space_name",
        "organization_name",
    ]
    .map(str::to_owned)
    .to_vec()
}
fn yes() -> bool {
    true
}
fn expire() -> Time {
    Time(Duration::from_secs(600))
}
/// Those of the Prometheus client libraries, and of `firehose_exporter`.
fn duration_buckets() -> Vec<f64> {
    vec![
        0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ]
}
fn size_buckets() -> Vec<f64> {
    vec![
        256.0,
        1024.0,
        4096.0,
        16_384.0,
        65_536.0,
        262_144.0,
        1_048_576.0,
        4_194_304.0,
    ]
}
fn exemplars_above() -> Time {
    Time(Duration::from_millis(500))
}
fn timeout() -> Time {
    Time(Duration::from_secs(30))
}
fn max_samples() -> usize {
    10_000
}
fn max_series() -> usize {
    250_000
}
fn max_series_per_family() -> usize {
    50_000
}
fn max_bytes() -> Size {
    Size(256 << 20)
}
fn max_hosts() -> usize {
    1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_written_in_the_clear() {
        let auth = "remote_write.auth = { username = \"me\", password = \"secret\" }";
        let bearer = "remote_write.bearer = \"secret\"";
        for (url, secret, key) in [
            ("http://example.com/write", auth, Some("remote_write.auth")),
            ("http://10.0.0.1", bearer, Some("remote_write.bearer")),
            (
                "HTTP://localhost.example.com",
                bearer,
                Some("remote_write.bearer"),
            ),
            ("http://example.com/write", "", None),
            ("https://example.com/write", auth, None),
            ("http://localhost:9090/write", auth, None),
            ("http://127.0.0.1:9090/write", bearer, None),
            ("http://[::1]:9090/write", bearer, None),
        ] {
            let text = format!("remote_write.url = \"{url}\"\n{secret}");
            let read = Config::read(&Section::from_text(&text).unwrap());
            let Some(key) = key else {
                assert!(read.is_ok(), "{text}");
                continue;
            };
            let errors = read.unwrap_err().errors;
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert!(errors[0].key.ends_with(key), "{errors:?}");
            assert!(errors[0].message.contains("https://"), "{errors:?}");
            assert_eq!(errors[0].place.map(|(line, _)| line), Some(2), "{errors:?}");
        }
    }
}
