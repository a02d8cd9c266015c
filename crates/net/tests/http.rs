//! The HTTP server, plain and over TLS: requests, limits, upgrades, a clean stop.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{DOPPLER, PKI, soon, until};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use loggregator_net::http::{ConnectionStats, Handler, Request, Response, Server, Settings, full};
use loggregator_net::{ClientTls, Profile, ServerTls, tls_connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// `/slow` takes its time and so does the body of `/late`, `/upgrade` becomes an echo, everything else is answered with its path.
struct Paths;

impl Handler for Paths {
    fn handle(
        &self,
        mut request: Request,
        peer: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        Box::pin(async move {
            assert!(peer.ip().is_loopback());
            let path = request.uri().path().to_owned();
            let mut response = Response::new(full(path.clone()));
            match path.as_str() {
                "/slow" => tokio::time::sleep(Duration::from_millis(200)).await,
                "/late" => {
                    let late = futures_util::stream::once(async {
                        tokio::time::sleep(Duration::from_millis(300)).await;
                        Ok(Frame::data(Bytes::from_static(b"late")))
                    });
                    *response.body_mut() = StreamBody::new(late).boxed_unsync();
                }
                "/never" => std::future::pending().await,
                "/upgrade" => {
                    *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
                    response.headers_mut().insert(
                        http::header::UPGRADE,
                        http::HeaderValue::from_static("echo"),
                    );
                    tokio::spawn(async move {
                        let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
                        let mut io = hyper_util::rt::TokioIo::new(upgraded);
                        let mut byte = [0];
                        while let Ok(1) = io.read(&mut byte).await {
                            io.write_all(&byte).await.unwrap();
                            io.flush().await.unwrap();
                        }
                    });
                }
                _ => {}
            }
            response
        })
    }
}

struct Running {
    addr: SocketAddr,
    stats: Arc<ConnectionStats>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn start(tls: Option<Arc<ServerTls>>, settings: Settings) -> Running {
    let server = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (addr, stats) = (server.local_addr(), server.stats());
    let stop = CancellationToken::new();
    let task = tokio::spawn(server.serve(tls, Arc::new(Paths), settings, stop.clone()));
    Running {
        addr,
        stats,
        stop,
        task,
    }
}

/// All that the server says to this until it closes.
async fn ask<IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    mut io: IO,
    request: &str,
) -> String {
    io.write_all(request.as_bytes()).await.unwrap();
    io.flush().await.unwrap();
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.unwrap();
    answer
}

const HELLO: &str = "GET /hello HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn requests_are_answered_plain_and_over_tls() {
    let server = start(None, Settings::default());
    let tcp = TcpStream::connect(server.addr).await.unwrap();
    let answer = soon(ask(tcp, HELLO)).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n/hello"),
        "{answer}"
    );

    let tls = ServerTls::server_only(&DOPPLER.cert, &DOPPLER.key, Profile::Http).unwrap();
    let server = start(Some(tls), Settings::default());
    let client = ClientTls::ca_only(&PKI.ca()).unwrap();
    let tcp = TcpStream::connect(server.addr).await.unwrap();
    let limit = Duration::from_secs(10);
    let stream = tls_connect(tcp, &client, "doppler", limit).await.unwrap();
    assert_eq!(stream.connection().alpn_protocol(), Some(&b"http/1.1"[..]));
    let answer = soon(ask(stream, HELLO)).await;
    assert!(answer.ends_with("\r\n\r\n/hello"), "{answer}");

    let tcp = TcpStream::connect(server.addr).await.unwrap();
    let answer = soon(ask(tcp, HELLO)).await;
    assert_eq!(
        answer,
        "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
    );
    until("it is counted", || {
        let mut failures = server.stats.handshake_failures();
        failures.any(|failure| failure == ("plain_http", 1))
    })
    .await;
}

#[tokio::test]
async fn a_request_head_must_come_in_time() {
    let settings = Settings {
        header_timeout: Duration::from_millis(50),
        ..Settings::default()
    };
    let server = start(None, settings);
    let mut tcp = TcpStream::connect(server.addr).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    let mut answer = Vec::new();
    // An answer or nothing, but an end.
    soon(tcp.read_to_end(&mut answer)).await.unwrap();
    until("the connection is gone", || {
        server.stats.open.load(Ordering::Relaxed) == 0
    })
    .await;
}

