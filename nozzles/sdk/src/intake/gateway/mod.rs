//! From a reverse log proxy's gateway: server-sent events of JSON.
//!
//! A gateway ends each response after a while, 14 minutes unless it is told otherwise. A Go gateway ends the subscription with
//! it, so that what comes until the next request is lost. Here the next response is therefore asked for shortly before the
//! end, under the same shard id: for a few seconds both are members of the group, and then the old one ends by itself. Our
//! own gateway keeps the subscription for the next response, and says so in a header; then the next one is asked for at
//! once after the end, and nothing is lost and no order disturbed.

mod events;
mod response;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use loggregator_envelope::Kind;
use loggregator_net::http::client::{Client, Limits, Question};
use loggregator_net::{Backoff, Profile};
use loggregator_proto::v2::EgressBatchRequest;
use loggregator_service::Lifecycle;
use tokio::time::{Instant, Sleep, sleep};

use self::response::Response;
use super::credentials::{Credentials, Shown};
use super::monitor::{Ended, Monitor};
use super::select::Selection;
use super::watch::Source;
use super::{IntakeError, address, bytes};
use crate::config::GatewayIntake;

const KEY: &str = "intake.gateway";
/// How long the head of an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// After so long a gateway ends a response, unless it was seen to do so earlier.
const LIFETIME: Duration = Duration::from_secs(14 * 60);
/// So long before that the next one is asked for.
const OVERLAP: Duration = Duration::from_secs(5);
/// A response that lived for so long was well.
const WELL: Duration = Duration::from_secs(10);
/// Checks what can be checked without the network.
pub(super) fn check(config: &GatewayIntake) -> Result<(), IntakeError> {
    url(config).map(|_| ())
}

fn url(config: &GatewayIntake) -> Result<String, IntakeError> {
    let secret = Credentials::check(config.token.as_ref(), config.oauth.as_ref(), KEY)?;
    address::check(&config.url, ("http", "https"), secret).map_err(|reason| IntakeError::Address {
        key: format!("{KEY}.url"),
        reason,
    })
}

type Opening = Pin<Box<dyn Future<Output = Result<Response, (Ended, String)>> + Send>>;

enum State {
    Opening(Opening),
    Open(Box<Response>),
    Waiting(Pin<Box<Sleep>>),
}

/// A subscription that is asked for again when its response ends, or shortly before.
pub(super) struct Gateway {
    door: Arc<Door>,
    state: State,
    /// The response before, until it ends.
    leaving: Option<Box<Response>>,
    /// After which time the gateway ends a response.
    lifetime: Duration,
    /// So long before that the next one is asked for, up to twice as long.
    overlap: Duration,
    /// A response that lived for so long was well.
    well: Duration,
    /// When the next one is asked for.
    renew: Pin<Box<Sleep>>,
    backoff: Backoff,
    stopped: bool,
    monitor: Arc<Monitor>,
}

/// How a response is asked for.
struct Door {
    client: Client,
    url: String,
    credentials: Credentials,
    max_event: usize,
}

impl Gateway {
    pub(super) fn open(
        config: &GatewayIntake,
        request: &EgressBatchRequest,
        monitor: &Arc<Monitor>,
        lifecycle: &Lifecycle,
    ) -> Result<Gateway, IntakeError> {
        let base = url(config)?;
        let mut client = Client {
            tls: None,
            server_name: None,
            limits: Limits::default(),
        };
        if base.starts_with("https:") {
            let tls = address::tls(
                config.ca_file.as_ref(),
                config.skip_verify,
                Profile::Http2,
                lifecycle,
            )
            .map_err(|source| IntakeError::Tls {
                key: format!("{KEY}.ca_file"),
                source,
            })?;
            monitor.uses(None, Some(&tls));
            client.tls = Some(tls);
        }
        let oauth = config.oauth.as_ref();
        let credentials = Credentials::start(config.token.as_ref(), oauth, KEY, lifecycle)?;
        monitor.uses(credentials.tokens(), None);
        let door = Arc::new(Door {
            client,
            url: format!("{base}/v2/read?{}", query(request)),
            credentials,
            max_event: bytes(config.max_message),
        });
        Ok(Gateway {
            state: State::Opening(opening(&door)),
            door,
            leaving: None,
            lifetime: LIFETIME,
            overlap: OVERLAP,
            well: WELL,
            renew: Box::pin(sleep(LIFETIME)),
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(30)),
            stopped: false,
            monitor: Arc::clone(monitor),
        })
    }

    fn tell(&self) {
        let open = usize::from(matches!(self.state, State::Open(_)));
        self.monitor
            .standing(open + usize::from(self.leaving.is_some()));
    }

    fn opened(&mut self, response: Response) {
        // Many nozzles that were started together need not come together for ever.
        let early = self.overlap.mul_f64(1.0 + fastrand::f64());
        self.renew
            .as_mut()
            .reset(response.since + self.lifetime.saturating_sub(early));
        self.state = State::Open(Box::new(response));
        self.tell();
    }

    /// The response is over: the next one is asked for, at once if this one only came of age.
    fn ended(&mut self, why: Ended, error: String) {
        let State::Open(response) = &self.state else {
            return;
        };
        let age = response.since.elapsed();
        if age > self.well {
            self.backoff.reset();
        }
        if why == Ended::Expired && age > self.well {
            self.lifetime = age;
            tracing::debug!(
                ?age,
                resumes = response.resumes,
                "the gateway's response came of age"
            );
            self.monitor.ended(why, error);
            self.state = State::Opening(opening(&self.door));
        } else {
            self.wait(why, error);
        }
        self.tell();
    }

    fn wait(&mut self, why: Ended, error: String) {
        // A response that came of age early is followed at once too, but not in a circle.
        let retry_in = self.backoff.next_delay();
        tracing::warn!(
            error,
            ?retry_in,
            "the gateway's response ended; it is asked for again"
        );
        self.monitor.ended(why, error);
        self.state = State::Waiting(Box::pin(sleep(retry_in)));
    }

    /// Leaves the response for the next one, if it will end soon and its subscription with it.
    fn renew_in_time(&mut self, cx: &mut Context<'_>) {
        let State::Open(response) = &self.state else {
            return;
        };
        if response.resumes || self.leaving.is_some() || self.renew.as_mut().poll(cx).is_pending() {
            return;
        }
        let next = State::Opening(opening(&self.door));
        if let State::Open(old) = std::mem::replace(&mut self.state, next) {
            self.monitor.ended(
                Ended::Expired,
                "the next response is asked for before this one ends",
            );
            self.leaving = Some(old);
            cx.waker().wake_by_ref();
        }
    }

    fn poll_leaving(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        let Some(old) = &mut self.leaving else {
            return Poll::Pending;
        };
        match ready!(old.poll_batch(cx, &self.monitor)) {
            Ok(batch) => Poll::Ready(batch),
            Err((Ended::Expired, _)) => {
                self.lifetime = old.since.elapsed();
                self.leave();
                Poll::Pending
            }
            Err(_) => {
                self.leave();
                Poll::Pending
            }
        }
    }

    fn leave(&mut self) {
        self.leaving = None;
        self.tell();
    }

    /// What has arrived and was not read yet.
    fn next_arrived(&mut self, cx: &mut Context<'_>) -> Option<Bytes> {
        if let Poll::Ready(batch) = self.poll_leaving(cx) {
            return Some(batch);
        }
        match &mut self.state {
            State::Open(response) => match response.poll_batch(cx, &self.monitor) {
                Poll::Ready(Ok(batch)) => Some(batch),
                Poll::Ready(Err(_)) | Poll::Pending => None,
            },
            State::Opening(_) | State::Waiting(_) => None,
        }
    }
}

