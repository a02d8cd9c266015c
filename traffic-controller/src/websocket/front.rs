//! The front door: one HTTP request in, either a plain answer or a client's relay out.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::header::HeaderName;
use http::{HeaderMap, StatusCode};
use loggregator_net::http::{Handler, Request, Response};
use loggregator_proto::plumbing::SubscriptionRequest;
use loggregator_service::Lifecycle;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::access::recheck::{Patience, until_denied};
use crate::access::{AccessControl, Allowed, Credentials, Denied};
use crate::accounts::{Accounts, Endpoint, Identity};
use crate::upstream::Upstream;
use crate::websocket::relay::{ClientLine, End, Over, Relay, Timing};
use crate::websocket::security_log::SecurityLog;
use crate::websocket::self_metrics::{SlowConsumer, SlowConsumers};
use crate::websocket::subscribed::Subscribed;
use crate::websocket::web::answers::{self, Answer};
use crate::websocket::web::handshake;
use crate::websocket::web::routes::Route;
use crate::websocket::web::set_cookie::Cookies;
use crate::websocket::{FIREHOSE, PROGRAM, STREAM};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Requests by endpoint and status.
#[derive(Debug, Default)]
pub(crate) struct Requests(Mutex<BTreeMap<(&'static str, u16), u64>>);

impl Requests {
    fn count(&self, endpoint: &'static str, status: StatusCode) {
        *self
            .0
            .lock()
            .entry((endpoint, status.as_u16()))
            .or_default() += 1;
    }

    /// All counts so far.
    pub(crate) fn counts(&self) -> BTreeMap<(&'static str, u16), u64> {
        self.0.lock().clone()
    }
}

/// What every request needs.
pub(crate) struct Front {
    pub(crate) access: Arc<dyn AccessControl>,
    pub(crate) upstream: Arc<dyn Upstream<SubscriptionRequest>>,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) max_subscriptions: usize,
    pub(crate) timing: Timing,
    pub(crate) slow_consumers: SlowConsumers,
    /// How long a stream goes on when nobody can say whether its reader may still read.
    pub(crate) recheck_patience: Duration,
    pub(crate) cookies: Cookies,
    pub(crate) security_log: Option<SecurityLog>,
    pub(crate) lifecycle: Lifecycle,
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
            let route = Route::of(request.uri());
            let endpoint = match &route {
                Route::Firehose { .. } => PROGRAM.endpoints[FIREHOSE],
                Route::App { .. } => PROGRAM.endpoints[STREAM],
                Route::SetCookie => "set-cookie",
                Route::Moved(_) | Route::NotFound | Route::Malformed => "other",
            };
            if let Some(log) = &front.security_log {
                log.log(&request, peer).await;
            }
            let answer = match &route {
                Route::Firehose { id, .. } => {
                    front.stream(request, peer, &route, id, FIREHOSE).await
                }
                Route::App { id } => front.stream(request, peer, &route, id, STREAM).await,
                Route::SetCookie => front.cookies.answer(request).await,
                Route::Moved(location) => answers::moved(location),
                Route::NotFound => answers::not_found(),
                Route::Malformed => answers::malformed(),
            };
            front.requests.count(endpoint, answer.status());
            answer.map(loggregator_net::http::full)
        })
    }
}

impl Front {
    /// Answers a request for a stream: is it allowed, is there room, is it a WebSocket handshake, in this order.
    async fn stream(
        &self,
        mut request: Request,
        peer: SocketAddr,
        route: &Route,
        id: &str,
        endpoint: Endpoint,
    ) -> Answer {
        let question = Question {
            access: Arc::clone(&self.access),
            who: Credentials::from_headers(request.headers()),
            app_id: (endpoint == STREAM).then(|| id.to_owned()),
        };
        let allowed = match question.ask().await {
            Ok(allowed) => allowed,
            Err(why) => {
                let endpoint = PROGRAM.endpoints[endpoint];
                match &why {
                    _ if self.access.logs_refusals() => {}
                    Denied::Unavailable(_) => {
                        warn!(%peer, endpoint, %why, "access could not be checked");
                    }
                    _ => info!(%peer, endpoint, %why, "access denied"),
                }
                return answers::denied(route, &why);
            }
        };
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            warn!(
                "error occurred when subscribing to doppler: at connection limit: {}",
                self.max_subscriptions
            );
            return answers::full();
        };
        if self.stop.is_cancelled() {
            return answers::full();
        }
        let accept = match handshake::check(request.method(), request.version(), request.headers())
        {
            Ok(accept) => accept,
            Err(refusal) => return answers::refused(refusal),
        };
        let Some(subscription) = route.subscription() else {
            return answers::not_found();
        };
        // Asked for before the answer, so that the dopplers are on it when the client hears that it is connected.
        let batches = self.upstream.subscribe(subscription);
        let identity = Identity {
            id: id.to_owned(),
            peer: peer.to_string(),
            selector: route.selector(),
            endpoint,
        };
        let account = self.accounts.open(identity, batches.is_shared());
        let mut subscribed = Subscribed::new(batches, account);
        subscribed.opened().await;
        let over = self.over(question, allowed, peer);
        self.relay(&mut request, subscribed, slot, over);
        answers::switching(&accept)
    }

    /// What ends a stream from outside: a stop, or that its reader may read no more.
    fn over(&self, question: Question, allowed: Allowed, peer: SocketAddr) -> Over {
        let stopped = self.stop.clone().cancelled_owned();
        if allowed.recheck_after.is_none() {
            return Box::pin(stopped.map(|()| End::Stopped));
        }
        let patience = Patience::of(self.recheck_patience);
        Box::pin(async move {
            tokio::select! {
                () = stopped => End::Stopped,
                why = until_denied(allowed, patience, || question.ask()) => {
                    info!(%peer, %why, "access denied while the stream was open");
                    End::Denied
                }
            }
        })
    }

    /// Starts the client's relay, which begins when the answer is through.
    fn relay(
        &self,
        request: &mut Request,
        subscribed: Subscribed,
        slot: OwnedSemaphorePermit,
        over: Over,
    ) {
        let upgrade = hyper::upgrade::on(&mut *request);
        let slow = SlowConsumer {
            remote_addr: subscribed.peer().to_owned(),
            forwarded_for: forwarded_for(request.headers()),
            path: request
                .uri()
                .path_and_query()
                .map(ToString::to_string)
                .unwrap_or_default(),
        };
        let slow_consumers = self.slow_consumers.clone();
        let timing = self.timing.clone();
        self.lifecycle.spawn("client", async move {
            let peer = slow.remote_addr.clone();
            let (line, early) = match upgrade.await {
                Ok(upgraded) => ClientLine::new(upgraded),
                Err(error) => {
                    debug!(%peer, %error, "client left during the upgrade");
                    return;
                }
            };
            let on_slow = Box::new(move || {
                warn!(
                    "Doppler Proxy: Slow Consumer from {} using {}",
                    slow.remote_addr, slow.path
                );
                slow_consumers.report(slow);
            });
            let relay = Relay::new(line, early, subscribed, timing, over, on_slow).await;
            let end = relay.run().await;
            debug!(%peer, end = end.name(), "client's stream ended");
            drop(slot);
        });
    }
}

