//! From the flags of `emit` to envelopes.

use clap::Args;
use loggregator_client::message::{self, EnvelopeBuilder};
use loggregator_proto::v2::Envelope;
use std::time::{Duration, SystemTime};

/// What to send; each kind asked for is one envelope, all gauges together are one.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "What to send")]
#[group(id = "what", required = true, multiple = true)]
pub struct WhatArgs {
    /// A log line
    #[arg(long, short = 'l', value_name = "TEXT", group = "what")]
    pub log: Vec<String>,
    /// Every line of standard input, as it comes, until its end
    #[arg(long, group = "what")]
    pub stdin: bool,
    /// A counter that went up by DELTA [default: 1]
    #[arg(long, value_name = "NAME[=DELTA]", value_parser = parse_counter, group = "what")]
    pub counter: Vec<Counter>,
    /// A measured value; several make one envelope
    #[arg(long, value_name = "NAME=VALUE[:UNIT]", value_parser = parse_gauge, group = "what", allow_hyphen_values = true)]
    pub gauge: Vec<Gauge>,
    /// Something that took this long until now, for instance `http=23ms`
    #[arg(long, value_name = "NAME=DURATION", value_parser = parse_timer, group = "what")]
    pub timer: Vec<Timer>,
    /// Something that happened
    #[arg(long, value_name = "TITLE", group = "what")]
    pub event: Vec<String>,
}

/// Who sends it, and how it is marked.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Who sends it")]
pub struct WhoArgs {
    /// The source id: an app's guid, a component's name
    #[arg(long, short = 's', value_name = "ID")]
    pub source_id: String,
    /// The instance of that source
    #[arg(long, value_name = "ID", default_value = "0")]
    pub instance: String,
    /// Tag `source_type`, shown before a log line
    #[arg(long, value_name = "TYPE", default_value = "APP")]
    pub source_type: String,
    /// A tag; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_tag)]
    pub tag: Vec<(String, String)>,
    /// Log lines are standard error
    #[arg(long)]
    pub err: bool,
    /// The counters' totals, instead of leaving the sum to the agent
    #[arg(long, value_name = "TOTAL", requires = "counter")]
    pub total: Option<u64>,
    /// The events' body
    #[arg(long, value_name = "TEXT", requires = "event")]
    pub body: Option<String>,
}

/// A counter by name and step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    name: String,
    delta: u64,
}

/// A gauge's entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Gauge {
    name: String,
    value: f64,
    unit: String,
}

/// A timer by name and length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer {
    name: String,
    took: Duration,
}

fn parse_counter(text: &str) -> Result<Counter, String> {
    let (name, delta) = match text.split_once('=') {
        None => (text, 1),
        Some((name, delta)) => (
            name,
            delta
                .parse()
                .map_err(|_| format!("`{delta}` is not a whole number"))?,
        ),
    };
    named(name)?;
    Ok(Counter {
        name: name.to_owned(),
        delta,
    })
}

fn parse_gauge(text: &str) -> Result<Gauge, String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("a gauge has the form NAME=VALUE or NAME=VALUE:UNIT")?;
    named(name)?;
    let (value, unit) = value.split_once(':').unwrap_or((value, ""));
    let value = value
        .parse()
        .map_err(|_| format!("`{value}` is not a number"))?;
    Ok(Gauge {
        name: name.to_owned(),
        value,
        unit: unit.to_owned(),
    })
}

fn parse_timer(text: &str) -> Result<Timer, String> {
    let (name, took) = text
        .split_once('=')
        .ok_or("a timer has the form NAME=DURATION, for instance http=23ms")?;
    named(name)?;
    let took = humantime::parse_duration(took).map_err(|error| format!("`{took}`: {error}"))?;
    Ok(Timer {
        name: name.to_owned(),
        took,
    })
}

fn parse_tag(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("a tag has the form NAME=VALUE")?;
    named(name)?;
    Ok((name.to_owned(), value.to_owned()))
}

fn named(name: &str) -> Result<(), String> {
    if name.is_empty() {
        Err("the name is missing".to_owned())
    } else {
        Ok(())
    }
}

impl WhoArgs {
    /// An envelope of this sender.
    fn sign(&self, builder: EnvelopeBuilder) -> Envelope {
        let signed = builder
            .source(&self.source_id, &self.instance)
            .source_type(&self.source_type);
        self.tag
            .iter()
            .fold(signed, |builder, (name, value)| builder.tag(name, value))
            .build()
    }

