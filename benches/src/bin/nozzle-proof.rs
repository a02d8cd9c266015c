//! What nozzles promise, seen: every envelope that reached the buffer arrives at least once, in order per source, whatever
//! is stopped, killed or full meanwhile, and the ledger says exactly what became of the rest.
//!
//! Each proof starts a pipeline in this process, a nozzle as a process of its own and real peers, sends numbered lines,
//! does harm, and then reads what arrived. It prints what it saw as JSON, and fails when a promise is broken.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use loggregator_benches::commands::sibling;
use loggregator_benches::proof::{Broker, Nozzle, Rsyslog, Stage, destination};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::sleep;

/// Does harm to nozzles under load, and looks at what arrived.
#[derive(Parser)]
#[command(name = "nozzle-proof", version, max_term_width = 110)]
struct Args {
    #[command(subcommand)]
    what: What,
    /// The program `loggregator`; without, the one beside this program
    #[arg(long, global = true)]
    binary: Option<PathBuf>,
    /// Lines per second
    #[arg(long, global = true, default_value_t = 20_000)]
    rate: u32,
    /// Seconds for which peers are away
    #[arg(long, global = true, default_value_t = 60)]
    outage: u64,
    /// Folder for everything that is written; a temporary one without
    #[arg(long, global = true)]
    dir: Option<PathBuf>,
}

/// The proofs.
#[derive(Subcommand)]
enum What {
    /// A Kafka broker is stopped and started; the nozzle is killed; its share of the buffer fills up and is freed
    Kafka {
        /// Folder with the broker's jars
        #[arg(long, env = "LOGGREGATOR_TEST_KAFKA")]
        lib: PathBuf,
    },
    /// The same with rsyslog over TLS
    Syslog,
    /// One destination is dead beside two healthy ones
    Isolation {
        /// Seconds for which it is dead
        #[arg(long, default_value_t = 300)]
        dead: u64,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let temporary = tempfile::tempdir()?;
    let dir = args.dir.clone().unwrap_or(temporary.path().to_owned());
    std::fs::create_dir_all(&dir)?;
    let binary = args.binary.clone().unwrap_or(sibling("loggregator"));
    match &args.what {
        What::Kafka { lib } => {
            let broker = Peer::Kafka(Broker::new(lib, &dir)?);
            outages(&args, &dir, &binary, broker).await
        }
        What::Syslog => outages(&args, &dir, &binary, Peer::Syslog(None)).await,
        What::Isolation { dead } => isolation(&args, &dir, &binary, *dead).await,
    }
}

enum Peer {
    Kafka(Broker),
    /// Made when the pipeline's certificates are there.
    Syslog(Option<Rsyslog>),
}

impl Peer {
    fn prepare(&mut self, dir: &Path, stage: &Stage) -> Result<String> {
        Ok(match self {
            Peer::Kafka(broker) => format!(
                "[[destination]]\nname = \"peer\"\n[destination.kafka]\nbrokers = [\"{}\"]\ntopic = \"cf-proof\"\n\
                 value = \"text\"\nheaders = []\n",
                broker.addr()
            ),
            Peer::Syslog(rsyslog) => {
                let certs = &stage.pipeline.certs;
                let rsyslog = rsyslog.insert(Rsyslog::new(dir, certs)?);
                let tls = certs.tls("client");
                format!(
                    "[[destination]]\nname = \"peer\"\n[destination.syslog]\nurl = \"syslog-tls://{}\"\n\
                     [destination.syslog.tls]\nca_file = {:?}\ncert_file = {:?}\nkey_file = {:?}\nserver_name = \"doppler\"\n",
                    rsyslog.addr(),
                    tls.ca,
                    tls.cert,
                    tls.key
                )
            }
        })
    }

    fn start(&mut self) -> Result<()> {
        match self {
            Peer::Kafka(broker) => broker.start(),
            Peer::Syslog(rsyslog) => rsyslog.as_mut().map_or(Ok(()), Rsyslog::start),
        }
    }

    fn stop(&mut self) -> Result<()> {
        match self {
            Peer::Kafka(broker) => broker.terminate(),
            Peer::Syslog(rsyslog) => rsyslog.as_mut().map_or(Ok(()), Rsyslog::terminate),
        }
    }

