//! Server and channel against each other, over plain TCP and over mutual TLS.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use common::*;
use loggregator_net::grpc::{
    ChannelState, Code, Message, Receipt, Request, Response, ServerSettings, Status,
};

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
