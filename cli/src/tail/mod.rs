//! `loggregator tail` and `loggregator firehose`: live envelopes on the screen or in a pipe.

mod loss;
mod screen;

use crate::exit::Exit;
use crate::output::{self, ColorArg};
use crate::reader::{Heard, Reader, Wanted};
use crate::target::TargetArgs;
use crate::view::{self, Filter, FilterArgs, LocalTime, Paint, Palette};
use anyhow::{Context as _, Result};
use clap::Args;
use screen::Screen;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Options of `tail`.
#[derive(Debug, Clone, Args)]
#[command(after_help = TAIL_EXAMPLES)]
pub struct TailArgs {
    /// Source ids (an app's guid, a component's name); globs such as `web-*` work
    #[arg(value_name = "SOURCE", required = true)]
    sources: Vec<String>,
    #[command(flatten)]
    show: ShowArgs,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    target: TargetArgs,
}

/// Options of `firehose`.
#[derive(Debug, Clone, Args)]
#[command(after_help = FIREHOSE_EXAMPLES)]
pub struct FirehoseArgs {
    /// Share the stream: everybody with the same id gets a part of it, and a reader that comes back within the grace
    /// period goes on where it stopped [default: a stream of one's own]
    #[arg(long, value_name = "ID")]
    subscription_id: Option<String>,
    /// Only these sources; globs such as `web-*` work
    #[arg(long, short = 's', value_name = "SOURCE", value_delimiter = ',')]
    source: Vec<String>,
    #[command(flatten)]
    show: ShowArgs,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    target: TargetArgs,
}

/// What both share.
#[derive(Debug, Clone, Args)]
struct ShowArgs {
    /// One JSON object per envelope and line (protobuf JSON), instead of text
    #[arg(long)]
    json: bool,
    /// Stop after N envelopes
    #[arg(long, short = 'n', value_name = "N")]
    count: Option<u64>,
    /// Stop when nothing to show has come for this long, for instance `4s`
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    idle_exit: Option<Duration>,
    /// Say nothing on standard error but errors and losses
    #[arg(long, short = 'q')]
    quiet: bool,
}

const TAIL_EXAMPLES: &str = "\
Examples:
  loggregator tail web-shop                       logs, metrics and events of one source
  loggregator tail 'web-*' --kind log             of several, as a pattern; only log lines
  loggregator tail web-shop --source-type rtr     only what the router says about it
  loggregator tail web-shop --text 'status=5..'   only lines that match
  loggregator tail web-shop --json | jq .log      for programs
  loggregator tail web-shop --idle-exit 4s        ends when it is quiet
  loggregator tail APP-GUID --url wss://doppler.example.com:443 --token-file T --ca-file CA";

const FIREHOSE_EXAMPLES: &str = "\
Examples:
  loggregator firehose                            everything
  loggregator firehose --kind log --exclude healthz
  loggregator firehose --source 'web-*' --tag space_name=prod
  loggregator firehose --subscription-id mine     shared by all with this id; resumes where it stopped
  loggregator firehose --json --count 1000 > sample.json";

/// Runs `tail`.
///
/// # Errors
/// When there is nothing to connect to, or the output cannot be written.
pub async fn run_tail(args: TailArgs, color: ColorArg, zone: LocalTime) -> Result<Exit> {
    let TailArgs {
        sources,
        show,
        filter,
        target,
    } = args;
    let shows_source = sources.len() > 1 || sources.iter().any(|source| view::is_glob(source));
    show_sources(
        sources,
        None,
        show,
        filter,
        &target,
        shows_source,
        color,
        zone,
    )
    .await
}

/// Runs `firehose`.
///
/// # Errors
/// As [`run_tail`].
pub async fn run_firehose(args: FirehoseArgs, color: ColorArg, zone: LocalTime) -> Result<Exit> {
    let FirehoseArgs {
        subscription_id,
        source,
        show,
        filter,
        target,
    } = args;
    show_sources(
        source,
        subscription_id,
        show,
        filter,
        &target,
        true,
        color,
        zone,
    )
    .await
}

