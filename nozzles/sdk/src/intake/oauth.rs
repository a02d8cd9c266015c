//! Tokens of a UAA: fetched ahead of time by one task, whoever waits for them.
//!
//! A token is renewed when three quarters to nine tenths of its life are over, at random, so that many nozzles do not come
//! at once. While the UAA is away the old one serves as long as it lives. Nothing here shows a token, a secret or a password.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Method;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use loggregator_net::http::client::{Client, ClientError, Limits, Question};
use loggregator_net::{Backoff, Profile, TlsError};
use loggregator_service::Lifecycle;
use loggregator_service::metrics::{Samples, names};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::credentials::bearer;
use super::monitor::TokenState;
use super::{IntakeError, address};
use crate::config::{OauthConfig, SecretError};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Life of a token whose answer does not tell it.
const UNTOLD: Duration = Duration::from_secs(600);
/// A token that was refused later than this had served well.
const SERVED: Duration = Duration::from_secs(60);
/// Bytes of an answer. Tokens with many scopes have some KiB.
const MAX_ANSWER: usize = 256 * 1024;

/// A token.
pub(crate) struct Token {
    number: u64,
    /// `bearer …`
    authorization: String,
    expires: Instant,
}

impl Token {
    /// The value of an `Authorization` header.
    pub(crate) fn authorization(&self) -> &str {
        &self.authorization
    }
}

/// Where tokens come from. Clones share the token.
#[derive(Clone)]
pub(crate) struct Tokens {
    state: watch::Receiver<State>,
    /// Number of the newest token that was refused.
    refused: watch::Sender<u64>,
    counts: Arc<Counts>,
}

#[derive(Clone, Default)]
struct State {
    token: Option<Arc<Token>>,
    /// What went wrong since.
    error: Option<String>,
}

#[derive(Default)]
struct Counts {
    ok: AtomicU64,
    failed: AtomicU64,
    /// Seconds since 1970; 0: there is no token.
    expires: AtomicU64,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Client(#[from] ClientError),
    /// With the error's name in the answer, where there is one.
    #[error("the token endpoint answered {0}{1}")]
    Status(u16, String),
    #[error("the token endpoint's answer is not what it should be")]
    Answer,
}

impl Tokens {
    /// Begins to fetch tokens; `key` is the place in the configuration.
    pub(crate) fn start(
        config: &OauthConfig,
        key: &str,
        lifecycle: &Lifecycle,
    ) -> Result<Tokens, IntakeError> {
        let url = check(config, key)?;
        let tls = address::tls(
            config.ca_file.as_ref(),
            config.skip_verify,
            Profile::Http,
            lifecycle,
        );
        let tls = tls.map_err(|source: TlsError| IntakeError::Tls {
            key: key.to_owned(),
            source,
        })?;
        let limits = Limits {
            max_body: MAX_ANSWER,
            ..Limits::default()
        };
        let (sender, state) = watch::channel(State::default());
        let (refused, refusals) = watch::channel(0);
        let counts = Arc::<Counts>::default();
        let keeper = Keeper {
            client: Client {
                tls: Some(tls),
                server_name: None,
                limits,
            },
            url: format!("{url}/oauth/token"),
            config: config.clone(),
            state: sender,
            refusals,
            counts: Arc::clone(&counts),
        };
        let stop = lifecycle.token();
        lifecycle.spawn(format!("tokens of {key}"), async move {
            stop.run_until_cancelled(keeper.keep()).await;
        });
        Ok(Tokens {
            state,
            refused,
            counts,
        })
    }

    /// A token that has not expired and was not refused; waits until there is one. `None` when the program stops.
    pub(crate) async fn get(&self) -> Option<Arc<Token>> {
        let mut state = self.state.clone();
        let usable = state.wait_for(|state| self.usable(state)).await;
        usable.ok()?.token.clone()
    }

    /// A server wants another token than this one.
    pub(crate) fn refused(&self, token: &Token) {
        self.refused.send_if_modified(|newest| {
            let newer = token.number > *newest;
            *newest = (*newest).max(token.number);
            newer
        });
    }

