//! UAA: is this an admin's token?

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Request, StatusCode, Uri};
use loggregator_net::http::client::{Answer, Question};
use serde::Deserialize;
use tracing::{info, warn};

use super::ask::{Outcome, Service};
use super::cache::Flight;
use super::config::{Limits, Secret};
use super::escape::{Blank, escape};

/// The scope that opens the firehose.
pub(super) const FIREHOSE: &str = "doppler.firehose";
/// The other scope that makes an admin for the HTTP gateway.
pub(super) const LOGS_ADMIN: &str = "logs.admin";

/// Longest piece of a foreign text that goes into the log, characters.
const SHOWN: usize = 200;

/// What UAA says of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is good, and has these scopes among others.
    Good {
        /// `doppler.firehose`.
        firehose: bool,
        /// `logs.admin`.
        logs_admin: bool,
    },
    /// It is not, or UAA does not want to say; the answer was JSON.
    NotGood,
    /// There is no answer, or none that is JSON.
    Unknown,
}

/// The service and how it is asked.
pub(super) struct Uaa {
    pub service: Service,
    pub check_token: Uri,
    authorization: HeaderValue,
    allowed_for: Duration,
    denied_for: Duration,
}

#[derive(Deserialize)]
struct Checked {
    /// `null` and absent mean none.
    #[serde(default)]
    scope: Option<Vec<String>>,
    #[serde(default)]
    exp: Option<serde_json::Number>,
}

#[derive(Deserialize)]
struct Complaint {
    #[serde(default)]
    error_description: Option<String>,
}

/// An answer judged: the standing, for how long it may be kept, and the reason if there is one to log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Judged {
    outcome: Outcome,
    pub standing: Standing,
    keep: Option<Duration>,
    reason: Option<String>,
}

impl Judged {
    /// No answer, or none that means anything, and why.
    pub fn failed(reason: String) -> Self {
        Self {
            outcome: Outcome::Failed,
            standing: Standing::Unknown,
            keep: None,
            reason: Some(reason),
        }
    }

    /// Logs why the token is not good, if it is not, in the Go programs' words.
    pub fn log(&self) {
        match &self.reason {
            Some(reason) if self.outcome == Outcome::Failed => {
                warn!("Error getting auth data: {reason}");
            }
            Some(reason) => info!("Error getting auth data: {reason}"),
            None => {}
        }
    }
}

impl Uaa {
    pub fn new(
        service: Service,
        check_token: Uri,
        client: &str,
        secret: &Secret,
        limits: &Limits,
    ) -> Option<Self> {
        let pair = STANDARD.encode(format!("{client}:{}", secret.reveal()));
        let mut authorization = HeaderValue::from_str(&format!("Basic {pair}")).ok()?;
        authorization.set_sensitive(true);
        Some(Self {
            service,
            check_token,
            authorization,
            allowed_for: limits.allowed_for,
            denied_for: limits.denied_for,
        })
    }

    /// Asks about a token. Says for how long the answer may be kept: never when there was none.
    pub async fn check(&self, flight: &Flight, token: &[u8]) -> (Arc<Judged>, Option<Duration>) {
        let judge = |answer: &Answer| {
            let judged = self.judge(answer, token, now());
            (judged.outcome, judged)
        };
        let judged = self
            .service
            .ask(flight, || self.question(token), judge)
            .await;
        let judged = judged.unwrap_or_else(|error| Judged::failed(error.to_string()));
        let keep = judged.keep;
        (Arc::new(judged), keep)
    }

    fn question(&self, token: &[u8]) -> Question {
        let mut question =
            Request::new(Bytes::from(format!("token={}", escape(token, Blank::Plus))));
        *question.method_mut() = http::Method::POST;
        *question.uri_mut() = self.check_token.clone();
        let headers = question.headers_mut();
        headers.insert(AUTHORIZATION, self.authorization.clone());
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        question
    }

    fn judge(&self, answer: &Answer, token: &[u8], now: f64) -> Judged {
        if answer.status == StatusCode::OK {
            return self.judge_good(&answer.body, now);
        }
        let json = serde_json::from_slice::<Complaint>(&answer.body);
        let standing = if json.is_ok() {
            Standing::NotGood
        } else {
            Standing::Unknown
        };
        let reason = match answer.status.as_u16() {
            401 => "invalid username/password".to_owned(),
            404 => "API endpoint not found".to_owned(),
            400 => match &json {
                Ok(complaint) => shown(complaint.error_description.as_deref(), token),
                Err(_) => no_json(&answer.body),
            },
            _ => "unknown error occurred".to_owned(),
        };
        let failed = answer.status.is_server_error();
        Judged {
            outcome: if failed {
                Outcome::Failed
            } else {
                Outcome::Denied
            },
            standing,
            keep: (!failed).then_some(self.denied_for),
            reason: Some(reason),
        }
    }

