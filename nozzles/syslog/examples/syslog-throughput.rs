//! How many envelopes a second the nozzle writes as syslog over TLS, what a million of them costs, and what the bytes alone
//! cost.
//!
//! ```text
//! cargo run --release -p loggregator-nozzle-syslog --example syslog-throughput -- [MODE] [EVENTS] [PAYLOAD]
//! ```
//!
//! `MODE` is `nozzle`, `floor`, or `both` (the default), which runs one after the other and prints the ratios. `EVENTS` log
//! envelopes with a payload of `PAYLOAD` bytes (2,000,000 and 200 unless given; rounded up to whole batches), of 100 sources.
//!
//! The receiver is this program again, started with `sink`: a process of its own, so that what it spends is not counted. It
//! decrypts, counts bytes, and tells how many there were; the nozzle and the floor must have sent the same ones.
//!
//! The floor is the TLS stream that the nozzle has too, which is given the nozzle's own bytes, a batch in one write, and does
//! nothing else. Its batch is always the same piece of memory. Both have a first batch before the clock starts, with the
//! connection and its handshake, and end when the receiver has said goodbye, so that everything has been read. `settle` is
//! zero: a batch is confirmed as soon as the receiver's system has acknowledged it, which is asked every 10 ms.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a program for measuring"
)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use loggregator_client::message;
use loggregator_net::{ClientTls, Profile, ServerTls, TlsFiles, tls_accept, tls_connect};
use loggregator_nozzle::config::Section;
use loggregator_nozzle::{Batch, BufferIdentity, Context, Delivery, Event, Kind as _, Plan};
use loggregator_nozzle_syslog::SyslogKind;
use loggregator_service::Lifecycle;
use loggregator_service::metrics::Metrics;
use loggregator_testkit::Certs;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const SOURCES: usize = 100;
const LONG: Duration = Duration::from_secs(10);
/// The name in the receiver's certificate.
const SERVER: &str = "doppler";

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mode = args.first().map_or("both", String::as_str);
    if mode == "sink" {
        let [_, ca, cert, key] = args.as_slice() else {
            panic!("usage: throughput sink CA CERT KEY");
        };
        let [ca, cert, key] = [ca, cert, key].map(Into::into);
        return sink(&TlsFiles { ca, cert, key }).await;
    }
    assert!(
        ["nozzle", "floor", "both"].contains(&mode),
        "usage: throughput [nozzle|floor|both] [EVENTS] [PAYLOAD]"
    );
    let number = |i: usize, default| args.get(i).map_or(default, |text| text.parse().unwrap());
    let work = Work::new(number(1, 2_000_000), number(2, 200));
    let nozzle = if mode == "floor" {
        None
    } else {
        Some(work.print("nozzle", nozzle(&work).await))
    };
    let floor = if mode == "nozzle" {
        None
    } else {
        Some(work.print("floor", floor(&work).await))
    };
    if let (Some(nozzle), Some(floor)) = (nozzle, floor) {
        println!(
            "nozzle to floor: {:.2} of the events a second, {:.2} times the processor time",
            floor.seconds / nozzle.seconds,
            nozzle.cpu / floor.cpu
        );
    }
}

/// What is sent.
struct Work {
    certs: Certs,
    /// An envelope of each source.
    bodies: Vec<bytes::Bytes>,
    per_batch: usize,
    batches: usize,
    in_flight: usize,
    /// A batch as it is on the wire.
    page: Vec<u8>,
}

/// What a run took.
#[derive(Clone, Copy)]
struct Took {
    seconds: f64,
    cpu: f64,
}

impl Work {
    fn new(events: usize, payload: usize) -> Work {
        let certs = Certs::generate().unwrap();
        let bodies: Vec<bytes::Bytes> = (0..SOURCES).map(|source| body(source, payload)).collect();
        let plan = plan(&certs, SocketAddr::from(([127, 0, 0, 1], 1)));
        let limits = plan.limits();
        // As the framework fills them; and all alike, with each source as often as the others.
        let fit = limits.batch_bytes / bodies[0].len();
        let per_batch = fit.min(limits.batch_events) / SOURCES * SOURCES;
        assert!(per_batch > 0, "a hundred envelopes do not fit into a batch");
        let mut work = Work {
            certs,
            bodies,
            per_batch,
            batches: events.div_ceil(per_batch),
            in_flight: limits.in_flight,
            page: Vec::new(),
        };
        for event in work.batch(0).events() {
            for message in plan.render(event).unwrap() {
                let length = format!("{} ", message.body.len());
                work.page.extend_from_slice(length.as_bytes());
                work.page.extend_from_slice(&message.body);
            }
        }
        work
    }

    fn batch(&self, number: usize) -> Batch {
        let first = number * self.per_batch;
        let event = |n: usize| {
            let body = self.bodies[n % SOURCES].clone();
            Event::new(n as u64, 1_700_000_000_000_000_000, body)
        };
        Batch::new((first..first + self.per_batch).map(event).collect(), 0)
    }

    #[expect(clippy::cast_precision_loss, reason = "for people")]
    fn print(&self, what: &str, took: Took) -> Took {
        let events = self.batches * self.per_batch;
        println!(
            "{what}: {events} events of {} bytes, {} of syslog, in batches of {}, in {:.2} s: {:.0} a second, {:.0} MB/s, {:.3} s of \
            processor time a million",
            self.bodies[0].len(),
            self.page.len() / self.per_batch,
            self.per_batch,
            took.seconds,
            events as f64 / took.seconds,
            (self.batches * self.page.len()) as f64 / took.seconds / 1e6,
            took.cpu / (events as f64 / 1e6),
        );
        took
    }
}

