//! Server and channel against each other, over plain TCP and over mutual TLS.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use common::*;
use loggregator_net::grpc::{
    ChannelState, Code, Message, NotSent, Receipt, Request, Response, Server, ServerSettings,
    Service, Status,
};
use tokio_util::sync::CancellationToken;

async fn all_kinds_of_calls(tls: bool) {
    let server = start(tls.then(server_tls));
    let channel = channel(server.addr, tls.then(client_tls));

    let answer = channel.unary(UNARY, "hello".into()).await;
    assert_eq!(answer, Ok("hello".into()));
    let big = Bytes::from(vec![5; 10 * 1024 * 1024]);
    assert_eq!(channel.unary(UNARY, big.clone()).await, Ok(big));
    assert_eq!(channel.unary(UNARY, Bytes::new()).await, Ok(Bytes::new()));

    let mut messages = channel
        .server_stream(COUNT, vec![0; 1000].into())
        .await
        .unwrap();
    messages.opened().await.unwrap();
    for _ in 0..1000 {
        assert_eq!(messages.next().await, Some(Ok(vec![7; 1000].into())));
    }
    assert_eq!(messages.next().await, None);
    assert_eq!(messages.next().await, None);

    let (sender, response) = channel.client_stream(COLLECT).await.unwrap();
    for length in 0..500 {
        sender.send(Bytes::from(vec![1; length])).await.unwrap();
    }
    drop(sender);
    assert_eq!(response.wait().await, Ok(Some("500 124750".into())));

    let failure = channel.unary(FAIL, Bytes::new()).await;
    assert_eq!(failure, Err(Status::new(Code::Unknown, "EOF")));
    let mut failing = channel.server_stream(FAIL, Bytes::new()).await.unwrap();
    let status = Status::new(Code::Unknown, "EOF");
    assert_eq!(failing.opened().await, Err(status));
    assert_eq!(failing.next().await, None);
    let unknown = channel.unary("/test.Echo/Nope", Bytes::new()).await;
    assert_eq!(
        unknown.unwrap_err(),
        Status::unimplemented("unknown method Nope for service test.Echo")
    );

    assert_eq!(*channel.state().borrow(), ChannelState::Ready);
    assert_eq!(server.stats.accepted.load(Ordering::Relaxed), 1);
    drop(channel);
    until("the connection closes with its channel", || {
        server.stats.open.load(Ordering::Relaxed) == 0
    })
    .await;
    assert_eq!(server.stats.connection_errors.load(Ordering::Relaxed), 0);
    assert_eq!(server.stats.open_calls.load(Ordering::Relaxed), 0);
    server.stop.cancel();
    server.task.await.unwrap();
}

