//! `loggregator emit`: send envelopes to an agent, and know that it took them.
//!
//! Each batch is a unary `Ingress/Send`, answered when the agent has it: `emit` waits rather than drops, keeps the
//! order of lines, and reports how many were accepted. One call is under way at a time; on loopback that is far faster
//! than any file is written.

mod lines;
mod sender;
mod what;

use crate::exit::{Coded, Exit};
use crate::output;
use crate::target::{StateArgs, tls_of};
use crate::view::count;
use anyhow::Result;
use clap::Args;
use lines::{Lines, Pace};
use loggregator_net::TlsFiles;
use sender::{Place, Sender};
use std::path::PathBuf;
use std::time::Duration;
use what::{WhatArgs, WhoArgs};

/// Options of `emit`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct EmitArgs {
    #[command(flatten)]
    who: WhoArgs,
    #[command(flatten)]
    what: WhatArgs,
    /// At most so many lines per second from standard input
    #[arg(long, value_name = "N/s", value_parser = parse_rate, requires = "stdin", help_heading = "How")]
    rate: Option<f64>,
    /// Keep trying for this long when the agent does not answer
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "60s", help_heading = "How")]
    patience: Duration,
    /// Say nothing on standard error but errors
    #[arg(long, short = 'q', help_heading = "How")]
    quiet: bool,
    #[command(flatten)]
    state: StateArgs,
    /// Another agent, for instance `127.0.0.1:3458`; needs the certificate options
    #[arg(long, value_name = "HOST:PORT", requires_all = ["ca_file", "cert_file", "key_file"], help_heading = "Where")]
    agent: Option<String>,
    /// CA certificate of that agent
    #[arg(long, value_name = "FILE", requires = "agent", help_heading = "Where")]
    ca_file: Option<PathBuf>,
    /// Client certificate for that agent
    #[arg(long, value_name = "FILE", requires = "agent", help_heading = "Where")]
    cert_file: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "agent", help_heading = "Where")]
    key_file: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  loggregator emit -s my-app --log 'hello there'
  ./my-app 2>&1 | loggregator emit -s my-app --stdin
  loggregator emit -s replay --stdin --rate 10000/s < /var/log/dpkg.log
  tail -n +1 -F app.log | loggregator emit -s my-app --stdin --rate 10000/s   replay, then follow
  loggregator emit -s my-app --counter requests=3 --gauge memory=3.5e8:bytes --gauge cpu=12.5:percentage
  loggregator emit -s my-app --timer http=23ms --tag method=GET --tag status_code=200
  loggregator emit -s ci --event deployed --body 'version 42'

Exit code 0 when the agent accepted everything, 1 when it did not, 3 when it could not be reached.";

/// Runs `emit`.
///
/// # Errors
/// When the agent cannot be reached, or does not take what is sent.
pub async fn run(args: EmitArgs) -> Result<Exit> {
    let mut sender = Sender::connect(destination(&args)?, args.patience).await?;
    let envelopes = args.who.envelopes(&args.what);
    let mut result = if envelopes.is_empty() {
        Ok(())
    } else {
        sender.send(&envelopes).await
    };
    let mut interrupted = false;
    if args.what.stdin && result.is_ok() {
        (result, interrupted) = send_lines(&args, &mut sender).await;
    }
    let dropped = sender.dropped_meanwhile().await;
    if dropped > 0 {
        output::tell(&format!(
            "loggregator: the agent dropped {} meanwhile, see `loggregator status`",
            count(dropped, "envelope")
        ));
    }
    let report = format!(
        "{} sent, {} accepted",
        count(sender.sent(), "envelope"),
        count(sender.accepted(), "envelope")
    );
    match result {
        Ok(()) => {
            if !args.quiet {
                output::tell(&format!("loggregator: {report}"));
            }
            Ok(if interrupted {
                Exit::Interrupted
            } else {
                Exit::Done
            })
        }
        Err(error) => {
            output::tell(&format!("loggregator: {report}"));
            Err(error)
        }
    }
}

/// Sends standard input until its end or a signal; what was read by then is sent.
async fn send_lines(args: &EmitArgs, sender: &mut Sender) -> (Result<()>, bool) {
    let mut lines = Lines::new(tokio::io::stdin());
    let mut pace = Pace::new(args.rate);
    let stop = crate::signal::stop();
    tokio::pin!(stop);
    loop {
        let batch = tokio::select! {
            batch = lines.next(pace.batch()) => batch,
            () = &mut stop => return (Ok(()), true),
        };
        let envelopes: Vec<_> = match batch {
            Ok(batch) if batch.is_empty() => return (Ok(()), false),
            Ok(batch) => batch.into_iter().map(|line| args.who.line(line)).collect(),
            Err(error) => {
                return (
                    Err(anyhow::Error::new(error).context("cannot read standard input")),
                    false,
                );
            }
        };
        pace.wait(envelopes.len()).await;
        if let Err(error) = sender.send(&envelopes).await {
            return (Err(error), false);
        }
    }
}

fn destination(args: &EmitArgs) -> Result<Place> {
    match (&args.agent, &args.ca_file, &args.cert_file, &args.key_file) {
        (Some(agent), Some(ca), Some(cert), Some(key)) => Ok(Place {
            addr: agent.clone(),
            tls: TlsFiles {
                ca: ca.clone(),
                cert: cert.clone(),
                key: key.clone(),
            },
            admin: None,
        }),
        (Some(_), ..) => Err(Coded::error(
            Exit::Usage,
            "`--agent` needs `--ca-file`, `--cert-file` and `--key-file`",
        )),
        (None, ..) => {
            let endpoints = args.state.dir().endpoints()?;
            Ok(Place {
                addr: endpoints.agent.grpc.clone(),
                tls: tls_of(&endpoints),
                admin: Some(endpoints.agent.admin),
            })
        }
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).trim();
    let rate: f64 = number
        .replace([',', '_'], "")
        .parse()
        .map_err(|_| format!("`{text}` is not a rate; write 10000/s"))?;
    if rate.is_finite() && rate > 0.0 {
        Ok(rate)
    } else {
        Err("a rate is more than zero".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_people_write_them() {
        assert_eq!(parse_rate("10000/s"), Ok(10_000.0));
        assert_eq!(parse_rate("10,000"), Ok(10_000.0));
        assert_eq!(parse_rate("0.5/s"), Ok(0.5));
        for wrong in ["0", "-1", "fast", "NaN", "inf/s"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }
}
