//! Setting the log level of a running process over its admin server.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use loggregator_service::Lifecycle;
use loggregator_service::admin::{Admin, Readiness};
use loggregator_service::ledger::{Report, Source};
use loggregator_service::logging::{self, Config};
use loggregator_service::metrics::Metrics;

struct Nothing;

impl Source for Nothing {
    fn report(&self) -> Report {
        Report::default()
    }
}

fn ask(addr: SocketAddr, method: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} /log-level HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (
        head.split(' ').nth(1).unwrap().parse().unwrap(),
        body.to_owned(),
    )
}

/// Guarantee: the filter can be read and replaced; one that cannot be understood changes nothing.
#[test]
fn the_log_level_is_read_and_set_while_the_process_runs() {
    let _guard = logging::init(&Config {
        filter: "warn".into(),
        ..Config::default()
    })
    .unwrap();
    let lifecycle = Lifecycle::new();
    let addr = ([127, 0, 0, 1], 0).into();
    let addr = Admin::start(
        addr,
        Metrics::new(),
        Arc::new(Nothing),
        Readiness::new(),
        &lifecycle,
    )
    .unwrap();

    assert_eq!(ask(addr, "GET", ""), (200, "warn\n".to_owned()));
    assert_eq!(ask(addr, "POST", "error\n"), (200, "error\n".to_owned()));
    let (status, reason) = ask(addr, "POST", "doppler=loud");
    assert_eq!(status, 400);
    assert!(
        reason.starts_with("log filter \"doppler=loud\": "),
        "{reason}"
    );
    assert_eq!(ask(addr, "GET", ""), (200, "error\n".to_owned()));
    assert_eq!(ask(addr, "POST", &"x".repeat(5000)).0, 413);
}