#[allow(clippy::too_many_arguments)] // the two commands' options, once
async fn show_sources(
    sources: Vec<String>,
    subscription_id: Option<String>,
    show: ShowArgs,
    filter: FilterArgs,
    target: &TargetArgs,
    shows_source: bool,
    color: ColorArg,
    zone: LocalTime,
) -> Result<Exit> {
    let patterns = sources.iter().any(|source| view::is_glob(source));
    let set = if sources.is_empty() {
        None
    } else {
        Some(view::source_set(&sources).context("a source pattern cannot be understood")?)
    };
    // A server can select by exact ids only; patterns are matched here.
    let at_server = if patterns { Vec::new() } else { sources };
    let filter = Filter::new(
        filter,
        set.filter(|_| patterns || subscription_id.is_some()),
    );
    let wanted = Wanted {
        sources: at_server,
        kinds: filter.kinds(),
        subscription_id,
    };
    let reader = Reader::open(target, wanted)?;
    let screen = Screen::new(
        filter,
        show.json,
        shows_source,
        show.count,
        color.stdout(),
        zone,
    );
    end_on_signal();
    Session {
        reader,
        screen,
        palette: color.stderr(),
        quiet: show.quiet,
        idle: show.idle_exit,
    }
    .run()
    .await
}

struct Session {
    reader: Reader,
    screen: Screen,
    palette: Palette,
    quiet: bool,
    idle: Option<Duration>,
}

impl Session {
    async fn run(mut self) -> Result<Exit> {
        // Counted from the moment the subscription stands.
        let mut deadline: Option<Instant> = None;
        loop {
            let idle = async {
                match deadline {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let heard = tokio::select! {
                heard = self.reader.next() => heard,
                () = idle => None,
            };
            let Some(heard) = heard else { break };
            let before = self.screen.shown();
            let connected = matches!(heard, Heard::Ready(_));
            let done = self.take(heard)?;
            if connected || self.screen.shown() > before {
                deadline = self.idle.map(|idle| Instant::now() + idle);
            }
            if done {
                break;
            }
        }
        if let Some(summary) = self.screen.lost_in_all() {
            self.tell(&summary);
        }
        Ok(Exit::Done)
    }

    /// Shows this and whatever else has arrived, in one write. Says whether it is time to stop.
    fn take(&mut self, first: Heard) -> Result<bool> {
        let mut next = Some(first);
        while let Some(heard) = next.take() {
            match heard {
                Heard::Ready(what) => {
                    if !self.quiet {
                        self.note(&format!("reading from {what}"));
                    }
                }
                Heard::Frame(frame, damaged) => {
                    self.screen.show(&frame, damaged)?;
                    for notice in self.screen.notices() {
                        self.screen.flush()?;
                        self.tell(&notice);
                    }
                }
                Heard::Notice(notice) => {
                    self.screen.flush()?;
                    self.tell(&notice);
                }
                Heard::Failed(error) => {
                    self.screen.flush()?;
                    return Err(error);
                }
            }
            if self.screen.is_full() {
                break;
            }
            if !self.screen.wants_flush() {
                next = self.reader.try_next();
            }
        }
        self.screen.flush()?;
        Ok(self.screen.is_full())
    }

    /// A line that must not be missed.
    fn tell(&self, line: &str) {
        output::tell(
            &self
                .palette
                .text(Paint::Notice, &format!("loggregator: {line}")),
        );
    }

    /// A line that is good to know.
    fn note(&self, line: &str) {
        output::tell(
            &self
                .palette
                .text(Paint::Time, &format!("loggregator: {line}")),
        );
    }
}

/// Ends the process when asked to, even while the screen waits for a pipe that nobody reads: what is on its way to
/// us is not ours to drain.
fn end_on_signal() {
    tokio::spawn(async {
        crate::signal::stop().await;
        std::process::exit(Exit::Interrupted as i32);
    });
}
