//! The format of the program firehose-to-syslog, so that what parses its messages parses ours.
//!
//! The header is that program's own: `<6> TIME HOSTNAME doppler[PID]: JSON`, or with the mark of CEE
//! `<6>Mmm dd hh:mm:ss HOSTNAME doppler[PID]: @cee: JSON`. The JSON is of the v1 form of the envelope: one object with
//! sorted keys per v1 envelope, without its tags. What has no v1 form, events that is, makes no message.
//!
//! Two things differ on purpose: times are those of the event and not of its sending, and a value that JSON has no number
//! for becomes a text instead of losing the event.

use std::collections::BTreeMap;
use std::io::Write as _;

use loggregator_envelope::V1Frame;
use loggregator_nozzle::Reason;
use loggregator_proto::events::{self, Envelope, Method, PeerType};
use prost::Message as _;
use serde_json::{Value, json};

use super::policy::Oversize;
use super::text::{civil, cut, rfc3164};
use super::{Policy, Refusal, Subject};
use crate::page::Page;

type Fields = BTreeMap<&'static str, Value>;

/// Writes the event's messages.
pub(super) fn write(
    policy: &Policy,
    subject: &Subject<'_>,
    cee: bool,
    page: &mut Page,
) -> Result<(), Refusal> {
    let frame = V1Frame::of_envelope(subject.event.envelope());
    if frame.undeliverable() > 0 {
        let what = "the envelope has no v1 form that its receivers could read";
        return Err(Refusal::Rejected(Reason::new("no_v1_form", what)));
    }
    for at in 0..frame.len() {
        let envelope = Envelope::decode(frame.payload(at))
            .map_err(|error| Refusal::Rejected(Reason::new("no_v1_form", error.to_string())))?;
        let (mut fields, text) = event(&envelope);
        let text = policy.text(text)?;
        names(&mut fields, subject);
        let nanos = envelope.timestamp();
        let len = message(policy, cee, nanos, &mut fields, &text, page)?;
        if len <= policy.max_message {
            continue;
        }
        let room = text.len().checked_sub(len - policy.max_message);
        let (Oversize::Truncate, Some(room)) = (policy.oversize, room) else {
            return Err(policy.oversize(len));
        };
        // A byte of the text takes at least one in the JSON.
        page.drop_last();
        message(policy, cee, nanos, &mut fields, cut(&text, room), page)?;
    }
    Ok(())
}

/// Writes a message and returns how many bytes it has.
fn message(
    policy: &Policy,
    cee: bool,
    nanos: i64,
    fields: &mut Fields,
    text: &[u8],
    page: &mut Page,
) -> Result<usize, Refusal> {
    let time = time(nanos);
    fields.insert("msg", String::from_utf8_lossy(text).into());
    Policy::begin(page)?;
    let out = &mut page.bytes;
    let host = if policy.hostname.is_empty() {
        "-"
    } else {
        &policy.hostname
    };
    let pid = std::process::id();
    // Writing to a vector does not fail.
    if cee {
        out.extend_from_slice(b"<6>");
        rfc3164(out, nanos);
        write!(out, " {host} doppler[{pid}]: @cee: ").ok();
    } else {
        write!(out, "<6> {time} {host} doppler[{pid}]: ").ok();
    }
    fields.insert("time", time.into());
    serde_json::to_writer(&mut *out, &*fields).ok();
    out.push(b'\n');
    let len = page.written();
    page.end();
    Ok(len)
}

/// Whole seconds, as the program writes them.
fn time(nanos: i64) -> String {
    let c = civil(nanos.div_euclid(1_000_000_000));
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        c.year, c.month, c.day, c.hour, c.minute, c.second
    )
}

/// The names of the app that the event is about; those that are not known are left out.
fn names(fields: &mut Fields, subject: &Subject<'_>) {
    if !fields.contains_key("cf_app_id") {
        return;
    }
    for (key, tag) in [
        ("cf_app_name", "app_name"),
        ("cf_space_id", "space_id"),
        ("cf_space_name", "space_name"),
        ("cf_org_id", "organization_id"),
        ("cf_org_name", "organization_name"),
    ] {
        if let Some(value) = subject.tags.get(tag).filter(|value| !value.is_empty()) {
            fields.insert(key, String::from_utf8_lossy(value).into());
        }
    }
}

