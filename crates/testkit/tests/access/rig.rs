//! A traffic controller without dopplers, and the stand-ins that it asks.

use std::net::SocketAddr;
use std::time::Duration;

use loggregator_service::Lifecycle;
use loggregator_testkit::Certs;
use loggregator_testkit::platform::PlatformStub;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use traffic_controller::access::PlatformConfig;
use traffic_controller::{Access, Config, start};

pub const APP: &str = "efe5c422-e8a7-42c2-a52b-98bffd8d6a07";
pub const OTHER_APP: &str = "11111111-2222-3333-4444-AAAAAAAAAAAA";

pub struct Rig {
    pub stub: PlatformStub,
    pub addr: SocketAddr,
    pub admin: SocketAddr,
    pub certs: Certs,
    lifecycle: Lifecycle,
}

/// Status line, headers (sorted, without `date`), body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<String>,
    pub body: String,
}

impl Rig {
    pub async fn new() -> Self {
        Self::with(|_, _| {}).await
    }

    /// With a changed configuration.
    pub async fn with(change: impl FnOnce(&mut PlatformConfig, &Certs)) -> Self {
        crate::log::capture();
        let (lifecycle, certs) = (Lifecycle::new(), Certs::generate().unwrap());
        let stub = PlatformStub::start(&certs, &lifecycle).unwrap();
        let mut platform = stub.config(&certs);
        change(&mut platform, &certs);
        let config = Config {
            listen_addr: "127.0.0.1:0".parse().unwrap(),
            admin_addr: Some("127.0.0.1:0".parse().unwrap()),
            doppler_tls: certs.tls("trafficcontroller"),
            access: Access::Platform(Box::new(platform)),
            ..Config::default()
        };
        let running = start(config, &lifecycle).await.unwrap();
        Self {
            stub,
            addr: running.addr,
            admin: running.admin_addr.unwrap(),
            certs,
            lifecycle,
        }
    }

    /// A request that is no WebSocket handshake: 400 means that it was allowed.
    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        get(self.addr, path, headers).await
    }

    /// The status of a firehose with this `Authorization`.
    pub async fn firehose(&self, authorization: &str) -> u16 {
        let headers = [("authorization", authorization)];
        self.get("/firehose/x", &headers).await.status
    }

    /// The status of an application's stream with this `Authorization`.
    pub async fn stream(&self, app: &str, authorization: &str) -> u16 {
        let headers = [("authorization", authorization)];
        self.get(&format!("/apps/{app}/stream"), &headers)
            .await
            .status
    }

    /// Opens a WebSocket, says nothing, and gives the head and the bytes of frames until the server closes.
    pub async fn whole_stream(&self, path: &str, authorization: &str) -> (String, Vec<u8>) {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: tc\r\nauthorization: {authorization}\r\nconnection: Upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let mut io = TcpStream::connect(self.addr).await.unwrap();
        io.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        io.read_to_end(&mut bytes).await.unwrap();
        let end = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        let frames = bytes.split_off(end);
        (String::from_utf8(bytes).unwrap(), frames)
    }

    pub async fn metrics(&self) -> String {
        let bytes = loggregator_testkit::get(self.admin, "/metrics")
            .await
            .unwrap();
        String::from_utf8(bytes).unwrap()
    }

    pub async fn stop(self) {
        let report = self.lifecycle.shutdown(Duration::from_secs(10)).await;
        assert!(report.finished(), "{report:?}");
    }
}

pub async fn get(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = format!("GET {path} HTTP/1.1\r\nhost: tc\r\nconnection: close\r\n");
    for (name, value) in headers {
        if *name == "connection" {
            request = request.replace("connection: close\r\n", "");
        }
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    let mut io = TcpStream::connect(addr).await.unwrap();
    io.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    loop {
        let read = io.read_buf(&mut bytes).await.unwrap();
        // An upgraded connection stays open, and a ping follows; its head is all that matters.
        let switched = bytes.starts_with(b"HTTP/1.1 101");
        if read == 0 || (switched && bytes.windows(4).any(|end| end == b"\r\n\r\n")) {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let mut headers: Vec<_> = lines
        .filter(|line| !line.starts_with("date:") && *line != "connection: close")
        .map(str::to_owned)
        .collect();
    headers.sort();
    Answer {
        status: status.parse().unwrap(),
        headers,
        body: body.to_owned(),
    }
}
