//! A doppler in this process and the clients that drive it.

mod envelopes;
mod pki;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use doppler::{Config, Running};
use loggregator_net::ClientTls;
use loggregator_net::grpc::{
    Channel, ClientSender, ClientSettings, Endpoint, Messages, PendingResponse, Status,
};
use loggregator_proto::{events, plumbing, rpc, v2};
use loggregator_service::Lifecycle;
use loggregator_service::ledger::{Report, Subscription};
use loggregator_service::lifecycle::DrainReport;
use prost::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub use envelopes::*;
pub use pki::Pki;

/// How long a condition may take to come true. Far above what it ever takes.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing must happen where nothing is expected.
pub const QUIET: Duration = Duration::from_millis(300);

/// A running doppler.
pub struct Doppler {
    pub running: Running,
    pub lifecycle: Lifecycle,
    pub tls: Arc<ClientTls>,
}

impl Doppler {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A doppler without own metrics and with a small log, changed by `change`.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let pki = Pki::shared();
        let mut config = Config {
            grpc_addr: "127.0.0.1:0".parse().unwrap(),
            tls: pki.doppler(),
            log_bytes: 64 << 20,
            metric_interval: Duration::ZERO,
            ..Config::default()
        };
        change(&mut config);
        let lifecycle = Lifecycle::new();
        let running = doppler::start(config, &lifecycle).unwrap();
        Self {
            running,
            lifecycle,
            tls: pki.client_tls(),
        }
    }

    /// A new connection.
    pub fn connect(&self) -> Client {
        self.connect_with(ClientSettings::default())
    }

    pub fn connect_with(&self, settings: ClientSettings) -> Client {
        let endpoint = Endpoint {
            addr: self.running.grpc_addr.to_string(),
            server_name: "doppler".to_owned(),
            tls: Some(Arc::clone(&self.tls)),
            settings,
        };
        Client {
            channel: Channel::new(endpoint),
        }
    }

    /// A connection with this identity, to a server of this name.
    pub fn channel(&self, tls: Arc<ClientTls>, server_name: &str) -> Channel {
        Channel::new(Endpoint {
            addr: self.running.grpc_addr.to_string(),
            server_name: server_name.to_owned(),
            tls: Some(tls),
            settings: ClientSettings::default(),
        })
    }

    /// Asks the admin port; status and body.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let addr = self.running.admin_addr.expect("an admin port");
        let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within("an answer", stream.read_to_string(&mut answer))
            .await
            .unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .expect("a status");
        (status, body.to_owned())
    }

    pub fn report(&self) -> Report {
        self.running.report()
    }

    /// Waits until `count` subscriptions are open.
    pub async fn subscribed(&self, count: usize) {
        eventually("subscriptions to be registered", || {
            let open = self
                .report()
                .subscriptions
                .iter()
                .filter(|s| s.open)
                .count();
            (open == count).then_some(())
        })
        .await;
    }

    /// The ledger of the one subscription with this id, once nothing of it is pending.
    pub async fn settled(&self, id: &str) -> Subscription {
        eventually("the subscription to be at rest", || {
            let mut found = self
                .report()
                .subscriptions
                .into_iter()
                .filter(|s| s.id == id);
            let subscription = found.next()?;
            assert!(found.next().is_none(), "two subscriptions {id:?}");
            (subscription.pending == 0).then_some(subscription)
        })
        .await
    }

    pub async fn stop(&self) -> DrainReport {
        self.lifecycle.shutdown(PATIENCE).await
    }

    /// The equation that holds whatever happened.
    pub fn assert_balanced(&self) {
        let report = self.report();
        assert!(report.ingress.balanced(), "{:?}", report.ingress);
        for subscription in &report.subscriptions {
            assert!(subscription.balanced(), "{subscription:?}");
        }
    }
}

/// One connection to a doppler.
#[derive(Clone)]
pub struct Client {
    pub channel: Channel,
}

impl Client {
    /// A `BatchedReceiver` stream.
    pub async fn batched(&self, request: v2::EgressBatchRequest) -> V2Reader {
        let messages = self
            .channel
            .server_stream(rpc::EGRESS_BATCHED_RECEIVER, encode(&request))
            .await
            .unwrap();
        V2Reader { messages }
    }

    /// A v1 `Subscribe` stream.
    pub async fn subscribe(&self, request: plumbing::SubscriptionRequest) -> V1Reader {
        let messages = self
            .channel
            .server_stream(rpc::DOPPLER_SUBSCRIBE, encode(&request))
            .await
            .unwrap();
        V1Reader { messages }
    }

    /// A v1 `BatchSubscribe` stream.
    pub async fn batch_subscribe(&self, request: plumbing::SubscriptionRequest) -> V1Reader {
        let messages = self
            .channel
            .server_stream(rpc::DOPPLER_BATCH_SUBSCRIBE, encode(&request))
            .await
            .unwrap();
        V1Reader { messages }
    }

    pub async fn batch_sender(&self) -> Sender {
        self.sender(rpc::INGRESS_BATCH_SENDER).await
    }

    /// One batch on a stream of its own; taken when this returns.
    pub async fn send_batch(&self, envelopes: Vec<v2::Envelope>) {
        self.send_once(
            rpc::INGRESS_BATCH_SENDER,
            &v2::EnvelopeBatch { batch: envelopes },
        )
        .await;
    }