/// The fields of a v1 envelope, and its text.
fn event(envelope: &Envelope) -> (Fields, &[u8]) {
    let mut fields = Fields::from([
        ("cf_origin", "firehose".into()),
        ("deployment", envelope.deployment().into()),
        ("event_type", envelope.event_type().as_str_name().into()),
        ("ip", envelope.ip().into()),
        ("job", envelope.job().into()),
        ("job_index", envelope.index().into()),
        ("level", "info".into()),
        ("origin", envelope.origin.as_str().into()),
    ]);
    let mut text: &[u8] = b"";
    if let Some(log) = &envelope.log_message {
        text = &log.message;
        fields.extend([
            ("cf_app_id", log.app_id().into()),
            ("message_type", log.message_type().as_str_name().into()),
            ("source_instance", log.source_instance().into()),
            ("source_type", log.source_type().into()),
            ("timestamp", log.timestamp.into()),
        ]);
    }
    if let Some(http) = &envelope.http_start_stop {
        request(&mut fields, http);
    }
    if let Some(container) = &envelope.container_metric {
        fields.extend([
            ("cf_app_id", container.application_id.as_str().into()),
            ("cpu_percentage", number(container.cpu_percentage)),
            ("disk_bytes", container.disk_bytes.into()),
            ("disk_bytes_quota", container.disk_bytes_quota().into()),
            ("instance_index", container.instance_index.into()),
            ("memory_bytes", container.memory_bytes.into()),
            ("memory_bytes_quota", container.memory_bytes_quota().into()),
        ]);
    }
    if let Some(value) = &envelope.value_metric {
        fields.extend([
            ("name", value.name.as_str().into()),
            ("unit", value.unit.as_str().into()),
            ("value", number(value.value)),
        ]);
    }
    if let Some(counter) = &envelope.counter_event {
        fields.extend([
            ("delta", counter.delta.into()),
            ("name", counter.name.as_str().into()),
            ("total", counter.total().into()),
        ]);
    }
    if let Some(error) = &envelope.error {
        text = error.message.as_bytes();
        fields.extend([
            ("code", error.code.into()),
            ("source", error.source.as_str().into()),
        ]);
    }
    (fields, text)
}

fn request(fields: &mut Fields, http: &events::HttpStartStop) {
    let app = http.application_id.as_ref().map_or_else(String::new, uuid);
    let method = Method::try_from(http.method).unwrap_or(Method::Get);
    let peer = PeerType::try_from(http.peer_type).unwrap_or(PeerType::Client);
    let took = http.stop_timestamp.wrapping_sub(http.start_timestamp) / 1_000_000;
    fields.extend([
        ("cf_app_id", app.into()),
        ("content_length", http.content_length.into()),
        ("duration_ms", took.into()),
        ("forwarded", json!(http.forwarded)),
        ("instance_id", http.instance_id().into()),
        ("instance_index", http.instance_index().into()),
        ("method", method.as_str_name().into()),
        ("peer_type", peer.as_str_name().into()),
        ("remote_addr", http.remote_address.as_str().into()),
        ("request_id", uuid(&http.request_id).into()),
        ("start_timestamp", http.start_timestamp.into()),
        ("status_code", http.status_code.into()),
        ("stop_timestamp", http.stop_timestamp.into()),
        ("uri", http.uri.as_str().into()),
        ("user_agent", http.user_agent.as_str().into()),
    ]);
}

/// The usual form; the halves lie with their lowest byte first.
fn uuid(uuid: &events::Uuid) -> String {
    let bytes = [uuid.low.to_le_bytes(), uuid.high.to_le_bytes()].concat();
    let hex = |range: std::ops::Range<usize>| -> String {
        bytes[range].iter().map(|b| format!("{b:02x}")).collect()
    };
    [hex(0..4), hex(4..6), hex(6..8), hex(8..10), hex(10..16)].join("-")
}

/// A number, or the text of what is none.
fn number(number: f64) -> Value {
    if number.is_finite() {
        return number.into();
    }
    let mut text = Vec::new();
    super::text::number(&mut text, number);
    String::from_utf8_lossy(&text).into()
}