    pub(crate) fn state(&self) -> TokenState {
        let state = self.state.borrow();
        if self.usable(&state) {
            TokenState::Valid
        } else {
            TokenState::Missing(state.error.clone())
        }
    }

    pub(crate) fn sample(&self, user: &str, samples: &mut Samples) {
        for (outcome, count) in [("ok", &self.counts.ok), ("failed", &self.counts.failed)] {
            let labels = [("for", user), ("outcome", outcome)];
            samples.counter(&names::NOZZLE_TOKEN_REQUESTS, &labels, count.load(Relaxed));
        }
        let expires = self.counts.expires.load(Relaxed);
        samples.gauge_count(&names::NOZZLE_TOKEN_EXPIRY, &[("for", user)], expires);
    }

    fn usable(&self, state: &State) -> bool {
        let token = state.token.as_ref();
        token.is_some_and(|token| {
            token.number > *self.refused.borrow() && token.expires > Instant::now()
        })
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tokens").field(&self.state()).finish()
    }
}

/// Checks what can be checked without the network; returns the endpoint's server.
pub(crate) fn check(config: &OauthConfig, key: &str) -> Result<String, IntakeError> {
    let wrong = |key: String, reason: &str| IntakeError::Oauth {
        key,
        reason: reason.to_owned(),
    };
    let url = address::check(&config.url, ("http", "https"), true).map_err(|reason| {
        IntakeError::Address {
            key: format!("{key}.url"),
            reason,
        }
    })?;
    if config.client.is_empty() {
        return Err(wrong(format!("{key}.client"), "must not be empty"));
    }
    match (&config.user, &config.password) {
        (Some(_), None) => Err(wrong(format!("{key}.password"), "a user needs a password")),
        (None, Some(_)) => Err(wrong(format!("{key}.user"), "a password needs a user")),
        _ => Ok(url),
    }
}

/// The task that fetches tokens.
struct Keeper {
    client: Client,
    url: String,
    config: OauthConfig,
    state: watch::Sender<State>,
    refusals: watch::Receiver<u64>,
    counts: Arc<Counts>,
}

impl Keeper {
    async fn keep(mut self) {
        let mut failures =
            Backoff::new(Duration::from_millis(500), Duration::from_secs(60)).with_shape(2.0, 0.2);
        let mut refusals =
            Backoff::new(Duration::from_millis(50), Duration::from_secs(60)).with_shape(4.0, 0.2);
        let mut number = 0;
        loop {
            match self.ask().await {
                Ok((authorization, life)) => {
                    failures.reset();
                    number += 1;
                    let fetched = Instant::now();
                    // It has to get there in time, whatever the clock of the other side says.
                    let margin = (life / 10).min(Duration::from_secs(5));
                    self.publish(number, authorization, fetched + life - margin);
                    let renew = life.mul_f64(0.75 + 0.15 * fastrand::f64());
                    let renew = fetched + renew.max(Duration::from_millis(500));
                    tokio::select! {
                        () = sleep_until(renew) => {}
                        used = refused(&mut self.refusals, number) => {
                            if !used {
                                return;
                            }
                            if fetched.elapsed() > SERVED {
                                refusals.reset();
                            }
                            sleep(refusals.next_delay()).await;
                        }
                    }
                }
                Err(error) => {
                    self.counts.failed.fetch_add(1, Relaxed);
                    let retry_in = failures.next_delay();
                    let error = error.to_string();
                    tracing::warn!(url = self.url, error, ?retry_in, "no token");
                    self.state.send_modify(|state| state.error = Some(error));
                    sleep(retry_in).await;
                }
            }
        }
    }

    fn publish(&self, number: u64, authorization: String, expires: Instant) {
        self.counts.ok.fetch_add(1, Relaxed);
        let lives = SystemTime::now() + (expires - Instant::now());
        let since = lives.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.counts.expires.store(since.as_secs(), Relaxed);
        let token = Token {
            number,
            authorization,
            expires,
        };
        self.state.send_replace(State {
            token: Some(Arc::new(token)),
            error: None,
        });
    }

