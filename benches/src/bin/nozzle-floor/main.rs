//! How many envelopes a second a nozzle hands on, what a million of them costs, and what the bytes alone cost.
//!
//! ```text
//! cargo run --release -p loggregator-benches --bin nozzle-floor -- WIRE
//! ```
//!
//! Log envelopes of 100 sources go through the destination of a nozzle, in the batches that the framework would make, as
//! many at a time as it would allow. Then the floor, given the very bytes that the nozzle has sent for a batch, sends these
//! as often: it writes them to the same kind of connection or file and does nothing else. Both in turn, `--pairs` times.
//!
//! The receiver is this program again: a process of its own, so that what it spends is not counted. It counts bytes, and both
//! must have sent the same ones; of datagrams some may get lost, which is told. A first batch, with connection and
//! handshake, goes before the clock starts; it stops when the receiver has read everything.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a program for measuring"
)]

mod floor;
mod sink;
mod work;

use std::path::PathBuf;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use loggregator_benches::table::median;
use loggregator_net::TlsFiles;

use work::Work;

/// The destination that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Wire {
    /// Nozzle `file`, an object of JSON a line
    File,
    /// Nozzle `http`, lines of JSON, without TLS
    Http,
    /// Nozzle `syslog`, requests of many messages over TLS
    Https,
    /// Nozzle `syslog` over TCP
    Tcp,
    /// Nozzle `syslog` over TLS
    Tls,
    /// Nozzle `syslog` over UDP
    Udp,
}

/// Measures a nozzle beside what its bytes alone cost.
#[derive(Debug, Parser)]
#[command(name = "nozzle-floor", version, max_term_width = 110)]
struct Args {
    wire: Wire,
    /// Envelopes of a run, rounded up to whole batches
    #[arg(long, default_value_t = 2_000_000)]
    events: usize,
    /// Bytes of a log's text
    #[arg(long, default_value_t = 200)]
    payload: usize,
    /// Runs of each
    #[arg(long, default_value_t = 3)]
    pairs: usize,
    /// The receiver, with CA, certificate and key
    #[arg(long, hide = true, num_args = 3)]
    sink: Option<Vec<PathBuf>>,
}

/// What a run took.
#[derive(Debug, Clone, Copy)]
struct Took {
    seconds: f64,
    cpu: f64,
}

impl Took {
    fn since(started: Instant, cpu: f64) -> Took {
        Took {
            seconds: started.elapsed().as_secs_f64(),
            cpu: self::cpu() - cpu,
        }
    }
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    if let Some(files) = args.sink {
        let [ca, cert, key] = files.try_into().unwrap();
        return sink::run(args.wire, &TlsFiles { ca, cert, key }).await;
    }
    let work = Work::new(args.wire, args.events, args.payload).await;
    // Who is first takes memory of a system that has none ready, for a file and for sockets.
    floor::run(&work).await;
    let mut pairs = Vec::new();
    for _ in 0..args.pairs.max(1) {
        let nozzle = work.nozzle().await;
        work.print("nozzle", nozzle);
        let floor = floor::run(&work).await;
        work.print("floor", floor);
        pairs.push((nozzle, floor));
    }
    let ratio = |of: fn(&(Took, Took)) -> f64| {
        let least = pairs.iter().map(of).fold(f64::INFINITY, f64::min);
        let most = pairs.iter().map(of).fold(0.0, f64::max);
        format!("{:.2} ({least:.2}-{most:.2})", median(pairs.iter().map(of)))
    };
    println!(
        "nozzle to floor, median of {} pairs (range): {} of the events a second, {} times the processor time",
        pairs.len(),
        ratio(|(nozzle, floor)| floor.seconds / nozzle.seconds),
        ratio(|(nozzle, floor)| nozzle.cpu / floor.cpu),
    );
}

/// Processor time of this process so far, in seconds. Threads that have ended are in it.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // After the name in brackets; fields 14 and 15 of proc(5), in ticks of 10 ms.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}
