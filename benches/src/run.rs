//! One run: start the servers, connect everybody, send for a while, wait for the rest, report.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::BenchError;
use crate::certs::{self, Files};
use crate::control::{Control, Emitted, Phase, Progress, Shared, load};
use crate::emit::{Emitter, EmitterReport, Pace};
use crate::histogram::{Histogram, Latency};
use crate::http2::Windows;
use crate::process::{Places, Sample, Server, free_addr, sample};
use crate::receive::{Receiver, ReceiverReport};
use crate::subscribe::{Request, Stall, Subscriber};
use crate::tracker::Group;
use crate::websocket::WebSocket;
use crate::workload::{Shape, source_id};

/// Who reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Readers {
    /// So many v2 firehoses, each with a shard id of its own.
    Firehoses(usize),
    /// So many v2 subscribers of one source each.
    Tails(usize),
    /// One v2 shard id with so many members.
    Members(usize),
    /// So many v1 firehoses, each with a subscription id of its own, through a traffic controller.
    WebSockets(usize),
}

impl Readers {
    fn count(&self) -> usize {
        match self {
            Self::Firehoses(n) | Self::Tails(n) | Self::Members(n) | Self::WebSockets(n) => *n,
        }
    }
}

/// What is driven.
#[derive(Clone, Debug)]
pub enum Target {
    /// Commands to start: of the doppler, and of the traffic controller when WebSockets are read. See [`Places`].
    Start {
        /// Shown in reports.
        name: String,
        /// The doppler or relay.
        doppler: String,
        /// The traffic controller.
        controller: Option<String>,
    },
    /// Servers that run already.
    Running {
        /// The doppler.
        doppler: SocketAddr,
        /// The traffic controller.
        controller: Option<SocketAddr>,
        /// An identity they accept.
        files: Files,
        /// Processes to watch, by id.
        pids: Vec<u32>,
    },
}

/// All of one run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is driven.
    pub target: Target,
    /// The envelopes.
    pub shape: Shape,
    /// When they are sent.
    pub pace: Pace,
    /// Who reads.
    pub readers: Readers,
    /// Flow control of v2 readers.
    pub windows: Windows,
    /// Sent but not measured, at the beginning.
    pub warmup: Duration,
    /// Measured.
    pub time: Duration,
    /// Bound of the doppler's log, for commands that say `{log_bytes}`.
    pub log_bytes: u64,
    /// The first reader stops reading for this long at the start of the measured time.
    pub stall: Option<Duration>,
    /// `Authorization` of WebSockets.
    pub token: Option<String>,
    /// Whether WebSockets use TLS.
    pub secure_websockets: bool,
}

/// What a process took.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProcessReport {
    /// Which.
    pub name: String,
    /// User and system seconds in the measured time and until all had arrived.
    pub cpu_seconds: f64,
    /// The same per million envelopes sent.
    pub cpu_per_million: f64,
    /// Resident memory before anybody connected, MiB.
    pub rss_idle_mib: f64,
    /// Most resident memory of its life, MiB.
    pub rss_peak_mib: f64,
    /// Resident memory at the end, MiB.
    pub rss_end_mib: f64,
}

