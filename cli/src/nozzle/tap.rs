//! `nozzle tap`: what flows in a nozzle that runs, live.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Deserialize;

use super::load::load_or_refuse;
use crate::exit::{Coded, Exit};
use crate::http_get::{Lines, query};
use crate::output::{self, ColorArg};
use crate::target::StateArgs;
use crate::view::count;

const EXAMPLES: &str = "\
Examples:
  loggregator nozzle tap audit.toml                                  what comes in
  loggregator nozzle tap audit.toml --edge siem                      what goes to the destination `siem`
  loggregator nozzle tap audit.toml --edge siem/rendered             in the form in which it is sent
  loggregator nozzle tap --admin http://127.0.0.1:14840 --filter 'org == \"acme\" and kind == \"log\"'

Edges: intake, and of each destination NAME/in (what it gets to see), NAME/out (what its filter lets pass) and NAME/rendered.
Nothing waits for a tap: at most so many events in a time are shown, and it is told how many more there were.";

/// Options of `nozzle tap`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct TapArgs {
    /// The configuration of the nozzle; its admin server is asked
    #[arg(value_name = "FILE", required_unless_present = "admin")]
    file: Option<PathBuf>,
    /// The admin server of the nozzle, instead of its configuration
    #[arg(long, value_name = "http://HOST:PORT", conflicts_with = "file")]
    admin: Option<String>,
    /// Where to look: `intake`, a destination, or DESTINATION/in, /out, /rendered
    #[arg(long, value_name = "EDGE", default_value = "intake")]
    edge: String,
    /// Only events for which this expression holds
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    /// End after this many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    state: StateArgs,
}

/// Shows events, a JSON object per line.
///
/// # Errors
/// When the nozzle does not answer, or there is no such edge.
pub fn run(args: TapArgs, color: ColorArg) -> Result<ExitCode> {
    let admin = match address(&args, color)? {
        Ok(admin) => admin,
        Err(code) => return Ok(code),
    };
    // What leaves for a destination is what people mean by its name.
    let edge = if args.edge == "intake" || args.edge.contains('/') {
        args.edge.clone()
    } else {
        format!("{}/out", args.edge)
    };
    let filter = args.filter.as_deref().unwrap_or_default();
    let path = query("/tap", &[("edge", &edge), ("filter", filter)]);
    crate::runtime(Some(1))?.block_on(async {
        let stop = crate::signal::stop();
        tokio::pin!(stop);
        let mut lines = Lines::open(&admin, &path).await.map_err(unreachable)?;
        output::tell(&format!("reading from {admin}, edge {edge}"));
        let (mut shown, mut left_out) = (0, 0);
        while args.count.is_none_or(|count| shown < count) {
            let line = tokio::select! {
                line = lines.next() => line?,
                () = &mut stop => return Ok(Exit::Interrupted.into()),
            };
            let Some(line) = line else {
                output::tell("the nozzle ended");
                break;
            };
            match serde_json::from_str(&line) {
                Ok(LeftOut { left_out: more }) => left_out += more,
                Err(_) => {
                    output::write(format!("{line}\n").as_bytes())?;
                    shown += 1;
                }
            }
        }
        if left_out > 0 {
            output::tell(&format!("{} more were not shown", count(left_out, "event")));
        }
        Ok(Exit::Done.into())
    })
}

/// How many events were not shown: the one line that is no event.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LeftOut {
    left_out: u64,
}

fn unreachable(error: anyhow::Error) -> anyhow::Error {
    if error.downcast_ref::<std::io::Error>().is_some() {
        Coded::error(
            Exit::Unreachable,
            format!("the nozzle does not answer: {error:#}"),
        )
    } else {
        error
    }
}

/// Where the nozzle's admin server is: by its configuration, or among those of the running `up`.
fn address(args: &TapArgs, color: ColorArg) -> Result<Result<String, ExitCode>> {
    if let Some(admin) = &args.admin {
        return Ok(Ok(admin.clone()));
    }
    let file = args
        .file
        .as_deref()
        .context("a file or --admin is needed")?;
    let config = match load_or_refuse(file, None, color.stderr())? {
        Ok(config) => config,
        Err(code) => return Ok(Err(code)),
    };
    if let Some(addr) = config.nozzle.admin_addr.filter(|addr| addr.port() != 0) {
        return Ok(Ok(format!("http://{addr}")));
    }
    let name = config.nozzle.name;
    let of_up = args.state.dir().endpoints().ok().and_then(|endpoints| {
        let mut nozzles = endpoints.nozzles.into_iter();
        nozzles.find(|nozzle| nozzle.name == name)
    });
    match of_up {
        Some(nozzle) => Ok(Ok(nozzle.admin)),
        None => Err(Coded::error(
            Exit::Unreachable,
            format!(
                "{} sets no nozzle.admin_addr, and no running `up` has a nozzle `{name}`",
                file.display()
            ),
        )),
    }
}