    fn judge_good(&self, body: &[u8], now: f64) -> Judged {
        let Ok(checked) = serde_json::from_slice::<Checked>(body) else {
            return Judged::failed(no_json(body));
        };
        let scopes = checked.scope.unwrap_or_default();
        let has = |wanted| scopes.iter().any(|scope| scope == wanted);
        let (firehose, logs_admin) = (has(FIREHOSE), has(LOGS_ADMIN));
        let admin = firehose || logs_admin;
        let keep = if admin {
            self.allowed_for
        } else {
            self.denied_for
        };
        // No longer than the token itself holds.
        let left = checked
            .exp
            .as_ref()
            .and_then(serde_json::Number::as_f64)
            .map(|exp| Duration::try_from_secs_f64(exp - now).unwrap_or(Duration::ZERO));
        Judged {
            outcome: if admin {
                Outcome::Allowed
            } else {
                Outcome::Denied
            },
            standing: Standing::Good {
                firehose,
                logs_admin,
            },
            keep: Some(left.map_or(keep, |left| keep.min(left))),
            reason: None,
        }
    }
}

/// Seconds since the epoch.
pub(super) fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// UAA's own words, cut to a length, without control characters, and without the token, should they repeat it.
fn shown(description: Option<&str>, token: &[u8]) -> String {
    let text = description.unwrap_or_default();
    let text = match std::str::from_utf8(token) {
        Ok(token) if !token.is_empty() => text.replace(token, "(token)"),
        _ => text.to_owned(),
    };
    text.chars()
        .filter(|char| !char.is_control())
        .take(SHOWN)
        .collect()
}

/// What the Go program's JSON decoder says of the two usual cases; the body itself is not repeated.
fn no_json(body: &[u8]) -> String {
    match body.trim_ascii().first() {
        None => "unexpected end of JSON input".to_owned(),
        Some(b'{') => "the answer is not the JSON of a token check".to_owned(),
        Some(byte) => format!(
            "invalid character {:?} looking for beginning of value",
            char::from(*byte)
        ),
    }
}

#[cfg(test)]
mod tests {
    use loggregator_net::http::client::{Client, Limits as ClientLimits};

    use super::*;

    fn uaa() -> Uaa {
        let client = Client {
            tls: None,
            server_name: None,
            limits: ClientLimits::default(),
        };
        let limits = Limits::default();
        let service = Service::new("uaa", client, &limits);
        let uri = Uri::from_static("http://uaa/check_token");
        Uaa::new(service, uri, "bob", &Secret::new("hush"), &limits).unwrap()
    }

    fn judged(status: u16, body: &str) -> Judged {
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: http::HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        uaa().judge(&answer, b"s3cret", 1000.0)
    }

    fn secs(secs: u64) -> Option<Duration> {
        Some(Duration::from_secs(secs))
    }

    #[test]
    fn scopes_make_the_admin() {
        for (body, firehose, logs_admin, keep) in [
            (r#"{"scope":["a","doppler.firehose"]}"#, true, false, 30),
            (r#"{"scope":["logs.admin"]}"#, false, true, 30),
            (
                r#"{"scope":["doppler.firehose"],"exp":1010}"#,
                true,
                false,
                10,
            ),
            (
                r#"{"scope":["doppler.firehose"],"exp":900}"#,
                true,
                false,
                0,
            ),
            (r#"{"scope":["doppler.firehose "]}"#, false, false, 5),
            (r#"{"scope":null}"#, false, false, 5),
            ("{}", false, false, 5),
        ] {
            let judged = judged(200, body);
            let good = Standing::Good {
                firehose,
                logs_admin,
            };
            assert_eq!(judged.standing, good, "{body}");
            assert_eq!(judged.keep, secs(keep), "{body}");
            assert_eq!(judged.reason, None, "{body}");
        }
    }

    #[test]
    fn what_is_no_yes_is_a_reason_and_a_failure_is_not_kept() {
        use Standing::{NotGood, Unknown};
        let denial = r#"{"error":"invalid_token","error_description":"bad s3cret\n"}"#;
        let letter = "invalid character '<' looking for beginning of value";
        let odd = "the answer is not the JSON of a token check";
        for (status, body, standing, keep, reason) in [
            (401, "{}", NotGood, secs(5), "invalid username/password"),
            (404, "<html>", Unknown, secs(5), "API endpoint not found"),
            (400, denial, NotGood, secs(5), "bad (token)"),
            (400, "<html>", Unknown, secs(5), letter),
            (302, "", Unknown, secs(5), "unknown error occurred"),
            (500, "{}", NotGood, None, "unknown error occurred"),
            (503, "<html>", Unknown, None, "unknown error occurred"),
            (200, "<html>", Unknown, None, letter),
            (200, "", Unknown, None, "unexpected end of JSON input"),
            (200, r#"{"scope":"doppler.firehose"}"#, Unknown, None, odd),
            (200, r#"{"scope":["doppler.firehose"#, Unknown, None, odd),
        ] {
            let judged = judged(status, body);
            let got = (judged.standing, judged.keep, judged.reason.as_deref());
            assert_eq!(got, (standing, keep, Some(reason)), "{status} {body}");
            assert_eq!(judged.outcome == Outcome::Failed, keep.is_none());
        }
    }
}
