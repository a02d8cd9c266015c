//! rsyslog and syslog-ng read what is sent, every field where it belongs.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;

use common::peers::{Peer, Security, rsyslogd, syslog_ng};
use common::rfc5424::{Message, parse};
use common::{start, vectors};
use loggregator_nozzle::{Batch, Delivery};
use loggregator_testkit::Certs;
use serde_json::Value;

/// rsyslog writes what it understood as JSON.
const RSYSLOG: &str = r#"template(name="out" type="list" option.jsonf="on") {
  property(outname="pri" name="pri" format="jsonf")
  property(outname="time" name="timereported" dateFormat="rfc3339" format="jsonf")
  property(outname="host" name="hostname" format="jsonf")
  property(outname="app" name="app-name" format="jsonf")
  property(outname="proc" name="procid" format="jsonf")
  property(outname="id" name="msgid" format="jsonf")
  property(outname="data" name="structured-data" format="jsonf")
  property(outname="text" name="msg" format="jsonf")
}
"#;

/// syslog-ng does.
const SYSLOG_NG: &str = r#"$(format-json pri=\"$PRI\" time=\"$S_ISODATE\" host=\"$HOST\" app=\"$PROGRAM\" proc=\"$PID\" id=\"$MSGID\" data=\"$SDATA\" text=\"$MESSAGE\")\n"#;

/// What no receiver can know to be a priority; the platform writes it all the same.
const NOT_A_PRIORITY: &str = "log_unknown_type_negative_pri";

/// Sends every vector, and returns what the receiver wrote beside what was sent.
async fn through(peer: &Peer, scheme: &str, tls: &str) -> Vec<(String, Vec<u8>, Value)> {
    let mut sent = Vec::new();
    for vector in vectors::all() {
        let url = format!("{scheme}://127.0.0.1:{}", peer.port);
        let section = format!("{}settle = \"0s\"\n{tls}", vector.settings(&url));
        let rendered = common::plan(&section)
            .render(&vector.event())
            .unwrap_or_default();
        let running = start(&section).await;
        let delivery = running
            .destination
            .deliver(&Batch::new(vec![vector.event()], 0))
            .await;
        match (vector.error, delivery) {
            (false, Delivery::All) | (true, Delivery::Each(_)) => {}
            (_, other) => panic!("{}: {other:?}", vector.name),
        }
        running.destination.close().await;
        sent.extend(
            rendered
                .into_iter()
                .map(|one| (vector.name.clone(), one.body.to_vec())),
        );
        // Each vector has a connection of its own; they are to be written in order.
        let expected = sent.len();
        peer.until(|lines| lines.len() >= expected).await;
    }
    let lines = peer.lines();
    assert_eq!((lines.len(), sent.len()), (50, 50));
    let read = lines.iter().map(|line| serde_json::from_str(line).unwrap());
    sent.into_iter()
        .zip(read)
        .map(|((name, body), read)| (name, body, read))
        .collect()
}

fn field<'a>(read: &'a Value, name: &str) -> &'a str {
    read[name].as_str().unwrap()
}

/// As a receiver shows an empty field.
fn shown(field: Option<&String>, none: &str) -> String {
    field.cloned().unwrap_or_else(|| none.to_owned())
}

/// The element texts of a message.
fn data(body: &[u8], message: &Message) -> String {
    let body = String::from_utf8_lossy(body).into_owned();
    let text = String::from_utf8_lossy(&message.text).into_owned();
    let head = body.strip_suffix(&text).unwrap().trim_end_matches(' ');
    match head.find(" - [") {
        Some(at) if !message.data.is_empty() => head[at + 3..].to_owned(),
        _ => String::new(),
    }
}

fn compare_rsyslog(all: &[(String, Vec<u8>, Value)]) {
    for (name, body, read) in all {
        if name == NOT_A_PRIORITY {
            assert_eq!(field(read, "pri"), "invld");
            continue;
        }
        let message = parse(body, 64).unwrap_or_else(|error| panic!("{name}: {error}"));
        let found: Vec<&str> = ["pri", "time", "host", "app", "proc", "id", "data", "text"]
            .map(|f| field(read, f))
            .to_vec();
        let text = String::from_utf8_lossy(&message.text).into_owned();
        let data = data(body, &message);
        let expected = [
            message.priority.to_string(),
            message.timestamp.clone(),
            shown(message.hostname.as_ref(), "-"),
            shown(message.app_name.as_ref(), "-"),
            shown(message.proc_id.as_ref(), "-"),
            "-".to_owned(),
            if data.is_empty() {
                "-".to_owned()
            } else {
                data
            },
            // It takes one line break at the end for the frame's.
            text.strip_suffix('\n').unwrap().to_owned(),
        ];
        assert_eq!(found, expected, "{name}");
    }
}

#[tokio::test]
async fn rsyslog_reads_every_golden_vector_over_tcp() {
    let Some(program) = rsyslogd("rsyslog_reads_every_golden_vector_over_tcp") else {
        return;
    };
    let peer = Peer::rsyslog(program, Security::Plain, RSYSLOG);
    compare_rsyslog(&through(&peer, "syslog", "").await);
}

#[tokio::test]
async fn rsyslog_reads_every_golden_vector_over_tls_with_a_client_certificate() {
    let test = "rsyslog_reads_every_golden_vector_over_tls_with_a_client_certificate";
    let Some(program) = rsyslogd(test) else {
        return;
    };
    let certs = Arc::new(Certs::generate().unwrap());
    let peer = Peer::rsyslog(program, Security::Mutual(&certs), RSYSLOG);
    let tls = common::tls(&certs);
    compare_rsyslog(&through(&peer, "syslog-tls", &tls).await);
}

#[tokio::test]
async fn syslog_ng_reads_every_golden_vector() {
    let Some(root) = syslog_ng("syslog_ng_reads_every_golden_vector") else {
        return;
    };
    let peer = Peer::syslog_ng(root, SYSLOG_NG);
    for (name, body, read) in through(&peer, "syslog", "").await {
        if name == NOT_A_PRIORITY {
            assert!(field(&read, "text").starts_with("Error processing log message: <-1>1 "));
            continue;
        }
        let message = parse(&body, 64).unwrap();
        let found: Vec<&str> = ["pri", "host", "app", "proc", "id"]
            .map(|f| field(&read, f))
            .to_vec();
        let expected = [
            message.priority.to_string(),
            // Without a host name it takes the sender's address.
            shown(message.hostname.as_ref(), "127.0.0.1"),
            shown(message.app_name.as_ref(), ""),
            shown(message.proc_id.as_ref(), ""),
            String::new(),
        ];
        assert_eq!(found, expected, "{name}");
        assert_eq!(
            micros(field(&read, "time")),
            micros(&message.timestamp),
            "{name}"
        );
        // It shows a name with dots and more than 32 characters as elements of its own.
        if name != "log_tag_escaping_and_order" {
            assert_eq!(field(&read, "data"), data(&body, &message), "{name}");
        }
        let text = message.text.strip_suffix(b"\n").unwrap();
        assert_eq!(field(&read, "text"), escaped(text), "{name}");
    }
}

/// All digits of the fraction.
fn micros(time: &str) -> String {
    let time = time.strip_suffix("+00:00").unwrap();
    let (seconds, fraction) = time.split_once('.').unwrap_or((time, ""));
    format!("{seconds}.{fraction:0<6}")
}

/// How syslog-ng's JSON shows what is not UTF-8.
fn escaped(text: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in text.utf8_chunks() {
        shown.push_str(chunk.valid());
        for byte in chunk.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    shown
}
