//! Against the gRPC library for Python, whose HTTP/2 and TLS are neither ours nor Go's.
//!
//! `LOGGREGATOR_TEST_PYTHON` names a Python that has `grpcio` (default `python3`). Without one the tests say so, also in
//! the file that `LOGGREGATOR_TEST_SKIPS` names, and pass.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use common::*;
use loggregator_net::TlsFiles;
use loggregator_net::grpc::{Code, Status};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// The Python script in `mode`; `None` where no Python can run it.
#[allow(clippy::print_stderr, reason = "a skip must be seen")]
fn python(test: &str, mode: &str) -> Option<Command> {
    let python = std::env::var("LOGGREGATOR_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let imports = std::process::Command::new(&python)
        .args(["-c", "import grpc"])
        .output();
    if !imports.is_ok_and(|output| output.status.success()) {
        let line = format!("net: {test}: no Python with grpcio");
        eprintln!("SKIPPED {line}");
        if let Some(path) = std::env::var_os("LOGGREGATOR_TEST_SKIPS") {
            let skips = std::fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(path);
            writeln!(skips.unwrap(), "{line}").unwrap();
        }
        return None;
    }
    let mut command = Command::new(python);
    command
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/data/foreign.py"
        ))
        .arg(mode)
        .kill_on_drop(true);
    Some(command)
}

fn identity(command: &mut Command, files: &TlsFiles) {
    command.args([&files.ca, &files.cert, &files.key]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_client_is_served() {
    let Some(mut command) = python("a_foreign_client_is_served", "client") else {
        return;
    };
    let server = start(Some(server_tls()));
    command.arg(server.addr.to_string());
    identity(&mut command, &METRON);
    let output = tokio::time::timeout(Duration::from_secs(120), command.output())
        .await
        .unwrap()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("all good"),
        "{said}{complained}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_server_is_understood() {
    let Some(mut command) = python("a_foreign_server_is_understood", "server") else {
        return;
    };
    identity(&mut command, &DOPPLER);
    let mut server = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut port = String::new();
    let mut lines = BufReader::new(server.stdout.take().unwrap());
    soon(lines.read_line(&mut port)).await.unwrap();
    let addr = format!("127.0.0.1:{}", port.trim()).parse().unwrap();
    let channel = channel(addr, Some(client_tls()));
    channel.ready().await.unwrap();

    let big = Bytes::from(vec![5; 9_000_000]);
    assert_eq!(soon(channel.unary(UNARY, big.clone())).await, Ok(big));
    let mut messages = channel
        .server_stream(COUNT, vec![0; 3000].into())
        .await
        .unwrap();
    for _ in 0..3000 {
        assert_eq!(soon(messages.next()).await.unwrap().unwrap().len(), 3000);
    }
    assert_eq!(soon(messages.next()).await, None);
    let (sender, response) = channel.client_stream(COLLECT).await.unwrap();
    for _ in 0..1000 {
        soon(sender.send(Bytes::from(vec![1; 10_000])))
            .await
            .unwrap();
    }
    drop(sender);
    let total = Some(Bytes::from_static(b"1000 10000000"));
    assert_eq!(soon(response.wait()).await, Ok(total));
    assert_eq!(
        soon(channel.unary(FAIL, Bytes::new())).await,
        Err(Status::new(Code::Aborted, "100 % ä"))
    );
    let unknown = soon(channel.unary("/test.Echo/Nope", Bytes::new())).await;
    assert_eq!(unknown.unwrap_err().code, Code::Unimplemented);

    drop(server.stdin.take());
    let exit = soon(server.wait()).await.unwrap();
    assert!(exit.success());
}
