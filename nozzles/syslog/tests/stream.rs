//! Delivery over TCP and TLS, against receivers that behave and receivers that do not.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::rfc5424::unframe;
use common::{Running, log, start};
use loggregator_net::{Profile, ServerTls, tls_accept};
use loggregator_nozzle::{Batch, Delivery, Event, Outcome, Reason};
use loggregator_testkit::Certs;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

const LONG: Duration = Duration::from_secs(20);

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// The next connection.
async fn accepted(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let accepted = tokio::time::timeout(LONG, listener.accept()).await;
    accepted.expect("a connection").unwrap()
}

/// The texts of the next messages of a stream, at least `count`.
async fn texts(stream: &mut (impl AsyncRead + Unpin), count: usize) -> Vec<String> {
    let mut bytes = Vec::new();
    loop {
        let (messages, _) = unframe(&bytes).unwrap();
        if messages.len() >= count {
            return messages.iter().map(|message| text(message)).collect();
        }
        let read = tokio::time::timeout(LONG, stream.read_buf(&mut bytes)).await;
        assert!(read.unwrap().unwrap() > 0, "the stream ended");
    }
}

fn text(message: &[u8]) -> String {
    let message = common::rfc5424::parse(message, 32).unwrap();
    String::from_utf8(message.text)
        .unwrap()
        .trim_end()
        .to_owned()
}

fn batch(seqs: std::ops::Range<u64>) -> Batch {
    Batch::new(
        seqs.map(|seq| log(seq, "app", &seq.to_string())).collect(),
        0,
    )
}

/// Delivers in the background, in the order of the calls.
async fn deliver(running: &Running, batch: Batch) -> tokio::task::JoinHandle<Delivery> {
    let destination = Arc::clone(&running.destination);
    let (begun, started) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(async move {
        let mut delivery = destination.deliver(&batch);
        let mut begun = Some(begun);
        std::future::poll_fn(move |cx| {
            let polled = delivery.as_mut().poll(cx);
            if let Some(begun) = begun.take() {
                begun.send(()).ok();
            }
            polled
        })
        .await
    });
    started.await.unwrap();
    task
}

async fn finished(task: tokio::task::JoinHandle<Delivery>) -> Delivery {
    tokio::time::timeout(LONG, task).await.unwrap().unwrap()
}

fn section(addr: SocketAddr, more: &str) -> String {
    format!("url = \"syslog://{addr}\"\nsettle = \"50ms\"\n{more}")
}

