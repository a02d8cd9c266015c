//! What flows, from where to whom, and what ends it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use loggregator_net::{ClientTls, Profile, tls_connect};
use loggregator_proto::plumbing::{Filter, LogFilter, MetricFilter, filter};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::client::Ws;
use crate::doppler::Doppler;
use crate::rig::{PATIENCE, Rig, soon, until};

#[tokio::test]
async fn the_firehose_relays_every_payload_unchanged_and_shards_by_its_id() {
    let rig = Rig::new().await;
    let mut client = Ws::connect(rig.addr(), "/firehose/my-nozzle?").await;
    let subscription = rig.doppler().subscription(0).await;
    assert_eq!(subscription.request.shard_id, "my-nozzle");
    assert_eq!(subscription.request.filter, None);
    let large = vec![0xee; 300_000];
    subscription.send(&[b"first", b"\xff\xfe not protobuf", b""]);
    subscription.send(&[&large]);
    for payload in [&b"first"[..], b"\xff\xfe not protobuf", b"", &large] {
        assert_eq!(client.payload().await, payload);
    }
}

#[tokio::test]
async fn batches_of_up_to_ten_mebibytes_are_taken() {
    let rig = Rig::new().await;
    let mut client = Ws::connect(rig.addr(), "/firehose/a").await;
    let subscription = rig.doppler().subscription(0).await;
    let payload = vec![0xee; 300_000];
    subscription.send(&[&payload[..]; 34]);
    for _ in 0..34 {
        assert!(client.payload().await == payload);
    }
}

#[tokio::test]
async fn filters_and_app_ids_reach_the_doppler() {
    let rig = Rig::new().await;
    let _logs = Ws::connect(rig.addr(), "/firehose/logs?filter-type=logs").await;
    let _metrics = Ws::connect(rig.addr(), "/firehose/metrics?filter-type=metrics").await;
    let _app = Ws::connect(
        rig.addr(),
        "/apps/efe5c422-e8a7-42c2-a52b-98bffd8d6a07/stream",
    )
    .await;
    let kind = |message| {
        Some(Filter {
            app_id: String::new(),
            message: Some(message),
        })
    };
    let logs = rig.doppler().of_shard("logs").await;
    assert_eq!(
        logs.request.filter,
        kind(filter::Message::Log(LogFilter {}))
    );
    let metrics = rig.doppler().of_shard("metrics").await;
    assert_eq!(
        metrics.request.filter,
        kind(filter::Message::Metric(MetricFilter {}))
    );
    let app = rig.doppler().of_shard("").await;
    let app_id = "efe5c422-e8a7-42c2-a52b-98bffd8d6a07".to_owned();
    assert_eq!(
        app.request.filter,
        Some(Filter {
            app_id,
            message: None
        })
    );
}

