//! Requests to the receiver.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT,
};
use http::{Method, StatusCode};
use loggregator_net::http::client::{Client, ClientError, Limits, Question};
use loggregator_net::{ClientTls, Profile, TlsError, TlsFiles};
use tokio::time::Instant;

use super::answer::{Verdict, verdict};
use crate::config::{Protocol, RemoteWrite};
use crate::serve::basic;

/// Bytes of an answer that are read; only errors have any.
const MAX_ANSWER: usize = 16 << 10;
/// Characters of an answer that are told.
const MAX_TOLD: usize = 200;

/// The receiver.
#[derive(Debug)]
pub(super) struct Receiver {
    config: RemoteWrite,
    client: Client,
}

/// A request was not made, or not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// It cannot be made.
    #[error("{0}")]
    Request(String),
    /// No answer.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl SendError {
    /// The reason's code: `request` for what cannot be made, `timeout`, `tls`, `connect`, and `exchange` for the rest.
    pub(super) fn code(&self) -> &'static str {
        match self {
            SendError::Request(_) => "request",
            SendError::Client(ClientError::Timeout { .. }) => "timeout",
            SendError::Client(ClientError::NoTls { .. } | ClientError::Handshake { .. }) => "tls",
            SendError::Client(ClientError::Connect { .. }) => "connect",
            SendError::Client(_) => "exchange",
        }
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub verdict: Verdict,
    /// Its beginning.
    pub text: String,
}

impl Receiver {
    /// # Errors
    /// A certificate file cannot be used.
    pub(super) fn new(config: &RemoteWrite) -> Result<Receiver, TlsError> {
        let tls = if config.url.starts_with("https:") {
            Some(tls(config)?)
        } else {
            None
        };
        Ok(Receiver {
            config: config.clone(),
            client: Client {
                tls,
                server_name: None,
                limits: Limits {
                    max_body: MAX_ANSWER,
                    ..Limits::default()
                },
            },
        })
    }

    /// Certificates to be watched.
    pub(super) fn tls(&self) -> Option<&Arc<ClientTls>> {
        self.client.tls.as_ref()
    }

    /// Sends a message.
    pub(super) async fn send(&self, body: &[u8], protocol: Protocol) -> Result<Answer, SendError> {
        let question = self.question(body, protocol)?;
        let deadline = Instant::now() + self.config.timeout.0.max(Duration::from_millis(1));
        let answer = self.client.send(question, deadline).await?;
        let text = String::from_utf8_lossy(&answer.body);
        let text = text.chars().filter(|c| !c.is_control());
        Ok(Answer {
            status: answer.status,
            verdict: verdict(answer.status, &answer.headers, protocol),
            text: text.take(MAX_TOLD).collect(),
        })
    }

    fn question(&self, body: &[u8], protocol: Protocol) -> Result<Question, SendError> {
        let failed = |what: &str| SendError::Request(what.to_owned());
        let body = snap::raw::Encoder::new()
            .compress_vec(body)
            .map_err(|error| SendError::Request(error.to_string()))?;
        let (content, version) = match protocol {
            Protocol::V1 => ("application/x-protobuf", "0.1.0"),
            Protocol::V2 => (
                "application/x-protobuf;proto=io.prometheus.write.v2.Request",
                "2.0.0",
            ),
        };
        let mut question = Question::new(Bytes::from(body));
        *question.method_mut() = Method::POST;
        *question.uri_mut() = self.config.url.parse().map_err(|_| failed("no address"))?;
        let headers = question.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("snappy"));
        headers.insert(
            "x-prometheus-remote-write-version",
            HeaderValue::from_static(version),
        );
        let agent = concat!("loggregator/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        for (name, value) in &self.config.headers {
            let name = HeaderName::try_from(name).map_err(|_| failed("a header's name"))?;
            let value = HeaderValue::try_from(value).map_err(|_| failed("a header's value"))?;
            headers.insert(name, value);
        }
        let credentials = match (&self.config.auth, &self.config.bearer) {
            (Some(auth), _) => basic(&auth.username, &auth.password),
            (None, Some(bearer)) => bearer.read().ok().map(|token| format!("Bearer {token}")),
            (None, None) => return Ok(question),
        };
        let credentials =
            credentials.ok_or_else(|| failed("the password or token cannot be read"))?;
        let mut credentials = HeaderValue::try_from(credentials)
            .map_err(|_| failed("the password or token cannot stand in a header"))?;
        credentials.set_sensitive(true);
        headers.insert(AUTHORIZATION, credentials);
        Ok(question)
    }
}

fn tls(config: &RemoteWrite) -> Result<Arc<ClientTls>, TlsError> {
    let identity = config.cert_file.as_deref().zip(config.key_file.as_deref());
    match (&config.ca_file, identity) {
        _ if config.skip_verify => ClientTls::unverified(identity, Profile::Http),
        (Some(ca), Some((cert, key))) => {
            let files = TlsFiles {
                ca: ca.clone(),
                cert: cert.to_owned(),
                key: key.to_owned(),
            };
            ClientTls::mutual_with(&files, Profile::Http)
        }
        (Some(ca), None) => ClientTls::ca_only(ca),
        (None, _) => ClientTls::system(Profile::Http),
    }
}
