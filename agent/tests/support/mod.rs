//! Certificates, a doppler that remembers what it was sent, and an agent in front of it.

#![allow(dead_code)] // each test file uses its part

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use loggregator_agent::{Config, Running, start};
use loggregator_client::{AGENT, Connector};
use loggregator_net::grpc::{Request, Response, Server, ServerSettings, Service, Status};
use loggregator_net::{ClientTls, Profile, ServerTls, TlsFiles};
use loggregator_proto::v2::{self, EnvelopeBatch, envelope::Message};
use loggregator_service::Lifecycle;
use loggregator_service::lifecycle::DrainReport;
use parking_lot::Mutex;
use prost::Message as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A certificate authority and the identities of an agent and a doppler.
pub struct Certificates {
    dir: TempDir,
}

impl Certificates {
    pub fn new() -> Certificates {
        let dir = TempDir::new().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
        for name in ["metron", "doppler"] {
            let mut params = CertificateParams::new([name.to_owned()]).unwrap();
            params.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
            let key = KeyPair::generate().unwrap();
            let cert = params.signed_by(&key, &ca).unwrap();
            std::fs::write(dir.path().join(format!("{name}.pem")), cert.pem()).unwrap();
            std::fs::write(dir.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        Certificates { dir }
    }

    pub fn files(&self, name: &str) -> TlsFiles {
        let path = |file: &str| self.dir.path().join(file);
        TlsFiles {
            ca: path("ca.pem"),
            cert: path(&format!("{name}.pem")),
            key: path(&format!("{name}.key")),
        }
    }

    pub fn folder(&self) -> &Path {
        self.dir.path()
    }
}

/// Takes what it is sent; can be killed.
pub struct FakeDoppler {
    pub addr: SocketAddr,
    pub received: Arc<Mutex<Vec<v2::Envelope>>>,
    runtime: Option<Runtime>,
}

impl FakeDoppler {
    pub fn start(certificates: &Certificates) -> FakeDoppler {
        FakeDoppler::at("127.0.0.1:0".parse().unwrap(), certificates)
    }

    pub fn at(addr: SocketAddr, certificates: &Certificates) -> FakeDoppler {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let received: Arc<Mutex<Vec<v2::Envelope>>> = Arc::default();
        let server = {
            let _inside = runtime.enter();
            Server::bind(addr).unwrap()
        };
        let addr = server.local_addr();
        let tls = ServerTls::mutual(&certificates.files("doppler"), Profile::Grpc).unwrap();
        let service = Arc::new(Ingress(Arc::clone(&received)));
        runtime.spawn(server.serve(
            Some(tls),
            service,
            ServerSettings::default(),
            CancellationToken::new(),
        ));
        FakeDoppler {
            addr,
            received,
            runtime: Some(runtime),
        }
    }

    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            let ending =
                std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(5)));
            ending.join().unwrap();
        }
    }

    /// Log lines of a source, in order.
    pub fn lines(&self, source_id: &str) -> Vec<String> {
        let received = self.received.lock();
        let of_source = received.iter().filter(|e| e.source_id == source_id);
        of_source
            .filter_map(payload)
            .map(|p| String::from_utf8_lossy(&p).into_owned())
            .collect()
    }

    /// How many envelopes besides what agents say about themselves.
    pub fn count(&self) -> u64 {
        self.received
            .lock()
            .iter()
            .filter(|e| e.source_id != "metron")
            .count() as u64
    }

    /// The sum of the notices with this reason.
    pub fn told(&self, reason: &str) -> u64 {
        let received = self.received.lock();
        let notices = received
            .iter()
            .filter(|e| e.source_id == "metron" && e.tags["reason"] == reason);
        notices
            .map(|e| match &e.message {
                Some(Message::Counter(c)) if c.name == "dropped" => c.delta,
                other => panic!("{other:?}"),
            })
            .sum()
    }
}

impl Drop for FakeDoppler {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub fn payload(envelope: &v2::Envelope) -> Option<Bytes> {
    match &envelope.message {
        Some(Message::Log(log)) => Some(log.payload.clone()),
        _ => None,
    }
}

struct Ingress(Arc<Mutex<Vec<v2::Envelope>>>);

impl Service for Ingress {
    fn call(&self, mut request: Request) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        let received = Arc::clone(&self.0);
        Box::pin(async move {
            loop {
                match request.messages.next().await {
                    Some(Ok(message)) => received
                        .lock()
                        .extend(EnvelopeBatch::decode(message).unwrap().batch),
                    Some(Err(status)) => return Response::Status(status),
                    // As the Go doppler ends it.
                    None => {
                        return Response::Status(Status::new(
                            loggregator_net::grpc::Code::Unknown,
                            "EOF",
                        ));
                    }
                }
            }
        })
    }
}

/// An agent and what is needed to talk to it.
pub struct Agent {
    pub running: Running,
    pub lifecycle: Lifecycle,
    pub connector: Connector,
}

impl Agent {
    /// Every port chosen by the kernel, then as `change` says.
    pub async fn start(
        certificates: &Certificates,
        dopplers: &[SocketAddr],
        change: impl FnOnce(&mut Config),
    ) -> Agent {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut config = Config {
            grpc_addr: any,
            udp_addr: Some(any),
            syslog_udp: Some(any),
            syslog_tcp: Some(any),
            admin_addr: Some(any),
            tls: certificates.files("metron"),
            dopplers: dopplers.iter().map(SocketAddr::to_string).collect(),
            notice_interval: Duration::from_millis(20),
            ..Config::default()
        };
        config.lines.poll_interval = Duration::from_millis(5);
        change(&mut config);
        let lifecycle = Lifecycle::new();
        let running = start(config, &lifecycle).await.unwrap();
        let tls = ClientTls::mutual(&certificates.files("doppler")).unwrap();
        Agent {
            running,
            lifecycle,
            connector: Connector::new(AGENT, Some(tls)),
        }
    }

    pub async fn stop(&self) -> DrainReport {
        self.lifecycle.shutdown(PATIENCE).await
    }

    /// Asserts that every envelope is accounted for and returns (accepted, delivered, dropped, pending).
    pub fn ledger(&self) -> (u64, u64, u64, u64) {
        let report = self.running.ledger.report();
        assert!(report.balanced(), "{report:#?}");
        let sum = |of: fn(&loggregator_service::ledger::Subscription) -> u64| {
            report.subscriptions.iter().map(of).sum()
        };
        let totals: (u64, u64, u64) = (
            sum(|s| s.delivered),
            sum(|s| s.dropped_total()),
            sum(|s| s.pending),
        );
        assert_eq!(
            report.ingress.accepted,
            totals.0 + totals.1 + totals.2,
            "{report:#?}"
        );
        (report.ingress.accepted, totals.0, totals.1, totals.2)
    }

    pub fn rejected(&self, reason: &str) -> u64 {
        self.running
            .ledger
            .report()
            .ingress
            .rejected
            .get(reason)
            .copied()
            .unwrap_or_default()
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