#[tokio::test]
async fn calls_over_plain_tcp() {
    soon(all_kinds_of_calls(false)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_over_mutual_tls() {
    soon(all_kinds_of_calls(true)).await;
}

/// Many streams in both directions on one connection at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_share_a_connection() {
    let server = start(Some(server_tls()));
    let channel = channel(server.addr, Some(client_tls()));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 1..40_usize {
        let up = channel.clone();
        tasks.spawn(async move {
            let (sender, response) = up.client_stream(COLLECT).await.unwrap();
            for _ in 0..number {
                sender.send(Bytes::from(vec![2; 20_000])).await.unwrap();
            }
            drop(sender);
            let total = format!("{number} {}", number * 20_000);
            assert_eq!(response.wait().await, Ok(Some(total.into())));
        });
        let down = channel.clone();
        tasks.spawn(async move {
            let request = vec![0; number * 30];
            let mut messages = down.server_stream(COUNT, request.into()).await.unwrap();
            let mut count = 0;
            while let Some(message) = messages.next().await {
                assert_eq!(message.unwrap().len(), number * 30);
                count += 1;
            }
            assert_eq!(count, number * 30);
        });
    }
    soon(async {
        while let Some(outcome) = tasks.join_next().await {
            outcome.unwrap();
        }
    })
    .await;
    assert_eq!(server.stats.accepted.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_stream_that_nobody_reads_does_not_hold_up_its_neighbours() {
    let server = start(Some(server_tls()));
    let channel = channel(server.addr, Some(client_tls()));
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut messages = channel.server_stream(FOREVER, Bytes::new()).await.unwrap();
        soon(messages.opened()).await.unwrap();
        stalled.push(messages);
    }
    let big = Bytes::from(vec![5; 3_000_000]);
    for _ in 0..5 {
        assert_eq!(
            soon(channel.unary(UNARY, big.clone())).await,
            Ok(big.clone())
        );
    }
    for messages in &mut stalled {
        assert_eq!(soon(messages.next()).await.unwrap().unwrap().len(), 10_000);
    }
    drop(stalled);
    until("the cancelled calls end", || {
        server.stats.open_calls.load(Ordering::Relaxed) == 0
    })
    .await;
    assert_eq!(server.stats.accepted.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_on_either_side() {
    let server = start(Some(server_tls()));
    let channel = channel(server.addr, Some(client_tls()));
    let limit = 10 * 1024 * 1024;
    let error = soon(channel.unary(UNARY, vec![0; limit + 1].into())).await;
    let status = Status::new(
        Code::ResourceExhausted,
        "grpc: received message larger than max (10485761 vs. 10485760)",
    );
    assert_eq!(error, Err(status));
    assert_eq!(server.stats.messages_too_large.load(Ordering::Relaxed), 1);
    // The neighbours live on the same connection.
    assert_eq!(channel.unary(UNARY, "x".into()).await, Ok("x".into()));
    assert_eq!(server.stats.accepted.load(Ordering::Relaxed), 1);

    let mut settings = quick();
    settings.max_message = 99;
    let small = channel_with(server.addr, Some(client_tls()), settings);
    let mut messages = small
        .server_stream(COUNT, vec![0; 100].into())
        .await
        .unwrap();
    let status = messages.next().await.unwrap().unwrap_err();
    assert_eq!(
        status.message,
        "grpc: received message larger than max (100 vs. 99)"
    );
    assert_eq!(messages.next().await, None);
    assert_eq!(small.unary(UNARY, "x".into()).await, Ok("x".into()));
}

/// Counts what became of messages.
#[derive(Default)]
struct Tally {
    made: AtomicU64,
    delivered: AtomicU64,
    lost: AtomicU64,
}

struct Ticket(Arc<Tally>);

impl Receipt for Ticket {
    fn settle(self: Box<Self>, delivered: bool) {
        let counter = if delivered {
            &self.0.delivered
        } else {
            &self.0.lost
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Tally {
    fn message(self: &Arc<Self>, length: usize) -> Message {
        self.made.fetch_add(1, Ordering::Relaxed);
        Message::from(Bytes::from(vec![3; length])).with_receipt(Box::new(Ticket(Arc::clone(self))))
    }

    fn counts(&self) -> [u64; 3] {
        [&self.made, &self.delivered, &self.lost].map(|count| count.load(Ordering::Relaxed))
    }
}

/// A service whose only method sends such messages for ever.
fn firehose(tally: &Arc<Tally>, length: usize) -> Arc<dyn Service> {
    let tally = Arc::clone(tally);
    Arc::new(Serve(move |_request: Request| -> Answer {
        let tally = Arc::clone(&tally);
        Box::pin(async move {
            Response::Stream(Box::new(Source(move |_: &mut Context<'_>| {
                Poll::Ready(Some(Ok(tally.message(length))))
            })))
        })
    }))
}

#[tokio::test]
async fn every_receipt_is_settled_and_a_source_is_asked_only_when_the_line_is_free() {
    let tally = Arc::new(Tally::default());
    let length = 100_000;
    let server = start_with(
        Some(server_tls()),
        firehose(&tally, length),
        ServerSettings::default(),
    );
    let channel = channel(server.addr, Some(client_tls()));
    let mut messages = channel
        .server_stream("/any/method", Bytes::new())
        .await
        .unwrap();
    for _ in 0..50 {
        assert_eq!(soon(messages.next()).await.unwrap().unwrap().len(), length);
    }
    // Nobody reads any more: what is under way is bounded by the window and one message.
    let mut before = 0;
    until("the source is not asked any more", || {
        let [made, ..] = tally.counts();
        let quiet = made == before;
        before = made;
        quiet
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let [made, delivered, lost] = tally.counts();
    assert!((50..=54).contains(&made), "{made} messages were made");
    assert!(made - delivered <= 1, "{delivered} of {made}");
    assert_eq!(lost, 0);

    drop(messages);
    until("all receipts are settled", || {
        let [made, delivered, lost] = tally.counts();
        made == delivered + lost && server.stats.open_calls.load(Ordering::Relaxed) == 0
    })
    .await;
}

#[tokio::test]
async fn a_clients_receipts_tell_what_the_connection_took() {
    let server = start(None);
    let channel = channel(server.addr, None);
    let tally = Arc::new(Tally::default());
    let (sender, response) = channel.client_stream(COLLECT).await.unwrap();
    for _ in 0..100 {
        sender.send(tally.message(1000)).await.unwrap();
    }
    drop(sender);
    assert_eq!(response.wait().await, Ok(Some("100 100000".into())));
    assert_eq!(tally.counts(), [100, 100, 0]);

    // A server that does not read: then the connection breaks.
    let stuck = start_with(
        None,
        Arc::new(Serve(|request: Request| -> Answer {
            Box::pin(async move {
                std::future::pending::<()>().await;
                drop(request);
                Response::Status(Status::ok())
            })
        })),
        ServerSettings {
            drain_timeout: Duration::from_millis(10),
            ..ServerSettings::default()
        },
    );
    let channel = common::channel(stuck.addr, None);
    let tally = Arc::new(Tally::default());
    let (sender, response) = channel.client_stream("/a/b").await.unwrap();
    let sending = tokio::spawn({
        let tally = Arc::clone(&tally);
        async move {
            loop {
                if let Err(NotSent(message)) = sender.send(tally.message(50_000)).await {
                    assert_eq!(message.len(), 50_000);
                    return;
                }
            }
        }
    });
    until("the window is full", || tally.counts()[1] >= 5).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let [made, delivered, _] = tally.counts();
    assert!(
        made <= 9 && delivered <= 6,
        "{made} made, {delivered} taken"
    );
    stuck.stop.cancel();
    soon(stuck.task).await.unwrap();
    assert_eq!(stuck.stats.cut_at_drain.load(Ordering::Relaxed), 1);
    let status = soon(response.wait()).await.unwrap_err();
    assert_eq!(status.code, Code::Unavailable, "{status}");
    soon(sending).await.unwrap();
    until("all receipts are settled", || {
        let [made, delivered, lost] = tally.counts();
        made == delivered + lost
    })
    .await;
}

/// Sets a flag when it is dropped.
struct OnDrop(Arc<AtomicBool>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn dropping_the_messages_drops_the_source() {
    let gone = Arc::new(AtomicBool::new(false));
    let service = Arc::new(Serve({
        let gone = Arc::clone(&gone);
        move |_request: Request| -> Answer {
            let guard = OnDrop(Arc::clone(&gone));
            Box::pin(async move {
                Response::Stream(Box::new(Source(move |_: &mut Context<'_>| {
                    let _keep = &guard;
                    Poll::Pending
                })))
            })
        }
    }));
    let server = start_with(Some(server_tls()), service, ServerSettings::default());
    let channel = channel(server.addr, Some(client_tls()));
    let messages = channel.server_stream("/a/b", Bytes::new()).await.unwrap();
    until("the call arrives", || {
        server.stats.open_calls.load(Ordering::Relaxed) == 1
    })
    .await;
    assert!(!gone.load(Ordering::Relaxed));
    drop(messages);
    until("the source is dropped", || gone.load(Ordering::Relaxed)).await;
    assert_eq!(server.stats.open.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn dropping_the_pending_response_cancels_the_call() {
    let ended = Arc::new(Mutex::new(None));
    let service = Arc::new(Serve({
        let ended = Arc::clone(&ended);
        move |mut request: Request| -> Answer {
            let ended = Arc::clone(&ended);
            Box::pin(async move {
                let guard = OnDrop(Arc::new(AtomicBool::new(false)));
                let mut count = 0;
                let mut watch = Watch(ended, count);
                while let Some(Ok(_)) = request.messages.next().await {
                    count += 1;
                    watch.1 = count;
                }
                drop(guard);
                Response::Status(Status::ok())
            })
        }
    }));
    /// Notes the count when the call is dropped or ends.
    struct Watch(Arc<Mutex<Option<u32>>>, u32);
    impl Drop for Watch {
        fn drop(&mut self) {
            *self.0.lock().unwrap() = Some(self.1);
        }
    }
    let server = start_with(None, service, ServerSettings::default());
    let channel = channel(server.addr, None);
    let (sender, response) = channel.client_stream("/a/b").await.unwrap();
    sender.send(Bytes::from_static(b"one")).await.unwrap();
    until("the call arrives", || {
        server.stats.open_calls.load(Ordering::Relaxed) == 1
    })
    .await;
    drop(response);
    soon(sender.closed()).await;
    until("the call ends", || ended.lock().unwrap().is_some()).await;
    assert!(sender.send(Bytes::new()).await.is_err());
    assert_eq!(channel.stats().lost.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_channel_connects_again_and_says_why_it_cannot() {
    let server = start(Some(server_tls()));
    let addr = server.addr;
    let channel = channel(addr, Some(client_tls()));
    assert_eq!(*channel.state().borrow(), ChannelState::Idle);
    channel.ready().await.unwrap();
    let mut messages = channel.server_stream(HANG, Bytes::new()).await.unwrap();
    until("the call arrives", || {
        server.stats.open_calls.load(Ordering::Relaxed) == 1
    })
    .await;
    server.stop.cancel();
    soon(server.task).await.unwrap();
    let status = soon(messages.next()).await.unwrap().unwrap_err();
    assert_eq!(status, Status::unavailable("the server is shutting down"));

    let error = loop {
        // The end of the connection may be noticed by this very call.
        let error = soon(channel.ready()).await;
        if let Err(error) = error {
            break error;
        }
    };
    assert_eq!(error.code, Code::Unavailable);
    assert!(
        error.message.contains(&addr.to_string()) && error.message.contains("refused"),
        "{error}"
    );
    assert!(soon(channel.unary(UNARY, "x".into())).await.is_err());

    let server = Server::bind(addr).unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(server.serve(
        Some(server_tls()),
        echo(),
        ServerSettings::default(),
        stop.clone(),
    ));
    soon(async { while channel.ready().await.is_err() {} }).await;
    assert_eq!(channel.unary(UNARY, "x".into()).await, Ok("x".into()));
    assert_eq!(channel.stats().connected.load(Ordering::Relaxed), 2);
    stop.cancel();
}

#[tokio::test]
async fn a_refused_certificate_is_an_error_of_the_channel() {
    let server = start(Some(server_tls()));
    let anonymous =
        loggregator_net::ClientTls::ca_only_with(&PKI.ca(), loggregator_net::Profile::Grpc)
            .unwrap();
    let channel = channel(server.addr, Some(anonymous));
    let error = soon(channel.ready()).await.unwrap_err();
    assert!(error.message.contains("CertificateRequired"), "{error}");
    until("the failure is counted", || {
        server
            .stats
            .handshake_failures()
            .any(|(kind, count)| kind == "certificate" && count == 1)
    })
    .await;

    let wrong_name = loggregator_net::grpc::Channel::new(loggregator_net::grpc::Endpoint {
        addr: server.addr.to_string(),
        server_name: "reverselogproxy".into(),
        tls: Some(client_tls()),
        settings: quick(),
    });
    let error = soon(wrong_name.ready()).await.unwrap_err();
    assert!(error.message.contains("reverselogproxy"), "{error}");
}

/// What has come is used, what is ready is sent, and then everything ends.
#[tokio::test]
async fn a_server_drains() {
    let server = start(Some(server_tls()));
    let channel = channel(server.addr, Some(client_tls()));
    let (sender, response) = channel.client_stream(COLLECT).await.unwrap();
    sender.send(Bytes::from_static(b"one")).await.unwrap();
    let mut hanging = channel.server_stream(HANG, Bytes::new()).await.unwrap();
    until("both calls arrive", || {
        server.stats.open_calls.load(Ordering::Relaxed) == 2
    })
    .await;
    server.stop.cancel();
    let draining = Status::unavailable("the server is shutting down");
    assert_eq!(soon(hanging.next()).await, Some(Err(draining.clone())));
    assert_eq!(soon(response.wait()).await, Err(draining));
    soon(server.task).await.unwrap();
    assert_eq!(server.stats.cut_at_drain.load(Ordering::Relaxed), 0);
    assert_eq!(server.stats.open.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_at_once() {
    let settings = ServerSettings {
        max_connections: 2,
        ..ServerSettings::default()
    };
    let server = start_with(Some(server_tls()), echo(), settings);
    let first = channel(server.addr, Some(client_tls()));
    let second = channel(server.addr, Some(client_tls()));
    first.ready().await.unwrap();
    second.ready().await.unwrap();
    let third = channel(server.addr, Some(client_tls()));
    soon(third.ready()).await.unwrap_err();
    assert_eq!(server.stats.refused_over_limit.load(Ordering::Relaxed), 1);
    drop(first);
    soon(async { while third.ready().await.is_err() {} }).await;
    assert_eq!(third.unary(UNARY, "x".into()).await, Ok("x".into()));
}

/// Half-open, garbage, and clients that go away at any moment: all gone again, neighbours unharmed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_connections_hurt_nobody() {
    use tokio::io::AsyncWriteExt;
    let settings = ServerSettings {
        handshake_timeout: Duration::from_millis(300),
        ..ServerSettings::default()
    };
    let server = start_with(Some(server_tls()), echo(), settings);
    let channel = channel(server.addr, Some(client_tls()));
    channel.ready().await.unwrap();
    let mut open = Vec::new();
    for round in 0..120_u8 {
        let mut tcp = tokio::net::TcpStream::connect(server.addr).await.unwrap();
        match round % 4 {
            0 => {}
            1 => tcp.write_all(&[round; 500]).await.unwrap(),
            2 => tcp.write_all(&[22, 3, 1, 2, 0, 1, 0]).await.unwrap(),
            _ => {
                let tls = client_tls();
                let mut stream =
                    loggregator_net::tls_connect(tcp, &tls, "doppler", Duration::from_secs(10))
                        .await
                        .unwrap();
                stream
                    .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                    .await
                    .unwrap();
                stream.write_all(&[round; 300]).await.unwrap();
                stream.flush().await.unwrap();
                continue;
            }
        }
        if round % 8 < 4 {
            open.push(tcp);
        }
    }
    assert_eq!(channel.unary(UNARY, "x".into()).await, Ok("x".into()));
    until("all but one are gone", || {
        server.stats.open.load(Ordering::Relaxed) == 1
    })
    .await;
    assert_eq!(channel.unary(UNARY, "x".into()).await, Ok("x".into()));
    assert_eq!(server.stats.accepted.load(Ordering::Relaxed), 121);
    let failures: u64 = server
        .stats
        .handshake_failures()
        .map(|(_, count)| count)
        .sum();
    assert_eq!(failures, 90);
}