#[tokio::test]
async fn all_who_tail_one_application_share_one_subscription() {
    let rig = Rig::with(2, |_, _| {}).await;
    let path = "/apps/efe5c422-e8a7-42c2-a52b-98bffd8d6a07/stream";
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Ws::connect(rig.addr(), path).await);
    }
    for (i, doppler) in rig.dopplers.iter().enumerate() {
        let subscription = doppler.subscription(0).await;
        for n in 0..10 {
            subscription.send(&[format!("{i} {n}").as_bytes()]);
        }
    }
    for client in &mut clients {
        let mut next = [0, 0];
        for _ in 0..20 {
            let payload = String::from_utf8(client.payload().await).unwrap();
            let (i, n) = payload.split_once(' ').unwrap();
            let next: &mut usize = &mut next[i.parse::<usize>().unwrap()];
            assert_eq!(n, next.to_string());
            *next += 1;
        }
    }
    assert!(
        rig.dopplers
            .iter()
            .all(|doppler| doppler.subscriptions() == 1)
    );
    let (_, metrics) = rig.admin("/metrics").await;
    for line in [
        "loggregator_traffic_controller_shared_streams 1",
        "loggregator_traffic_controller_shared_stream_readers 20",
        "loggregator_traffic_controller_ingress_envelopes_total 20",
    ] {
        assert!(metrics.lines().any(|there| there == line), "{line}");
    }
    let last = clients.pop().unwrap();
    for client in clients {
        client.close().await;
    }
    rig.ledger_with_closed(19).await;
    let subscription = rig.doppler().subscription(0).await;
    assert!(!subscription.gone.load(Ordering::SeqCst));
    last.close().await;
    subscription.cancelled().await;
    let ledger = rig.ledger_with_closed(20).await;
    assert_eq!(ledger.ingress.received, 20);
    assert!(ledger.subscriptions.iter().all(|line| line.delivered == 20));
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_subscription_within_a_second() {
    let rig = Rig::new().await;
    let client = Ws::connect(rig.addr(), "/firehose/polite").await;
    let polite = rig.doppler().of_shard("polite").await;
    let started = Instant::now();
    client.close().await;
    polite.cancelled().await;
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );

    let client = Ws::connect(rig.addr(), "/firehose/rude").await;
    let rude = rig.doppler().of_shard("rude").await;
    let started = Instant::now();
    drop(client);
    rude.cancelled().await;
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    rig.ledger_with_closed(2).await;
}

#[tokio::test]
async fn all_dopplers_are_merged_and_any_of_them_may_leave_and_come() {
    let mut rig = Rig::with(2, |_, _| {}).await;
    let mut client = Ws::connect(rig.addr(), "/firehose/all").await;
    for (i, doppler) in rig.dopplers.iter().enumerate() {
        doppler
            .subscription(0)
            .await
            .send(&[format!("from {i}").as_bytes()]);
    }
    let mut got = [client.payload().await, client.payload().await];
    got.sort();
    assert_eq!(got, [b"from 0".to_vec(), b"from 1".to_vec()]);

    let addr = rig.dopplers.remove(0).kill().await;
    rig.dopplers[0].subscription(0).await.send(&[b"goes on"]);
    assert_eq!(client.payload().await, b"goes on");

    let back = Doppler::start_at(&rig.certs, addr);
    let again = back.subscription(0).await;
    assert_eq!(again.request.shard_id, "all");
    again.send(&[b"is back"]);
    assert_eq!(client.payload().await, b"is back");
    client.close().await;
    let report = rig.ledger_with_closed(1).await;
    assert_eq!(
        (
            report.subscriptions[0].received,
            report.subscriptions[0].delivered
        ),
        (4, 4)
    );
}

#[tokio::test]
async fn a_stream_that_the_doppler_ends_is_asked_for_again() {
    let rig = Rig::new().await;
    let mut client = Ws::connect(rig.addr(), "/firehose/s").await;
    let first = rig.doppler().subscription(0).await;
    first.send(&[b"one"]);
    first.end();
    rig.doppler().subscription(1).await.send(&[b"two"]);
    assert_eq!(client.payload().await, b"one");
    assert_eq!(client.payload().await, b"two");
}

