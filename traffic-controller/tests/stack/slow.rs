//! Clients that do not read or do not answer, and those beside them.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use loggregator_net::{ClientTls, tls_connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use traffic_controller::Timing;

use crate::client::Ws;
use crate::rig::{PATIENCE, Rig};

/// Connects by hand and then reads nothing.
pub async fn connect_and_stall(rig: &Rig, path: &str) -> TcpStream {
    let mut io = TcpStream::connect(rig.addr()).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    io.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.unwrap());
    }
    assert!(
        head.starts_with(b"HTTP/1.1 101"),
        "{}",
        String::from_utf8_lossy(&head)
    );
    io
}

#[tokio::test]
async fn slow_clients_are_cut_and_the_others_do_not_feel_it() {
    let slow_after = Duration::from_secs(1);
    let rig = Rig::with(1, |config, _| {
        config.timing = Timing {
            slow_after,
            drop_after: slow_after * 2,
            ..Timing::default()
        };
    })
    .await;
    let mut reader = Ws::connect(rig.addr(), "/firehose/reader").await;
    let reading = rig.doppler().of_shard("reader").await;

    // Many more than would fit side by side into an ordinary connection window.
    let mut stalled = Vec::new();
    for i in 0..12 {
        stalled.push(connect_and_stall(&rig, &format!("/firehose/slow-{i}")).await);
        let subscription = rig.doppler().of_shard(&format!("slow-{i}")).await;
        subscription.flood(&[&[0; 1000][..]; 100]);
    }
    let mut slowest = Duration::ZERO;
    let started = Instant::now();
    let mut sent = 0u32;
    let last = rig.doppler().of_shard("slow-11").await;
    while !last.gone.load(Ordering::SeqCst) || started.elapsed() < slow_after {
        let asked = Instant::now();
        reading.send(&[&sent.to_be_bytes()]);
        assert_eq!(reader.payload().await, sent.to_be_bytes());
        slowest = slowest.max(asked.elapsed());
        sent += 1;
        assert!(
            started.elapsed() < crate::rig::PATIENCE,
            "the slow clients are never cut"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(slowest < slow_after, "the reader waited {slowest:?}");
    let report = rig.ledger_with_closed(12).await;
    for line in report.subscriptions.iter().filter(|line| !line.open) {
        assert!(line.id.starts_with("slow-"), "{line:?}");
        assert!(line.dropped["slow_consumer"] > 0, "{line:?}");
    }
    let open = report.subscriptions.iter().find(|line| line.open).unwrap();
    assert_eq!(
        (open.id.as_str(), open.delivered),
        ("reader", u64::from(sent))
    );
    let metrics = rig.admin("/metrics").await.1;
    let line = "loggregator_traffic_controller_slow_consumers_total{endpoint=\"firehose\"} 12";
    assert!(metrics.contains(line), "{metrics}");
    drop(stalled);
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_closed_with_1008() {
    let rig = Rig::with(1, |config, _| {
        config.timing.pong_deadline = Duration::from_millis(300)
    })
    .await;
    let mut io = connect_and_stall(&rig, "/firehose/silent").await;
    let mut seen = Vec::new();
    io.read_to_end(&mut seen).await.unwrap();
    let reason = b"Client did not respond to ping before keep-alive timeout expired.";
    let mut expected = vec![0x89, 0, 0x88, 2 + reason.len() as u8, 0x03, 0xf0];
    expected.extend(reason);
    assert_eq!(seen, expected);
    let report = rig.ledger_with_closed(1).await;
    assert!(report.subscriptions[0].dropped.is_empty());
    let metrics = rig.admin("/metrics").await.1;
    let line = "loggregator_traffic_controller_closed_clients_total\
                {endpoint=\"firehose\",reason=\"keep_alive_expired\"} 1";
    assert!(metrics.contains(line), "{metrics}");
}

/// A TLS client that reads so slowly that a batch takes many times the limit.
#[tokio::test]
async fn a_slow_line_under_tls_is_no_slow_consumer_and_a_stuck_one_is() {
    let slow_after = Duration::from_millis(600);
    let rig = Rig::with(1, |config, certs| {
        let tls = certs.of("trafficcontroller");
        config.listen_tls = Some((tls.cert, tls.key));
        let drop_after = slow_after * 2;
        config.timing = Timing {
            slow_after,
            drop_after,
            ..Timing::default()
        };
    })
    .await;
    let tls = ClientTls::ca_only(&rig.certs.file("ca.crt")).unwrap();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    // So small that the kernel takes little at a time.
    socket.set_recv_buffer_size(4096).unwrap();
    let tcp = socket.connect(rig.addr()).await.unwrap();
    let io = tls_connect(tcp, &tls, "trafficcontroller", PATIENCE)
        .await
        .unwrap();
    let mut client = Ws::over(io, rig.addr(), "/firehose/slow", "")
        .await
        .unwrap();
    let subscription = rig.doppler().of_shard("slow").await;
    subscription.send(&[&[7; 20_000][..]; 40]);
    let started = Instant::now();
    for _ in 0..40 {
        assert_eq!(client.payload().await, [7; 20_000]);
        tokio::time::sleep(slow_after / 10).await;
    }
    assert!(started.elapsed() > 3 * slow_after);
    let report = rig.ledger().await;
    assert!(report.subscriptions[0].open, "{report:?}");

    subscription.flood(&[&[7; 20_000][..]; 4]);
    let report = rig.ledger_with_closed(1).await;
    assert!(
        report.subscriptions[0].dropped["slow_consumer"] > 0,
        "{report:?}"
    );
}
