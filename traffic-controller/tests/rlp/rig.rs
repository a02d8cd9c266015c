//! A reverse log proxy with its dopplers, and a client.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use loggregator_client::{Connector, REVERSE_LOG_PROXY};
use loggregator_net::ClientTls;
use loggregator_net::grpc::{Channel, Code, Messages};
use loggregator_proto::rpc;
use loggregator_proto::v2::selector::Message as Kind;
use loggregator_proto::v2::{
    EgressBatchRequest, Envelope, EnvelopeBatch, Log, LogSelector, Selector, envelope,
};
use loggregator_service::Lifecycle;
use loggregator_service::ledger::Report;
use prost::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};
use traffic_controller::rlp::{Config, Running, start};

use crate::certs::Certs;
use crate::doppler::Doppler;

/// How long anything may take on a busy machine before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for a condition.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "still not: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for a future, but not for ever.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("still not: {what}"))
}

pub fn any_log() -> Selector {
    Selector {
        source_id: String::new(),
        message: Some(Kind::Log(LogSelector {})),
    }
}

/// A request for all logs, tags in `tags`.
pub fn logs() -> EgressBatchRequest {
    EgressBatchRequest {
        use_preferred_tags: true,
        selectors: vec![any_log()],
        ..EgressBatchRequest::default()
    }
}

/// A log line.
pub fn line(text: impl Into<Vec<u8>>) -> Envelope {
    Envelope {
        source_id: "app".to_owned(),
        message: Some(envelope::Message::Log(Log {
            payload: text.into().into(),
            ..Log::default()
        })),
        ..Envelope::default()
    }
}

/// The text of a log line.
pub fn text(envelope: &Envelope) -> String {
    match &envelope.message {
        Some(envelope::Message::Log(log)) => String::from_utf8_lossy(&log.payload).into_owned(),
        other => panic!("no log: {other:?}"),
    }
}

pub struct Rig {
    pub certs: Certs,
    pub dopplers: Vec<Doppler>,
    pub running: Running,
    pub lifecycle: Lifecycle,
}

impl Rig {
    /// A proxy and one doppler.
    pub async fn new() -> Self {
        Self::with(1, |_, _| {}).await
    }

    /// As [`Rig::new`], with so many dopplers and a changed configuration.
    pub async fn with(dopplers: usize, change: impl FnOnce(&mut Config, &Certs)) -> Self {
        let certs = Certs::new();
        let dopplers: Vec<_> = (0..dopplers).map(|_| Doppler::start(&certs)).collect();
        let mut config = Config {
            grpc_addr: "127.0.0.1:0".parse().unwrap(),
            dopplers: dopplers
                .iter()
                .map(|doppler| doppler.addr.to_string())
                .collect(),
            tls: certs.of("reverselogproxy"),
            admin_addr: Some("127.0.0.1:0".parse().unwrap()),
            ..Config::default()
        };
        change(&mut config, &certs);
        let lifecycle = Lifecycle::new();
        let running = start(config, &lifecycle).await.unwrap();
        Self {
            certs,
            dopplers,
            running,
            lifecycle,
        }
    }

    pub fn doppler(&self) -> &Doppler {
        &self.dopplers[0]
    }

    /// A client's connection of its own.
    pub fn channel(&self) -> Channel {
        let tls = ClientTls::mutual(&self.certs.of("metron")).unwrap();
        Connector::new(REVERSE_LOG_PROXY, Some(tls)).channel(&self.running.grpc_addr.to_string())
    }

    /// Subscribes on a connection of its own; the subscription stands when this returns.
    pub async fn read(&self, request: EgressBatchRequest) -> Client {
        let mut client = self.call(rpc::EGRESS_BATCHED_RECEIVER, &request).await;
        soon("the stream is open", client.messages.opened())
            .await
            .unwrap();
        client
    }

    /// Makes a call.
    pub async fn call(&self, path: &'static str, request: &impl prost::Message) -> Client {
        let channel = self.channel();
        let request = request.encode_to_vec().into();
        let messages = soon("the call is made", channel.server_stream(path, request))
            .await
            .unwrap();
        Client {
            messages,
            _channel: channel,
        }
    }

    /// What the admin port says at `/ledger`.
    pub async fn ledger(&self) -> Report {
        serde_json::from_str(&get(self.running.admin_addr.unwrap(), "/ledger").await).unwrap()
    }

    pub async fn metrics(&self) -> String {
        get(self.running.admin_addr.unwrap(), "/metrics").await
    }

    /// Waits until the ledger holds what is asked for, and returns it; it must balance.
    pub async fn ledger_when(&self, what: &str, holds: impl Fn(&Report) -> bool) -> Report {
        let started = Instant::now();
        loop {
            let report = self.ledger().await;
            if holds(&report) {
                assert!(report.balanced(), "{report:?}");
                return report;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "still not: {what}: {report:?}"
            );
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Body of a GET of the admin port.
async fn get(addr: SocketAddr, path: &str) -> String {
    let mut io = tokio::net::TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    io.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// One stream.
pub struct Client {
    pub messages: Messages,
    _channel: Channel,
}

impl Client {
    /// The envelopes of the next message.
    pub async fn batch(&mut self) -> Vec<Envelope> {
        let message = soon("a batch", self.messages.next()).await.unwrap();
        EnvelopeBatch::decode(message.unwrap()).unwrap().batch
    }

    /// So many envelopes, of however many messages.
    pub async fn envelopes(&mut self, count: usize) -> Vec<Envelope> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(self.batch().await);
        }
        assert_eq!(all.len(), count);
        all
    }

    /// How the stream ends; there must be no message before that.
    pub async fn end(&mut self) -> (Code, String) {
        match soon("the end", self.messages.next()).await {
            None => (Code::Ok, String::new()),
            Some(Err(status)) => (status.code, status.message),
            Some(Ok(message)) => panic!("a message: {message:?}"),
        }
    }
}
