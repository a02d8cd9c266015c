//! The destinations for HTTPS: a request per message, or per batch, as the platform's agents post to drains.

use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Method, Request};
use loggregator_net::http::client::{Client, Kept, Limits};
use loggregator_nozzle::{Batch, Context, Delivery, Destination, Outcome, Reason, answers};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::{Endpoints, Settings};
use crate::counts::Counts;
use crate::endpoint::{Endpoint, Transport};
use crate::format::Formatter;
use crate::page::{Page, Prefix};

/// Bytes of an answer that are read.
const ANSWER: usize = 64 << 10;

pub(crate) struct Https {
    settings: Settings,
    counts: Arc<Counts>,
    client: Kept,
    formatter: Mutex<Formatter>,
    /// The endpoint that is used, until it fails.
    endpoint: Mutex<usize>,
}

impl Https {
    pub fn new(settings: Settings, context: &Context) -> Https {
        Https {
            counts: Counts::new(&context.name, &context.metrics),
            client: Kept::new(client(&settings)),
            formatter: Mutex::new(Formatter::new(settings.format, settings.policy.clone())),
            endpoint: Mutex::new(0),
            settings,
        }
    }

    /// Posts this body, of so many events.
    async fn post(&self, body: Bytes, messages: usize, events: usize, again: bool) -> Delivery {
        let at = *self.endpoint.lock() % self.settings.endpoints.len();
        let request = match request(&self.settings.endpoints[at], body.clone()) {
            Ok(request) => request,
            Err(why) => return Delivery::Retry { why, after: None },
        };
        let times = &self.settings.connection;
        let deadline = Instant::now() + times.connect_timeout + times.write_timeout;
        let answer = self.client.send(request, deadline).await;
        self.counts.written(messages, body.len(), again);
        let delivery = answers::judge(&answer, events);
        let next = match &delivery {
            Delivery::Retry { why, .. } => {
                self.counts.not_connected(match answer {
                    Ok(_) => "status",
                    Err(_) => "request",
                });
                tracing::debug!(endpoint = %self.settings.endpoints[at], %why, "not taken");
                at + 1
            }
            _ if self.settings.order == Endpoints::RoundRobin => at + 1,
            _ => at,
        };
        *self.endpoint.lock() = next;
        delivery
    }

    /// All messages in one body.
    async fn post_all(&self, batch: &Batch) -> Delivery {
        let mut page = Page::new(Prefix::None);
        let written = self.formatter.lock().write_all(batch, &mut page);
        let outcomes = match written {
            Ok(outcomes) => outcomes,
            Err(why) => return Delivery::TooLarge(why),
        };
        let delivered = outcomes.map_or(Delivery::All, Delivery::Each);
        let messages = page.ends.len();
        if messages == 0 {
            return delivered;
        }
        let again = batch.attempt() > 0;
        let posted = self.post(page.bytes.into(), messages, batch.len(), again);
        match posted.await {
            Delivery::All => delivered,
            other => other,
        }
    }

    /// Each message in a body of its own, one after the other, as long as there is time.
    async fn post_each(&self, batch: &Batch) -> Delivery {
        let again = batch.attempt() > 0;
        let begun = Instant::now();
        let (mut outcomes, mut pause) = (Vec::with_capacity(batch.len()), None);
        for event in batch.events() {
            if !outcomes.is_empty() && begun.elapsed() >= answers::LONGEST_POSTING {
                outcomes.resize(batch.len(), Outcome::Later(answers::out_of_time()));
                break;
            }
            let mut page = Page::new(Prefix::None);
            let written = self.formatter.lock().write(event, &mut page);
            if let Err(refusal) = written {
                outcomes.push(refusal.into());
                continue;
            }
            let mut outcome = Outcome::Delivered;
            for message in page.messages() {
                let body = Bytes::copy_from_slice(message);
                match self.post(body, 1, 1, again).await {
                    Delivery::All => continue,
                    Delivery::Each(each) | Delivery::Paused { each, .. } => {
                        outcome = each.into_iter().next().unwrap_or(outcome);
                    }
                    Delivery::Refused(why) => outcome = Outcome::Rejected(why),
                    Delivery::TooLarge(why) => outcome = Outcome::Oversize(why),
                    // Nobody is there: for none of them.
                    Delivery::Retry { why, .. }
                        if outcomes.is_empty() && answers::unreachable(&why) =>
                    {
                        return Delivery::retry(why);
                    }
                    Delivery::Retry { why, after } => {
                        pause = after;
                        outcome = Outcome::again(why, after);
                    }
                }
                break;
            }
            outcomes.push(outcome.clone());
            if let Outcome::Retry(why) | Outcome::Later(why) = outcome {
                // What follows must not overtake it.
                outcomes.resize(batch.len(), Outcome::Later(why));
                break;
            }
        }
        Delivery::each(outcomes, pause)
    }
}

impl Destination for Https {
    async fn deliver(&self, batch: &Batch) -> Delivery {
        match self.settings.transport {
            Transport::HttpsBatch => self.post_all(batch).await,
            _ => self.post_each(batch).await,
        }
    }
}

/// The client that these settings describe.
fn client(settings: &Settings) -> Client {
    Client {
        tls: settings.tls.as_ref().map(|tls| Arc::clone(&tls.client)),
        server_name: settings
            .tls
            .as_ref()
            .and_then(|tls| tls.server_name.clone()),
        limits: Limits {
            handshake_timeout: settings.connection.connect_timeout,
            max_body: ANSWER,
            max_redirects: 0,
        },
    }
}

/// A request as the platform's agents make it. The user and the password go out as they stand in the URL.
fn request(endpoint: &Endpoint, body: Bytes) -> Result<Request<Bytes>, Reason> {
    let unusable = |error: &dyn std::fmt::Display| Reason::new("request", error.to_string());
    let uri = endpoint.uri.clone().unwrap_or_default();
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    let agent = concat!("loggregator/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    if let Some(user) = &endpoint.user {
        let encoded = base64::prelude::BASE64_STANDARD.encode(user);
        let mut value =
            HeaderValue::try_from(format!("Basic {encoded}")).map_err(|error| unusable(&error))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(request)
}

/// Asks an endpoint of an HTTPS transport whether it is there; others are not for here.
pub(crate) async fn probe(
    settings: &Settings,
    endpoint: &Endpoint,
) -> Result<Option<String>, Reason> {
    if endpoint.uri.is_none() {
        return Ok(None);
    }
    let mut request = request(endpoint, Bytes::new())?;
    *request.method_mut() = Method::HEAD;
    let deadline = Instant::now() + settings.connection.connect_timeout;
    match client(settings).send(request, deadline).await {
        Ok(answer) => Ok(Some(format!(
            "{endpoint}: answers with status {}",
            answer.status
        ))),
        Err(error) => Err(Reason::new("connect", error.to_string())),
    }
}