/// What came of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// What was driven.
    pub target: String,
    /// The envelopes.
    pub shape: Shape,
    /// When they were sent.
    pub pace: Pace,
    /// Who read.
    pub readers: Readers,
    /// Seconds measured.
    pub seconds: f64,
    /// Envelopes handed to connections in the measured time.
    pub sent: u64,
    /// The same per second.
    pub sent_per_second: f64,
    /// Share of what the pace asked for that was not sent, of the whole run.
    pub unsent: f64,
    /// Envelopes that arrived in the measured time, per second and reader (shard id, for members), the mean.
    pub delivered_per_second: f64,
    /// The same of the slowest.
    pub delivered_per_second_min: f64,
    /// Envelopes of the whole run that readers should have seen, added up.
    pub expected: u64,
    /// Envelopes that they did not see.
    pub lost: u64,
    /// That as a share.
    pub loss: f64,
    /// Envelopes that the server said were dropped.
    pub told_lost: u64,
    /// Notices in which it said so.
    pub notices: u64,
    /// Envelopes that came twice.
    pub duplicates: u64,
    /// Envelopes that came after a later one of their stream.
    pub reordered: u64,
    /// Envelopes that came to somebody who had not asked for them.
    pub misrouted: u64,
    /// Envelopes not of this run.
    pub foreign: u64,
    /// Records that were not envelopes.
    pub damaged: u64,
    /// From hand-over at the sender to arrival, of all readers.
    pub latency: Latency,
    /// The highest 99th percentile of a single reader, milliseconds.
    pub worst_reader_p99_ms: f64,
    /// How late batches of a paced run left.
    pub late: Latency,
    /// Smallest and largest share of a shard id's members, when there are several.
    pub member_shares: Option<(f64, f64)>,
    /// Servers, in the order of the data path.
    pub processes: Vec<ProcessReport>,
    /// CPU seconds of the generator itself per million sent.
    pub generator_cpu_per_million: f64,
    /// What the doppler's ledger says, when the target was started with an admin port.
    pub ledger: Option<serde_json::Value>,
    /// Everything that went wrong.
    pub errors: Vec<String>,
}

impl Report {
    /// CPU seconds of all servers per million envelopes sent.
    #[must_use]
    pub fn cpu_per_million(&self) -> f64 {
        self.processes.iter().map(|p| p.cpu_per_million).sum()
    }

    /// Whether nothing was lost, doubled, turned round or damaged.
    #[must_use]
    pub fn clean(&self) -> bool {
        self.lost + self.duplicates + self.reordered + self.misrouted + self.damaged == 0
            && self.errors.is_empty()
    }
}

/// Nothing new for this long means that nothing more will come.
const QUIET: Duration = Duration::from_secs(1);
/// What may still be under way gets this long after the last envelope was sent, if it keeps coming.
const DRAIN: Duration = Duration::from_secs(60);
/// All subscriptions must be there by then.
const READY: Duration = Duration::from_secs(20);

/// Addresses, identity and processes of the target.
struct Opened {
    name: String,
    doppler: SocketAddr,
    controller: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    files: Files,
    servers: Vec<Server>,
    pids: Vec<(String, u32)>,
}

fn open(plan: &Plan, dir: &Path) -> Result<Opened, BenchError> {
    match &plan.target {
        Target::Running {
            doppler,
            controller,
            files,
            pids,
        } => Ok(Opened {
            name: doppler.to_string(),
            doppler: *doppler,
            controller: *controller,
            admin: None,
            files: files.clone(),
            servers: Vec::new(),
            pids: pids
                .iter()
                .map(|pid| (format!("pid {pid}"), *pid))
                .collect(),
        }),
        Target::Start {
            name,
            doppler,
            controller,
        } => {
            let files = certs::write(dir)?;
            let places = Places {
                addr: free_addr()?,
                admin: free_addr()?,
                files: files.clone(),
                doppler: None,
                log_bytes: plan.log_bytes,
            };
            let admin = doppler.contains("{admin}").then_some(places.admin);
            let mut servers = vec![Server::start(name, doppler, &places, dir)?];
            if let (Readers::WebSockets(_), Some(command)) = (&plan.readers, controller) {
                let places = Places {
                    addr: free_addr()?,
                    admin: free_addr()?,
                    doppler: Some(servers[0].addr),
                    ..places
                };
                servers.push(Server::start("traffic-controller", command, &places, dir)?);
            }
            Ok(Opened {
                name: name.clone(),
                doppler: servers[0].addr,
                controller: servers.get(1).map(|s| s.addr),
                admin,
                files,
                pids: servers.iter().map(|s| (s.name.clone(), s.pid())).collect(),
                servers,
            })
        }
    }
}