    async fn ask(&self) -> Result<(String, Duration), AskError> {
        let question = self.question()?;
        let answer = self
            .client
            .send(question, Instant::now() + PATIENCE)
            .await?;
        if answer.status != 200 {
            return Err(AskError::Status(
                answer.status.as_u16(),
                complaint(&answer.body),
            ));
        }
        let granted: Granted =
            serde_json::from_slice(&answer.body).map_err(|_| AskError::Answer)?;
        let authorization = bearer(&granted.access_token);
        if granted.access_token.is_empty() || HeaderValue::from_str(&authorization).is_err() {
            return Err(AskError::Answer);
        }
        let life = granted.expires_in.map_or(UNTOLD, Duration::from_secs);
        // A life beyond a year is none, and could not be counted from now on.
        Ok((authorization, life.min(Duration::from_secs(365 * 86_400))))
    }

    fn question(&self) -> Result<Question, AskError> {
        let secret = self.config.secret.read()?;
        let form = match (&self.config.user, &self.config.password) {
            (Some(user), Some(password)) => address::pairs([
                ("grant_type", "password"),
                ("username", user),
                ("password", &password.read()?),
            ]),
            _ => address::pairs([("grant_type", "client_credentials")]),
        };
        let mut question = Question::new(Bytes::from(form));
        *question.method_mut() = Method::POST;
        *question.uri_mut() = self.url.parse().map_err(|_| AskError::Answer)?;
        let pair = STANDARD.encode(format!("{}:{secret}", self.config.client));
        let mut basic =
            HeaderValue::from_str(&format!("Basic {pair}")).map_err(|_| AskError::Answer)?;
        basic.set_sensitive(true);
        let headers = question.headers_mut();
        headers.insert(AUTHORIZATION, basic);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(CONTENT_TYPE, form);
        Ok(question)
    }
}

/// Waits until the token of this number was refused; false: nobody uses tokens any more.
async fn refused(refusals: &mut watch::Receiver<u64>, number: u64) -> bool {
    refusals
        .wait_for(|refused| *refused >= number)
        .await
        .is_ok()
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: Option<u64>,
}

/// The name of an OAuth error (RFC 6749, section 5.2); nothing else of the answer is told.
fn complaint(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Complaint {
        error: String,
    }
    match serde_json::from_slice::<Complaint>(body) {
        Ok(Complaint { error })
            if error.len() <= 60 && error.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') =>
        {
            format!(": {error}")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_of_an_error_is_told() {
        let told = |body: &str| complaint(body.as_bytes());
        assert_eq!(
            told(r#"{"error":"unauthorized","error_description":"Bad credentials"}"#),
            ": unauthorized"
        );
        for odd in [
            "",
            "<html>",
            r#"{"error":"a secret: 5"}"#,
            r#"{"error":""}"#,
        ] {
            assert!(matches!(told(odd).as_str(), "" | ": "), "{odd}");
        }
    }

    #[test]
    fn a_configuration_that_cannot_work_is_refused() {
        let parse = |extra: &str| {
            let text = format!("client = \"nozzle\"\nsecret = \"s3cret\"\n{extra}");
            toml::from_str::<OauthConfig>(&text).unwrap()
        };
        let url = "url = \"https://uaa.example.com\"\n";
        let with = |extra: &str| check(&parse(&format!("{url}{extra}")), "enrichment.oauth");
        assert_eq!(with("").unwrap(), "https://uaa.example.com");
        assert!(with("user = \"u\"\npassword = \"p\"").is_ok());
        let told = |extra: &str| with(extra).unwrap_err().to_string();
        assert_eq!(
            told("user = \"u\""),
            "enrichment.oauth.password: a user needs a password"
        );
        assert_eq!(
            told("password = \"p\""),
            "enrichment.oauth.user: a password needs a user"
        );
        let plain = parse("url = \"http://uaa.example.com\"");
        assert_eq!(
            check(&plain, "enrichment.oauth").unwrap_err().to_string(),
            "enrichment.oauth.url: must begin with https://, or the token could be read on its way"
        );
        let shown = format!("{:?}", parse(url));
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}
