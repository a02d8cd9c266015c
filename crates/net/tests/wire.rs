//! The server as an HTTP/2 client sees it that does everything by hand.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use common::*;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request};
use loggregator_net::grpc::{Request as WireRequest, Response, ServerSettings, Service};
use tokio::net::TcpStream;

type Requests = SendRequest<Bytes>;

async fn connect(server: &Running) -> (Requests, tokio::task::JoinHandle<Result<(), h2::Error>>) {
    let tcp = TcpStream::connect(server.addr).await.unwrap();
    let (requests, connection) = h2::client::Builder::new()
        .initial_max_send_streams(10_000)
        .handshake(tcp)
        .await
        .unwrap();
    (requests, tokio::spawn(connection))
}

fn call(
    requests: &mut Requests,
    path: &str,
    headers: &[(&str, &str)],
) -> (ResponseFuture, SendStream<Bytes>) {
    let mut request = Request::post(format!("http://doppler{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    requests
        .send_request(request.body(()).unwrap(), false)
        .unwrap()
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");

fn frame(payload: &[u8]) -> Bytes {
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
    framed.extend_from_slice(payload);
    framed.into()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

async fn rest(mut body: RecvStream) -> (Vec<u8>, Option<HeaderMap>) {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.unwrap();
        body.flow_control().release_capacity(chunk.len()).unwrap();
        bytes.extend_from_slice(&chunk);
    }
    (bytes, body.trailers().await.unwrap())
}

#[tokio::test]
async fn what_is_no_call_is_told_so() {
    let server = start(None);
    let (mut requests, _connection) = connect(&server).await;
    for (path, headers, http, status, message) in [
        (
            UNARY,
            &[("content-type", "text/plain")][..],
            415,
            "3",
            "invalid gRPC request content-type \"text/plain\"",
        ),
        (
            UNARY,
            &[("content-type", "application/grpcweb")][..],
            415,
            "3",
            "invalid gRPC request content-type \"application/grpcweb\"",
        ),
        (
            UNARY,
            &[GRPC, ("grpc-encoding", "gzip")][..],
            200,
            "12",
            "grpc: Decompressor is not installed for grpc-encoding \"gzip\"",
        ),
        (
            UNARY,
            &[GRPC, ("grpc-timeout", "never")][..],
            200,
            "13",
            "malformed grpc-timeout",
        ),
        ("/x.Y/Z", &[GRPC][..], 200, "12", "unknown service x.Y"),
        ("/", &[GRPC][..], 200, "12", "malformed method name: \"/\""),
    ] {
        let (response, _send) = call(&mut requests, path, headers);
        let response = soon(response).await.unwrap();
        assert_eq!(response.status(), http);
        // Nothing but a status: all of it in the headers, which end the stream.
        assert!(response.body().is_end_stream());
        assert_eq!(text(response.headers(), "grpc-status"), status);
        assert_eq!(text(response.headers(), "grpc-message"), message);
        assert_eq!(text(response.headers(), "content-type"), "application/grpc");
        assert!(response.headers().get("date").is_none());
    }
}

#[tokio::test]
async fn messages_and_trailers_have_the_form_of_the_protocol() {
    let server = start(None);
    let (mut requests, _connection) = connect(&server).await;
    let proto = ("content-type", "application/grpc+proto");
    let (response, mut send) = call(
        &mut requests,
        COUNT,
        &[proto, ("grpc-encoding", "identity")],
    );
    // The header and the message come in pieces.
    for piece in frame(b"abc").chunks(2) {
        send.send_data(Bytes::copy_from_slice(piece), false)
            .unwrap();
    }
    send.send_data(Bytes::new(), true).unwrap();
    let response = soon(response).await.unwrap();
    assert_eq!(text(response.headers(), "content-type"), "application/grpc");
    let (bytes, trailers) = soon(rest(response.into_body())).await;
    assert_eq!(bytes, [&frame(&[7; 3])[..]; 3].concat());
    let trailers = trailers.unwrap();
    assert_eq!(text(&trailers, "grpc-status"), "0");
    assert!(trailers.get("grpc-message").is_none());

    let (response, mut send) = call(&mut requests, UNARY, &[GRPC]);
    send.send_data(frame(b"cut off").slice(..8), true).unwrap();
    let response = soon(response).await.unwrap();
    assert_eq!(text(response.headers(), "grpc-message"), "unexpected EOF");
    let (response, mut send) = call(&mut requests, UNARY, &[GRPC]);
    send.send_data(Bytes::from_static(&[1, 0, 0, 0, 0]), true)
        .unwrap();
    let response = soon(response).await.unwrap();
    assert_eq!(
        text(response.headers(), "grpc-message"),
        "grpc: compressed flag set with identity or empty encoding"
    );
}

#[tokio::test]
async fn headers_wait_for_the_first_message_unless_asked_for_early() {
    for early_headers in [false, true] {
        let settings = ServerSettings {
            early_headers,
            ..ServerSettings::default()
        };
        let server = start_with(None, echo(), settings);
        let (mut requests, _connection) = connect(&server).await;
        let (response, _send) = call(&mut requests, HANG, &[GRPC]);
        let came = tokio::time::timeout(Duration::from_millis(100), response).await;
        assert_eq!(came.is_ok(), early_headers);
    }
}

#[tokio::test]
async fn a_deadline_ends_a_call_in_any_stage() {
    let server = start(None);
    let (mut requests, _connection) = connect(&server).await;
    let limit = ("grpc-timeout", "50m");
    for path in [HANG, COLLECT] {
        let (response, _send) = call(&mut requests, path, &[GRPC, limit]);
        let response = soon(response).await.unwrap();
        assert_eq!(text(response.headers(), "grpc-status"), "4");
        assert_eq!(
            text(response.headers(), "grpc-message"),
            "context deadline exceeded"
        );
    }
    let (response, _send) = call(&mut requests, FOREVER, &[GRPC, limit]);
    let body = soon(response).await.unwrap().into_body();
    let (_, trailers) = soon(rest(body)).await;
    assert_eq!(text(&trailers.unwrap(), "grpc-status"), "4");
}

/// A traffic controller goes away with all its subscriptions, and comes back, and goes away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_calls_may_be_cancelled_at_once() {
    let server = start(None);
    let (mut requests, connection) = connect(&server).await;
    for round in 0..3 {
        let mut calls = Vec::new();
        for _ in 0..2000 {
            let (response, mut send) = call(&mut requests, HANG, &[GRPC]);
            send.send_data(frame(b""), true).unwrap();
            calls.push((response, send));
        }
        if round > 0 {
            until("they are all open", || {
                server.stats.open_calls.load(Ordering::Relaxed) == 2000
            })
            .await;
        }
        for (_, send) in &mut calls {
            send.send_reset(Reason::CANCEL);
        }
        drop(calls);
        let (response, mut send) = call(&mut requests, UNARY, &[GRPC]);
        send.send_data(frame(b"still here"), true).unwrap();
        let (bytes, _) = soon(rest(soon(response).await.unwrap().into_body())).await;
        assert_eq!(bytes, frame(b"still here"));
        until("they have all ended", || {
            server.stats.open_calls.load(Ordering::Relaxed) == 0
        })
        .await;
    }
    drop(requests);
    soon(connection).await.unwrap().unwrap();
}

#[tokio::test]
async fn pings_are_answered_however_often_they_come() {
    let server = start(None);
    let tcp = TcpStream::connect(server.addr).await.unwrap();
    let (mut requests, mut connection) = h2::client::handshake(tcp).await.unwrap();
    let mut ping = connection.ping_pong().unwrap();
    let connection = tokio::spawn(connection);
    for _ in 0..200 {
        soon(ping.ping(h2::Ping::opaque())).await.unwrap();
    }
    let (response, mut send) = {
        let request = Request::post(format!("http://doppler{UNARY}"))
            .header(GRPC.0, GRPC.1)
            .body(())
            .unwrap();
        requests.send_request(request, false).unwrap()
    };
    send.send_data(frame(b"x"), true).unwrap();
    assert_eq!(soon(response).await.unwrap().status(), 200);
    drop((requests, send));
    drop(ping);
    soon(connection).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_settings_are_the_chosen_ones() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = start(None);
    let mut tcp = TcpStream::connect(server.addr).await.unwrap();
    tcp.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let mut header = [0; 9];
    tcp.read_exact(&mut header).await.unwrap();
    assert_eq!(header[3], 4, "the first frame is SETTINGS");
    let mut payload = vec![0; usize::from(header[2])];
    tcp.read_exact(&mut payload).await.unwrap();
    let value = |id: u16| {
        payload.chunks(6).find_map(|setting| {
            (setting[..2] == id.to_be_bytes())
                .then(|| u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]))
        })
    };
    assert_eq!(value(3), Some(100_000), "streams");
    assert_eq!(value(4), Some(256 * 1024), "stream window");
    assert_eq!(value(5), Some(256 * 1024), "frame size");
    // The connection's window comes as an update of the initial one.
    tcp.read_exact(&mut header).await.unwrap();
    while header[3] != 8 {
        let mut skip = vec![0; usize::from(header[2])];
        tcp.read_exact(&mut skip).await.unwrap();
        tcp.read_exact(&mut header).await.unwrap();
    }
    assert_eq!(tcp.read_u32().await.unwrap(), 512 * 1024 - 65_535);
}

