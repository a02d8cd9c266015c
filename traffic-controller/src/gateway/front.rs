//! The front door: one HTTP request in, either a plain answer or a reader's stream out.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};
use http_body_util::BodyExt as _;
use loggregator_net::grpc::Status;
use loggregator_net::http::{Handler, Request, Response, full};
use loggregator_proto::v2::EgressBatchRequest;
use loggregator_proto::v2::selector::Message;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::access::{AccessControl, Credentials, Denied, Plus, unescape};
use crate::accounts::{Accounts, Identity};
use crate::gateway::READ;
use crate::gateway::access_log::{AccessLog, Entry};
use crate::gateway::answers::Refusal;
use crate::gateway::parked::{Ahead, Parking, Place, Resumed};
use crate::gateway::query::Query;
use crate::gateway::stream::{Parts, Question, Stream, Times};
use crate::provider::{Envelopes, Provider};
use crate::urls;
use crate::websocket::web::answers;

/// Requests by HTTP status.
#[derive(Debug, Default)]
pub(crate) struct Requests(Mutex<BTreeMap<u16, u64>>);

impl Requests {
    fn count(&self, status: u16) {
        *self.0.lock().entry(status).or_default() += 1;
    }

    /// All counts so far.
    pub(crate) fn counts(&self) -> BTreeMap<u16, u64> {
        self.0.lock().clone()
    }
}

/// What every request needs.
pub(crate) struct Front {
    pub(crate) access: Arc<dyn AccessControl>,
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) parking: Arc<Parking>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) access_log: AccessLog,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) max_streams: usize,
    pub(crate) max_query: usize,
    pub(crate) max_selectors: usize,
    pub(crate) times: Times,
    pub(crate) stop: CancellationToken,
}

/// The front door as a handler of an HTTP server.
#[derive(Clone)]
pub(crate) struct Door(pub(crate) Arc<Front>);

impl Handler for Door {
    fn handle(
        &self,
        request: Request,
        peer: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        let front = Arc::clone(&self.0);
        Box::pin(async move {
            let entry = front.access_log.begin(&request, peer);
            let unanswered = Unanswered {
                requests: Arc::clone(&front.requests),
                entry: Some(entry),
            };
            // Nothing is shared with a request that could be left half changed: what it holds it gives back when dropped.
            let route = AssertUnwindSafe(front.route(&request, peer)).catch_unwind();
            unanswered.answer(route.await.unwrap_or_else(|_| panicked(peer)))
        })
    }
}

/// The status that is noted for a client that left before there was an answer.
const LEFT: u16 = 499;

/// A request before its answer. Dropped as such, its client has left.
struct Unanswered {
    requests: Arc<Requests>,
    entry: Option<Entry>,
}

impl Unanswered {
    fn answer(mut self, answer: Response) -> Response {
        self.requests.count(answer.status().as_u16());
        match self.entry.take() {
            Some(entry) => entry.follow(answer),
            None => answer,
        }
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(entry) = &self.entry {
            self.requests.count(LEFT);
            entry.unanswered(LEFT);
        }
    }
}

impl Front {
    /// There is one path; everything is compared after decoding.
    async fn route(&self, request: &Request, peer: SocketAddr) -> Response {
        let uri = request.uri();
        let Some(path) = unescape(uri.path().as_bytes(), Plus::Literal) else {
            return answers::malformed().map(full);
        };
        let clean = urls::clean(&path);
        if clean != *path {
            return answers::moved(&urls::location(&clean, uri.query())).map(full);
        }
        if clean != b"/v2/read" {
            return answers::not_found().map(full);
        }
        match self.read(request, peer).await {
            Ok(response) => response,
            Err(refusal) => refusal.answer().map(full),
        }
    }

