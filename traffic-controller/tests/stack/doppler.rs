//! A doppler, as far as a traffic controller sees one: it answers `BatchSubscribe` with what the test says, and nothing else.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use loggregator_net::grpc::{
    Code, Message, MessageSource, Request, Response, Server, ServerSettings, Service, Status,
};
use loggregator_net::{Profile, ServerTls};
use loggregator_proto::plumbing::{BatchResponse, SubscriptionRequest};
use loggregator_proto::rpc;
use parking_lot::Mutex;
use prost::Message as _;
use tokio_util::sync::CancellationToken;

use crate::certs::Certs;
use crate::rig::until;

/// One subscription that was made.
pub struct Subscription {
    pub request: SubscriptionRequest,
    state: Mutex<State>,
    /// Messages that the connection took.
    pub taken: AtomicU64,
    /// The stream is over: the client cancelled it or its connection is gone.
    pub gone: AtomicBool,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Bytes>,
    /// Sent again and again when the queue is empty.
    endless: Option<Bytes>,
    ended: bool,
    waker: Option<Waker>,
}

impl Subscription {
    /// Sends these payloads as one message.
    pub fn send(&self, payloads: &[&[u8]]) {
        let payload = payloads
            .iter()
            .map(|payload| Bytes::copy_from_slice(payload))
            .collect();
        let message = BatchResponse { payload }.encode_to_vec();
        self.change(|state| state.queue.push_back(message.into()));
    }

    /// From now on sends this message whenever there is room.
    pub fn flood(&self, payloads: &[&[u8]]) {
        let payload = payloads
            .iter()
            .map(|payload| Bytes::copy_from_slice(payload))
            .collect();
        let message = BatchResponse { payload }.encode_to_vec();
        self.change(|state| state.endless = Some(message.into()));
    }

    /// Ends the stream with OK.
    pub fn end(&self) {
        self.change(|state| state.ended = true);
    }

    pub async fn cancelled(&self) {
        until("the subscription is cancelled", || {
            self.gone.load(Ordering::SeqCst)
        })
        .await;
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

struct Source(Arc<Subscription>);

impl MessageSource for Source {
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Status>>> {
        let mut state = self.0.state.lock();
        let next = state.queue.pop_front().or_else(|| state.endless.clone());
        if let Some(message) = next {
            self.0.taken.fetch_add(1, Ordering::SeqCst);
            return Poll::Ready(Some(Ok(message.into())));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.0.gone.store(true, Ordering::SeqCst);
    }
}

/// The subscriptions of one run of a doppler, in the order in which they came.
type Subscriptions = Arc<Mutex<Vec<Arc<Subscription>>>>;

struct Calls(Subscriptions);

impl Service for Calls {
    fn call(&self, mut request: Request) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        let subscriptions = Arc::clone(&self.0);
        Box::pin(async move {
            if request.path != rpc::DOPPLER_BATCH_SUBSCRIBE {
                return Response::Status(Status::new(Code::Unimplemented, request.path));
            }
            let message = request.messages.next().await.unwrap().unwrap();
            let subscription = Arc::new(Subscription {
                request: SubscriptionRequest::decode(message).unwrap(),
                state: Mutex::default(),
                taken: AtomicU64::new(0),
                gone: AtomicBool::new(false),
            });
            subscriptions.lock().push(Arc::clone(&subscription));
            Response::Stream(Box::new(Source(subscription)))
        })
    }
}

/// One doppler. Dropping it stops it.
pub struct Doppler {
    pub addr: SocketAddr,
    subscriptions: Subscriptions,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Doppler {
    /// Starts one on a free port.
    pub fn start(certs: &Certs) -> Self {
        Self::start_at(certs, "127.0.0.1:0".parse().unwrap())
    }

    pub fn start_at(certs: &Certs, addr: SocketAddr) -> Self {
        let server = Server::bind(addr).unwrap();
        let addr = server.local_addr();
        let tls = ServerTls::mutual(&certs.of("doppler"), Profile::Grpc).unwrap();
        let subscriptions = Subscriptions::default();
        let service = Arc::new(Calls(Arc::clone(&subscriptions)));
        let settings = ServerSettings {
            drain_timeout: Duration::ZERO,
            ..ServerSettings::default()
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(server.serve(Some(tls), service, settings, stop.clone()));
        Self {
            addr,
            subscriptions,
            stop,
            task,
        }
    }

    /// Stops it; all its connections are cut.
    pub async fn kill(mut self) -> SocketAddr {
        self.stop.cancel();
        (&mut self.task).await.unwrap();
        self.addr
    }

    /// The `n`th subscription that is made, counted from 0.
    pub async fn subscription(&self, n: usize) -> Arc<Subscription> {
        until("a subscription", || self.subscriptions.lock().len() > n).await;
        Arc::clone(&self.subscriptions.lock()[n])
    }

    /// The latest subscription with this shard id.
    pub async fn of_shard(&self, shard_id: &str) -> Arc<Subscription> {
        let find = || {
            let subscriptions = self.subscriptions.lock();
            subscriptions
                .iter()
                .rev()
                .find(|one| one.request.shard_id == shard_id)
                .cloned()
        };
        until("a subscription of the shard", || find().is_some()).await;
        find().unwrap()
    }

    pub fn subscriptions(&self) -> usize {
        self.subscriptions.lock().len()
    }
}

impl Drop for Doppler {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
