//! A gateway as it is deployed: certificates everywhere, the reverse log proxy in another process, HTTP/2.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use loggregator_net::grpc::{self, Message, MessageSource, ServerSettings, Service, Status};
use loggregator_net::{ClientTls, Profile, ServerTls, TlsStream, tls_connect};
use loggregator_proto::rpc;
use loggregator_proto::v2::EgressBatchRequest;
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use traffic_controller::gateway::{Config, Logs, MetricsEndpoint};
use traffic_controller::provider::{Envelopes, Provider};

use crate::certs::Certs;
use crate::client::{Client, Head};
use crate::proxy::{Opened, Proxy, batch, counter, data_event};
use crate::rig::{PATIENCE, Rig, soon};

/// The test's reverse log proxy behind a gRPC port.
struct Calls(Arc<Proxy>);

impl Service for Calls {
    fn call(
        &self,
        mut request: grpc::Request,
    ) -> Pin<Box<dyn Future<Output = grpc::Response> + Send>> {
        let proxy = Arc::clone(&self.0);
        Box::pin(async move {
            assert_eq!(request.path, rpc::EGRESS_BATCHED_RECEIVER);
            let message = request.messages.next().await.unwrap().unwrap();
            let request = EgressBatchRequest::decode(message).unwrap();
            match proxy.open(request).await {
                Ok(items) => grpc::Response::Stream(Box::new(Items(items))),
                Err(status) => grpc::Response::Status(status),
            }
        })
    }
}

struct Items(Box<dyn Envelopes>);

impl MessageSource for Items {
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Status>>> {
        self.0.poll_next(cx).map_ok(Message::from)
    }
}

