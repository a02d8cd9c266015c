//! Tokens by the client-credentials grant (RFC 6749, section 4.4).

use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Uri};
use loggregator_net::http::client::{Client, Limits};
use loggregator_net::{ClientTls, Profile};
use loggregator_nozzle::config::{Secret, keeps_secrets};
use serde::Deserialize;
use tokio::time::Instant;

use crate::config::OAuth;

/// How long an answer may take. The client's callbacks wait meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer. Tokens with many scopes have some KiB.
const MAX_ANSWER: usize = 256 << 10;

/// What is granted.
#[derive(Deserialize)]
pub(crate) struct Granted {
    /// The token.
    #[serde(rename = "access_token")]
    pub token: String,
    /// Seconds that it lives.
    pub expires_in: Option<u64>,
}

/// What the answer says where nothing is granted.
#[derive(Default, Deserialize)]
struct Complaint {
    #[serde(default)]
    error: String,
}

/// What the configuration wants of a token endpoint.
pub(crate) struct Grant<'a> {
    url: Uri,
    client: &'a str,
    secret: &'a Secret,
    config: &'a OAuth,
}

impl<'a> Grant<'a> {
    /// Reads it.
    ///
    /// # Errors
    /// A key below `sasl.oauth`, and what is wrong with it.
    pub(crate) fn of(config: &'a OAuth) -> Result<Grant<'a>, (&'static str, String)> {
        let url = config.url.as_deref().unwrap_or_default();
        let url: Uri = url.parse().map_err(|error| ("url", format!("{error}")))?;
        if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none() {
            return Err((
                "url",
                "must be the whole URL of a token endpoint".to_owned(),
            ));
        }
        if !keeps_secrets(&url) {
            let message = "must begin with https://, or the secret could be read on its way";
            return Err(("url", message.to_owned()));
        }
        let missing = |key: &'static str| (key, "is missing: who asks for tokens".to_owned());
        Ok(Grant {
            url,
            client: config.client.as_deref().ok_or_else(|| missing("client"))?,
            secret: config.secret.as_ref().ok_or_else(|| missing("secret"))?,
            config,
        })
    }

    /// Asks for a token, and waits for it. May be called on any thread.
    ///
    /// # Errors
    /// Why there is none, in words that show no secret.
    pub(crate) fn ask(&self) -> Result<Granted, String> {
        // A thread of its own: whoever calls may be a part of a runtime that must not wait.
        thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread();
                let runtime = { runtime }.enable_all().build();
                let runtime = runtime.map_err(|error| error.to_string())?;
                runtime.block_on(self.answer())
            });
            let failed = |_| Err("the request ended without an answer".to_owned());
            asking.join().unwrap_or_else(failed)
        })
    }

    async fn answer(&self) -> Result<Granted, String> {
        let request = self.request()?;
        let client = self.http()?;
        let answer = client.send(request, Instant::now() + PATIENCE).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status != 200 {
            let complaint: Complaint = serde_json::from_slice(&answer.body).unwrap_or_default();
            let error: String = { complaint.error.chars() }
                .filter(|c| !c.is_control())
                .take(100)
                .collect();
            return Err(format!(
                "the token endpoint answered {} {error}",
                answer.status.as_u16()
            ));
        }
        let granted: Granted = serde_json::from_slice(&answer.body)
            .map_err(|_| "the token endpoint's answer holds no access_token".to_owned())?;
        match granted.token.is_empty() {
            true => Err("the token endpoint's answer holds an empty access_token".to_owned()),
            false => Ok(granted),
        }
    }

    fn request(&self) -> Result<Request<Bytes>, String> {
        let secret = self.secret.read().map_err(|error| error.to_string())?;
        let mut form = "grant_type=client_credentials".to_owned();
        if let Some(scope) = &self.config.scope {
            form.push_str("&scope=");
            escape(&mut form, scope);
        }
        let pair = STANDARD.encode(format!("{}:{secret}", self.client));
        let basic = HeaderValue::from_str(&format!("Basic {pair}"));
        let mut basic = basic.map_err(|error| error.to_string())?;
        basic.set_sensitive(true);
        Request::builder()
            .method(Method::POST)
            .uri(self.url.clone())
            .header(AUTHORIZATION, basic)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Bytes::from(form))
            .map_err(|error| error.to_string())
    }

    fn http(&self) -> Result<Client, String> {
        let OAuth {
            ca_file,
            skip_verify,
            ..
        } = self.config;
        let tls = if self.url.scheme_str() != Some("https") {
            None
        } else if *skip_verify {
            Some(ClientTls::unverified(None, Profile::Http))
        } else {
            Some(ClientTls::verified(ca_file.as_deref(), None, Profile::Http))
        };
        Ok(Client {
            tls: tls.transpose().map_err(|error| error.to_string())?,
            server_name: None,
            limits: Limits {
                max_body: MAX_ANSWER,
                ..Limits::default()
            },
        })
    }
}

/// Appends a value of a form.
fn escape(out: &mut String, value: &str) {
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte))
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
}
