//! From a syslog message to envelopes.
//!
//! | syslog | envelope |
//! |---|---|
//! | APP-NAME, or the tag of RFC 3164; else HOSTNAME; else a configured text | source id |
//! | PROCID; of `[APP/PROC/WEB/0]` the part behind the last slash | instance id |
//! | of `[APP/PROC/WEB/0]` the part before it | tag `source_type` |
//! | severity 0 to 3 | log type ERR, else OUT |
//! | HOSTNAME, MSGID, facility, severity | tags `hostname`, `msgid`, `facility`, `severity` |
//! | elements `tags@…` | tags |
//! | elements `counter@…`, `gauge@…`, `timer@…`, `event@…` | an envelope of that kind each, instead of a log |
//! | parameters of other elements | tags `element.parameter` |
//!
//! The elements with an `@` are what Cloud Foundry's syslog agents write (enterprise number 47450), so that what they send
//! comes back as it was.

use std::borrow::Cow;
use std::collections::BTreeMap;

use loggregator_client::message::{self, EnvelopeBuilder};
use loggregator_envelope::FrameBuilder;

use super::parse::{Element, Message};
use crate::encode::LogLine;

/// Why a message makes no envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Neither a text nor a metric.
    Empty,
    /// A metric element that lacks a parameter, or whose number is none.
    Metric,
}

impl Refusal {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Refusal::Empty => "empty",
            Refusal::Metric => "metric",
        }
    }
}

/// Adds the message's envelopes to the frame. `now` is its timestamp if it has none.
pub(crate) fn convert(
    message: &Message<'_>,
    now: i64,
    fallback: &str,
    scratch: &mut Vec<u8>,
    frame: &mut FrameBuilder,
) -> Result<(), Refusal> {
    let first = [&message.app_name, &message.hostname];
    let source_id = first
        .iter()
        .find_map(|name| name.as_deref())
        .unwrap_or(fallback);
    let (source_type, instance_id) = process(message.proc_id.as_deref().unwrap_or_default());
    let tags = tags(message, source_type);
    let timestamp = message.timestamp.unwrap_or(now);
    let mut metrics = Vec::new();
    for element in &message.data {
        metrics.extend(metric(element)?);
    }
    if !metrics.is_empty() {
        for metric in metrics {
            let metric = metric.source(source_id, instance_id).at_nanos(timestamp);
            let metric = tags
                .iter()
                .fold(metric, |metric, (name, value)| metric.tag(name, value));
            // An envelope that we made ourselves is well-formed, and the frame is far from full.
            let _pushed = frame.push_message(&metric.build()).is_ok();
        }
        return Ok(());
    }
    let payload = message
        .payload
        .strip_suffix(b"\n")
        .unwrap_or(message.payload);
    let payload = payload.strip_suffix(b"\r").unwrap_or(payload);
    if payload.is_empty() {
        return Err(Refusal::Empty);
    }
    let err = message.priority.is_some_and(|priority| priority % 8 <= 3);
    scratch.clear();
    LogLine {
        timestamp,
        source_id,
        instance_id,
        payload,
        err,
    }
    .encode(
        tags.iter()
            .map(|(name, value)| (name.as_ref(), value.as_ref())),
        scratch,
    );
    let _pushed = frame.push_envelope(scratch).is_ok();
    Ok(())
}

/// Source type and instance id of a PROCID.
fn process(proc_id: &str) -> (&str, &str) {
    match proc_id
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(inner) => inner.rsplit_once('/').unwrap_or(("", inner)),
        None => ("", proc_id),
    }
}

type Tags<'a> = BTreeMap<Cow<'a, str>, Cow<'a, str>>;

fn tags<'a>(message: &'a Message<'_>, source_type: &'a str) -> Tags<'a> {
    let mut tags = Tags::new();
    if !source_type.is_empty() {
        tags.insert("source_type".into(), source_type.into());
    }
    let fields = [("hostname", &message.hostname), ("msgid", &message.msg_id)];
    for (name, value) in fields {
        if let Some(value) = value.as_deref() {
            tags.insert(name.into(), value.into());
        }
    }
    if let Some(priority) = message.priority {
        tags.insert(
            "facility".into(),
            FACILITIES[usize::from(priority / 8)].into(),
        );
        tags.insert(
            "severity".into(),
            SEVERITIES[usize::from(priority % 8)].into(),
        );
    }
    for element in &message.data {
        match kind(element) {
            "tags" => tags.extend(
                element
                    .params
                    .iter()
                    .map(|(name, value)| (name.as_ref().into(), value.as_ref().into())),
            ),
            "counter" | "gauge" | "timer" | "event" => {}
            _ => tags.extend(element.params.iter().map(|(name, value)| {
                (
                    format!("{}.{name}", element.id).into(),
                    value.as_ref().into(),
                )
            })),
        }
    }
    tags
}

/// The part of the id before the `@`, if that is ours; else nothing.
fn kind<'a>(element: &'a Element<'_>) -> &'a str {
    element.id.split_once('@').map_or("", |(kind, _)| kind)
}

/// The envelope of a metric element; `None` for other elements.
fn metric(element: &Element<'_>) -> Result<Option<EnvelopeBuilder>, Refusal> {
    let text = |name: &str| {
        let found = element.params.iter().find(|(other, _)| other == name);
        found
            .map(|(_, value)| value.as_ref())
            .ok_or(Refusal::Metric)
    };
    fn number<T: std::str::FromStr>(text: &str) -> Result<T, Refusal> {
        text.parse().map_err(|_| Refusal::Metric)
    }
    Ok(Some(match kind(element) {
        "counter" => {
            let (total, delta) = (number(text("total")?)?, number(text("delta")?)?);
            message::counter_both(text("name")?, delta, total)
        }
        "gauge" => message::gauge([(text("name")?, number(text("value")?)?, text("unit")?)]),
        "timer" => message::timer_nanos(
            text("name")?,
            number(text("start")?)?,
            number(text("stop")?)?,
        ),
        "event" => message::event(text("title")?, text("body")?),
        _ => return Ok(None),
    }))
}