impl Source for Gateway {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.stopped {
            return Poll::Ready(self.next_arrived(cx));
        }
        loop {
            if let Poll::Ready(batch) = self.poll_leaving(cx) {
                return Poll::Ready(Some(batch));
            }
            self.renew_in_time(cx);
            match &mut self.state {
                State::Opening(opening) => match ready!(opening.as_mut().poll(cx)) {
                    Ok(response) => self.opened(response),
                    Err((why, error)) => self.wait(why, error),
                },
                State::Open(response) => match ready!(response.poll_batch(cx, &self.monitor)) {
                    Ok(batch) => {
                        self.backoff.reset();
                        return Poll::Ready(Some(batch));
                    }
                    Err((why, error)) => self.ended(why, error),
                },
                State::Waiting(pause) => {
                    ready!(pause.as_mut().poll(cx));
                    self.state = State::Opening(opening(&self.door));
                }
            }
        }
    }

    fn reopen(&mut self) {
        self.leaving = None;
        self.state = State::Opening(opening(&self.door));
        self.tell();
    }

    fn stop(&mut self) {
        self.stopped = true;
        self.monitor.standing(0);
    }
}

fn opening(door: &Arc<Door>) -> Opening {
    let door = Arc::clone(door);
    Box::pin(async move { door.open().await })
}

impl Door {
    async fn open(&self) -> Result<Response, (Ended, String)> {
        let shown = self.credentials.show().await;
        let shown = shown.map_err(|error| (Ended::Unauthorized, error))?;
        let question = self
            .question(&shown)
            .map_err(|error| (Ended::Refused, error))?;
        let answer = self.client.open(question, Instant::now() + PATIENCE).await;
        let answer = answer.map_err(|error| (Ended::Failed, error.to_string()))?;
        let status = answer.status.as_u16();
        if status != 200 {
            let text = answer.text(1000);
            let text = tokio::time::timeout(PATIENCE, text)
                .await
                .unwrap_or_default();
            // A gateway answers 404 whatever is wrong with a token.
            let why = match status {
                401 | 403 | 404 => Ended::Unauthorized,
                _ => Ended::Refused,
            };
            if why == Ended::Unauthorized {
                self.credentials.refused(&shown);
            }
            return Err((why, format!("the gateway answered {status}: {text}")));
        }
        let events = |kind: &HeaderValue| kind.as_bytes().starts_with(b"text/event-stream");
        if !answer.headers.get(CONTENT_TYPE).is_some_and(events) {
            return Err((Ended::Refused, "what answered is no gateway".to_owned()));
        }
        Ok(Response::new(answer, self.max_event))
    }

    fn question(&self, shown: &Shown) -> Result<Question, String> {
        let mut question = Question::new(Bytes::new());
        *question.uri_mut() = self
            .url
            .parse()
            .map_err(|_| "the query is too long".to_owned())?;
        let headers = question.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if let Some(authorization) = shown.authorization() {
            let value = HeaderValue::from_str(authorization);
            let mut value = value.map_err(|_| "the token cannot be sent in a header".to_owned())?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(question)
    }
}

/// The query that asks for what the request does: each source id gets every kind.
fn query(request: &EgressBatchRequest) -> String {
    let selection = Selection::of(request);
    let mut all = vec![("shard_id", request.shard_id.as_str())];
    if !request.deterministic_name.is_empty() {
        all.push(("deterministic_name", &request.deterministic_name));
    }
    all.extend(
        selection
            .sources()
            .iter()
            .map(|id| ("source_id", id.as_str())),
    );
    let mut query = address::pairs(all);
    for kind in Kind::EACH {
        if kind != Kind::None && selection.kinds().contains(kind) {
            query.push('&');
            query.push_str(kind.name());
        }
    }
    query
}

#[cfg(test)]
mod tests;
