//! A whole agent on ephemeral ports: what comes in over the network comes out at a doppler.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the report

mod support;

use std::time::Duration;

use bytes::Bytes;
use loggregator_agent::{Config, Error, V1Defaults};
use loggregator_client::{Emitter, EmitterConfig, message};
use loggregator_net::grpc::Code;
use loggregator_proto::v2::{self, EnvelopeBatch, envelope::Message};
use loggregator_proto::{events, rpc};
use prost::Message as _;
use support::{Agent, Certificates, FakeDoppler, PATIENCE, until};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UdpSocket};

fn emitter(agent: &Agent) -> Emitter {
    let mut config = EmitterConfig::new(&agent.running.grpc_addr.to_string(), None);
    config.connector = agent.connector.clone();
    Emitter::new(config)
}

#[tokio::test]
async fn v2_envelopes_get_tags_and_totals_and_arrive_in_order() {
    let certificates = Certificates::new();
    let doppler = FakeDoppler::start(&certificates);
    let agent = Agent::start(&certificates, &[doppler.addr], |config| {
        config.tags = [("deployment", "cf"), ("job", "j")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
    })
    .await;
    let emitter = emitter(&agent);
    for number in 0..1000 {
        emitter
            .emit(
                message::log(number.to_string())
                    .source("app", "0")
                    .tag("job", "own"),
            )
            .await
            .unwrap();
        emitter
            .emit(message::counter("c", 2).source("app", "0"))
            .await
            .unwrap();
    }
    assert_eq!(emitter.close(PATIENCE).await.sent, 2000);
    until("all arrive", || doppler.count() == 2000).await;
    assert_eq!(
        doppler.lines("app"),
        (0..1000).map(|n| n.to_string()).collect::<Vec<_>>()
    );
    {
        let received = doppler.received.lock();
        assert!(received.iter().all(|e| e.tags["deployment"] == "cf"));
        assert_eq!(received[0].tags["job"], "own");
        let counter = |e: &v2::Envelope| match &e.message {
            Some(Message::Counter(c)) => Some(c.total),
            _ => None,
        };
        let totals: Vec<u64> = received.iter().filter_map(counter).collect();
        assert_eq!(totals, (1..=1000).map(|n| n * 2).collect::<Vec<_>>());
    }
    assert!(agent.stop().await.finished());
    assert_eq!(agent.ledger(), (2000, 2000, 0, 0));
}

#[tokio::test]
async fn malformed_messages_are_counted_and_their_neighbours_unharmed() {
    let certificates = Certificates::new();
    let doppler = FakeDoppler::start(&certificates);
    let agent = Agent::start(&certificates, &[doppler.addr], |_| {}).await;
    let channel = agent
        .connector
        .channel(&agent.running.grpc_addr.to_string());
    let good = message::log("good").source("a", "0").build();
    let batch: Bytes = EnvelopeBatch {
        batch: vec![good.clone()],
    }
    .encode_to_vec()
    .into();
    let mut with_a_bad_one = batch.to_vec();
    with_a_bad_one.extend(b"\x0a\x02\x12\x7f"); // a source id longer than its envelope

    let (batches, batches_end) = channel
        .client_stream(rpc::INGRESS_BATCH_SENDER)
        .await
        .unwrap();
    for message in [
        batch.clone(),
        Bytes::from_static(b"\xff\xff"),
        with_a_bad_one.into(),
        batch.clone(),
    ] {
        batches.send(message).await.unwrap();
    }
    let (singles, singles_end) = channel.client_stream(rpc::INGRESS_SENDER).await.unwrap();
    for message in [
        good.encode_to_vec().into(),
        Bytes::from_static(b"\x12\x7f"),
        good.encode_to_vec().into(),
    ] {
        singles.send(message).await.unwrap();
    }
    drop((batches, singles));
    assert_eq!(batches_end.wait().await.unwrap(), Some(Bytes::new()));
    assert_eq!(singles_end.wait().await.unwrap(), Some(Bytes::new()));
    assert_eq!(
        channel.unary(rpc::INGRESS_SEND, batch).await.unwrap(),
        Bytes::new()
    );
    let status = channel
        .unary(rpc::INGRESS_SEND, Bytes::from_static(b"\x0a\x7f"))
        .await
        .unwrap_err();
    assert_eq!(status.code, Code::Internal);
    let status = channel
        .unary("/loggregator.v2.Ingress/Nothing", Bytes::new())
        .await
        .unwrap_err();
    assert_eq!(status.code, Code::Unimplemented);

    until("the good ones arrive", || doppler.count() == 6).await;
    assert_eq!(
        (
            agent.rejected("malformed_batch"),
            agent.rejected("malformed_envelope")
        ),
        (2, 2)
    );
    agent.stop().await;
    assert_eq!(agent.ledger().0, 6);
}

#[tokio::test]
async fn logs_can_be_disabled() {
    let certificates = Certificates::new();
    let doppler = FakeDoppler::start(&certificates);
    let agent = Agent::start(&certificates, &[doppler.addr], |config| {
        config.logs_disabled = true
    })
    .await;
    let emitter = emitter(&agent);
    emitter
        .emit(message::log("no").source("a", "0"))
        .await
        .unwrap();
    emitter
        .emit(message::event("yes", "").source("a", "0"))
        .await
        .unwrap();
    emitter.close(PATIENCE).await;
    until("the event arrives", || doppler.count() == 1).await;
    assert_eq!(agent.rejected("logs_disabled"), 1);
    agent.stop().await;
}

#[tokio::test]
async fn v1_datagrams_are_completed_and_converted() {
    let certificates = Certificates::new();
    let doppler = FakeDoppler::start(&certificates);
    let agent = Agent::start(&certificates, &[doppler.addr], |config| {
        config.v1 = V1Defaults {
            deployment: "cf".to_owned(),
            ..V1Defaults::default()
        };
    })
    .await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = agent.running.udp_addr.unwrap();
    let log = events::Envelope {
        origin: "rep".to_owned(),
        event_type: events::envelope::EventType::LogMessage as i32,
        timestamp: Some(7),
        log_message: Some(events::LogMessage {
            message: Bytes::from_static(b"from v1"),
            message_type: 2,
            timestamp: 9,
            app_id: Some("app".to_owned()),
            source_instance: Some("3".to_owned()),
            ..Default::default()
        }),
        ..Default::default()
    };
    socket.send_to(b"junk", to).await.unwrap();
    socket.send_to(&log.encode_to_vec(), to).await.unwrap();
    let counter = events::Envelope {
        origin: "rep".to_owned(),
        event_type: events::envelope::EventType::CounterEvent as i32,
        counter_event: Some(events::CounterEvent {
            name: "c".to_owned(),
            delta: 4,
            total: None,
        }),
        ..Default::default()
    };
    socket.send_to(&counter.encode_to_vec(), to).await.unwrap();
    socket.send_to(&counter.encode_to_vec(), to).await.unwrap();
    until("all arrive", || doppler.count() == 3).await;
    let received = doppler.received.lock().clone();
    assert_eq!(
        (
            received[0].source_id.as_str(),
            received[0].instance_id.as_str()
        ),
        ("app", "3")
    );
    assert_eq!(
        (
            received[0].timestamp,
            received[0].tags["deployment"].as_str()
        ),
        (7, "cf")
    );
    assert_eq!(support::payload(&received[0]).unwrap(), "from v1");
    assert_eq!(received[1].source_id, "rep");
    let Some(Message::Counter(c)) = &received[2].message else {
        panic!("{:?}", received[2])
    };
    assert_eq!((c.delta, c.total), (4, 8));
    assert_eq!(agent.rejected("malformed"), 1);
    agent.stop().await;
    assert_eq!(agent.ledger(), (3, 3, 0, 0));
}

#[tokio::test]
async fn syslog_arrives_over_udp_and_over_tcp_in_both_framings() {
    let certificates = Certificates::new();
    let doppler = FakeDoppler::start(&certificates);
    let agent = Agent::start(&certificates, &[doppler.addr], |_| {}).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = agent.running.syslog_udp_addr.unwrap();
    socket
        .send_to(b"<13>Oct 11 22:14:15 host app[1]: over udp\n", to)
        .await
        .unwrap();
    socket.send_to(b"no priority", to).await.unwrap();
    let mut stream = TcpStream::connect(agent.running.syslog_tcp_addr.unwrap())
        .await
        .unwrap();
    let counted = b"<14>1 - - app - - - counted\nand\n";
    stream
        .write_all(format!("{} ", counted.len()).as_bytes())
        .await
        .unwrap();
    stream.write_all(counted).await.unwrap();
    stream
        .write_all(b"<13>app: by line\n<13>app: cut by the end")
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    until("all arrive", || doppler.count() == 4).await;
    let mut lines = doppler.lines("app");
    lines.sort();
    assert_eq!(
        lines,
        ["by line", "counted\nand", "cut by the end", "over udp"]
    );
    assert_eq!(agent.rejected("priority"), 1);
    agent.stop().await;
    assert_eq!(agent.ledger(), (4, 4, 0, 0));
}

#[tokio::test]
async fn syslog_connections_are_limited_in_number_time_and_size() {
    let certificates = Certificates::new();
    let doppler = FakeDoppler::start(&certificates);
    let agent = Agent::start(&certificates, &[doppler.addr], |config| {
        config.syslog.max_connections = 1;
        config.syslog.idle_timeout = Duration::from_millis(200);
        config.syslog.max_message = 20;
    })
    .await;
    let addr = agent.running.syslog_tcp_addr.unwrap();
    let mut first = TcpStream::connect(addr).await.unwrap();
    first
        .write_all(b"<13>app: 34567890123456789\n")
        .await
        .unwrap();
    until("it is served", || doppler.lines("app") == ["34567890123"]).await;
    let closed = |mut stream: TcpStream| async move {
        let mut rest = Vec::new();
        let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest);
        // End or reset, as long as it is over.
        tokio::time::timeout(PATIENCE, read).await.is_ok()
    };
    assert!(
        closed(TcpStream::connect(addr).await.unwrap()).await,
        "one too many"
    );
    assert!(closed(first).await, "silent for too long");
    let mut broken = TcpStream::connect(addr).await.unwrap();
    broken.write_all(b"12x").await.unwrap();
    assert!(
        closed(broken).await,
        "nobody knows where the next message begins"
    );
    assert_eq!(agent.rejected("framing"), 1);
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_answers_its_operator() {
    let certificates = Certificates::new();
    let doppler = FakeDoppler::start(&certificates);
    let agent = Agent::start(&certificates, &[doppler.addr], |_| {}).await;
    let emitter = emitter(&agent);
    emitter
        .emit(message::log("x").source("a", "0"))
        .await
        .unwrap();
    emitter.close(PATIENCE).await;
    until("it arrives", || doppler.count() == 1).await;
    let get = |path: &'static str| {
        let addr = agent.running.admin_addr.unwrap();
        async move {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer)
                .await
                .unwrap();
            answer
        }
    };
    let metrics = get("/metrics").await;
    assert!(
        metrics.contains("loggregator_agent_ingress_envelopes_total{input=\"grpc\"} 1\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("loggregator_agent_egress_envelopes_total 1\n"),
        "{metrics}"
    );
    assert!(get("/ledger").await.contains("\"component\":\"agent\""));
    let mut ready = get("/readyz").await;
    for _ in 0..100 {
        if ready.starts_with("HTTP/1.1 200") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        ready = get("/readyz").await;
    }
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    agent.stop().await;
}

#[tokio::test]
async fn what_cannot_work_is_an_error_at_the_start() {
    let certificates = Certificates::new();
    let lifecycle = loggregator_service::Lifecycle::new();
    let none = Config {
        tls: certificates.files("metron"),
        ..Config::default()
    };
    assert!(matches!(
        loggregator_agent::start(none, &lifecycle).await.err(),
        Some(Error::NoDopplers)
    ));
    let absent = Config {
        dopplers: vec!["127.0.0.1:1".to_owned()],
        ..Config::default()
    };
    assert!(matches!(
        loggregator_agent::start(absent, &lifecycle).await.err(),
        Some(Error::Tls(_))
    ));
    let taken = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let busy = Config {
        tls: certificates.files("metron"),
        dopplers: vec!["127.0.0.1:1".to_owned()],
        grpc_addr: "127.0.0.1:0".parse().unwrap(),
        udp_addr: Some(taken.local_addr().unwrap()),
        ..Config::default()
    };
    let error = loggregator_agent::start(busy, &lifecycle).await.err();
    assert!(
        matches!(
            error,
            Some(Error::Bind {
                what: "dropsonde datagrams",
                ..
            })
        ),
        "{error:?}"
    );
    assert!(certificates.folder().exists());
}
