//! A receiver that is stopped, started and killed under load loses nothing that the buffer held.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use common::peers::{Peer, Security, rsyslogd};
use loggregator_net::grpc::Status;
use loggregator_nozzle::Kinds;
use loggregator_nozzle::config::NozzleConfig;
use loggregator_nozzle::intake::{Envelopes, Opening, Upstream};
use loggregator_nozzle_syslog::SyslogKind;
use loggregator_proto::v2::{EgressBatchRequest, Envelope, EnvelopeBatch, Log, envelope::Message};
use loggregator_service::Lifecycle;
use loggregator_testkit::Certs;
use prost::Message as _;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Sources, and envelopes of each in a batch. A batch every 10 ms.
const SOURCES: u64 = 10;
const EACH: u64 = 4;

/// rsyslog writes source and number.
const TEMPLATE: &str = "template(name=\"out\" type=\"string\" string=\"%app-name% %msg%\\n\")";

/// Envelopes of all sources, each with the next number of its source.
struct Load {
    next: Arc<AtomicU64>,
    until: Arc<AtomicU64>,
    tick: Interval,
}

impl Envelopes for Load {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        let from = loop {
            std::task::ready!(self.tick.poll_tick(cx));
            let from = self.next.load(Ordering::Relaxed);
            if from < self.until.load(Ordering::Relaxed) {
                break from;
            }
        };
        self.next.store(from + EACH, Ordering::Relaxed);
        let numbers = (from..from + EACH).flat_map(|n| (0..SOURCES).map(move |source| (source, n)));
        let envelope = |(source, n): (u64, u64)| Envelope {
            timestamp: 1_700_000_000_000_000_000,
            source_id: format!("source-{source}"),
            message: Some(Message::Log(Log {
                payload: n.to_string().into_bytes().into(),
                r#type: 0,
            })),
            ..Envelope::default()
        };
        let batch = numbers.map(envelope).collect();
        Poll::Ready(Some(Ok(EnvelopeBatch { batch }.encode_to_vec().into())))
    }
}

#[derive(Clone, Default)]
struct Source {
    next: Arc<AtomicU64>,
    until: Arc<AtomicU64>,
}

impl Upstream for Source {
    fn open(&self, _: EgressBatchRequest) -> Opening {
        let mut tick = interval(Duration::from_millis(10));
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let load: Box<dyn Envelopes> = Box::new(Load {
            next: Arc::clone(&self.next),
            until: Arc::clone(&self.until),
            tick,
        });
        Box::pin(async { Ok(load) })
    }
}

/// Numbers by source, in the order in which they were written.
fn by_source(lines: &[String]) -> BTreeMap<String, Vec<u64>> {
    let mut sources: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in lines {
        // A line may be torn where the receiver was killed; its number is missing then and must come again.
        if let Some((source, number)) = line.split_once(' ')
            && let Ok(number) = number.parse()
        {
            sources.entry(source.to_owned()).or_default().push(number);
        }
    }
    sources
}

/// Every number is there, and for the first time after the one before it. It may come again later.
fn check(lines: &[String], until: u64) -> Result<(), String> {
    let sources = by_source(lines);
    for source in (0..SOURCES).map(|source| format!("source-{source}")) {
        let numbers = sources.get(&source).cloned().unwrap_or_default();
        let mut next = 0;
        for number in numbers {
            if number > next {
                return Err(format!("{source}: {number} where {next} is expected"));
            }
            next = next.max(number + 1);
        }
        if next != until {
            return Err(format!("{source}: ends at {next} of {until}"));
        }
    }
    Ok(())
}

fn config(port: u16, scheme: &str, settle: &str, tls: &str) -> NozzleConfig {
    let text = format!(
        "[nozzle]\nname = \"restart\"\n[[destination]]\nname = \"siem\"\nretry.max = \"200ms\"\nbreaker.failures = 0\n\
        [destination.syslog]\nurl = \"{scheme}://127.0.0.1:{port}\"\nsettle = \"{settle}\"\n{tls}"
    );
    NozzleConfig::parse(Path::new("restart.toml"), &text).unwrap()
}

async fn reached(source: &Source, number: u64) {
    while source.next.load(Ordering::Relaxed) < number {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn survives(peer: &mut Peer, config: NozzleConfig) -> Result<(), String> {
    let source = Source::default();
    source.until.store(u64::MAX, Ordering::Relaxed);
    let lifecycle = Lifecycle::new();
    let kinds = Kinds::new().with(SyslogKind);
    let upstream: Arc<dyn Upstream> = Arc::new(source.clone());
    let _running = loggregator_nozzle::start(config, &kinds, Some(upstream), &lifecycle)
        .await
        .unwrap();
    // Stopped, killed, stopped, killed, under load, and away for a while each time.
    for (round, at) in [200, 600, 1000, 1400].into_iter().enumerate() {
        reached(&source, at).await;
        if round % 2 == 0 {
            peer.stop();
        } else {
            peer.kill();
        }
        reached(&source, at + 100).await;
        peer.start();
    }
    reached(&source, 1800).await;
    let until = 1800 + EACH * 4;
    source.until.store(until, Ordering::Relaxed);
    reached(&source, until).await;
    let until = source.next.load(Ordering::Relaxed);
    let last = format!("source-{} {}", SOURCES - 1, until - 1);
    let lines = peer.until(|lines| lines.contains(&last)).await;
    assert!(lifecycle.shutdown(Duration::from_secs(20)).await.finished());
    check(&lines, until)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rsyslog_is_stopped_and_killed_under_load_over_tls() {
    let test = "rsyslog_is_stopped_and_killed_under_load_over_tls";
    let Some(program) = rsyslogd(test) else {
        return;
    };
    let certs = Certs::generate().unwrap();
    let mut peer = Peer::rsyslog(program, Security::Mutual(&certs), TEMPLATE);
    let config = config(
        peer.port,
        "syslog-tls",
        "500ms",
        &common::tls(&certs).replace("[tls]", "[destination.syslog.tls]"),
    );
    survives(&mut peer, config).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rsyslog_is_stopped_and_killed_under_load_over_tcp() {
    let test = "rsyslog_is_stopped_and_killed_under_load_over_tcp";
    let Some(program) = rsyslogd(test) else {
        return;
    };
    let mut peer = Peer::rsyslog(program, Security::Plain, TEMPLATE);
    let config = config(peer.port, "syslog", "500ms", "");
    survives(&mut peer, config).await.unwrap();
}