    /// One dropsonde envelope on a stream of its own.
    pub async fn push_once(&self, envelope: &events::Envelope) {
        let data = plumbing::EnvelopeData {
            payload: encode(envelope),
        };
        self.send_once(rpc::DOPPLER_INGESTOR_PUSHER, &data).await;
    }

    /// One message on a stream of its own.
    pub async fn send_once(&self, path: &'static str, message: &impl prost::Message) {
        self.raw_once(path, encode(message)).await;
    }

    pub async fn raw_once(&self, path: &'static str, message: impl Into<Bytes>) {
        let mut sender = self.sender(path).await;
        sender.raw(message).await;
        assert_eq!(sender.finish().await, Ok(Some(Bytes::new())));
    }

    pub async fn sender(&self, path: &'static str) -> Sender {
        let (sender, response) = self.channel.client_stream(path).await.unwrap();
        Sender { sender, response }
    }
}

/// An ingress stream.
pub struct Sender {
    pub sender: ClientSender,
    pub response: PendingResponse,
}

impl Sender {
    pub async fn send(&mut self, message: &impl prost::Message) {
        self.raw(encode(message)).await;
    }

    pub async fn raw(&mut self, message: impl Into<Bytes>) {
        self.sender
            .send(message.into())
            .await
            .expect("the doppler takes messages");
    }

    pub async fn batch(&mut self, envelopes: Vec<v2::Envelope>) {
        self.send(&v2::EnvelopeBatch { batch: envelopes }).await;
    }

    pub async fn push(&mut self, envelope: &events::Envelope) {
        self.send(&plumbing::EnvelopeData {
            payload: encode(envelope),
        })
        .await;
    }

    /// Half-closes and waits for the answer.
    pub async fn finish(self) -> Result<Option<Bytes>, Status> {
        drop(self.sender);
        within("the answer of the stream", self.response.wait()).await
    }
}

/// A stream of `EnvelopeBatch`es.
pub struct V2Reader {
    pub messages: Messages,
}

impl V2Reader {
    pub async fn batch(&mut self) -> Vec<v2::Envelope> {
        let bytes = within("a batch", self.messages.next())
            .await
            .expect("an open stream")
            .expect("a batch");
        v2::EnvelopeBatch::decode(bytes)
            .expect("an EnvelopeBatch")
            .batch
    }

    /// The next `count` envelopes.
    pub async fn take(&mut self, count: usize) -> Vec<v2::Envelope> {
        let mut envelopes = Vec::with_capacity(count);
        while envelopes.len() < count {
            envelopes.extend(self.batch().await);
        }
        assert_eq!(envelopes.len(), count, "more than was waited for");
        envelopes
    }

    /// Envelopes up to the first that `end` is true for, that one included.
    pub async fn until(&mut self, end: impl Fn(&v2::Envelope) -> bool) -> Vec<v2::Envelope> {
        let mut envelopes = Vec::new();
        while !envelopes.last().is_some_and(&end) {
            envelopes.extend(self.batch().await);
        }
        envelopes
    }

    pub async fn nothing_more(&mut self) {
        if let Ok(message) = tokio::time::timeout(QUIET, self.messages.next()).await {
            panic!(
                "unexpected: {:?}",
                message.map(|m| m.map(v2::EnvelopeBatch::decode))
            );
        }
    }

    pub async fn end(&mut self) -> Option<Status> {
        end(&mut self.messages).await
    }
}

/// A stream of `Response`s or `BatchResponse`s, whose encodings read the same.
pub struct V1Reader {
    pub messages: Messages,
}

impl V1Reader {
    /// The payloads of the next message.
    pub async fn payloads(&mut self) -> Vec<Bytes> {
        let bytes = within("a payload", self.messages.next())
            .await
            .expect("an open stream")
            .expect("a message");
        plumbing::BatchResponse::decode(bytes)
            .expect("a BatchResponse")
            .payload
    }

    pub async fn take(&mut self, count: usize) -> Vec<events::Envelope> {
        let mut envelopes = Vec::new();
        while envelopes.len() < count {
            let payloads = self.payloads().await;
            envelopes.extend(
                payloads
                    .into_iter()
                    .map(|p| events::Envelope::decode(p).expect("a v1 envelope")),
            );
        }
        assert_eq!(envelopes.len(), count, "more than was waited for");
        envelopes
    }

    pub async fn nothing_more(&mut self) {
        if let Ok(message) = tokio::time::timeout(QUIET, self.messages.next()).await {
            panic!(
                "unexpected: {:?}",
                message.map(|m| m.map(plumbing::BatchResponse::decode))
            );
        }
    }
}

/// Reads a stream to its end; its error, or `None` for OK.
pub async fn end(messages: &mut Messages) -> Option<Status> {
    loop {
        match within("the end of the stream", messages.next()).await {
            Some(Ok(_)) => {}
            Some(Err(status)) => return Some(status),
            None => return None,
        }
    }
}

pub fn encode(message: &impl prost::Message) -> Bytes {
    Bytes::from(message.encode_to_vec())
}

/// Waits for a future, not for ever.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// Waits until `look` finds something.
pub async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
}