const SEVERITIES: [&str; 8] = [
    "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug",
];
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syslog::parse::parse;
    use loggregator_proto::v2::{self, envelope::Message as Body};
    use prost::Message as _;
    use time::{OffsetDateTime, UtcOffset};

    fn envelopes(text: &[u8]) -> Result<Vec<v2::Envelope>, Refusal> {
        let message = parse(text, OffsetDateTime::UNIX_EPOCH, UtcOffset::UTC).unwrap();
        let mut frame = FrameBuilder::new();
        convert(&message, 42, "syslog", &mut Vec::new(), &mut frame)?;
        Ok(v2::EnvelopeBatch::decode(frame.finish().0).unwrap().batch)
    }

    fn log(envelope: &v2::Envelope) -> (&[u8], i32) {
        match &envelope.message {
            Some(Body::Log(log)) => (&log.payload, log.r#type),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_line_of_a_cloud_foundry_app_comes_back_as_it_was() {
        let text = b"<11>1 2023-11-14T22:13:20.123456+00:00 acme.dev.dora b1f0c6a2 [RTR/1] - [tags@47450 source_type=\"RTR\" a=\"b\"] GET / 200\n";
        let envelope = envelopes(text).unwrap().remove(0);
        assert_eq!(
            (envelope.source_id.as_str(), envelope.instance_id.as_str()),
            ("b1f0c6a2", "1")
        );
        assert_eq!(envelope.timestamp, 1_700_000_000_123_456_000);
        assert_eq!(log(&envelope), (b"GET / 200".as_ref(), 1));
        assert_eq!(envelope.tags["source_type"], "RTR");
        assert_eq!(
            (
                envelope.tags["a"].as_str(),
                envelope.tags["hostname"].as_str()
            ),
            ("b", "acme.dev.dora")
        );
    }

    #[test]
    fn and_so_do_its_metrics() {
        let counter = b"<14>1 - h gorouter [8f1f] - [counter@47450 name=\"requests\" total=\"18446744073709551615\" delta=\"3\"][tags@47450 job=\"router\"] \n";
        let envelope = envelopes(counter).unwrap().remove(0);
        let Some(Body::Counter(c)) = &envelope.message else {
            panic!("{envelope:?}")
        };
        assert_eq!(
            (c.name.as_str(), c.total, c.delta),
            ("requests", u64::MAX, 3)
        );
        assert_eq!(
            (envelope.instance_id.as_str(), envelope.tags["job"].as_str()),
            ("8f1f", "router")
        );

        let gauge = b"<14>1 - - doppler [] - [gauge@47450 name=\"subs\" value=\"5.36870912e+08\" unit=\"\"] \n";
        let Some(Body::Gauge(g)) = &envelopes(gauge).unwrap()[0].message else {
            panic!("no gauge")
        };
        assert_eq!(g.metrics["subs"].value, 536_870_912.0);
        let timer = b"<14>1 - - r - - [timer@47450 name=\"http\" start=\"-1\" stop=\"7\"] ";
        let Some(Body::Timer(t)) = &envelopes(timer).unwrap()[0].message else {
            panic!("no timer")
        };
        assert_eq!((t.start, t.stop), (-1, 7));
        let event = b"<14>1 - - r - - [event@47450 title=\"t\" body=\"b\"] ";
        assert!(
            matches!(&envelopes(event).unwrap()[0].message, Some(Body::Event(e)) if e.title == "t")
        );
    }

    #[test]
    fn other_messages_make_logs_with_what_is_known() {
        let old = envelopes(b"<34>Oct 11 22:14:15 host su[12]: 'su root' failed\r\n")
            .unwrap()
            .remove(0);
        assert_eq!(
            (old.source_id.as_str(), old.instance_id.as_str()),
            ("su", "12")
        );
        assert_eq!(log(&old), (b"'su root' failed".as_ref(), 1));
        let tags: Vec<_> = old.tags.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(tags, ["facility=auth", "hostname=host", "severity=crit"]);

        let data = envelopes(b"<14>1 - - - 7 ID1 [x@1 a=\"b\"] \xff\x00 text")
            .unwrap()
            .remove(0);
        assert_eq!(
            (
                data.source_id.as_str(),
                data.instance_id.as_str(),
                data.timestamp
            ),
            ("syslog", "7", 42)
        );
        assert_eq!(
            (data.tags["x@1.a"].as_str(), data.tags["msgid"].as_str()),
            ("b", "ID1")
        );
        assert_eq!(log(&data), (b"\xff\x00 text".as_ref(), 0));
    }

    #[test]
    fn nothing_and_broken_metrics_are_refused() {
        assert_eq!(envelopes(b"<14>1 - - a - - -"), Err(Refusal::Empty));
        assert_eq!(envelopes(b"<14>"), Err(Refusal::Empty));
        for element in [
            "counter@1 name=\"n\" total=\"1\"",
            "gauge@1 name=\"n\" value=\"x\" unit=\"\"",
            "timer@1",
        ] {
            assert_eq!(
                envelopes(format!("<14>1 - - a - - [{element}] ").as_bytes()),
                Err(Refusal::Metric),
                "{element}"
            );
        }
    }
}
