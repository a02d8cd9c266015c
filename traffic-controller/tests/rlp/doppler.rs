//! A doppler, as far as a reverse log proxy sees one: it answers `BatchedReceiver` with what the test says, and nothing else.

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
    Message, MessageSource, Receipt, Request, Response, Server, ServerSettings, Service,
};
use loggregator_net::{Profile, ServerTls};
use loggregator_proto::rpc;
use loggregator_proto::v2::{EgressBatchRequest, Envelope, EnvelopeBatch};
use parking_lot::Mutex;
use prost::Message as _;
use tokio_util::sync::CancellationToken;

use crate::certs::Certs;
use crate::rig::until;

/// One subscription that was made.
#[derive(Default)]
pub struct Subscription {
    pub request: EgressBatchRequest,
    state: Mutex<State>,
    /// Messages that the connection took.
    pub taken: AtomicU64,
    /// The stream is over: the client cancelled it or its connection is gone.
    pub gone: AtomicBool,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Bytes>,
    waker: Option<Waker>,
}

impl Subscription {
    /// Sends these envelopes as one message.
    pub fn send(&self, batch: &[Envelope]) {
        let batch = batch.to_vec();
        self.send_bytes(EnvelopeBatch { batch }.encode_to_vec().into());
    }

    pub fn send_bytes(&self, message: Bytes) {
        let mut state = self.state.lock();
        state.queue.push_back(message);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Messages that nobody has taken.
    pub fn left(&self) -> usize {
        self.state.lock().queue.len()
    }

    pub async fn cancelled(&self) {
        until("the subscription is cancelled", || {
            self.gone.load(Ordering::SeqCst)
        })
        .await;
    }
}

struct Source(Arc<Subscription>);

struct Taken(Arc<Subscription>);

impl Receipt for Taken {
    fn settle(self: Box<Self>, delivered: bool) {
        self.0
            .taken
            .fetch_add(u64::from(delivered), Ordering::SeqCst);
    }
}

impl MessageSource for Source {
    fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Message, loggregator_net::grpc::Status>>> {
        let mut state = self.0.state.lock();
        if let Some(message) = state.queue.pop_front() {
            let receipt = Box::new(Taken(Arc::clone(&self.0)));
            return Poll::Ready(Some(Ok(Message::from(message).with_receipt(receipt))));
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
            assert_eq!(request.path, rpc::EGRESS_BATCHED_RECEIVER);
            let message = request.messages.next().await.unwrap().unwrap();
            let subscription = Arc::new(Subscription {
                request: EgressBatchRequest::decode(message).unwrap(),
                ..Subscription::default()
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
            early_headers: true,
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

    pub fn subscriptions(&self) -> usize {
        self.subscriptions.lock().len()
    }
}

impl Drop for Doppler {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