/// A peer whose machine is gone looks like one that does not answer pings.
#[tokio::test]
async fn a_silent_peer_is_given_up() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let settings = ServerSettings {
        keepalive_interval: Duration::from_millis(50),
        keepalive_timeout: Duration::from_millis(50),
        ..ServerSettings::default()
    };
    let server = start_with(None, echo(), settings);
    let mut silent = TcpStream::connect(server.addr).await.unwrap();
    silent
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let alive = channel(server.addr, None);
    alive.ready().await.unwrap();
    // Ends only when the server closes.
    soon(silent.read_to_end(&mut Vec::new())).await.unwrap();
    until("only the living is left", || {
        server.stats.open.load(Ordering::Relaxed) == 1
    })
    .await;
    assert_eq!(alive.unary(UNARY, "x".into()).await, Ok("x".into()));
    assert_eq!(alive.stats().lost.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    use tokio::io::AsyncWriteExt;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = quick();
    settings.keepalive_interval = Duration::from_millis(50);
    settings.keepalive_timeout = Duration::from_millis(50);
    settings.connect_timeout = Duration::from_millis(300);
    let channel = channel_with(listener.local_addr().unwrap(), None, settings);
    let serving = async {
        // The first says nothing at all, the second no more than its settings.
        let mute = listener.accept().await.unwrap();
        let (mut silent, _) = listener.accept().await.unwrap();
        silent.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
        (mute, silent)
    };
    let calling = async {
        let error = channel.ready().await.unwrap_err();
        assert!(error.message.contains("timed out"), "{error}");
        while channel.ready().await.is_err() {}
        let mut messages = channel.server_stream(HANG, Bytes::new()).await.unwrap();
        messages.next().await.unwrap().unwrap_err()
    };
    let (_open, status) = soon(async { tokio::join!(serving, calling) }).await;
    assert_eq!(
        status.code,
        loggregator_net::grpc::Code::Unavailable,
        "{status}"
    );
}

