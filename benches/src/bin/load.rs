//! The load generator: drives a doppler, a relay or a traffic controller and says what it did and what it cost.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use loggregator_benches::certs::Files;
use loggregator_benches::emit::Pace;
use loggregator_benches::http2::Windows;
use loggregator_benches::plan::{Plan, Readers, Target};
use loggregator_benches::run::run;
use loggregator_benches::workload::Shape;
use loggregator_benches::{commands, text};

/// Sends v2 log envelopes over mutual TLS and gRPC, reads them back, and reports rate, CPU, memory, latency, loss,
/// duplicates and order.
///
/// The target is started for the run, with throw-away certificates, unless --addr names one that runs already.
#[derive(Parser)]
#[command(name = "load", version, max_term_width = 110)]
struct Args {
    /// What to start: `doppler`, `relay` (the floor), or a command with {addr}, {port}, {admin}, {ca}, {cert},
    /// {key} and {log_bytes} filled in; words like NAME=VALUE at its front are environment variables.
    #[arg(long, default_value = "doppler", value_name = "NAME|COMMAND")]
    target: String,
    /// The traffic controller to start beside it for --websockets, ours without it; {doppler} is the doppler's address.
    #[arg(long, value_name = "COMMAND")]
    controller: Option<String>,
    /// The reverse log proxy to start beside it for --rlp, ours without it; {doppler} is the doppler's address.
    #[arg(long, value_name = "COMMAND")]
    proxy: Option<String>,
    /// Drive the doppler at this address instead of starting one; needs --ca, --cert and --key.
    #[arg(long, requires_all = ["ca", "cert", "key"])]
    addr: Option<SocketAddr>,
    /// The traffic controller, or with --rlp the reverse log proxy, that belongs to it.
    #[arg(long, requires = "addr", visible_alias = "proxy-addr")]
    controller_addr: Option<SocketAddr>,
    /// Processes whose CPU and memory to report, with --addr.
    #[arg(long, requires = "addr", value_delimiter = ',')]
    pid: Vec<u32>,
    /// PEM file of the authority, with --addr.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// PEM file of our certificate, with --addr.
    #[arg(long)]
    cert: Option<PathBuf>,
    /// PEM file of its key, with --addr.
    #[arg(long)]
    key: Option<PathBuf>,

    /// Envelopes per second, all streams together.
    #[arg(long, default_value_t = 20_000.0, conflicts_with_all = ["full", "burst"])]
    rate: f64,
    /// As fast as the target accepts.
    #[arg(long, conflicts_with = "burst")]
    full: bool,
    /// Bursts of so many envelopes, as fast as the target accepts them.
    #[arg(long)]
    burst: Option<u64>,
    /// Seconds from one burst to the next.
    #[arg(long, default_value_t = 0.5)]
    every: f64,

    /// v2 firehoses, each on a connection and shard id of its own (the default: 1).
    #[arg(long, group = "readers")]
    firehoses: Option<usize>,
    /// v2 subscribers of one source each.
    #[arg(long, group = "readers")]
    tails: Option<usize>,
    /// Members of one v2 shard id.
    #[arg(long, group = "readers")]
    members: Option<usize>,
    /// v1 firehoses through a traffic controller.
    #[arg(long, group = "readers")]
    websockets: Option<usize>,
    /// v2 firehoses through a reverse log proxy, each on a connection and shard id of its own.
    #[arg(long, group = "readers")]
    rlp: Option<usize>,
    /// v2 readers want their tags in `deprecated_tags`, which costs a reverse log proxy a rewrite of each envelope.
    #[arg(long)]
    deprecated_tags: bool,
    /// Value of the Authorization header of WebSockets.
    #[arg(long)]
    token: Option<String>,
    /// WebSockets without TLS.
    #[arg(long)]
    plain_websockets: bool,
    /// The first firehose or tail stops reading for so many seconds.
    #[arg(long)]
    stall: Option<f64>,
    /// The first firehose or tail reads no more than so many envelopes per second.
    #[arg(long)]
    slow: Option<f64>,
    /// One more stream sends so many envelopes per second, singly, of a source of its own.
    #[arg(long)]
    quiet: Option<f64>,

