//! `[destination.http]`

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, Method, Uri};
use loggregator_net::ClientTls;
use loggregator_net::Profile;
use loggregator_net::http::client::{Client, Limits};
use loggregator_nozzle::config::{ConfigErrors, Secret, Section, Time, keeps_secrets};
use loggregator_nozzle::template::Template;
use serde::Deserialize;

/// Bytes of an answer that are read.
const ANSWER: usize = 64 << 10;

/// What the body of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// An array of objects; with one event per request the object itself.
    Json,
    /// An object per line.
    #[default]
    Ndjson,
    /// A line for people per event.
    Text,
    /// A `loggregator.v2.EnvelopeBatch`.
    Protobuf,
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    url: String,
    #[serde(default = "post")]
    method: String,
    #[serde(default)]
    body: Body,
    #[serde(default)]
    single: bool,
    #[serde(default)]
    compression: Compression,
    #[serde(default = "half_a_minute")]
    timeout: Time,
    bearer: Option<Secret>,
    user: Option<String>,
    password: Option<Secret>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    tls: RawTls,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawTls {
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    server_name: Option<String>,
    skip_verify: bool,
}

fn post() -> String {
    "POST".to_owned()
}

fn half_a_minute() -> Time {
    Time(Duration::from_secs(30))
}

/// How a request proves who sends it.
#[derive(Debug, Clone)]
pub(crate) enum Auth {
    None,
    Bearer(Secret),
    Basic(String, Secret),
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub url: Template,
    pub method: Method,
    pub body: Body,
    pub single: bool,
    pub compression: Compression,
    pub timeout: Duration,
    pub auth: Auth,
    pub headers: Vec<(HeaderName, Template)>,
    pub client: Client,
}

impl Settings {
    /// Whether every event has the same target, so that a batch is one request.
    pub fn fixed(&self) -> bool {
        let mut headers = self.headers.iter().map(|(_, value)| value);
        self.url.constant().is_some() && headers.all(|value| value.constant().is_some())
    }

    /// Reads and checks a section.
    pub fn read(section: &Section) -> Result<Settings, ConfigErrors> {
        let raw: Raw = section.read()?;
        let mut errors: Option<ConfigErrors> = None;
        let mut wrong = |key: &str, message: String| {
            let error = section.error(key, message);
            match &mut errors {
                None => errors = Some(error),
                Some(errors) => errors.errors.extend(error.errors),
            }
        };
        let url = Template::parse(&raw.url).map_err(|error| wrong("url", error.to_string()));
        if !["http://", "https://"]
            .iter()
            .any(|scheme| raw.url.starts_with(scheme))
        {
            wrong("url", "begins with http:// or https://".to_owned());
        }
        let method = match raw.method.as_str() {
            "POST" => Method::POST,
            "PUT" => Method::PUT,
            other => {
                wrong("method", format!("`{other}` is none of POST, PUT"));
                Method::POST
            }
        };
        let mut headers = Vec::new();
        for (name, value) in &raw.headers {
            let key = format!("headers.{name}");
            match (HeaderName::try_from(name), Template::parse(value)) {
                (Ok(name), Ok(value)) => headers.push((name, value)),
                (Err(error), _) => wrong(&key, error.to_string()),
                (_, Err(error)) => wrong(&key, error.to_string()),
            }
        }
        let auth = match (raw.bearer, raw.user, raw.password) {
            (None, None, None) => Auth::None,
            (Some(token), None, None) => Auth::Bearer(token),
            (None, Some(user), Some(password)) => Auth::Basic(user, password),
            _ => {
                wrong(
                    "bearer",
                    "either `bearer`, or `user` and `password`".to_owned(),
                );
                Auth::None
            }
        };
        if let (Ok(url), true) = (&url, raw.url.starts_with("http://"))
            && !matches!(auth, Auth::None)
            && !address(url).is_some_and(|uri| keeps_secrets(&uri))
        {
            wrong(
                "url",
                "must begin with https://, or the token or password could be read on its way"
                    .to_owned(),
            );
        }
        if raw.timeout.0.is_zero() {
            wrong("timeout", "a request needs time".to_owned());
        }
        let client = client(&raw.url, &raw.tls).map_err(|message| wrong("tls", message));
        match (errors, url, client) {
            (None, Ok(url), Ok(client)) => Ok(Settings {
                url,
                method,
                body: raw.body,
                single: raw.single,
                compression: raw.compression,
                timeout: raw.timeout.0,
                auth,
                headers,
                client,
            }),
            (errors, ..) => Err(errors.unwrap_or_else(|| section.error("", "cannot be used"))),
        }
    }
}

/// Scheme and host of a URL, if they are the same for each event.
fn address(url: &Template) -> Option<Uri> {
    let prefix = url.literal_prefix();
    let host = prefix.find("://")? + 3;
    let end = match prefix[host..].find(['/', '?', '#']) {
        Some(end) => host + end,
        None => url.constant()?.len(),
    };
    prefix[..end].parse().ok()
}

fn client(url: &str, tls: &RawTls) -> Result<Client, String> {
    let identity = match (&tls.cert_file, &tls.key_file) {
        (Some(cert), Some(key)) => Some((cert.as_path(), key.as_path())),
        (None, None) => None,
        _ => return Err("`cert_file` and `key_file` belong together".to_owned()),
    };
    let made = if !url.starts_with("https://") {
        None
    } else if tls.skip_verify {
        Some(ClientTls::unverified(identity, Profile::Http))
    } else {
        Some(ClientTls::verified(
            tls.ca_file.as_deref(),
            identity,
            Profile::Http,
        ))
    };
    Ok(Client {
        tls: made.transpose().map_err(|error| error.to_string())?,
        server_name: tls.server_name.clone(),
        limits: Limits {
            max_body: ANSWER,
            ..Limits::default()
        },
    })
}