#[tokio::test]
async fn connections_are_limited() {
    let settings = Settings {
        max_connections: 1,
        ..Settings::default()
    };
    let server = start(None, settings);
    let mut first = TcpStream::connect(server.addr).await.unwrap();
    first
        .write_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    until("the first is in", || {
        server.stats.open.load(Ordering::Relaxed) == 1
    })
    .await;
    let mut second = TcpStream::connect(server.addr).await.unwrap();
    let mut answer = Vec::new();
    // Closed, politely or with a reset.
    drop(soon(second.read_to_end(&mut answer)).await);
    assert!(answer.is_empty());
    assert_eq!(server.stats.refused_over_limit.load(Ordering::Relaxed), 1);
    drop(first);
    until("the place is free", || {
        server.stats.open.load(Ordering::Relaxed) == 0
    })
    .await;
    let third = TcpStream::connect(server.addr).await.unwrap();
    assert!(soon(ask(third, HELLO)).await.ends_with("/hello"));
}

#[tokio::test]
async fn an_upgraded_connection_outlives_the_stop_and_a_request_under_way_is_answered() {
    let tls = ServerTls::server_only(&DOPPLER.cert, &DOPPLER.key, Profile::Http).unwrap();
    let server = start(Some(tls), Settings::default());
    let client = ClientTls::ca_only(&PKI.ca()).unwrap();
    let limit = Duration::from_secs(10);
    let connect = async || {
        let tcp = TcpStream::connect(server.addr).await.unwrap();
        tls_connect(tcp, &client, "doppler", limit).await.unwrap()
    };
    let mut upgraded = connect().await;
    upgraded
        .write_all(
            b"GET /upgrade HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n!",
        )
        .await
        .unwrap();
    upgraded.flush().await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n!") {
        seen.push(soon(upgraded.read_u8()).await.unwrap());
    }
    let idle = connect().await;
    let slow = tokio::spawn(ask(
        connect().await,
        "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n",
    ));
    until("all are in", || {
        server.stats.accepted.load(Ordering::Relaxed) == 3
    })
    .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.stop.cancel();
    let began = Instant::now();
    soon(server.task).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(soon(slow).await.unwrap().ends_with("/slow"));
    assert_eq!(server.stats.cut_at_drain.load(Ordering::Relaxed), 0);
    drop(idle);
    upgraded.write_all(b"?").await.unwrap();
    upgraded.flush().await.unwrap();
    assert_eq!(soon(upgraded.read_u8()).await.unwrap(), b'?');
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_at_the_drains_end() {
    let settings = Settings {
        drain_timeout: Duration::from_millis(50),
        ..Settings::default()
    };
    let server = start(None, settings);
    let mut tcp = TcpStream::connect(server.addr).await.unwrap();
    tcp.write_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    until("it is in", || {
        server.stats.open.load(Ordering::Relaxed) == 1
    })
    .await;
    // The request must have been read, otherwise the connection counts as idle.
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop.cancel();
    soon(server.task).await.unwrap();
    assert_eq!(server.stats.cut_at_drain.load(Ordering::Relaxed), 1);
}

type Requests = hyper::client::conn::http2::SendRequest<http_body_util::Empty<Bytes>>;

/// An HTTP/2 connection of a client that offers what the profile says.
async fn http2(addr: SocketAddr) -> Requests {
    http2_with(addr, 65_535).await
}

/// One whose streams may bring so many bytes before it has read them.
async fn http2_with(addr: SocketAddr, window: u32) -> Requests {
    let client = ClientTls::ca_only_with(&PKI.ca(), Profile::Http2).unwrap();
    let tcp = TcpStream::connect(addr).await.unwrap();
    let limit = Duration::from_secs(10);
    let stream = tls_connect(tcp, &client, "doppler", limit).await.unwrap();
    assert_eq!(stream.connection().alpn_protocol(), Some(&b"h2"[..]));
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let mut builder = hyper::client::conn::http2::Builder::new(executor);
    let handshake = builder.initial_stream_window_size(window).handshake(io);
    let (requests, connection) = soon(handshake).await.unwrap();
    tokio::spawn(connection);
    requests
}

fn to(path: &str) -> http::Request<http_body_util::Empty<Bytes>> {
    let uri = format!("https://doppler{path}");
    http::Request::get(uri)
        .body(http_body_util::Empty::new())
        .unwrap()
}