#[tokio::test]
async fn dopplers_are_connected_before_anybody_subscribes() {
    let rig = Rig::new().await;
    let started = Instant::now();
    while rig.admin("/readyz").await.0 != 200 {
        assert!(started.elapsed() < PATIENCE, "never ready");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(rig.doppler().subscriptions(), 0);
}

#[tokio::test]
async fn a_client_may_come_before_the_dopplers() {
    let mut rig = Rig::new().await;
    let addr = rig.dopplers.remove(0).kill().await;
    let (status, reasons) = rig.admin("/readyz").await;
    let mut client = Ws::connect(rig.addr(), "/firehose/early").await;
    let late = Doppler::start_at(&rig.certs, addr);
    late.subscription(0).await.send(&[b"at last"]);
    assert_eq!(client.payload().await, b"at last");
    // It may have been ready before the doppler was killed, and is again.
    assert!(
        status == 200 || reasons.contains("dopplers"),
        "{status} {reasons}"
    );
    let started = Instant::now();
    while rig.admin("/readyz").await.0 != 200 {
        assert!(started.elapsed() < PATIENCE, "never ready");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn two_hundred_clients_each_get_their_own() {
    let rig = Rig::new().await;
    let mut clients = Vec::new();
    for i in 0..200 {
        clients.push(Ws::connect(rig.addr(), &format!("/firehose/{i}")).await);
    }
    for i in 0..200 {
        let subscription = rig.doppler().of_shard(&i.to_string()).await;
        subscription.send(&[format!("for {i}").as_bytes(), b"and more"]);
    }
    for (i, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.payload().await, format!("for {i}").as_bytes());
        assert_eq!(client.payload().await, b"and more");
    }
    assert_eq!(rig.doppler().subscriptions(), 200);
    for client in clients {
        client.close().await;
    }
    let report = rig.ledger_with_closed(200).await;
    assert!(
        report
            .subscriptions
            .iter()
            .all(|line| (line.received, line.delivered) == (2, 2))
    );
    let metrics = rig.admin("/metrics").await.1;
    let line = "loggregator_traffic_controller_egress_envelopes_total{endpoint=\"firehose\"} 400";
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test]
async fn tls_clients_are_served_too() {
    let rig = Rig::with(1, |config, certs| {
        let tls = certs.of("trafficcontroller");
        config.listen_tls = Some((tls.cert, tls.key));
    })
    .await;
    assert!(rig.running.tls);
    let tls = ClientTls::ca_only(&rig.certs.file("ca.crt")).unwrap();
    let tcp = TcpStream::connect(rig.addr()).await.unwrap();
    let io = tls_connect(tcp, &tls, "trafficcontroller", PATIENCE)
        .await
        .unwrap();
    let mut client = Ws::over(io, rig.addr(), "/firehose/secure", "")
        .await
        .unwrap();
    let subscription = rig.doppler().of_shard("secure").await;
    for i in 0..1000 {
        subscription.send(&[&[i as u8; 1000]]);
    }
    for i in 0..1000 {
        assert_eq!(client.payload().await, [i as u8; 1000]);
    }
    client.close().await;
    subscription.cancelled().await;
}

#[tokio::test]
async fn clients_that_prefer_http_2_are_served_over_http_1() {
    let rig = Rig::with(1, |config, certs| {
        let tls = certs.of("trafficcontroller");
        config.listen_tls = Some((tls.cert, tls.key));
    })
    .await;
    let tls = ClientTls::ca_only_with(&rig.certs.file("ca.crt"), Profile::Http2).unwrap();
    let tcp = TcpStream::connect(rig.addr()).await.unwrap();
    let io = tls_connect(tcp, &tls, "trafficcontroller", PATIENCE)
        .await
        .unwrap();
    assert_eq!(io.connection().alpn_protocol(), Some(&b"http/1.1"[..]));
    Ws::over(io, rig.addr(), "/firehose/a", "").await.unwrap();
}

#[tokio::test]
async fn a_stop_turns_new_clients_away_and_says_goodbye_to_the_others() {
    let rig = Rig::new().await;
    let mut client = Ws::connect(rig.addr(), "/firehose/s").await;
    rig.doppler().subscription(0).await.send(&[b"last words"]);
    until("the client is fed", || true).await;
    assert_eq!(client.payload().await, b"last words");
    let lifecycle = rig.lifecycle.clone();
    let shutdown = tokio::spawn(async move { lifecycle.shutdown(PATIENCE).await });
    let frame = client.closed().await;
    assert_eq!((frame.code, frame.reason.as_str()), (CloseCode::Away, ""));
    assert!(client.message().await.is_none());
    let report = soon("the drain", shutdown).await.unwrap();
    assert!(report.finished(), "{report:?}");
    assert!(report.took < Duration::from_secs(3), "{report:?}");
    assert!(TcpStream::connect(rig.addr()).await.is_err());
}
