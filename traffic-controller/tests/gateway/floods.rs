//! Clients that mean no good, or are simply gone.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::Client;
use crate::proxy::{batch, counter, data_event};
use crate::rig::{Rig, soon, until};

/// All that the server says until it closes, politely or with a reset.
async fn to_end(io: &mut TcpStream) -> String {
    let mut seen = Vec::new();
    drop(soon("the end", io.read_to_end(&mut seen)).await);
    String::from_utf8(seen).unwrap()
}

#[tokio::test]
async fn a_head_must_be_whole_in_time_and_may_not_be_endless() {
    let rig = Rig::new().await;
    // Half a head: closed after two seconds.
    let mut half = TcpStream::connect(rig.addr()).await.unwrap();
    half.write_all(b"GET /v2/read?log HTTP/1.1\r\nhost:")
        .await
        .unwrap();
    to_end(&mut half).await;
    // Headers without an end, and a target without an end.
    for (start, more) in [
        (
            &b"GET /v2/read?log HTTP/1.1\r\n"[..],
            &b"x-flood: 0123456789\r\n"[..],
        ),
        (b"GET /v2/read?log=", b"0123456789abcdef"),
    ] {
        let mut io = TcpStream::connect(rig.addr()).await.unwrap();
        let (mut read, mut write) = io.split();
        let flood = async {
            let more = more.repeat(1000);
            let mut sent = write.write_all(start).await.is_ok();
            let mut bytes = 0;
            while sent && bytes < 64 << 20 {
                sent = write.write_all(&more).await.is_ok();
                bytes += more.len();
            }
            bytes
        };
        let answer = async {
            let mut seen = Vec::new();
            drop(read.read_to_end(&mut seen).await);
            String::from_utf8_lossy(&seen).into_owned()
        };
        let (bytes, answer) = soon("the cut", async { tokio::join!(flood, answer) }).await;
        assert!(bytes < 32 << 20, "{bytes} bytes were taken");
        assert!(!answer.contains(" 200 "), "{answer}");
    }
    until("all connections are gone", || {
        rig.proxy.open.load(Ordering::Relaxed) == 0
    })
    .await;
}

#[tokio::test]
async fn a_client_that_disappears_leaves_the_proxy_and_what_it_did_not_get_is_counted() {
    let mut rig = Rig::new().await;
    let (client, _) = Client::get(rig.addr(), "/v2/read?counter&shard_id=gone").await;
    let proxy = rig.opened.next().await;
    // More than sockets hold, and it reads nothing.
    for _ in 0..100 {
        proxy.send(batch((0..1000).map(counter)));
    }
    until("some were taken", || {
        proxy.taken.load(Ordering::Relaxed) > 2
    })
    .await;
    drop(client);
    proxy.closed().await;
    let report = rig.ledger_with_closed(1).await;
    let line = &report.subscriptions[0];
    let lost = line.dropped["disconnected"];
    assert!(lost >= 1000, "{line:?}");
    assert_eq!(line.received, line.delivered + lost);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let mut rig = Rig::with(|config| config.write_timeout = Duration::from_secs(1)).await;
    let (_client, _) = Client::get(rig.addr(), "/v2/read?counter").await;
    let proxy = rig.opened.next().await;
    for _ in 0..200 {
        proxy.send(batch((0..1000).map(counter)));
    }
    proxy.closed().await;
}

#[tokio::test]
async fn a_client_that_reads_slowly_does_not_hold_its_stream_for_ever() {
    let mut rig = Rig::with(|config| {
        config.write_timeout = Duration::from_secs(3);
        config.stream_timeout = Duration::from_millis(100);
        config.resume_grace = Duration::ZERO;
    })
    .await;
    let mut io = TcpStream::connect(rig.addr()).await.unwrap();
    io.write_all(b"GET /v2/read?counter HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let proxy = rig.opened.next().await;
    // One event that takes a minute at this reader's pace, which is never without a byte for as long as the write timeout.
    proxy.send(batch((0..200_000).map(counter)));
    let reader = tokio::spawn(async move {
        let mut some = vec![0; 50 * 1024];
        while io.read_exact(&mut some).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    proxy.closed().await;
    let report = rig.ledger_with_closed(1).await;
    let line = &report.subscriptions[0];
    assert_eq!((line.received, line.delivered), (200_000, 0));
    assert_eq!(line.dropped["stream_timeout"], 200_000);
    reader.abort();
}

#[tokio::test]
async fn a_thousand_streams_and_no_more() {
    const STREAMS: usize = 1000;
    let mut rig = Rig::with(|config| config.max_streams = STREAMS).await;
    let mut clients = Vec::new();
    for _ in 0..STREAMS {
        let (client, head) = Client::get(rig.addr(), "/v2/read?counter").await;
        assert_eq!(head.status, 200);
        clients.push((client, rig.opened.next().await));
    }
    for _ in 0..20 {
        let (mut refused, head) = Client::get(rig.addr(), "/v2/read?counter").await;
        assert_eq!(head.status, 503);
        let body = "{\"message\":\"streaming is temporarily unavailable\",\"error\":\"streaming_unavailable\"}\n\n";
        assert_eq!(refused.body(&head).await, body);
    }
    for (client, proxy) in &mut clients {
        proxy.send(batch([counter(1)]));
        assert_eq!(client.chunk().await.unwrap(), data_event([1]));
    }
    drop(clients);
    until("all subscriptions are closed", || {
        rig.proxy.open.load(Ordering::Relaxed) == 0
    })
    .await;
}