fn plan(certs: &Certs, addr: SocketAddr) -> Box<dyn Plan> {
    let files = certs.tls("client");
    let section = format!(
        "url = \"syslog-tls://{addr}\"\nsettle = \"0s\"\n[tls]\nca_file = {:?}\ncert_file = {:?}\nkey_file = {:?}\n\
        server_name = {SERVER:?}\n",
        files.ca, files.cert, files.key
    );
    SyslogKind
        .plan(&Section::from_text(&section).unwrap())
        .unwrap()
}

async fn nozzle(work: &Work) -> Took {
    let sink = Sink::start(&work.certs);
    let lifecycle = Lifecycle::new();
    let context = Context {
        nozzle: "bench".to_owned(),
        name: "syslog".to_owned(),
        metrics: Metrics::empty(),
        lifecycle: lifecycle.clone(),
        buffer: BufferIdentity::new("bench"),
        state_dir: None,
    };
    let plan = plan(&work.certs, sink.addr);
    let destination = plan.start(context).await.unwrap();
    let deliver = |number| {
        let batch = work.batch(number);
        let destination = &destination;
        async move { assert_eq!(destination.deliver(&batch).await, Delivery::All) }
    };
    deliver(0).await;
    let (started, cpu) = (Instant::now(), cpu());
    stream::iter(1..=work.batches)
        .map(deliver)
        .buffered(work.in_flight)
        .for_each(|()| async {})
        .await;
    destination.close().await;
    let took = Took::since(started, cpu);
    sink.has_read((work.batches + 1) * work.page.len());
    lifecycle.shutdown(LONG).await;
    took
}

async fn floor(work: &Work) -> Took {
    let sink = Sink::start(&work.certs);
    let tls = ClientTls::mutual_with(&work.certs.tls("client"), Profile::Bytes).unwrap();
    let io = TcpStream::connect(sink.addr).await.unwrap();
    io.set_nodelay(true).unwrap();
    let mut stream = tls_connect(io, &tls, SERVER, LONG).await.unwrap();
    stream.write_all(&work.page).await.unwrap();
    stream.flush().await.unwrap();
    let (started, cpu) = (Instant::now(), cpu());
    for _ in 0..work.batches {
        stream.write_all(&work.page).await.unwrap();
        stream.flush().await.unwrap();
    }
    stream.shutdown().await.unwrap();
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    let took = Took::since(started, cpu);
    sink.has_read((work.batches + 1) * work.page.len());
    took
}

impl Took {
    fn since(started: Instant, cpu: f64) -> Took {
        Took {
            seconds: started.elapsed().as_secs_f64(),
            cpu: self::cpu() - cpu,
        }
    }
}

/// The receiver's process.
struct Sink {
    child: Child,
    said: BufReader<ChildStdout>,
    addr: SocketAddr,
}

impl Sink {
    fn start(certs: &Certs) -> Sink {
        let files = certs.tls(SERVER);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("sink")
            .args([&files.ca, &files.cert, &files.key])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut addr = String::new();
        said.read_line(&mut addr).unwrap();
        let addr = addr.trim_end().parse().unwrap();
        Sink { child, said, addr }
    }

    /// Waits for its end.
    fn has_read(mut self, bytes: usize) {
        let mut read = String::new();
        self.said.read_to_string(&mut read).unwrap();
        assert!(self.child.wait().unwrap().success());
        assert_eq!(read.trim_end(), bytes.to_string(), "bytes that arrived");
    }
}

/// Takes one connection, says where it listens, and at the end how many bytes came.
async fn sink(files: &TlsFiles) {
    let tls = ServerTls::mutual(files, Profile::Bytes).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    let (io, _) = listener.accept().await.unwrap();
    let mut stream = tls_accept(io, &tls, LONG).await.unwrap();
    let (mut buffer, mut bytes) = (vec![0; 1 << 18], 0);
    loop {
        match stream.read(&mut buffer).await.unwrap() {
            0 => break,
            read => bytes += read,
        }
    }
    println!("{bytes}");
    stream.shutdown().await.ok();
}

/// An envelope as an app's log line comes, with the tags that the platform adds.
fn body(source: usize, payload: usize) -> bytes::Bytes {
    let guid = format!("4f1c0a52-8f2b-4d53-9a0e-{source:012x}");
    // Text that compresses about as logs do.
    let mut line = String::new();
    let mut word = source as u64;
    while line.len() < payload {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        line.push_str(&format!("key{}={} ", word % 97, word >> 44));
    }
    line.truncate(payload);
    // Within one second, as neighbours in a stream are.
    let at = 1_700_000_000_000_000_000 + i64::try_from(source).unwrap() * 1_234_567;
    let log = message::log(line).source(&guid, "0").at_nanos(at);
    let log = [
        ("app_id", guid.as_str()),
        ("app_name", "shop"),
        ("space_name", "prod"),
        ("space_id", "b3a3c1fe-3e39-4e5a-8a9c-1b6e0b3c9d10"),
        ("organization_name", "acme"),
        ("organization_id", "0a9c61fe-93f9-4c5a-8a9c-1b6e0b3c9d11"),
        ("deployment", "cf"),
        ("source_type", "APP/PROC/WEB"),
        ("process_type", "web"),
    ]
    .into_iter()
    .fold(log, |log, (name, value)| log.tag(name, value));
    log.build().encode_to_vec().into()
}

/// Processor time of this process so far, in seconds.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // After the name in brackets; fields 14 and 15 of proc(5), in ticks of 10 ms.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}