/// What is asked of the access control, at first and again.
struct Question {
    access: Arc<dyn AccessControl>,
    who: Credentials,
    /// The application; `None`: everything.
    app_id: Option<String>,
}

impl Question {
    async fn ask(&self) -> Result<Allowed, Denied> {
        match &self.app_id {
            Some(app_id) => self.access.app_stream(app_id, &self.who).await,
            None => self.access.firehose(&self.who).await,
        }
    }
}

/// The header's values, as the report of a slow consumer shows them.
fn forwarded_for(headers: &HeaderMap) -> String {
    let values = headers.get_all(FORWARDED_FOR).iter();
    let texts: Vec<_> = values
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::access::Verdict;
    use crate::upstream::Batches;

    /// Lets everybody in for a moment, until it does not.
    #[derive(Debug, Default)]
    struct Fickle {
        denies: AtomicBool,
    }

    impl Fickle {
        fn verdict(&self) -> Verdict<'_> {
            let verdict = if self.denies.load(Ordering::SeqCst) {
                Err(Denied::Refused)
            } else {
                Ok(BRIEFLY)
            };
            Box::pin(std::future::ready(verdict))
        }
    }

    impl AccessControl for Fickle {
        fn firehose<'a>(&'a self, _: &'a Credentials) -> Verdict<'a> {
            self.verdict()
        }

        fn app_stream<'a>(&'a self, _: &'a str, _: &'a Credentials) -> Verdict<'a> {
            self.verdict()
        }

        fn sources<'a>(&'a self, _: &'a [String], _: &'a Credentials) -> Verdict<'a> {
            self.verdict()
        }
    }

    const BRIEFLY: Allowed = Allowed {
        recheck_after: Some(Duration::from_millis(1)),
    };

    struct Nobody;

    impl Upstream<SubscriptionRequest> for Nobody {
        fn subscribe(&self, _: SubscriptionRequest) -> Box<dyn Batches> {
            panic!("nobody subscribes here")
        }
    }

    fn front(access: Arc<Fickle>) -> Front {
        Front {
            access,
            upstream: Arc::new(Nobody),
            accounts: Accounts::new(PROGRAM, "test".to_owned(), 1),
            requests: Arc::default(),
            slots: Arc::new(Semaphore::new(1)),
            max_subscriptions: 1,
            timing: Timing::default(),
            slow_consumers: SlowConsumers::nowhere(),
            recheck_patience: Duration::from_secs(60),
            cookies: Cookies::default(),
            security_log: None,
            lifecycle: Lifecycle::new(),
            stop: CancellationToken::new(),
        }
    }

    fn over(front: &Front, app_id: Option<&str>, allowed: Allowed) -> Over {
        let question = Question {
            access: Arc::clone(&front.access),
            who: Credentials::from_headers(&HeaderMap::new()),
            app_id: app_id.map(str::to_owned),
        };
        front.over(question, allowed, "10.1.2.3:4".parse().unwrap())
    }

    #[tokio::test]
    async fn a_token_that_ends_ends_the_stream() {
        let access = Arc::new(Fickle::default());
        let front = front(Arc::clone(&access));
        for app_id in [None, Some("app")] {
            access.denies.store(false, Ordering::SeqCst);
            let mut over = over(&front, app_id, BRIEFLY);
            let asked_again = tokio::time::timeout(Duration::from_millis(250), &mut over).await;
            assert!(asked_again.is_err(), "it goes on while it may");
            access.denies.store(true, Ordering::SeqCst);
            assert_eq!(over.await, End::Denied);
        }
    }

    #[tokio::test]
    async fn a_stop_ends_every_stream() {
        let front = front(Arc::default());
        let streams = [BRIEFLY, Allowed::default()].map(|allowed| over(&front, None, allowed));
        front.stop.cancel();
        for over in streams {
            assert_eq!(over.await, End::Stopped);
        }
    }
}
