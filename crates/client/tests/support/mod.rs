//! A doppler that takes what it is sent and sends what it is told, and can be killed.
#![allow(dead_code)] // each test file uses its part

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use loggregator_net::grpc::{
    Message, MessageSource, Request, Response, Server, ServerSettings, Service, Status,
};
use loggregator_proto::{rpc, v2};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What fake dopplers of one test have in common; it outlives them.
#[derive(Default)]
pub struct Seen {
    pub batches: Mutex<Vec<v2::EnvelopeBatch>>,
    pub requests: Mutex<Vec<(String, Bytes)>>,
    /// While true, streams are accepted and not read.
    pub stalled: Mutex<bool>,
}

impl Seen {
    pub fn payloads(&self) -> Vec<String> {
        let batches = self.batches.lock();
        batches.iter().flat_map(|b| &b.batch).map(payload).collect()
    }

    pub fn envelopes(&self) -> usize {
        self.batches.lock().iter().map(|b| b.batch.len()).sum()
    }
}

pub fn payload(envelope: &v2::Envelope) -> String {
    match &envelope.message {
        Some(v2::envelope::Message::Log(log)) => String::from_utf8(log.payload.to_vec()).unwrap(),
        other => format!("{other:?}"),
    }
}

pub struct FakeDoppler {
    pub addr: SocketAddr,
    pub seen: Arc<Seen>,
    outgoing: Arc<Outgoing>,
    runtime: Option<Runtime>,
}

impl FakeDoppler {
    pub fn start() -> FakeDoppler {
        FakeDoppler::at("127.0.0.1:0".parse().unwrap(), &[])
    }

    /// At this address, without these methods.
    pub fn at(addr: SocketAddr, unknown: &'static [&'static str]) -> FakeDoppler {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (seen, outgoing): (Arc<Seen>, Arc<Outgoing>) = Default::default();
        let service = Arc::new(Doppler {
            seen: Arc::clone(&seen),
            outgoing: Arc::clone(&outgoing),
            unknown,
        });
        let server = {
            let _inside = runtime.enter();
            Server::bind(addr).unwrap()
        };
        let addr = server.local_addr();
        runtime.spawn(server.serve(
            None,
            service,
            ServerSettings::default(),
            CancellationToken::new(),
        ));
        FakeDoppler {
            addr,
            seen,
            outgoing,
            runtime: Some(runtime),
        }
    }

    /// Sends a message to the subscribers, or keeps it for the first to come.
    pub fn publish(&self, message: Bytes) {
        let mut queue = self.outgoing.queue.lock();
        queue.0.push_back(Ok(message));
        queue.1.drain(..).for_each(Waker::wake);
    }

    /// Whether the subscribers' connections took everything that was published.
    pub fn published_all(&self) -> bool {
        self.outgoing.queue.lock().0.is_empty()
    }

    /// Ends one subscription with this status.
    pub fn fail(&self, status: Status) {
        let mut queue = self.outgoing.queue.lock();
        queue.0.push_back(Err(status));
        queue.1.drain(..).for_each(Waker::wake);
    }

    /// As SIGKILL: connections break, nothing is flushed.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A runtime must not be ended from inside another one.
            let ending =
                std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(5)));
            ending.join().unwrap();
        }
    }
}

impl Drop for FakeDoppler {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

type Queue = (VecDeque<Result<Bytes, Status>>, Vec<Waker>);

#[derive(Default)]
struct Outgoing {
    queue: Mutex<Queue>,
}

struct Doppler {
    seen: Arc<Seen>,
    outgoing: Arc<Outgoing>,
    unknown: &'static [&'static str],
}

impl Service for Doppler {
    fn call(&self, mut request: Request) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        let (seen, outgoing) = (Arc::clone(&self.seen), Arc::clone(&self.outgoing));
        if self.unknown.contains(&request.path.as_str()) {
            return Box::pin(async { Response::Status(Status::unimplemented("no")) });
        }
        Box::pin(async move {
            if request.path != rpc::INGRESS_BATCH_SENDER {
                let message = request.messages.next().await.unwrap().unwrap();
                seen.requests.lock().push((request.path, message));
                return Response::Stream(Box::new(Subscription(outgoing)));
            }
            loop {
                while *seen.stalled.lock() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                match request.messages.next().await {
                    Some(Ok(message)) => seen
                        .batches
                        .lock()
                        .push(v2::EnvelopeBatch::decode(message).unwrap()),
                    Some(Err(status)) => return Response::Status(status),
                    None => return Response::Unary(Ok(Bytes::new())),
                }
            }
        })
    }
}

struct Subscription(Arc<Outgoing>);

impl MessageSource for Subscription {
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Status>>> {
        let mut queue = self.0.queue.lock();
        match queue.0.pop_front() {
            Some(outcome) => Poll::Ready(Some(outcome.map(Message::from))),
            None => {
                queue.1.push(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Waits until the condition holds.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, waiting).await.is_ok(),
        "timed out waiting until {what}"
    );
}