#[tokio::test]
async fn http2_is_for_those_who_prefer_it() {
    let tls = ServerTls::server_only(&DOPPLER.cert, &DOPPLER.key, Profile::Http2).unwrap();
    let server = start(Some(tls), Settings::default());
    let mut requests = http2(server.addr).await;
    // The second is answered while the first is still under way.
    let slow = requests.send_request(to("/slow"));
    let quick = soon(requests.send_request(to("/quick"))).await.unwrap();
    assert_eq!(quick.version(), http::Version::HTTP_2);
    let read = async |response: http::Response<hyper::body::Incoming>| {
        response.into_body().collect().await.unwrap().to_bytes()
    };
    assert_eq!(read(quick).await, "/quick");
    // HEAD has the length of the body that it leaves out.
    let mut head = to("/quick");
    *head.method_mut() = http::Method::HEAD;
    let head = soon(requests.send_request(head)).await.unwrap();
    assert_eq!(head.headers()["content-length"], "6");
    assert_eq!(read(head).await, "");
    server.stop.cancel();
    assert_eq!(read(soon(slow).await.unwrap()).await, "/slow");
    soon(server.task).await.unwrap();
    assert_eq!(server.stats.cut_at_drain.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn on_the_same_port_others_speak_http_1() {
    let tls = ServerTls::server_only(&DOPPLER.cert, &DOPPLER.key, Profile::Http2).unwrap();
    let server = start(Some(tls), Settings::default());
    let client = ClientTls::ca_only(&PKI.ca()).unwrap();
    let tcp = TcpStream::connect(server.addr).await.unwrap();
    let limit = Duration::from_secs(10);
    let stream = tls_connect(tcp, &client, "doppler", limit).await.unwrap();
    assert!(soon(ask(stream, HELLO)).await.ends_with("\r\n\r\n/hello"));
    let tcp = TcpStream::connect(server.addr).await.unwrap();
    let answer = soon(ask(tcp, HELLO)).await;
    assert_eq!(
        answer,
        "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
    );
}

#[tokio::test]
async fn an_http2_connection_that_asks_nothing_is_closed_and_one_that_waits_is_not() {
    let tls = ServerTls::server_only(&DOPPLER.cert, &DOPPLER.key, Profile::Http2).unwrap();
    let settings = Settings {
        header_timeout: Duration::from_millis(50),
        idle_timeout: Duration::from_millis(50),
        drain_timeout: Duration::from_millis(50),
        ..Settings::default()
    };
    let server = start(Some(tls), settings);
    // Says nothing at all after the TLS handshake.
    let client = ClientTls::ca_only_with(&PKI.ca(), Profile::Http2).unwrap();
    let tcp = TcpStream::connect(server.addr).await.unwrap();
    let limit = Duration::from_secs(10);
    let mut mute = tls_connect(tcp, &client, "doppler", limit).await.unwrap();
    let mut seen = Vec::new();
    drop(soon(mute.read_to_end(&mut seen)).await);
    until("the mute one is gone", || {
        server.stats.open.load(Ordering::Relaxed) == 0
    })
    .await;
    // Asks nothing.
    let mut idle = http2(server.addr).await;
    soon(async {
        while idle.ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // Has been waiting for its answer for longer than that.
    let mut busy = http2(server.addr).await;
    let slow = soon(busy.send_request(to("/slow"))).await.unwrap();
    assert_eq!(slow.status(), 200);
    assert_eq!(server.stats.cut_at_drain.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn an_http2_response_that_its_client_does_not_take_is_reset_and_one_that_is_late_is_not() {
    let tls = ServerTls::server_only(&DOPPLER.cert, &DOPPLER.key, Profile::Http2).unwrap();
    let settings = Settings {
        stall_timeout: Duration::from_millis(50),
        idle_timeout: Duration::from_millis(500),
        drain_timeout: Duration::from_millis(50),
        ..Settings::default()
    };
    let server = start(Some(tls), settings);
    let mut requests = http2(server.addr).await;
    let late = soon(requests.send_request(to("/late"))).await.unwrap();
    let body = soon(late.into_body().collect()).await.unwrap();
    assert_eq!(body.to_bytes(), "late");
    assert_eq!(server.stats.stalled_responses.load(Ordering::Relaxed), 0);
    drop(requests);

    let mut closed = http2_with(server.addr, 0).await;
    let answer = soon(closed.send_request(to("/quick"))).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(soon(answer.into_body().collect()).await.is_err());
    assert_eq!(server.stats.stalled_responses.load(Ordering::Relaxed), 1);
    // Nothing keeps the connection busy any more.
    until("the connection is gone", || {
        server.stats.open.load(Ordering::Relaxed) == 0
    })
    .await;
    drop(closed);
}

/// A frame of HTTP/2: type, flags, stream, payload.
fn http2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    frame.extend_from_slice(payload);
    frame
}

#[tokio::test]
async fn a_request_that_crosses_the_close_of_an_idle_connection_is_answered() {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    let tls = ServerTls::server_only(&DOPPLER.cert, &DOPPLER.key, Profile::Http2).unwrap();
    let settings = Settings {
        header_timeout: Duration::from_millis(50),
        idle_timeout: Duration::from_millis(50),
        drain_timeout: Duration::from_millis(100),
        ..Settings::default()
    };
    let server = start(Some(tls), settings);
    let client = ClientTls::ca_only_with(&PKI.ca(), Profile::Http2).unwrap();
    let tcp = TcpStream::connect(server.addr).await.unwrap();
    let limit = Duration::from_secs(10);
    let mut io = tls_connect(tcp, &client, "doppler", limit).await.unwrap();
    io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    let settings = http2_frame(SETTINGS, 0, 0, &[]);
    io.write_all(&settings).await.unwrap();
    io.flush().await.unwrap();
    let mut answer = None;
    while answer.is_none() {
        let mut head = [0; 9];
        soon(io.read_exact(&mut head)).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        soon(io.read_exact(&mut payload)).await.unwrap();
        match head[3] {
            // The request is on its way before the client learns of the close. It never acknowledges the ping by which the
            // server would know that no further request can come.
            GOAWAY => {
                let path = b"\x82\x87\x01\x07doppler\x04\x05/slow";
                let request = http2_frame(HEADERS, 0b101, 1, path);
                io.write_all(&request).await.unwrap();
                io.flush().await.unwrap();
            }
            DATA => answer = Some(payload),
            _ => {}
        }
    }
    assert_eq!(answer.unwrap(), b"/slow");
    let mut rest = Vec::new();
    drop(soon(io.read_to_end(&mut rest)).await);
    assert_eq!(server.stats.cut_at_drain.load(Ordering::Relaxed), 0);
}

/// Over HTTP/1.1 and HTTP/2, plain and encrypted: an answer is there before its body is, and what is not read stays.
#[tokio::test]
async fn an_answer_is_read_as_it_comes() {
    use loggregator_net::http::client::{Client, Limits, Question};
    let server_tls = ServerTls::server_only(&DOPPLER.cert, &DOPPLER.key, Profile::Http2).unwrap();
    for profile in [None, Some(Profile::Http), Some(Profile::Http2)] {
        let running = start(
            profile.map(|_| Arc::clone(&server_tls)),
            Settings::default(),
        );
        let scheme = profile.map_or("http", |_| "https");
        let client = Client {
            tls: profile.map(|profile| ClientTls::ca_only_with(&PKI.ca(), profile).unwrap()),
            server_name: Some("doppler".to_owned()),
            limits: Limits::default(),
        };
        let ask = async |path: &str| {
            let mut question = Question::new(Bytes::new());
            *question.uri_mut() = format!("{scheme}://{}{path}", running.addr)
                .parse()
                .unwrap();
            let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
            client.open(question, deadline).await.unwrap()
        };
        let mut answer = ask("/late").await;
        assert_eq!(answer.status, 200);
        let data = soon(std::future::poll_fn(|cx| answer.poll_data(cx))).await;
        assert_eq!(data.unwrap().unwrap(), "late");
        let end = soon(std::future::poll_fn(|cx| answer.poll_data(cx))).await;
        assert!(end.is_none(), "{end:?}");
        assert_eq!(ask("/exact").await.text(6).await, "/exact");
        assert_eq!(ask("/longer").await.text(6).await, "");
        drop(answer);
        until("its connections end with the answers", || {
            running.stats.open.load(Ordering::Relaxed) == 0
        })
        .await;
        running.stop.cancel();
        soon(running.task).await.unwrap();
    }
}
