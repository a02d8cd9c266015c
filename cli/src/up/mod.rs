//! `loggregator up`: agent, dopplers, traffic controller, reverse log proxy and gateway in one process, on loopback, without any configuration.

mod banner;
mod feed;
mod live;
mod nozzles;
mod plan;
mod ports;
mod stack;

use crate::exit::Exit;
use crate::output::{self, ColorArg};
use crate::state::{Pki, StateDir, write_private};
use crate::target::StateArgs;
use crate::view::{Paint, Palette, count};
use anyhow::{Context as _, Result};
use banner::Banner;
use clap::Args;
use loggregator_service::config::{ByteSize, Value as _};
use loggregator_service::lifecycle::StopReason;
use loggregator_service::{Lifecycle, logging};
use plan::Plan;
use stack::Stack;
use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Options of `up`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct UpArgs {
    /// Example apps with realistic logs and metrics
    #[arg(long)]
    demo: bool,
    #[command(flatten)]
    state: StateArgs,
    /// How many dopplers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16), help_heading = "Pipeline")]
    dopplers: u16,
    /// Memory for recent envelopes, per doppler
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size, help_heading = "Pipeline")]
    log_bytes: u64,
    /// How long a subscription id may be away and go on where it stopped
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration, help_heading = "Pipeline")]
    resume_grace: Duration,
    /// A tag that the agent puts on everything; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = plan::parse_tag, help_heading = "Pipeline")]
    tag: Vec<(String, String)>,
    /// How long Ctrl-C may take to drain
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration, help_heading = "Pipeline")]
    drain_timeout: Duration,
    /// Follow a file, rotation included; the source id is the file's name unless given
    #[arg(long, value_name = "FILE[=SOURCE_ID]", value_parser = plan::parse_follow, help_heading = "Inputs")]
    follow: Vec<plan::Follow>,
    /// Take lines from standard input, under this source id
    #[arg(long, value_name = "SOURCE_ID", help_heading = "Inputs")]
    stdin: Option<String>,
    /// Do not listen for syslog
    #[arg(long, help_heading = "Inputs")]
    no_syslog: bool,
    /// Run the nozzle that a file describes too, in this process; may be given several times
    #[arg(long, value_name = "FILE", help_heading = "Outputs")]
    nozzle: Vec<PathBuf>,
    /// Do not serve the apps' metrics to Prometheus
    #[arg(long, help_heading = "Outputs")]
    no_prometheus: bool,
    /// What to log to standard error, for instance `info` or `warn,doppler=debug`
    #[arg(
        long,
        value_name = "FILTER",
        env = "LOG_LEVEL",
        hide_env_values = true,
        default_value = "warn",
        help_heading = "Display"
    )]
    log_level: String,
}

const EXAMPLES: &str = "\
Examples:
  loggregator up --demo                                      look around with example apps
  loggregator up --follow /var/log/syslog --follow app.log=my-app
  journalctl -f | loggregator up --stdin journal             lines of another program
  loggregator up --demo --nozzle audit.toml                  and take everything to where the file says
  loggregator up --dopplers 2 --state-dir /tmp/second        a second pipeline beside the first

DIR/endpoints.json holds every address, certificate and token file, for scripts. Its presence says: all is ready.
Exit code 0 when everything was delivered at the end, 1 when something was left.";

fn parse_size(text: &str) -> Result<u64, String> {
    ByteSize::parse(text)
        .map(|size| size.0)
        .map_err(|error| error.to_string())
}

/// Starts everything and runs until told to stop.
///
/// # Errors
/// When the state folder is in use, or a component cannot start.
pub async fn run(args: UpArgs, color: ColorArg) -> Result<ExitCode> {
    let dir = args.state.dir();
    // Before anything is started: a wrong file is told at once.
    if let Err(code) = nozzles::plan(&args.nozzle, &dir, color.stderr())? {
        return Ok(code);
    }
    let lock = dir.take()?;
    let palette = color.stdout();
    let _log = logging::init(&logging::Config {
        format: logging::Format::Text {
            color: color.stderr().is_on(),
        },
        filter: args.log_level.clone(),
        ..logging::Config::default()
    })?;
    let lifecycle = Lifecycle::new();
    lifecycle
        .watch_signals()
        .context("cannot watch for signals")?;

    let pki = Pki::generate(&dir)?;
    let token = Token::make(&dir)?;
    let (plan, stack) = match start(&args, &pki, &token, &lifecycle, color).await? {
        Ok(started) => started,
        Err(code) => return Ok(code),
    };
    crate::nozzle::reload::watch(stack.reloads(&dir, color.stderr()), &lifecycle)?;
    if args.demo {
        feed::start(&plan, &lifecycle)?;
    }
    let endpoints = stack.endpoints(&plan);
    lock.publish(&endpoints)?;
    let program = banner::program_name();
    let moved = plan.moved();
    let banner = Banner {
        endpoints: &endpoints,
        dir: &dir,
        token: &token.text,
        moved: &moved,
        demo: args.demo,
        program: &program,
    };
    output::write(banner.render(palette).as_bytes())?;

    let reason = watch(&stack, &lifecycle).await;
    lock.withdraw()?;
    drain(
        stack,
        &lifecycle,
        reason,
        args.drain_timeout,
        color.stderr(),
    )
    .await
    .map(ExitCode::from)
}