/// Everybody who reads, on one thread.
struct ReaderSide {
    progress: Vec<Arc<Progress>>,
    groups: Vec<Arc<Mutex<Group>>>,
    thread: JoinHandle<Vec<ReceiverReport>>,
}

fn runtime() -> Result<tokio::runtime::Runtime, BenchError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| BenchError::new(format!("runtime: {e}")))
}

fn start_readers(plan: &Plan, opened: &Opened, control: &Shared) -> Result<ReaderSide, BenchError> {
    let streams = plan.shape.streams;
    let count = plan.readers.count();
    let tls = certs::client(&opened.files, b"h2")?;
    let websocket_tls = certs::client(&opened.files, b"")?;
    let mut groups = Vec::new();
    let mut progress = Vec::new();
    let mut tasks: Vec<(Reader, Receiver)> = Vec::new();
    for i in 0..count {
        let members = matches!(plan.readers, Readers::Members(_));
        if !members || i == 0 {
            groups.push(Arc::new(Mutex::new(match plan.readers {
                Readers::Tails(_) => {
                    Group::of_source(streams, (i % plan.shape.sources) as u32, plan.shape.sources)
                }
                _ => Group::of_all(streams),
            })));
        }
        let group = groups[if members { 0 } else { i }].clone();
        let mine = Arc::new(Progress::default());
        progress.push(mine.clone());
        let receiver = Receiver::new(control.clone(), mine, group, streams);
        let reader = match plan.readers {
            Readers::WebSockets(_) => Reader::V1(WebSocket {
                addr: opened
                    .controller
                    .ok_or_else(|| BenchError::new("WebSockets need a traffic controller"))?,
                tls: plan.secure_websockets.then(|| websocket_tls.clone()),
                path: format!("/firehose/bench-{i}"),
                token: plan.token.clone(),
                control: control.clone(),
            }),
            _ => Reader::V2(Subscriber {
                addr: opened.doppler,
                tls: tls.clone(),
                request: Request {
                    shard_id: if members {
                        "bench".into()
                    } else {
                        format!("bench-{i}")
                    },
                    source_id: match plan.readers {
                        Readers::Tails(_) => source_id(i % plan.shape.sources),
                        _ => String::new(),
                    },
                },
                windows: plan.windows,
                stall: plan.stall.filter(|_| i == 0).map(|length| Stall {
                    after: plan.warmup,
                    length,
                }),
                control: control.clone(),
            }),
        };
        tasks.push((reader, receiver));
    }
    let runtime = runtime()?;
    let thread = std::thread::Builder::new()
        .name("readers".into())
        .spawn(move || {
            runtime.block_on(async {
                let mut running = Vec::new();
                for (reader, receiver) in tasks {
                    running.push(tokio::spawn(async move {
                        match reader {
                            Reader::V1(websocket) => websocket.run(receiver).await,
                            Reader::V2(subscriber) => subscriber.run(receiver).await,
                        }
                    }));
                }
                let mut reports = Vec::new();
                for task in running {
                    reports.extend(task.await);
                }
                reports
            })
        })
        .map_err(|e| BenchError::new(format!("thread: {e}")))?;
    Ok(ReaderSide {
        progress,
        groups,
        thread,
    })
}

enum Reader {
    V1(WebSocket),
    V2(Subscriber),
}

/// Everybody who sends, on another thread.
struct EmitterSide {
    progress: Vec<Arc<Emitted>>,
    thread: JoinHandle<Vec<EmitterReport>>,
}

