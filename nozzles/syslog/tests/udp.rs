//! Delivery over UDP.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{log, start};
use loggregator_nozzle::{Batch, Delivery, Outcome, Reason};
use tokio::net::UdpSocket;

async fn datagram(socket: &UdpSocket) -> String {
    let mut buffer = vec![0; 65_536];
    let received = tokio::time::timeout(Duration::from_secs(20), socket.recv(&mut buffer)).await;
    let len = received.unwrap().unwrap();
    String::from_utf8(buffer[..len].to_vec()).unwrap()
}

#[tokio::test]
async fn each_message_is_a_datagram_without_a_length() {
    let receiver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = receiver.local_addr().unwrap();
    let running = start(&format!("url = \"syslog-udp://{addr}\"\nmax_message = 480")).await;
    let events = vec![
        log(0, "app", "one"),
        log(1, "app", &"x".repeat(480)),
        log(2, "app", "two\nlines"),
    ];
    let delivery = running.destination.deliver(&Batch::new(events, 0)).await;
    let oversize = Reason::new("oversize", "528 bytes, at most 480 are sent");
    let expected = [
        Outcome::Delivered,
        Outcome::Oversize(oversize),
        Outcome::Delivered,
    ];
    assert_eq!(delivery, Delivery::Each(expected.to_vec()));
    let head = "<14>1 2023-11-14T22:13:20+00:00 - app [/0] - - ";
    assert_eq!(datagram(&receiver).await, format!("{head}one\n"));
    assert_eq!(datagram(&receiver).await, format!("{head}two\nlines\n"));
}

#[tokio::test]
async fn word_that_nobody_listens_is_a_reason_to_try_again() {
    let addr = {
        let unused = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        unused.local_addr().unwrap()
    };
    let running = start(&format!("url = \"syslog-udp://{addr}\"")).await;
    // The word comes after a datagram was sent; the next one meets it.
    let why = loop {
        let batch = Batch::new(vec![log(0, "app", "one")], 0);
        match running.destination.deliver(&batch).await {
            Delivery::Each(each) => match each.into_iter().next().unwrap() {
                Outcome::Retry(why) => break why,
                Outcome::Delivered => tokio::task::yield_now().await,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(why.code, "datagram");
}