/// Chooses ports and starts on them; with others when somebody was faster. An exit code when a nozzle's file is wrong.
async fn start(
    args: &UpArgs,
    pki: &Pki,
    token: &Token,
    lifecycle: &Lifecycle,
    color: ColorArg,
) -> Result<Result<(Plan, Stack), ExitCode>> {
    let mut tries = 5;
    loop {
        let plan = Plan::make(args, pki, token)?;
        let nozzles = match nozzles::plan(&args.nozzle, &args.state.dir(), color.stderr())? {
            Ok(nozzles) => match plan.prometheus {
                Some(choice) => nozzles.with_prometheus(choice.addr)?,
                None => nozzles,
            },
            Err(code) => return Ok(Err(code)),
        };
        tries -= 1;
        match Stack::start(&plan, nozzles, lifecycle).await {
            Ok(stack) => return Ok(Ok((plan, stack))),
            Err(error) if tries > 0 && stack::is_port_taken(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Shows the live line, on a terminal, until it is time to stop.
async fn watch(stack: &Stack, lifecycle: &Lifecycle) -> StopReason {
    let stopped = lifecycle.stopped();
    tokio::pin!(stopped);
    if !(std::io::stderr().is_terminal() && output::stdout_is_terminal()) {
        return stopped.await;
    }
    let mut before = (stack.totals(), Instant::now());
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            reason = &mut stopped => {
                output::tell(live::CLEAR);
                return reason;
            }
            _ = ticks.tick() => {}
        }
        let now = (stack.totals(), Instant::now());
        live::rewrite(&now.0.line(&before.0, now.1 - before.1));
        before = now;
    }
}

/// Takes everything down in the order of the data path, and says what did not arrive.
async fn drain(
    stack: Stack,
    lifecycle: &Lifecycle,
    reason: StopReason,
    deadline: Duration,
    palette: Palette,
) -> Result<Exit> {
    if let StopReason::Fault(fault) = &reason {
        let what = format!("a part of the pipeline failed: {fault}");
        output::tell(&palette.text(Paint::Error, &what));
    }
    output::tell(&format!(
        "draining, at most {} s; once more Ctrl-C cuts it short",
        deadline.as_secs()
    ));
    let before = stack.reports();
    let report = lifecycle.shutdown(deadline).await;
    let mut undelivered = stack.undelivered(&before);
    for (line, lost) in stack.left_in_nozzles() {
        if lost {
            undelivered.push(line);
        } else {
            output::tell(&line);
        }
    }
    for line in &undelivered {
        output::tell(&palette.text(Paint::Notice, line));
    }
    if !report.finished() {
        let what = format!(
            "cut short after {:.1} s: {} had not finished",
            report.took.as_secs_f64(),
            report.unfinished.join(", ")
        );
        output::tell(&palette.text(Paint::Notice, &what));
    }
    let fine =
        report.finished() && undelivered.is_empty() && !matches!(reason, StopReason::Fault(_));
    if fine {
        let taken = stack.totals().received();
        output::tell(&format!(
            "drained: {} taken in, everything that a reader was to get was delivered",
            count(taken, "envelope")
        ));
    }
    Ok(if fine { Exit::Done } else { Exit::Negative })
}

/// The bearer token of this run.
struct Token {
    text: String,
    /// What the traffic controller reads: the token and what it may do.
    grants: PathBuf,
    /// What clients read: the token alone.
    file: PathBuf,
}

impl Token {
    fn make(dir: &StateDir) -> Result<Self> {
        let mut random = [0_u8; 24];
        std::fs::File::open("/dev/urandom")
            .and_then(|mut source| source.read_exact(&mut random))
            .context("cannot read /dev/urandom for the token")?;
        let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let token = Self {
            grants: dir.file("tokens"),
            file: dir.file("token"),
            text,
        };
        write_private(&token.file, format!("{}\n", token.text).as_bytes())?;
        write_private(
            &token.grants,
            format!("{} doppler.firehose\n", token.text).as_bytes(),
        )?;
        Ok(token)
    }
}