    fn arrivals(&mut self) -> Result<loggregator_benches::proof::Arrivals> {
        match self {
            Peer::Kafka(broker) => broker.arrivals(),
            Peer::Syslog(Some(rsyslog)) => {
                // What it has buffered for its file is written when it stops.
                rsyslog.terminate()?;
                rsyslog.arrivals()
            }
            Peer::Syslog(None) => anyhow::bail!("no receiver"),
        }
    }
}

/// Peer away; nozzle killed; buffer full; peer back.
async fn outages(args: &Args, dir: &Path, binary: &Path, mut peer: Peer) -> Result<()> {
    let mut stage = Stage::start().await?;
    let config = peer.prepare(dir, &stage)?;
    // What comes in during one outage fits, what comes in during two does not.
    let buffer = u64::from(args.rate) * 300 * args.outage * 3 / 2;
    let mut nozzle = Nozzle::new(binary, dir, &stage.pipeline, &buffer.to_string(), &config)?;
    let outage = Duration::from_secs(args.outage);
    peer.start()?;
    nozzle.start().await?;
    stage.send(args.rate).await?;
    tell("sending");
    sleep(Duration::from_secs(10)).await;
    tell("the peer stops");
    peer.stop()?;
    sleep(outage).await;
    tell("the peer starts");
    peer.start()?;
    sleep(Duration::from_secs(10)).await;
    tell("the nozzle is killed");
    nozzle.kill()?;
    sleep(Duration::from_secs(2)).await;
    nozzle.start().await?;
    sleep(Duration::from_secs(20)).await;
    tell("the peer stops, until the buffer is full");
    peer.stop()?;
    sleep(outage * 2).await;
    let full = nozzle.ledger().await?;
    tell("the peer starts");
    peer.start()?;
    sleep(Duration::from_secs(20)).await;
    let sent = stage.stop_sending().await?;
    tell("no more is sent");
    let report = nozzle.settled(&["peer"], Duration::from_secs(300)).await?;
    let upstream = stage.pipeline.rlp_report().await?;
    nozzle.terminate().await?;
    let summary = peer.arrivals()?.summary(&sent);
    let ours = destination(&report, "peer")?;
    let total: u64 = sent.iter().sum();
    let taken: u64 = upstream.subscriptions.iter().map(|s| s.delivered).sum();
    show(&json!({
        "sent": total,
        "arrived": summary,
        "nozzle": { "ingress": report.ingress, "destination": ours },
        "when_full": { "ingress": full.ingress, "destination": destination(&full, "peer")? },
        "rlp_delivered": taken,
        "rlp": upstream.subscriptions,
    }))?;
    ensure!(report.balanced(), "the ledger does not balance");
    ensure!(summary.late == 0, "{} lines out of order", summary.late);
    ensure!(
        summary.distinct == ours.delivered,
        "{} lines arrived, {} are booked as delivered",
        summary.distinct,
        ours.delivered
    );
    Ok(())
}

/// Two healthy destinations and one that dies.
async fn isolation(args: &Args, dir: &Path, binary: &Path, dead: u64) -> Result<()> {
    let mut stage = Stage::start().await?;
    let sink = TcpListener::bind("127.0.0.1:0").await?;
    let addr = sink.local_addr()?;
    let reader = tokio::spawn(read_everything(sink));
    let file = |name: &str| {
        format!(
            "[[destination]]\nname = \"{name}\"\n[destination.file]\npath = {:?}\nformat = \"text\"\n",
            dir.join(name)
        )
    };
    let config = format!(
        "{}{}[[destination]]\nname = \"dead\"\n[destination.backlog]\nmax_bytes = \"64MiB\"\n[destination.syslog]\nurl = \"syslog://{addr}\"\n",
        file("healthy-1"),
        file("healthy-2"),
    );
    let mut nozzle = Nozzle::new(binary, dir, &stage.pipeline, "1GiB", &config)?;
    nozzle.start().await?;
    stage.send(args.rate).await?;
    sleep(Duration::from_secs(5)).await;
    tell("all are healthy");
    let before = lags(&nozzle, dead / 5).await?;
    tell("one is dead");
    reader.abort();
    let during = lags(&nozzle, dead).await?;
    let sent = stage.stop_sending().await?;
    let report = nozzle
        .settled(&["healthy-1", "healthy-2"], Duration::from_secs(60))
        .await?;
    let total: u64 = sent.iter().sum();
    show(&json!({
        "sent": total,
        "lag_seconds_before": before,
        "lag_seconds_during": during,
        "nozzle": report,
    }))?;
    ensure!(report.balanced(), "the ledger does not balance");
    for name in ["healthy-1", "healthy-2"] {
        let healthy = destination(&report, name)?;
        ensure!(
            healthy.delivered == total && healthy.dropped.is_empty(),
            "{name} got {} of {total}",
            healthy.delivered
        );
    }
    Ok(())
}

async fn read_everything(sink: TcpListener) {
    while let Ok((mut stream, _)) = sink.accept().await {
        tokio::io::copy(&mut stream, &mut tokio::io::sink())
            .await
            .ok();
    }
}

/// Mean and largest of the lags of the healthy destinations, looked at every second.
async fn lags(nozzle: &Nozzle, seconds: u64) -> Result<serde_json::Value> {
    let (mut sum, mut largest, mut looks) = (0.0, 0.0_f64, 0.0);
    for _ in 0..seconds {
        sleep(Duration::from_secs(1)).await;
        for name in ["healthy-1", "healthy-2"] {
            let label = format!("destination=\"{name}\"");
            let lag = nozzle
                .metric("loggregator_nozzle_lag_seconds", &label)
                .await?;
            sum += lag;
            looks += 1.0;
            largest = largest.max(lag);
        }
    }
    Ok(json!({ "mean": sum / looks, "largest": largest }))
}

fn tell(what: &str) {
    use std::io::Write as _;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seconds = now.map_or(0, |now| now.as_secs());
    // Without standard error there is nobody to tell.
    writeln!(std::io::stderr(), "{seconds} {what}").ok();
}

fn show(what: &serde_json::Value) -> Result<()> {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{what:#}")?;
    Ok(())
}
