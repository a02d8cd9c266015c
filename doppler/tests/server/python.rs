//! The doppler as an independent gRPC implementation sees it: Python's grpcio.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::Command;

use crate::harness::*;

/// Names the Python interpreter to use; unset, it is `python3`.
const INTERPRETER: &str = "LOGGREGATOR_TEST_PYTHON";
/// Names the file that gets a line for every test that cannot run on this machine.
const SKIPS: &str = "LOGGREGATOR_TEST_SKIPS";

/// A Python that has what the script needs.
fn python() -> Option<OsString> {
    let python = std::env::var_os(INTERPRETER).unwrap_or_else(|| "python3".into());
    let imports = Command::new(&python)
        .args(["-c", "import grpc, grpc_tools"])
        .output();
    imports
        .is_ok_and(|output| output.status.success())
        .then_some(python)
}

#[allow(clippy::print_stderr)]
fn skip() {
    let line = "doppler: grpcio drives every call: no Python with grpcio and grpcio-tools";
    eprintln!("SKIPPED {line}");
    if let Some(path) = std::env::var_os(SKIPS) {
        let mut skips = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        writeln!(skips, "{line}").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpcio_drives_every_call() {
    let Some(python) = python() else {
        return skip();
    };
    let doppler = Doppler::start().await;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/smoke.py");
    let protos = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto");
    let files = Pki::shared().files("client");
    let mut command = Command::new(python);
    command
        .arg(folder)
        .arg(doppler.running.grpc_addr.to_string());
    command
        .args([&files.ca, &files.cert, &files.key])
        .arg(protos);
    let run = tokio::task::spawn_blocking(move || command.output());
    let output = run.await.unwrap().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    assert_eq!(
        text(&output.stdout).matches("ok ").count(),
        6,
        "{}",
        text(&output.stdout)
    );
    doppler.subscribed(0).await;
    doppler.assert_balanced();
}