struct Grpc {
    addr: SocketAddr,
    opened: Opened,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Grpc {
    fn start(certs: &Certs) -> Self {
        Self::start_at(certs, "127.0.0.1:0".parse().unwrap())
    }

    fn start_at(certs: &Certs, addr: SocketAddr) -> Self {
        let (proxy, opened) = Proxy::new();
        let server = grpc::Server::bind(addr).unwrap();
        let addr = server.local_addr();
        let tls = ServerTls::mutual(&certs.of("reverselogproxy"), Profile::Grpc).unwrap();
        let stop = CancellationToken::new();
        let settings = ServerSettings::default();
        let calls = Arc::new(Calls(proxy));
        let task = tokio::spawn(server.serve(Some(tls), calls, settings, stop.clone()));
        Self {
            addr,
            opened,
            stop,
            task,
        }
    }
}

/// A gateway that reads from there.
async fn gateway(certs: &Certs, addr: SocketAddr, change: impl FnOnce(&mut Config)) -> Rig {
    let web = certs.of("trafficcontroller");
    Rig::with(|config| {
        config.logs = Logs::Grpc {
            addr: addr.to_string(),
            server_name: "reverselogproxy".to_owned(),
            tls: certs.of("trafficcontroller"),
        };
        config.listen_tls = Some((web.cert, web.key));
        change(config);
    })
    .await
}

async fn connect(certs: &Certs, addr: SocketAddr, tls: &ClientTls) -> TlsStream<TcpStream> {
    assert!(certs.file("ca.crt").exists());
    let tcp = TcpStream::connect(addr).await.unwrap();
    tls_connect(tcp, tls, "trafficcontroller", PATIENCE)
        .await
        .unwrap()
}

async fn frame(body: &mut Incoming) -> Option<String> {
    let frame = soon("a frame", body.frame()).await?.unwrap();
    let data: Bytes = frame.into_data().unwrap();
    Some(String::from_utf8(data.to_vec()).unwrap())
}

/// Everything up to an event's end.
async fn event(body: &mut Incoming) -> String {
    let mut event = String::new();
    while !event.ends_with("\n\n") {
        event.push_str(&frame(body).await.unwrap());
    }
    event
}

#[tokio::test]
async fn streams_over_http_1_and_over_one_connection_of_http_2() {
    let certs = Certs::new();
    let mut proxy = Grpc::start(&certs);
    let rig = gateway(&certs, proxy.addr, |_| {}).await;

    let tls = ClientTls::ca_only(&certs.file("ca.crt")).unwrap();
    let mut old = Client::over(connect(&certs, rig.addr(), &tls).await);
    let head = old
        .request("GET", "/v2/read?counter&shard_id=old", &[])
        .await;
    assert_eq!(
        (head.status, head.header("connection")),
        (200, Some("keep-alive"))
    );
    let feed = proxy.opened.next().await;
    assert_eq!(feed.request.shard_id, "old");
    feed.send(batch([counter(1)]));
    assert_eq!(old.chunk().await.unwrap(), data_event([1]));
    drop(old);
    feed.closed().await;

    let tls = ClientTls::ca_only_with(&certs.file("ca.crt"), Profile::Http2).unwrap();
    let io = TokioIo::new(connect(&certs, rig.addr(), &tls).await);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut requests, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let mut streams = Vec::new();
    // More than the six connections of HTTP/1.1 that a browser has for a host.
    for n in 0..8 {
        let uri = format!("https://trafficcontroller/v2/read?counter&shard_id={n}");
        let request = http::Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
        let response = soon("the head", requests.send_request(request))
            .await
            .unwrap();
        assert_eq!(
            (response.status().as_u16(), response.version()),
            (200, Version::HTTP_2)
        );
        let mut headers: Vec<_> = response
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .filter(|(name, _)| *name != "date")
            .collect();
        headers.sort_unstable();
        assert_eq!(
            headers,
            [
                ("cache-control", "no-cache"),
                ("content-type", "text/event-stream"),
                ("loggregator-resume-grace", "10")
            ]
        );
        streams.push((response.into_body(), proxy.opened.next().await));
    }
    for (n, (body, feed)) in streams.iter_mut().enumerate().rev() {
        feed.send(batch([counter(n as u64)]));
        assert_eq!(event(body).await, data_event([n as u64]));
    }
    // One that is given up ends alone.
    let (given_up, feed) = streams.remove(3);
    drop(given_up);
    feed.closed().await;
    let (body, feed) = &mut streams[0];
    feed.send(batch([counter(9)]));
    assert_eq!(event(body).await, data_event([9]));
    // A batch of several pieces is one event here too, and a reader that does not read holds up its own proxy alone.
    feed.send(batch((0..5000).map(counter)));
    assert!(event(body).await == data_event(0..5000));
}

#[tokio::test]
async fn a_client_with_a_closed_window_does_not_hold_its_stream() {
    let certs = Certs::new();
    let web = certs.of("trafficcontroller");
    let mut rig = Rig::with(|config| {
        config.listen_tls = Some((web.cert, web.key));
        config.write_timeout = Duration::from_millis(200);
        config.max_streams = 1;
    })
    .await;
    let tls = ClientTls::ca_only_with(&certs.file("ca.crt"), Profile::Http2).unwrap();
    let io = TokioIo::new(connect(&certs, rig.addr(), &tls).await);
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let handshake = builder.initial_stream_window_size(0).handshake(io);
    let (mut requests, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    for n in 1..=2 {
        let uri = "https://trafficcontroller/v2/read?counter";
        let request = http::Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
        let response = soon("the head", requests.send_request(request))
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        let feed = rig.opened.next().await;
        feed.send(batch([counter(1), counter(2)]));
        feed.closed().await;
        let report = rig.ledger_with_closed(n).await;
        let line = &report.subscriptions[n - 1];
        assert_eq!((line.received, line.delivered), (2, 0));
        assert_eq!(line.dropped["disconnected"], 2);
        assert!(
            soon("the reset", response.into_body().collect())
                .await
                .is_err()
        );
    }
    let metrics = rig.admin("/metrics").await;
    let line = "loggregator_gateway_stalled_responses_total 2\n";
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test]
async fn a_proxy_that_is_away_is_a_503_and_one_that_goes_away_a_clean_end() {
    let certs = Certs::new();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = nobody.local_addr().unwrap();
    drop(nobody);
    let rig = gateway(&certs, addr, |config| {
        config.listen_tls = None;
        config.provider_wait = Duration::from_millis(50);
    })
    .await;
    let (mut client, head) = Client::get(rig.addr(), "/v2/read?log").await;
    assert_eq!(head.status, 503);
    let body = "{\"message\":\"streaming is temporarily unavailable\",\"error\":\"streaming_unavailable\"}\n\n";
    assert_eq!(client.body(&head).await, body);
    let (mut admin, head) = Client::get(rig.running.admin_addr.unwrap(), "/readyz").await;
    assert_eq!(head.status, 503);
    assert!(admin.body(&head).await.contains("reverse log proxy: "));

    let mut proxy = Grpc::start(&certs);
    let rig = gateway(&certs, proxy.addr, |config| config.listen_tls = None).await;
    let (mut client, head) = Client::get(rig.addr(), "/v2/read?counter").await;
    assert_eq!(head.status, 200);
    let feed = proxy.opened.next().await;
    feed.send(batch([counter(1)]));
    assert_eq!(client.chunk().await.unwrap(), data_event([1]));
    proxy.stop.cancel();
    assert_eq!(client.chunk().await, None);
}

/// Clients give up after a few failures without a pause; a restart of the proxy takes longer than those.
#[tokio::test]
async fn a_request_waits_for_a_proxy_that_is_being_restarted() {
    let certs = Certs::new();
    let mut proxy = Grpc::start(&certs);
    let rig = gateway(&certs, proxy.addr, |config| {
        config.listen_tls = None;
        config.provider_wait = PATIENCE;
    })
    .await;
    let (mut client, head) = Client::get(rig.addr(), "/v2/read?counter").await;
    assert_eq!(head.status, 200);
    proxy.opened.next().await;
    proxy.stop.cancel();
    assert_eq!(client.chunk().await, None);
    soon("the proxy's end", &mut proxy.task).await.unwrap();

    let again = Client::get(rig.addr(), "/v2/read?counter");
    tokio::pin!(again);
    for _ in 0..20 {
        tokio::select! {
            biased;
            (_, head) = &mut again => panic!("{head:?}"),
            _ = rig.admin("/readyz") => {}
        }
    }
    let mut proxy = Grpc::start_at(&certs, proxy.addr);
    let (mut client, head) = soon("an answer", again).await;
    assert_eq!(head.status, 200);
    proxy.opened.next().await.send(batch([counter(1)]));
    assert_eq!(client.chunk().await.unwrap(), data_event([1]));
}

#[tokio::test]
async fn metrics_are_for_clients_with_a_certificate() {
    let certs = Certs::new();
    let rig = Rig::with(|config| {
        config.metrics = Some(MetricsEndpoint {
            addr: "127.0.0.1:0".parse().unwrap(),
            tls: certs.of("trafficcontroller"),
        });
    })
    .await;
    let addr = rig.running.metrics_addr.unwrap();
    let tls = ClientTls::mutual_with(&certs.of("metron"), Profile::Http).unwrap();
    let mut client = Client::over(connect(&certs, addr, &tls).await);
    let head = client.request("GET", "/metrics", &[]).await;
    let length = head.header("content-length").unwrap().to_owned();
    let expected = Head::of(
        200,
        &[
            ("content-type", "text/plain; version=0.0.4; charset=utf-8"),
            ("content-length", &length),
        ],
    );
    assert_eq!(head, expected);
    let body = client.body(&head).await;
    for line in [
        "# TYPE LastUAALatency gauge\nLastUAALatency 0\n",
        "\nLastCAPIV4LogAccessLatency 0\n",
        "\nLastCAPIV2ServiceInstancesLatency 0\n",
        "\nLastCAPIV3AppsLatency 0\n",
        "\nLastCAPIV2ListServiceInstancesLatency 0\n",
        "# HELP promhttp_metric_handler_errors_total Total number of internal errors encountered by the promhttp metric \
         handler.\n# TYPE promhttp_metric_handler_errors_total counter\n\
         promhttp_metric_handler_errors_total{cause=\"encoding\"} 0\n\
         promhttp_metric_handler_errors_total{cause=\"gathering\"} 0\n",
        "\nloggregator_gateway_streams 0\n",
    ] {
        assert!(body.contains(line), "{line}\n{body}");
    }
    let head = client.request("GET", "/", &[]).await;
    assert_eq!(
        (head.status, client.body(&head).await.as_str()),
        (404, "404 page not found\n")
    );

    // Without one the handshake may seem to succeed, but nothing is answered.
    let tls = ClientTls::ca_only(&certs.file("ca.crt")).unwrap();
    let tcp = TcpStream::connect(addr).await.unwrap();
    if let Ok(mut io) = tls_connect(tcp, &tls, "trafficcontroller", PATIENCE).await {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        drop(
            io.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
                .await,
        );
        drop(io.flush().await);
        let mut seen = Vec::new();
        assert!(soon("a refusal", io.read_to_end(&mut seen)).await.is_err());
        assert!(seen.is_empty());
    }
}
