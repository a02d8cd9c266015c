//! A line for people.

use std::io::Write as _;

use super::write_time;
use crate::event::Event;

pub(super) fn write(out: &mut Vec<u8>, event: &Event) {
    let envelope = event.envelope();
    write_time(out, envelope.timestamp());
    out.push(b' ');
    line(
        out,
        event
            .field(&crate::fields::Field::App)
            .as_deref()
            .unwrap_or(envelope.source_id()),
    );
    if !envelope.instance_id().is_empty() {
        out.push(b'/');
        line(out, envelope.instance_id());
    }
    out.push(b' ');
    if let Some(log) = envelope.log() {
        out.extend_from_slice(if log.err { b"err " } else { b"out " });
        line(out, &String::from_utf8_lossy(log.payload));
        return;
    }
    out.extend_from_slice(envelope.kind().name().as_bytes());
    if let Some(counter) = envelope.counter() {
        out.push(b' ');
        line(out, counter.name);
        write!(out, " +{} = {}", counter.delta, counter.total).ok();
    } else if let Some(timer) = envelope.timer() {
        out.push(b' ');
        line(out, timer.name);
        let millis = timer.stop.wrapping_sub(timer.start) as f64 / 1e6;
        write!(out, " {millis} ms").ok();
    } else if let Some(event) = envelope.event() {
        out.push(b' ');
        line(out, event.title);
        out.extend_from_slice(b": ");
        line(out, event.body);
    }
    for metric in envelope.gauge() {
        out.push(b' ');
        line(out, metric.name);
        write!(out, "={}", metric.value).ok();
        line(out, metric.unit);
    }
}

/// Control characters would break the line, or the terminal.
fn line(out: &mut Vec<u8>, text: &str) {
    let mut utf8 = [0; 4];
    for c in text.chars() {
        if c.is_control() && c != '\t' {
            write!(out, "{}", c.escape_default()).ok();
        } else {
            out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
        }
    }
}
