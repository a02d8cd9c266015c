//! What a storm of clients costs UAA and the Cloud Controller, and what a known token waits.
//!
//! Starts a traffic controller and stand-ins for both in this process. Opens as many application streams as `--tokens`
//! says, each with a token and an application of its own, within a second, while the Cloud Controller takes
//! `--latency-ms` for an answer. Then opens `--again` more streams with each of the tokens, a few at a time, and measures
//! from before the connection to the answer that switches protocols. Prints one line of JSON; fails when a stream was not
//! opened or a token was checked twice.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Parser;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use loggregator_benches::histogram::Histogram;
use loggregator_service::Lifecycle;
use loggregator_testkit::Certs;
use loggregator_testkit::platform::{Endpoint, Fault, Grant, PlatformStub};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use traffic_controller::{Access, Config};

/// Opens many application streams at once against a slow Cloud Controller.
#[derive(Parser)]
#[command(name = "auth-storm", version, max_term_width = 110)]
struct Args {
    /// Tokens, and streams opened within a second.
    #[arg(long, default_value_t = 200)]
    tokens: usize,
    /// Milliseconds that the Cloud Controller takes.
    #[arg(long, default_value_t = 2000)]
    latency_ms: u64,
    /// Streams opened with each token afterwards.
    #[arg(long, default_value_t = 10)]
    again: usize,
    /// How many of those at a time.
    #[arg(long, default_value_t = 4)]
    at_a_time: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (lifecycle, certs) = (Lifecycle::new(), Certs::generate()?);
    let stub = PlatformStub::start(&certs, &lifecycle)?;
    stub.set_fault(Endpoint::LogAccess, Fault::slow(args.latency_ms));
    let config = Config {
        listen_addr: "127.0.0.1:0".parse()?,
        doppler_tls: certs.tls("trafficcontroller"),
        access: Access::Platform(Box::new(stub.config(&certs))),
        max_subscriptions: args.tokens * (args.again + 1),
        ..Config::default()
    };
    let addr = traffic_controller::start(config, &lifecycle).await?.addr;
    let clients: Vec<_> = (0..args.tokens)
        .map(|i| {
            let app = format!("{i:08x}-0000-4000-8000-000000000000");
            let token = format!("token-{i}");
            stub.grant(&token, Grant::apps(&[&app]));
            (app, token)
        })
        .collect();

    let gap = Duration::from_secs(1) / u32::try_from(args.tokens.max(1))?;
    let storm = clients
        .iter()
        .enumerate()
        .map(|(i, (app, token))| async move {
            tokio::time::sleep(gap * u32::try_from(i).unwrap_or(u32::MAX)).await;
            open(addr, app, token).await
        });
    let mut storm: FuturesUnordered<_> = storm.collect();
    let (mut first, mut failures, mut streams) = (Histogram::default(), 0_usize, Vec::new());
    while let Some(opened) = storm.next().await {
        match opened {
            Ok((stream, took)) => {
                first.record(nanos(took), 1);
                streams.push(stream);
            }
            Err(error) => {
                failures += 1;
                writeln!(std::io::stderr(), "{error:#}")?;
            }
        }
    }
    let calls = stub.all_calls();
    let checks = |token: &str| calls.of(Endpoint::LogAccess, token);
    let most = clients.iter().map(|(_, token)| checks(token)).max();

    let mut known = Histogram::default();
    let rounds = (0..args.again).flat_map(|_| clients.iter());
    let mut rounds = futures_util::stream::iter(rounds.map(|(app, token)| open(addr, app, token)))
        .buffer_unordered(args.at_a_time.max(1));
    while let Some(opened) = rounds.next().await {
        match opened {
            Ok((_, took)) => known.record(nanos(took), 1),
            Err(error) => {
                failures += 1;
                writeln!(std::io::stderr(), "{error:#}")?;
            }
        }
    }
    let report = json!({
        "tokens": args.tokens,
        "latency_ms": args.latency_ms,
        "failures": failures,
        "checks": calls.total(Endpoint::LogAccess),
        "most_checks_of_a_token": most,
        "checks_afterwards": stub.all_calls().total(Endpoint::LogAccess) - calls.total(Endpoint::LogAccess),
        "first": first.summary(),
        "known": known.summary(),
    });
    writeln!(std::io::stdout(), "{report}")?;
    drop(streams);
    lifecycle.shutdown(Duration::from_secs(5)).await;
    ensure!(failures == 0, "{failures} streams were not opened");
    ensure!(
        most.is_none_or(|most| most <= 1),
        "a token was checked more than once"
    );
    Ok(())
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Opens a stream; the time is from before the connection to the end of the answer's head.
async fn open(addr: SocketAddr, app: &str, token: &str) -> anyhow::Result<(TcpStream, Duration)> {
    let started = Instant::now();
    let mut io = TcpStream::connect(addr).await?;
    io.set_nodelay(true)?;
    let request = format!(
        "GET /apps/{app}/stream HTTP/1.1\r\nhost: tc\r\nauthorization: bearer {token}\r\n\
         connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    io.write_all(request.as_bytes()).await?;
    let mut head = Vec::with_capacity(512);
    while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        ensure!(
            io.read_buf(&mut head).await? > 0,
            "the connection was closed"
        );
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line).into_owned();
    ensure!(line.starts_with("HTTP/1.1 101"), "not opened: {line}");
    Ok((io, started.elapsed()))
}
