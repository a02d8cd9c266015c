//! A WebSocket client that is not ours: the `websockets` package of Python.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::rig::{Rig, soon};

const SCRIPT: &str = r#"
import asyncio, sys
import websockets

async def main(url):
    async with websockets.connect(url, ping_interval=None, max_size=None) as socket:
        print("connected", flush=True)
        sizes = []
        while len(sizes) < 500:
            message = await socket.recv()
            assert isinstance(message, bytes), type(message)
            assert message == bytes([len(sizes) % 256]) * (len(sizes) * 10), len(sizes)
            sizes.append(len(message))
        pong = await socket.ping(b"hello")
        await pong
    print("closed", socket.close_code, flush=True)

asyncio.run(main(sys.argv[1]))
"#;

/// A Python that has `websockets`, from the machine or from a virtual environment made for it.
async fn python() -> Result<PathBuf, String> {
    let has = |python: &Path| {
        let mut command = Command::new(python);
        command
            .args(["-c", "import websockets"])
            .stderr(Stdio::null());
        async move { command.status().await.is_ok_and(|status| status.success()) }
    };
    let system = PathBuf::from("python3");
    if has(&system).await {
        return Ok(system);
    }
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("websockets");
    let python = venv.join("bin/python");
    if has(&python).await {
        return Ok(python);
    }
    let run = |program: &Path, args: &[&str]| {
        let mut command = Command::new(program);
        command
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        async move { command.status().await.is_ok_and(|status| status.success()) }
    };
    let dir = venv.to_string_lossy();
    if !run(&system, &["-m", "venv", &dir]).await {
        return Err("no python3 with the venv module".to_owned());
    }
    if !run(
        &python,
        &[
            "-m",
            "pip",
            "install",
            "-q",
            "--timeout",
            "15",
            "websockets",
        ],
    )
    .await
    {
        return Err("the Python package websockets cannot be installed".to_owned());
    }
    Ok(python)
}

/// Says loudly that something was not tested; with `CI=true` that is a failure.
fn skip(why: &str) {
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "not tested: {why}"
    );
    eprintln!("SKIPPED: {why}");
    if let Some(list) = std::env::var_os("LOGGREGATOR_TEST_SKIPS") {
        let mut list = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(list)
            .unwrap();
        std::io::Write::write_all(
            &mut list,
            format!("Python WebSocket client: {why}\n").as_bytes(),
        )
        .unwrap();
    }
}

#[tokio::test]
async fn a_python_client_reads_pings_and_closes() {
    let python = match python().await {
        Ok(python) => python,
        Err(why) => return skip(&why),
    };
    let rig = Rig::new().await;
    let url = format!("ws://{}/firehose/python", rig.addr());
    let child = Command::new(python)
        .args(["-c", SCRIPT, &url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let subscription = rig.doppler().of_shard("python").await;
    for i in 0..500usize {
        subscription.send(&[&vec![i as u8; i * 10]]);
    }
    let output = soon("the Python client", child.wait_with_output())
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        said,
        "connected\nclosed 1000\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    subscription.cancelled().await;
    let report = rig.ledger_with_closed(1).await;
    assert_eq!(report.subscriptions[0].delivered, 500);
}