fn start_emitters(
    plan: &Plan,
    opened: &Opened,
    control: &Shared,
) -> Result<EmitterSide, BenchError> {
    let tls = certs::client(&opened.files, b"h2")?;
    let progress: Vec<Arc<Emitted>> = (0..plan.shape.streams).map(|_| Arc::default()).collect();
    let emitters: Vec<Emitter> = progress
        .iter()
        .enumerate()
        .map(|(index, progress)| Emitter {
            index,
            addr: opened.doppler,
            tls: tls.clone(),
            shape: plan.shape,
            pace: plan.pace,
            progress: progress.clone(),
            control: control.clone(),
        })
        .collect();
    let runtime = runtime()?;
    let thread = std::thread::Builder::new()
        .name("emitters".into())
        .spawn(move || {
            runtime.block_on(async {
                let running: Vec<_> = emitters
                    .into_iter()
                    .map(|emitter| tokio::spawn(emitter.run()))
                    .collect();
                let mut reports = Vec::new();
                for task in running {
                    reports.extend(task.await);
                }
                reports
            })
        })
        .map_err(|e| BenchError::new(format!("thread: {e}")))?;
    Ok(EmitterSide { progress, thread })
}

/// Counters at one moment.
struct Snapshot {
    when: Instant,
    sent: u64,
    unique: Vec<u64>,
    servers: Vec<Sample>,
    generator: Sample,
}

impl Snapshot {
    fn take(
        opened: &Opened,
        emitters: &EmitterSide,
        readers: &ReaderSide,
    ) -> Result<Self, BenchError> {
        Ok(Self {
            when: Instant::now(),
            sent: emitters.progress.iter().map(|p| load(&p.sent)).sum(),
            unique: readers
                .groups
                .iter()
                .map(|g| g.lock().unwrap_or_else(PoisonError::into_inner).unique)
                .collect(),
            servers: sample_all(opened)?,
            generator: sample(std::process::id())?,
        })
    }
}

fn sample_all(opened: &Opened) -> Result<Vec<Sample>, BenchError> {
    opened
        .pids
        .iter()
        .map(|(name, pid)| {
            sample(*pid).map_err(|e| {
                let said = opened
                    .servers
                    .iter()
                    .find(|s| s.pid() == *pid)
                    .map(Server::said)
                    .unwrap_or_default();
                BenchError::new(format!("{name} is gone: {e} {said}"))
            })
        })
        .collect()
}

/// Runs `plan`.
///
/// # Errors
/// When a server cannot be started or dies, or a subscription does not come about. Losses are no error but a result.
pub fn run(plan: &Plan) -> Result<Report, BenchError> {
    let dir = tempfile::tempdir().map_err(|e| BenchError::new(format!("temporary folder: {e}")))?;
    let opened = open(plan, dir.path())?;
    // Let a fresh process come to rest before its idle memory is read.
    std::thread::sleep(Duration::from_millis(300));
    let idle = sample_all(&opened)?;

    let control: Shared = Arc::new(Control::default());
    let readers = start_readers(plan, &opened, &control)?;
    let emitters = start_emitters(plan, &opened, &control)?;
    let result = measure(plan, &opened, &control, &readers, &emitters);
    let (before, window, after) = match result {
        Ok(snapshots) => snapshots,
        Err(e) => {
            control.enter(Phase::Stop);
            let emitted = emitters.thread.join().unwrap_or_default();
            let received = readers.thread.join().unwrap_or_default();
            let causes: Vec<String> = emitted
                .into_iter()
                .filter_map(|r| r.error)
                .chain(received.into_iter().filter_map(|r| r.error))
                .take(3)
                .collect();
            return Err(BenchError::new(format!("{e}; {}", causes.join("; "))));
        }
    };
    let ledger = opened
        .admin
        .and_then(|addr| crate::process::ledger(addr).ok());
    control.enter(Phase::Stop);
    let died = |_| BenchError::new("a thread of the generator panicked");
    let emitted = emitters.thread.join().map_err(died)?;
    let received = readers.thread.join().map_err(died)?;
    let sent: Vec<u64> = emitters.progress.iter().map(|p| load(&p.sent)).collect();
    let groups: Vec<Group> = readers
        .groups
        .iter()
        .map(|g| g.lock().unwrap_or_else(PoisonError::into_inner).clone())
        .collect();
    let outcome = Outcome {
        idle,
        before,
        window,
        after,
        sent,
        groups,
        emitted,
        received,
        ledger,
    };
    Ok(outcome.report(plan, &opened))
}

