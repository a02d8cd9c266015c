//! The Cloud Controller: may the bearer see this application, or this service instance?

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderValue};
use http::{Request, Uri};
use loggregator_net::http::client::Answer;
use tracing::{info, warn};

use super::super::Denied;
use super::ask::{Outcome, Service};
use super::cache::Flight;
use super::config::Limits;
use super::escape::{Blank, escape};

/// What the Cloud Controller says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sight {
    /// Yes.
    Allowed,
    /// This status, another than 200.
    Status(u16),
    /// There was no answer, or it was not asked: why.
    NoAnswer(Arc<str>),
}

impl Sight {
    /// Logs why there is nothing to see at this id, if so, in the Go programs' words.
    pub fn log(&self, id: &str) {
        match self {
            Self::Allowed => {}
            Self::Status(status) if outcome(*status) == Outcome::Failed => {
                warn!("Non 200 response from CC API: {status} for {id:?}");
            }
            Self::Status(status) => info!("Non 200 response from CC API: {status} for {id:?}"),
            Self::NoAnswer(reason) => warn!("Could not get app information: [{reason}]"),
        }
    }

    /// Whether this is the answer that the bearer may not; another than yes or this says nothing about the bearer.
    pub fn is_no(&self) -> bool {
        matches!(self, Self::Status(401 | 403 | 404))
    }

    /// The denial where there is neither a yes nor a no.
    pub fn unavailable(&self) -> Denied {
        Denied::Unavailable(match self {
            Self::Allowed => "the Cloud Controller answered 200".to_owned(),
            Self::Status(status) => format!("the Cloud Controller answered {status}"),
            Self::NoAnswer(why) => why.to_string(),
        })
    }
}

/// One of its two questions.
pub(super) struct Capi {
    pub service: Service,
    /// Everything before the id, with the last slash.
    prefix: String,
    allowed_for: Duration,
    denied_for: Duration,
}

impl Capi {
    /// `prefix` is the address up to the id.
    pub fn new(service: Service, prefix: String, limits: &Limits) -> Self {
        Self {
            service,
            prefix,
            allowed_for: limits.allowed_for,
            denied_for: limits.denied_for,
        }
    }

    /// Asks about an id, with the client's own authorization. Says for how long the answer may be kept: never when there
    /// was none, or one that says nothing about the bearer.
    pub async fn check(
        &self,
        flight: &Flight,
        id: &str,
        authorization: HeaderValue,
    ) -> (Sight, Option<Duration>) {
        // An id is a GUID by now; it is escaped all the same.
        let address = format!("{}{}", self.prefix, escape(id.as_bytes(), Blank::Percent));
        let mut question = Request::new(Bytes::new());
        match address.parse::<Uri>() {
            Ok(uri) => *question.uri_mut() = uri,
            Err(_) => return (Sight::NoAnswer("the address cannot be built".into()), None),
        }
        question.headers_mut().insert(AUTHORIZATION, authorization);
        match self.service.ask(flight, || question, judge).await {
            Ok(200) => (Sight::Allowed, Some(self.allowed_for)),
            Ok(status) => {
                let sight = Sight::Status(status);
                let keep = sight.is_no().then_some(self.denied_for);
                (sight, keep)
            }
            Err(error) => (Sight::NoAnswer(error.to_string().into()), None),
        }
    }
}

fn judge(answer: &Answer) -> (Outcome, u16) {
    let status = answer.status.as_u16();
    (outcome(status), status)
}

fn outcome(status: u16) -> Outcome {
    match status {
        200 => Outcome::Allowed,
        500.. => Outcome::Failed,
        _ => Outcome::Denied,
    }
}
