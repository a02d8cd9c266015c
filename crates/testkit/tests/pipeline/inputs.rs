//! Inputs that everyone has: files that are rotated, syslog.

use super::at_rest;
use loggregator_client::Selectors;
use loggregator_testkit::{Pipeline, eventually};
use std::io::Write as _;
use std::path::Path;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UdpSocket};

fn append(path: &Path, numbers: std::ops::Range<u64>) {
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    for number in numbers {
        writeln!(file, "seq={number}").unwrap();
    }
}

/// Scenario: a followed file is written, rotated by rename as logrotate does, and written on.
/// Guarantee: every line once, in order, across the rotation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_file_loses_no_line() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("app.log");
    append(&path, 0..0);
    let followed = path.clone();
    let pipeline = Pipeline::builder()
        .tune_agent(move |config| {
            config.inputs = vec![loggregator_agent::Input::file(&followed, "app")]
        })
        .start()
        .await
        .unwrap();
    let tail = pipeline.v2(Selectors::new().logs_of("app")).await.unwrap();
    // The input begins at the end of the file as it finds it; lines written before it looked are not its.
    let mut next = 0;
    eventually("the file is followed", async || {
        append(&path, next..next + 1);
        next += 1;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        tail.lines() > 0
    })
    .await;
    let first = next;
    append(&path, first..first + 1_000);
    eventually("the first part is there", async || {
        tail.of("app").next == first + 1_000
    })
    .await;
    std::fs::rename(&path, temp.path().join("app.log.1")).unwrap();
    append(&temp.path().join("app.log.1"), first + 1_000..first + 1_100);
    append(&path, first + 1_100..first + 2_000);
    eventually("the rest is there", async || {
        tail.of("app").next == first + 2_000
    })
    .await;
    at_rest(&pipeline).await;
    let arrived = tail.of("app");
    assert_eq!(arrived.out_of_order, 0, "{arrived:?}");
    assert_eq!(arrived.lines + arrived.gaps, first + 2_000, "{arrived:?}");
    assert!(
        arrived.gaps < first,
        "only lines from before it was followed may be missing: {arrived:?}"
    );
}

/// Scenario: RFC 5424 and RFC 3164 messages over UDP and TCP.
/// Guarantee: each becomes a log line whose text is the message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn syslog_messages_become_log_lines() {
    let pipeline = Pipeline::start().await.unwrap();
    let tail = pipeline.v2(Selectors::everything()).await.unwrap();
    let agent = pipeline.agent.running();

    let mut tcp = TcpStream::connect(agent.syslog_tcp_addr.unwrap())
        .await
        .unwrap();
    for number in 0..50 {
        let message = format!("<14>1 2026-01-01T00:00:00Z host modern - - - seq={number}\n");
        tcp.write_all(message.as_bytes()).await.unwrap();
    }
    for number in 0..50 {
        let message = format!("<14>1 2026-01-01T00:00:00Z host counted - - - seq={number}");
        tcp.write_all(format!("{} {message}", message.len()).as_bytes())
            .await
            .unwrap();
    }
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for number in 0..50 {
        let message = format!("<11>Jan  1 00:00:00 host old[1]: seq={number}");
        udp.send_to(message.as_bytes(), agent.syslog_udp_addr.unwrap())
            .await
            .unwrap();
    }
    eventually("all of them are there", async || tail.lines() == 150).await;
    at_rest(&pipeline).await;
    assert_eq!(tail.checker().out_of_order(), 0, "{}", tail.checker());
}
