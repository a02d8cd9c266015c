//! Throw-away certificates and small services for the tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic in a test is the report"
)]
#![allow(dead_code, reason = "every test binary uses a part")]

use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use loggregator_net::grpc::{
    Channel, ClientSettings, Code, Endpoint, Message, MessageSource, Request, Response, Server,
    ServerSettings, ServerStats, Service, Status,
};
use loggregator_net::{Backoff, ClientTls, Profile, ServerTls, TlsFiles};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A certificate authority in a folder of its own.
pub struct Pki {
    pub dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// What is special about a certificate.
#[derive(Default)]
pub struct Leaf {
    pub ecdsa: bool,
    pub not_before: Option<SystemTime>,
    pub not_after: Option<SystemTime>,
    pub usage: Vec<ExtendedKeyUsagePurpose>,
}

/// Made once per test binary: RSA keys take their time.
pub static PKI: LazyLock<Pki> = LazyLock::new(Pki::new);

/// Server and client identities signed by [`PKI`].
pub static DOPPLER: LazyLock<TlsFiles> = LazyLock::new(|| PKI.issue("doppler", Leaf::default()));
pub static METRON: LazyLock<TlsFiles> = LazyLock::new(|| PKI.issue("metron", Leaf::default()));

impl Pki {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(
            DnType::CommonName,
            format!("test CA in {}", dir.path().display()),
        );
        let certificate = params.self_signed(&key).unwrap();
        fs::write(dir.path().join("ca.pem"), certificate.pem()).unwrap();
        Self {
            dir,
            issuer: Issuer::new(params, key),
        }
    }

    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    pub fn issue(&self, name: &str, leaf: Leaf) -> TlsFiles {
        let key = KeyPair::generate_for(if leaf.ecdsa {
            &PKCS_ECDSA_P256_SHA256
        } else {
            &PKCS_RSA_SHA256
        })
        .unwrap();
        let mut params = CertificateParams::new(vec![name.into(), "127.0.0.1".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = if leaf.usage.is_empty() {
            vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ]
        } else {
            leaf.usage
        };
        if let Some(time) = leaf.not_before {
            params.not_before = time.into();
        }
        if let Some(time) = leaf.not_after {
            params.not_after = time.into();
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = TlsFiles {
            ca: self.ca(),
            cert: self.dir.path().join(format!("{name}.pem")),
            key: self.dir.path().join(format!("{name}.key")),
        };
        write(&files.cert, &certificate.pem());
        write(&files.key, &key.serialize_pem());
        files
    }
}

pub fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

pub fn days(count: u64) -> Duration {
    Duration::from_secs(count * 24 * 3600)
}

pub fn server_tls() -> Arc<ServerTls> {
    ServerTls::mutual(&DOPPLER, Profile::Grpc).unwrap()
}

pub fn client_tls() -> Arc<ClientTls> {
    ClientTls::mutual(&METRON).unwrap()
}

/// Fails the test instead of hanging it.
pub async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), what)
        .await
        .expect("took longer than 20 s")
}

/// Waits until a condition holds.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..4000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never happened: {what}");
}

/// A source that is a closure.
pub struct Source<F>(pub F);

impl<F> MessageSource for Source<F>
where
    F: FnMut(&mut Context<'_>) -> Poll<Option<Result<Message, Status>>> + Send + 'static,
{
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Status>>> {
        (self.0)(cx)
    }
}

/// A source of these messages, then OK.
pub fn list(messages: Vec<Bytes>) -> Box<dyn MessageSource> {
    let mut messages = messages.into_iter();
    Box::new(Source(move |_: &mut Context<'_>| {
        Poll::Ready(messages.next().map(|message| Ok(message.into())))
    }))
}

pub type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;

/// A service that is a closure.
pub struct Serve<F>(pub F);

impl<F: Fn(Request) -> Answer + Send + Sync + 'static> Service for Serve<F> {
    fn call(&self, request: Request) -> Answer {
        (self.0)(request)
    }
}

/// Paths of [`echo`].
pub const UNARY: &str = "/test.Echo/Unary";
pub const COUNT: &str = "/test.Echo/Count";
pub const COLLECT: &str = "/test.Echo/Collect";
pub const FAIL: &str = "/test.Echo/Fail";
pub const FOREVER: &str = "/test.Echo/Forever";
pub const HANG: &str = "/test.Echo/Hang";

/// Echoes, counts, collects.
pub fn echo() -> Arc<dyn Service> {
    Arc::new(Serve(|mut request: Request| -> Answer {
        Box::pin(async move {
            match request.path.as_str() {
                UNARY => match request.messages.next().await {
                    Some(message) => Response::Unary(message),
                    None => Response::Status(Status::internal("cardinality violation: no request")),
                },
                // As many messages as the request has bytes, each so long.
                COUNT => match request.messages.next().await {
                    Some(Ok(message)) => {
                        let bytes = Bytes::from(vec![7; message.len()]);
                        Response::Stream(list(vec![bytes; message.len()]))
                    }
                    other => Response::Status(Status::internal(format!("{other:?}"))),
                },
                // The number of messages and of their bytes, after the last.
                COLLECT => {
                    let (mut count, mut bytes) = (0, 0);
                    while let Some(message) = request.messages.next().await {
                        match message {
                            Ok(message) => {
                                count += 1;
                                bytes += message.len();
                            }
                            Err(status) => return Response::Status(status),
                        }
                    }
                    Response::Unary(Ok(format!("{count} {bytes}").into()))
                }
                FAIL => Response::Status(Status::new(Code::Unknown, "EOF")),
                FOREVER => Response::Stream(Box::new(Source(|_: &mut Context<'_>| {
                    Poll::Ready(Some(Ok(Bytes::from_static(&[1; 10_000]).into())))
                }))),
                HANG => Response::Stream(Box::new(Source(|_: &mut Context<'_>| Poll::Pending))),
                path => Response::Status(Status::unknown_method(path, &["test.Echo"])),
            }
        })
    }))
}

/// A server that runs.
pub struct Running {
    pub addr: SocketAddr,
    pub stats: Arc<ServerStats>,
    pub stop: CancellationToken,
    pub task: JoinHandle<()>,
}

pub fn start_with(
    tls: Option<Arc<ServerTls>>,
    service: Arc<dyn Service>,
    settings: ServerSettings,
) -> Running {
    let server = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (addr, stats) = (server.local_addr(), server.stats());
    let stop = CancellationToken::new();
    let task = tokio::spawn(server.serve(tls, service, settings, stop.clone()));
    Running {
        addr,
        stats,
        stop,
        task,
    }
}

pub fn start(tls: Option<Arc<ServerTls>>) -> Running {
    start_with(tls, echo(), ServerSettings::default())
}

pub fn quick() -> ClientSettings {
    ClientSettings {
        backoff: Backoff::new(Duration::from_millis(20), Duration::from_millis(200)),
        ..ClientSettings::default()
    }
}

pub fn channel(addr: SocketAddr, tls: Option<Arc<ClientTls>>) -> Channel {
    channel_with(addr, tls, quick())
}

pub fn channel_with(
    addr: SocketAddr,
    tls: Option<Arc<ClientTls>>,
    settings: ClientSettings,
) -> Channel {
    Channel::new(Endpoint {
        addr: addr.to_string(),
        server_name: "doppler".into(),
        tls,
        settings,
    })
}