    /// Envelopes in a batch.
    #[arg(long, default_value_t = 100)]
    batch: usize,
    /// Emitting streams, each on a connection of its own.
    #[arg(long, default_value_t = 2)]
    streams: usize,
    /// Source ids, taken in turn; a multiple or a divisor of the batch.
    #[arg(long, default_value_t = 1000)]
    sources: usize,
    /// Bytes of one envelope in its batch.
    #[arg(long, default_value_t = 468)]
    record: usize,
    /// Bytes of its payload.
    #[arg(long, default_value_t = 200)]
    payload: usize,
    /// Largest DATA frame that readers announce.
    #[arg(long, default_value_t = 16 << 10)]
    reader_frame: u32,

    /// Seconds sent before measuring.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Seconds measured.
    #[arg(long, default_value_t = 5.0)]
    time: f64,
    /// Bound of the doppler's log, MiB.
    #[arg(long, default_value_t = 256)]
    log_mib: u64,
    /// Report as JSON.
    #[arg(long)]
    json: bool,
    /// Exit with 1 unless everything arrived once and in order.
    #[arg(long)]
    check: bool,
}

impl Args {
    fn plan(&self) -> anyhow::Result<Plan> {
        let seconds = |s: f64| {
            Duration::try_from_secs_f64(s).with_context(|| format!("{s} is not a duration"))
        };
        if [Some(self.rate), Some(self.every), self.slow, self.quiet]
            .into_iter()
            .flatten()
            .any(|r| r <= 0.0)
            || self.batch == 0
            || self.streams == 0
        {
            bail!("rates, every, batch and streams must be above 0");
        }
        Ok(Plan {
            target: self.target()?,
            shape: Shape {
                record: self.record,
                payload: self.payload,
                batch: self.batch,
                sources: self.sources,
                streams: self.streams,
            },
            pace: match (self.full, self.burst) {
                (true, _) => Pace::Full,
                (false, Some(envelopes)) => Pace::Bursts {
                    envelopes,
                    every: self.every,
                },
                (false, None) => Pace::Rate(self.rate),
            },
            readers: match (self.tails, self.members, self.websockets, self.rlp) {
                (Some(n), ..) => Readers::Tails(n),
                (_, Some(n), ..) => Readers::Members(n),
                (_, _, Some(n), _) => Readers::WebSockets(n),
                (.., Some(n)) => Readers::Proxied(n),
                _ => Readers::Firehoses(self.firehoses.unwrap_or(1)),
            },
            windows: Windows {
                frame: self.reader_frame,
                ..Windows::default()
            },
            warmup: seconds(self.warmup)?,
            time: seconds(self.time)?,
            log_bytes: self.log_mib << 20,
            stall: self.stall.map(seconds).transpose()?,
            slow: self.slow,
            quiet: self.quiet,
            preferred_tags: !self.deprecated_tags,
            token: self.token.clone(),
            secure_websockets: !self.plain_websockets,
        })
    }

    fn target(&self) -> anyhow::Result<Target> {
        if let (Some(doppler), Some(ca), Some(cert), Some(key)) =
            (self.addr, &self.ca, &self.cert, &self.key)
        {
            return Ok(Target::Running {
                doppler,
                front: self.controller_addr,
                files: Files {
                    ca: ca.clone(),
                    cert: cert.clone(),
                    key: key.clone(),
                },
                pids: self.pid.clone(),
            });
        }
        let (name, doppler) = match self.target.as_str() {
            "doppler" => ("doppler", commands::doppler()),
            "relay" => ("relay", commands::relay()),
            command if command.contains("{addr}") || command.contains("{port}") => {
                ("target", command.to_owned())
            }
            other => bail!(
                "unknown target `{other}`: doppler, relay, or a command with {{addr}} or {{port}}"
            ),
        };
        let controller = match (&self.controller, self.plain_websockets) {
            (Some(command), _) => command.clone(),
            (None, true) => commands::plain_controller(),
            (None, false) => commands::controller(),
        };
        Ok(Target::Start {
            name: name.to_owned(),
            doppler,
            controller: Some(controller),
            proxy: Some(self.proxy.clone().unwrap_or_else(commands::rlp)),
        })
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let report = run(&args.plan()?)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", text::render(&report))?;
    }
    Ok(if args.check && !report.clean() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