    /// Answers a request for a stream. The checks stand in the order in which clients know them: whoever may not read
    /// learns nothing about what else is wrong.
    async fn read(&self, request: &Request, peer: SocketAddr) -> Result<Response, Refusal> {
        let query = request.uri().query().unwrap_or("");
        if query.len() > self.max_query {
            return Err(Refusal::QueryTooLong);
        }
        let query = Query::parse(query);
        let question = Question {
            access: Arc::clone(&self.access),
            who: Arc::new(Credentials::from_authorization(request.headers())),
            source_ids: query.source_ids().into(),
        };
        let allowed = match question.ask().await {
            Ok(allowed) => allowed,
            Err(why) => {
                match &why {
                    _ if self.access.logs_refusals() => {}
                    Denied::Unavailable(_) => {
                        warn!(%peer, %why, "access could not be checked");
                    }
                    _ => info!(%peer, %why, "access denied"),
                }
                return Err(Refusal::NotFound);
            }
        };
        if request.method() != Method::GET {
            return Err(Refusal::MethodNotAllowed);
        }
        let asked = query.request(self.max_selectors)?;
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            warn!(%peer, "at stream limit: {}", self.max_streams);
            return Err(Refusal::StreamingUnavailable);
        };
        if self.stop.is_cancelled() {
            return Err(Refusal::StreamingUnavailable);
        }
        let place = Place::of(&asked, &question.who, peer.ip());
        let identity = Identity {
            id: asked.shard_id.chars().take(ID_CHARS).collect(),
            peer: peer.to_string(),
            selector: selector(&asked),
            endpoint: READ,
        };
        let (ahead, parked) = match self.parking.resume(&place) {
            Some(Resumed { ahead, source }) => (ahead, source),
            None => (Ahead::default(), None),
        };
        let source = match parked {
            Some(source) => source,
            None => self.open(asked).await.map_err(|status| {
                self.parking.lost(ahead.envelopes(), identity.clone());
                warn!(%peer, "cannot start a stream at the reverse log proxy: {}", status.go());
                Refusal::StreamingUnavailable
            })?,
        };
        let source = ahead.of(source);
        let stream = Stream::new(Parts {
            source,
            account: self.accounts.open(identity, false),
            times: self.times,
            question,
            allowed,
            parking: Arc::clone(&self.parking),
            place,
            slot,
            stop: self.stop.clone(),
        });
        let grace = self.parking.grace();
        Ok(event_stream(stream, request.version(), grace))
    }

    /// Asks the reverse log proxy, unless the gateway stops meanwhile.
    async fn open(&self, asked: EgressBatchRequest) -> Result<Box<dyn Envelopes>, Status> {
        let opened = self.stop.run_until_cancelled(self.provider.open(asked));
        let stopping = || Err(Status::unavailable("the gateway is stopping"));
        opened.await.unwrap_or_else(stopping)
    }
}

/// The answer in place of one whose making panicked, as the Go gateway's.
fn panicked(peer: SocketAddr) -> Response {
    error!(%peer, "a request's handler panicked");
    let mut answer = Response::new(full(Bytes::new()));
    *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    answer
}

/// Seconds for which a subscription outlives its response; not known to the Go gateway. A reader that sees it may wait for
/// the end of a response before it asks for the next one.
const RESUME: HeaderName = HeaderName::from_static("loggregator-resume-grace");

fn event_stream(stream: Stream, version: Version, grace: Duration) -> Response {
    let body = stream.map_err(Into::into).boxed_unsync();
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if version == Version::HTTP_11 {
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
    }
    if !grace.is_zero() {
        headers.insert(RESUME, grace.as_secs().max(1).into());
    }
    response
}

/// Sources and kinds that a ledger line names; the others are a number.
const NAMED: usize = 3;

/// Characters of a shard id that a ledger line shows.
const ID_CHARS: usize = 256;

/// Characters of a name that a ledger line shows.
const NAME_CHARS: usize = 64;

/// A short text of what is asked for, for the ledger.
fn selector(request: &EgressBatchRequest) -> String {
    let mut kinds: Vec<String> = Vec::new();
    let mut sources: Vec<&str> = Vec::new();
    for selector in &request.selectors {
        if sources.last() != Some(&selector.source_id.as_str()) {
            sources.push(&selector.source_id);
        }
        if sources.len() > 1 {
            continue;
        }
        kinds.push(match &selector.message {
            Some(Message::Log(_)) => "log".to_owned(),
            Some(Message::Counter(counter)) if counter.name.is_empty() => "counter".to_owned(),
            Some(Message::Counter(counter)) => format!("counter {}", counter.name),
            Some(Message::Gauge(gauge)) if gauge.names.is_empty() => "gauge".to_owned(),
            Some(Message::Gauge(gauge)) => format!("gauge {}", gauge.names.join("+")),
            Some(Message::Timer(_)) => "timer".to_owned(),
            Some(Message::Event(_)) => "event".to_owned(),
            None => continue,
        });
    }
    let kinds = some_of(&kinds);
    match &sources[..] {
        [] | [""] => kinds,
        sources => format!("{kinds} of {}", some_of(sources)),
    }
}

fn some_of(names: &[impl AsRef<str>]) -> String {
    let short = |name: &str| name.chars().take(NAME_CHARS).collect::<String>();
    let shown: Vec<_> = names
        .iter()
        .take(NAMED)
        .map(|name| short(name.as_ref()))
        .collect();
    let more = names.len() - shown.len();
    match more {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_says_what_is_read() {
        for (query, text) in [
            ("log", "log"),
            (
                "log&counter&gauge&timer&event",
                "log, counter, gauge and 2 more",
            ),
            ("source_id=a&log", "log of a"),
            (
                "counter.name=c&gauge.name=x,y&source_id=a&source_id=b",
                "counter c, gauge x+y of a, b",
            ),
            (
                "source_id=a&source_id=b&source_id=c&source_id=d&event",
                "event of a, b, c and 1 more",
            ),
        ] {
            let request = Query::parse(query).request(100).unwrap();
            assert_eq!(selector(&request), text, "{query}");
        }
    }
}