/// It was not written, because older events failed and go first: no attempt of its own.
fn assert_behind(delivery: &Delivery) {
    let Delivery::Each(each) = delivery else {
        panic!("{delivery:?}")
    };
    assert!(!each.is_empty());
    for outcome in each {
        assert!(
            matches!(outcome, Outcome::Later(why) if why.code == "after_a_failure"),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn batches_arrive_in_order_and_are_confirmed() {
    let (listener, addr) = listener().await;
    let running = start(&section(addr, "")).await;
    let one = deliver(&running, batch(0..3)).await;
    let two = deliver(&running, batch(3..5)).await;
    let (mut receiver, _) = accepted(&listener).await;
    assert_eq!(texts(&mut receiver, 5).await, ["0", "1", "2", "3", "4"]);
    assert_eq!(finished(one).await, Delivery::All);
    assert_eq!(finished(two).await, Delivery::All);

    let close = running.destination.close();
    let mut rest = Vec::new();
    let (_, ended) = tokio::join!(close, receiver.read_to_end(&mut rest));
    assert_eq!(ended.unwrap(), 0, "nothing but the end");
}

/// An event of so many messages of 30,000 bytes and more.
fn gauge(seq: u64, values: usize) -> Event {
    use loggregator_proto::v2::{Envelope, Gauge, GaugeValue, envelope::Message};
    let metric = |at: usize| (format!("{seq}-{at}"), GaugeValue::default());
    common::envelope(
        seq,
        Envelope {
            source_id: "app".to_owned(),
            tags: [("large".to_owned(), "x".repeat(30_000))].into(),
            message: Some(Message::Gauge(Gauge {
                metrics: (0..values).map(metric).collect(),
            })),
            ..Envelope::default()
        },
    )
}

/// The first events of the messages of a stream, each once, until there are so many messages.
async fn gauges(stream: &mut (impl AsyncRead + Unpin), messages: usize) -> Vec<u64> {
    let (mut seen, mut first) = (0, Vec::new());
    let mut bytes = Vec::new();
    while seen < messages {
        let read = tokio::time::timeout(LONG, stream.read_buf(&mut bytes)).await;
        assert!(read.unwrap().unwrap() > 0, "the stream ended");
        let (found, rest) = unframe(&bytes).unwrap();
        for message in &found {
            let text = String::from_utf8_lossy(&message[..100.min(message.len())]);
            let name = text.split("name=\"").nth(1).unwrap();
            let seq = name.split('-').next().unwrap().parse().unwrap();
            if first.last() != Some(&seq) {
                first.push(seq);
            }
        }
        seen += found.len();
        bytes = rest.to_vec();
    }
    first
}

#[tokio::test]
async fn a_batch_that_would_become_too_many_messages_is_sent_in_parts_and_is_not_overtaken() {
    let (listener, addr) = listener().await;
    let running = start(&section(addr, "")).await;
    let large: Vec<Event> = (0..4).map(|seq| gauge(seq, 300)).collect();
    let refused = finished(deliver(&running, Batch::new(large.clone(), 0)).await).await;
    let Delivery::TooLarge(why) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(why.code, "page_full");
    // What the framework sent just before it heard of that.
    let newer = Batch::new(vec![gauge(4, 1)], 0);
    let overtaken = finished(deliver(&running, newer.clone()).await).await;
    assert_behind(&overtaken);

    let mut tasks = Vec::new();
    for half in large.chunks(2) {
        tasks.push(deliver(&running, Batch::new(half.to_vec(), 0)).await);
    }
    tasks.push(deliver(&running, newer).await);
    let (mut receiver, _) = accepted(&listener).await;
    assert_eq!(gauges(&mut receiver, 1201).await, [0, 1, 2, 3, 4]);
    for task in tasks {
        assert_eq!(finished(task).await, Delivery::All);
    }
}

#[tokio::test]
async fn messages_under_way_are_bounded_and_who_gives_up_waiting_is_not_overtaken() {
    let (listener, addr) = listener().await;
    let running = start(&section(addr, "")).await;
    // 15 MB each: four have room while the receiver does not read.
    let mut tasks = Vec::new();
    for seq in 0..6 {
        tasks.push(deliver(&running, Batch::new(vec![gauge(seq, 500)], 0)).await);
    }
    let newest = tasks.pop().unwrap();
    let waiting = tasks.pop().unwrap();
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());

    let (mut receiver, _) = accepted(&listener).await;
    assert_eq!(gauges(&mut receiver, 2000).await, [0, 1, 2, 3]);
    for task in tasks {
        assert_eq!(finished(task).await, Delivery::All);
    }
    assert_behind(&finished(newest).await);
}

#[tokio::test]
async fn what_a_dying_receiver_had_not_kept_long_enough_goes_again_in_order() {
    let (listener, addr) = listener().await;
    // Nothing is confirmed by the passing of time in this test.
    let running = start(&format!("url = \"syslog://{addr}\"\nsettle = \"1h\"")).await;
    let first = deliver(&running, batch(0..2)).await;
    let second = deliver(&running, batch(2..4)).await;
    let (mut receiver, _) = accepted(&listener).await;
    assert_eq!(texts(&mut receiver, 4).await, ["0", "1", "2", "3"]);
    drop(receiver);

    for failed in [first, second] {
        let Delivery::Retry { why, after: None } = finished(failed).await else {
            panic!("not confirmed")
        };
        assert_eq!(why.code, "connection_lost");
    }
    // The framework may have sent one before it heard of that.
    let third = finished(deliver(&running, batch(4..6)).await).await;
    assert_behind(&third);
    let mut open = Vec::new();
    for seqs in [0..2, 2..4, 4..6] {
        open.push(deliver(&running, batch(seqs)).await);
    }
    let (mut receiver, _) = accepted(&listener).await;
    assert_eq!(
        texts(&mut receiver, 6).await,
        ["0", "1", "2", "3", "4", "5"]
    );
    assert!(open.iter().all(|task| !task.is_finished()));
    let metrics = running.metrics.encode();
    for line in [
        "loggregator_nozzle_syslog_connections_total{destination=\"siem\"} 2\n",
        "loggregator_nozzle_syslog_connected{destination=\"siem\"} 1\n",
        "loggregator_nozzle_syslog_connection_failures_total{destination=\"siem\",reason=\"closed\"} 1\n",
        "loggregator_nozzle_syslog_messages_total{destination=\"siem\"} 10\n",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn what_was_not_acknowledged_is_not_confirmed() {
    let (listener, addr) = listener().await;
    let running = start(&section(
        addr,
        "write_timeout = \"20s\"\nmax_message = \"16MiB\"",
    ))
    .await;
    // More than the buffers of both sides hold, so that the receiver's system cannot take it all.
    let big = "x".repeat(15 << 20);
    let events: Vec<Event> = (0..2).map(|seq| log(seq, "app", &big)).collect();
    let big = deliver(&running, Batch::new(events, 0)).await;
    let (mut receiver, _) = accepted(&listener).await;
    receiver.read_u8().await.unwrap();
    assert!(!big.is_finished());
    drop(receiver);
    let Delivery::Retry { why, .. } = finished(big).await else {
        panic!("confirmed, and never read")
    };
    assert_eq!(why.code, "connection_lost");
}

#[tokio::test]
async fn a_poisoned_event_does_not_hold_up_its_neighbours() {
    let (listener, addr) = listener().await;
    let running = start(&section(addr, "max_message = 480")).await;
    let mut with_tag = loggregator_proto::v2::Envelope {
        source_id: "app".to_owned(),
        ..Default::default()
    };
    with_tag.message = Some(loggregator_proto::v2::envelope::Message::Counter(
        Default::default(),
    ));
    with_tag.tags.insert("a tag".to_owned(), "x".to_owned());
    let bytes = {
        use prost::Message as _;
        let mut envelope = with_tag.clone();
        envelope.tags.clear();
        envelope.message = Some(loggregator_proto::v2::envelope::Message::Log(
            loggregator_proto::v2::Log {
                payload: b"caf\xe9".to_vec().into(),
                r#type: 0,
            },
        ));
        envelope.encode_to_vec()
    };
    let events = vec![
        log(0, "app", "before"),
        common::envelope(1, with_tag),
        Event::new(2, 0, bytes.into()),
        log(3, "app", &"x".repeat(480)),
        log(4, "two words", "x"),
        log(5, "app", "after"),
    ];
    let task = deliver(&running, Batch::new(events, 0)).await;
    let (mut receiver, _) = accepted(&listener).await;
    assert_eq!(texts(&mut receiver, 2).await, ["before", "after"]);
    let rejected = |code: &'static str, detail: &str| Outcome::Rejected(Reason::new(code, detail));
    let expected = vec![
        Outcome::Delivered,
        rejected(
            "invalid_tag",
            "the tag \"a tag\" cannot stand in a syslog message",
        ),
        rejected("invalid_utf8", "the text is not UTF-8 from byte 3 on"),
        Outcome::Oversize(Reason::new("oversize", "528 bytes, at most 480 are sent")),
        rejected(
            "invalid_source_id",
            "the source id \"two words\" cannot stand in a syslog message",
        ),
        Outcome::Delivered,
    ];
    assert_eq!(finished(task).await, Delivery::Each(expected));
}

#[tokio::test]
async fn of_several_endpoints_the_first_that_can_be_reached_is_used() {
    let (listener, addr) = listener().await;
    let gone = {
        let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
        unused.local_addr().unwrap()
    };
    let urls = format!("urls = [\"syslog://{gone}\", \"syslog://{addr}\"]\nsettle = \"10ms\"");
    let running = start(&urls).await;
    let task = deliver(&running, batch(0..1)).await;
    let (mut receiver, _) = accepted(&listener).await;
    assert_eq!(texts(&mut receiver, 1).await, ["0"]);
    assert_eq!(finished(task).await, Delivery::All);

    drop(listener);
    drop(receiver);
    // The link may still have the old connection for a moment.
    let why = loop {
        match finished(deliver(&running, batch(1..2)).await).await {
            Delivery::Retry { why, .. } if why.code == "connect" => break why,
            Delivery::Retry { .. } | Delivery::All => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(
        why.detail.starts_with(&format!("{addr}: cannot connect: ")),
        "{why}"
    );
}

#[tokio::test]
async fn round_robin_takes_turns_and_old_connections_are_replaced() {
    let ((one, one_addr), (two, two_addr)) = (listener().await, listener().await);
    let section = format!(
        "urls = [\"syslog://{one_addr}\", \"syslog://{two_addr}\"]\nendpoints = \"round-robin\"\nsettle = \"1ms\"\n\
        reconnect = \"100ms\""
    );
    let running = start(&section).await;
    for (seq, listener) in [&one, &two, &one].into_iter().enumerate() {
        let seq = seq as u64;
        let task = deliver(&running, batch(seq..seq + 1)).await;
        let (mut receiver, _) = accepted(listener).await;
        let mut all = Vec::new();
        // Its end comes without a break: what was sent is complete.
        tokio::time::timeout(LONG, receiver.read_to_end(&mut all))
            .await
            .unwrap()
            .unwrap();
        let (messages, rest) = unframe(&all).unwrap();
        assert_eq!((text(messages[0]), rest.len()), (seq.to_string(), 0));
        assert_eq!(finished(task).await, Delivery::All);
    }
    assert!(!running.metrics.encode().contains("connection_failures"));
}

async fn secured(stream: TcpStream, tls: &ServerTls) -> impl AsyncRead + AsyncWrite + Unpin {
    tls_accept(stream, tls, LONG).await.unwrap()
}

#[tokio::test]
async fn over_tls_with_a_client_certificate() {
    let certs = Certs::generate().unwrap();
    let tls = ServerTls::mutual(&certs.tls("doppler"), Profile::Bytes).unwrap();
    let (listener, addr) = listener().await;
    let files = certs.tls("client");
    let section = |more: &str| {
        format!(
            "url = \"syslog-tls://{addr}\"\nsettle = \"10ms\"\n[tls]\nca_file = {:?}\n{more}",
            files.ca
        )
    };
    let identity = format!("cert_file = {:?}\nkey_file = {:?}\n", files.cert, files.key);

    let running = start(&section(&format!("{identity}server_name = \"doppler\""))).await;
    let task = deliver(&running, batch(0..2)).await;
    let (stream, _) = accepted(&listener).await;
    let mut receiver = secured(stream, &tls).await;
    assert_eq!(texts(&mut receiver, 2).await, ["0", "1"]);
    assert_eq!(finished(task).await, Delivery::All);
    let mut rest = Vec::new();
    let (_, ended) = tokio::join!(running.destination.close(), receiver.read_to_end(&mut rest));
    assert_eq!(ended.unwrap(), 0, "a goodbye, not a break");

    let running = start(&section(&format!("{identity}server_name = \"metron\""))).await;
    let task = deliver(&running, batch(0..2)).await;
    let (stream, _) = accepted(&listener).await;
    assert!(tls_accept(stream, &tls, LONG).await.is_err());
    let Delivery::Retry { why, .. } = finished(task).await else {
        panic!("the wrong name was taken")
    };
    assert_eq!(why.code, "tls");
}

#[tokio::test]
async fn a_probe_tells_a_receiver_that_wants_another_certificate() {
    let certs = Certs::generate().unwrap();
    let tls = ServerTls::mutual(&certs.tls("doppler"), Profile::Bytes).unwrap();
    let (listener, addr) = listener().await;
    let serve = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = tls_accept(stream, &tls, LONG).await {
                stream.read_to_end(&mut Vec::new()).await.ok();
            }
        }
    });
    let files = certs.tls("client");
    let section = format!(
        "url = \"syslog-tls://{addr}\"\n[tls]\nca_file = {:?}\n",
        files.ca
    );
    let reason = common::plan(&section).probe().await.unwrap_err();
    assert_eq!(reason.code, "refused", "{reason}");
    let section = format!(
        "{section}cert_file = {:?}\nkey_file = {:?}\n",
        files.cert, files.key
    );
    let found = common::plan(&section).probe().await.unwrap();
    assert_eq!(found, format!("{addr}: TLSv1_3"));
    serve.abort();
}