/// A service that hands every message on, and does so after a stop, too.
fn collect_into(seen: tokio::sync::mpsc::Sender<Bytes>) -> Arc<dyn Service> {
    Arc::new(Serve(move |mut request: WireRequest| -> Answer {
        let seen = seen.clone();
        Box::pin(async move {
            request.messages.read_on_after_stop();
            while let Some(Ok(message)) = request.messages.next().await {
                seen.send(message).await.unwrap();
            }
            Response::Unary(Ok(Bytes::new()))
        })
    }))
}

/// A client that has written goes on writing until it hears that its stream has ended: that is under way, and is taken.
#[tokio::test]
async fn what_is_under_way_at_a_stop_is_still_taken() {
    let (seen, mut taken) = tokio::sync::mpsc::channel(16);
    let server = start_with(None, collect_into(seen), ServerSettings::default());
    let (mut requests, connection) = connect(&server).await;
    let (answer, mut body) = call(&mut requests, COLLECT, &[GRPC]);
    body.send_data(frame(b"before"), false).unwrap();
    assert_eq!(soon(taken.recv()).await.unwrap(), "before");
    server.stop.cancel();
    let answer = soon(answer).await.unwrap();
    assert_eq!(text(answer.headers(), "grpc-status"), "14");
    assert!(answer.body().is_end_stream());
    assert_eq!(server.stats.open_calls.load(Ordering::Relaxed), 1);
    body.send_data(frame(b"under way"), false).unwrap();
    assert_eq!(soon(taken.recv()).await.unwrap(), "under way");
    // As grpc-go leaves such a stream.
    body.send_reset(Reason::NO_ERROR);
    soon(server.task).await.unwrap();
    assert_eq!(server.stats.open_calls.load(Ordering::Relaxed), 0);
    assert_eq!(server.stats.cut_at_drain.load(Ordering::Relaxed), 0);
    drop(soon(connection).await);
}

/// What lies behind the last bytes of a connection is its end, not the loss of what came with them.
#[tokio::test]
async fn what_came_with_the_end_of_a_connection_is_taken() {
    let (seen, mut taken) = tokio::sync::mpsc::channel(16);
    let server = start_with(None, collect_into(seen), ServerSettings::default());
    let tcp = TcpStream::connect(server.addr).await.unwrap();
    let (mut requests, mut connection) = h2::client::handshake(tcp).await.unwrap();
    let (_answer, mut body) = call(&mut requests, COLLECT, &[GRPC]);
    body.send_data(frame(b"first"), false).unwrap();
    tokio::select! {
        ended = &mut connection => panic!("{ended:?}"),
        first = soon(taken.recv()) => assert_eq!(first.unwrap(), "first"),
    }
    for _ in 0..10 {
        body.send_data(frame(b"last"), false).unwrap();
    }
    // In one turn everything leaves and the connection closes: the server finds both at once.
    let left = futures_util::poll!(&mut connection);
    drop(connection);
    assert!(left.is_pending());
    for _ in 0..10 {
        assert_eq!(soon(taken.recv()).await.unwrap(), "last");
    }
}