/// Goes through the phases; returns the counters at the start and the end of the measured time, and at the very end.
fn measure(
    plan: &Plan,
    opened: &Opened,
    control: &Shared,
    readers: &ReaderSide,
    emitters: &EmitterSide,
) -> Result<(Snapshot, Snapshot, Snapshot), BenchError> {
    let asked = Instant::now();
    loop {
        let ready = readers
            .progress
            .iter()
            .filter(|p| p.ready.load(Ordering::Relaxed))
            .count();
        if ready == readers.progress.len() {
            break;
        }
        let ended = readers.thread.is_finished()
            || emitters
                .progress
                .iter()
                .any(|p| p.done.load(Ordering::Relaxed));
        if ended || asked.elapsed() > READY {
            return Err(BenchError::new(format!(
                "{ready} of {} subscriptions are there",
                readers.progress.len()
            )));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    control.enter(Phase::Settle);
    std::thread::sleep(Duration::from_millis(300));

    let start = Instant::now() + Duration::from_millis(20);
    let measured = start + plan.warmup;
    control
        .measure_from
        .store(control.at(measured), Ordering::Relaxed);
    control.enter(Phase::Send {
        start,
        length: plan.warmup + plan.time,
    });
    std::thread::sleep(measured.saturating_duration_since(Instant::now()));
    let before = Snapshot::take(opened, emitters, readers)?;
    std::thread::sleep((measured + plan.time).saturating_duration_since(Instant::now()));
    let window = Snapshot::take(opened, emitters, readers)?;

    while !emitters
        .progress
        .iter()
        .all(|p| p.done.load(Ordering::Acquire))
    {
        std::thread::sleep(Duration::from_millis(5));
    }
    let expected = expected(
        plan,
        &emitters
            .progress
            .iter()
            .map(|p| load(&p.sent))
            .collect::<Vec<_>>(),
    );
    let (drain, stalled) = (Instant::now(), plan.stall.unwrap_or_default());
    let mut last = (Instant::now(), u64::MAX);
    loop {
        let arrived: Vec<u64> = readers
            .groups
            .iter()
            .map(|g| g.lock().unwrap_or_else(PoisonError::into_inner).unique)
            .collect();
        let total = arrived.iter().sum();
        if arrived == expected || drain.elapsed() > DRAIN + stalled {
            break;
        }
        if total != last.1 {
            last = (Instant::now(), total);
        } else if last.0.elapsed() > QUIET && drain.elapsed() + plan.time > stalled {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let after = Snapshot::take(opened, emitters, readers)?;
    Ok((before, window, after))
}

/// How much each group should have seen when stream `i` sent `sent[i]`.
fn expected(plan: &Plan, sent: &[u64]) -> Vec<u64> {
    match plan.readers {
        Readers::Tails(n) => (0..n)
            .map(|i| {
                sent.iter()
                    .map(|s| plan.shape.sent_of_source(i % plan.shape.sources, *s))
                    .sum()
            })
            .collect(),
        Readers::Members(_) => vec![sent.iter().sum()],
        Readers::Firehoses(n) | Readers::WebSockets(n) => vec![sent.iter().sum(); n],
    }
}

struct Outcome {
    idle: Vec<Sample>,
    before: Snapshot,
    window: Snapshot,
    after: Snapshot,
    sent: Vec<u64>,
    groups: Vec<Group>,
    emitted: Vec<EmitterReport>,
    received: Vec<ReceiverReport>,
    ledger: Option<serde_json::Value>,
}

impl Outcome {
    fn report(self, plan: &Plan, opened: &Opened) -> Report {
        let seconds = (self.window.when - self.before.when).as_secs_f64();
        let sent = self.sent.iter().sum::<u64>() - self.before.sent;
        let million = (sent as f64 / 1e6).max(f64::MIN_POSITIVE);
        let rates: Vec<f64> = self
            .before
            .unique
            .iter()
            .zip(&self.window.unique)
            .map(|(before, after)| (after - before) as f64 / seconds)
            .collect();
        let expected = expected(plan, &self.sent);
        let (mut latency, mut late) = (Histogram::default(), Histogram::default());
        self.received.iter().for_each(|r| latency.merge(&r.latency));
        self.emitted.iter().for_each(|r| late.merge(&r.late));
        let lost: u64 = expected
            .iter()
            .zip(&self.groups)
            .map(|(want, group)| want - group.unique.min(*want))
            .sum();
        let total: u64 = expected.iter().sum();
        let sum = |of: fn(&ReceiverReport) -> u64| self.received.iter().map(of).sum::<u64>();
        let members = matches!(plan.readers, Readers::Members(n) if n > 1);
        Report {
            target: opened.name.clone(),
            shape: plan.shape,
            pace: plan.pace,
            readers: plan.readers.clone(),
            seconds,
            sent,
            sent_per_second: (self.window.sent - self.before.sent) as f64 / seconds,
            unsent: unsent(plan, self.sent.iter().sum()),
            delivered_per_second: rates.iter().sum::<f64>() / rates.len().max(1) as f64,
            delivered_per_second_min: rates.iter().copied().reduce(f64::min).unwrap_or_default(),
            expected: total,
            lost,
            loss: lost as f64 / total.max(1) as f64,
            told_lost: sum(|r| r.told_lost),
            notices: sum(|r| r.notices),
            duplicates: self.groups.iter().map(|g| g.duplicates).sum(),
            reordered: sum(|r| r.reordered),
            misrouted: self.groups.iter().map(|g| g.misrouted).sum(),
            foreign: sum(|r| r.foreign),
            damaged: sum(|r| r.damaged),
            latency: latency.summary(),
            worst_reader_p99_ms: self
                .received
                .iter()
                .map(|r| r.latency.summary().p99_ms)
                .fold(0.0, f64::max),
            late: late.summary(),
            member_shares: members.then(|| {
                let all = sum(|r| r.records).max(1) as f64;
                let shares = self.received.iter().map(|r| r.records as f64 / all);
                (
                    shares.clone().fold(1.0, f64::min),
                    shares.fold(0.0, f64::max),
                )
            }),
            processes: self.processes(opened, million),
            generator_cpu_per_million: (self.after.generator.cpu - self.before.generator.cpu)
                / million,
            ledger: self.ledger,
            errors: self
                .emitted
                .into_iter()
                .filter_map(|r| r.error)
                .chain(self.received.into_iter().filter_map(|r| r.error))
                .collect(),
        }
    }

    fn processes(&self, opened: &Opened, million: f64) -> Vec<ProcessReport> {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        opened
            .pids
            .iter()
            .enumerate()
            .map(|(i, (name, _))| {
                let cpu = self.after.servers[i].cpu - self.before.servers[i].cpu;
                ProcessReport {
                    name: name.clone(),
                    cpu_seconds: cpu,
                    cpu_per_million: cpu / million,
                    rss_idle_mib: mib(self.idle[i].rss),
                    rss_peak_mib: mib(self.after.servers[i].peak),
                    rss_end_mib: mib(self.after.servers[i].rss),
                }
            })
            .collect()
    }
}

/// Share of what the pace asked for that was not sent.
fn unsent(plan: &Plan, sent: u64) -> f64 {
    let Some(rate) = plan.pace.rate() else {
        return 0.0;
    };
    let asked = rate * (plan.warmup + plan.time).as_secs_f64();
    // A batch more or less at the end is not a failure to keep the pace.
    let slack = (plan.shape.batch * plan.shape.streams) as f64;
    ((asked - slack - sent as f64) / asked).max(0.0)
}