    /// A log line of this sender.
    pub fn line(&self, line: impl Into<bytes::Bytes>) -> Envelope {
        let builder = message::log(line);
        self.sign(if self.err { builder.stderr() } else { builder })
    }

    /// Everything that the flags name, in the order of their kinds.
    pub fn envelopes(&self, what: &WhatArgs) -> Vec<Envelope> {
        let mut out: Vec<Envelope> = what
            .log
            .iter()
            .map(|line| self.line(line.clone()))
            .collect();
        out.extend(what.counter.iter().map(|counter| {
            let mut envelope = self.sign(message::counter(&counter.name, counter.delta));
            if let (Some(total), Some(loggregator_proto::v2::envelope::Message::Counter(body))) =
                (self.total, &mut envelope.message)
            {
                body.total = total;
            }
            envelope
        }));
        if !what.gauge.is_empty() {
            let entries = what
                .gauge
                .iter()
                .map(|gauge| (gauge.name.as_str(), gauge.value, gauge.unit.as_str()));
            out.push(self.sign(message::gauge(entries)));
        }
        let now = SystemTime::now();
        out.extend(
            what.timer
                .iter()
                .map(|timer| self.sign(message::timer(&timer.name, now - timer.took, now))),
        );
        let body = self.body.as_deref().unwrap_or_default();
        out.extend(
            what.event
                .iter()
                .map(|title| self.sign(message::event(title, body))),
        );
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use loggregator_proto::v2::envelope::Message;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        who: WhoArgs,
        #[command(flatten)]
        what: WhatArgs,
    }

    fn envelopes(flags: &[&str]) -> Vec<Envelope> {
        let all = ["emit", "--source-id", "app"].iter().chain(flags);
        let flags = Flags::try_parse_from(all).unwrap();
        flags.who.envelopes(&flags.what)
    }

    fn refused(flags: &[&str]) -> String {
        let all = ["emit", "--source-id", "app"].iter().chain(flags);
        Flags::try_parse_from(all).err().unwrap().to_string()
    }

    #[test]
    fn a_line_has_what_a_viewer_shows() {
        let all = envelopes(&["--log", "hello", "--err", "--tag", "team=blue=green"]);
        assert_eq!(all.len(), 1);
        assert_eq!(
            (all[0].source_id.as_str(), all[0].instance_id.as_str()),
            ("app", "0")
        );
        assert_eq!(all[0].tags["source_type"], "APP");
        assert_eq!(all[0].tags["team"], "blue=green");
        let Some(Message::Log(log)) = &all[0].message else {
            panic!("no log")
        };
        assert_eq!((log.payload.as_ref(), log.r#type), (b"hello".as_ref(), 1));
    }

    #[test]
    fn every_kind_is_one_envelope_and_gauges_share_one() {
        let all = envelopes(&[
            "--counter",
            "hits",
            "--counter",
            "misses=7",
            "--total",
            "9",
            "--gauge",
            "cpu=-1.5:percentage",
            "--gauge",
            "load=2",
            "--timer",
            "http=250ms",
            "--event",
            "deployed",
            "--body",
            "v2",
        ]);
        let kinds: Vec<_> = all
            .iter()
            .map(|envelope| envelope.message.clone().unwrap())
            .collect();
        let [
            Message::Counter(hits),
            Message::Counter(misses),
            Message::Gauge(gauge),
            Message::Timer(timer),
            Message::Event(event),
        ] = &kinds[..]
        else {
            panic!("{kinds:?}")
        };
        assert_eq!((hits.delta, hits.total), (1, 9));
        assert_eq!((misses.name.as_str(), misses.delta), ("misses", 7));
        assert_eq!(
            (
                gauge.metrics["cpu"].value,
                gauge.metrics["cpu"].unit.as_str()
            ),
            (-1.5, "percentage")
        );
        assert_eq!(gauge.metrics["load"].unit, "");
        assert_eq!(timer.stop - timer.start, 250_000_000);
        assert_eq!(
            (event.title.as_str(), event.body.as_str()),
            ("deployed", "v2")
        );
    }

    #[test]
    fn mistakes_are_told_with_the_value() {
        assert!(refused(&[]).contains("--log"), "{}", refused(&[]));
        assert!(refused(&["--counter", "hits=many"]).contains("`many` is not a whole number"));
        assert!(refused(&["--gauge", "cpu"]).contains("NAME=VALUE"));
        assert!(refused(&["--gauge", "=1"]).contains("name is missing"));
        assert!(refused(&["--timer", "http=fast"]).contains("`fast`"));
        assert!(refused(&["--log", "x", "--body", "b"]).contains("--event"));
    }
}
