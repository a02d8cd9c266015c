//! The metrics of a nozzle, read when somebody scrapes.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use loggregator_service::metrics::{Metrics, Samples, names};

use crate::buffer::BufferReport;
use crate::ledger::{Ledger, Line, Standing};
use crate::pipeline::suspicion;
use crate::take_in::now;
use crate::talkers::IN_METRICS;
use crate::top::Slot;

/// Adds them.
pub(crate) fn observe(metrics: &Metrics, ledger: &Arc<Ledger>) {
    let ledger = Arc::clone(ledger);
    metrics.collect(move |samples| {
        intake(samples, &ledger);
        let buffer = ledger.buffer.report();
        held(samples, &buffer);
        for line in ledger.lines.read().iter() {
            destination(samples, line, &buffer);
        }
        let (lines, bytes) = ledger.talkers.biggest(IN_METRICS);
        for slot in &lines {
            samples.counter(&names::NOZZLE_TOP_LINES, &source(slot), slot.count);
        }
        for slot in &bytes {
            samples.counter(&names::NOZZLE_TOP_BYTES, &source(slot), slot.count);
        }
        samples.gauge_count(&names::NOZZLE_TAPS, &[], ledger.taps.open() as u64);
        samples.counter(&names::NOZZLE_TAP_LEFT_OUT, &[], ledger.taps.left_out());
    });
}

fn held(samples: &mut Samples, buffer: &BufferReport) {
    samples.gauge_count(&names::NOZZLE_BUFFER_BYTES, &[], buffer.bytes);
    samples.gauge_count(&names::NOZZLE_BUFFER_LIMIT_BYTES, &[], buffer.max_bytes);
    samples.gauge_count(&names::NOZZLE_BUFFER_SEGMENTS, &[], buffer.segments as u64);
    samples.gauge_count(&names::NOZZLE_BUFFER_MEMORY_BYTES, &[], buffer.memory_bytes);
    for (reason, n) in &buffer.refused {
        samples.counter(&names::NOZZLE_BUFFER_REFUSED, &[("reason", reason)], *n);
    }
    samples.counter(&names::NOZZLE_BUFFER_DAMAGED, &[], buffer.damaged);
    samples.counter(&names::NOZZLE_BUFFER_SYNCS, &[], buffer.syncs);
    let sync_time = buffer.sync_time.as_secs_f64();
    samples.counter_f64(&names::NOZZLE_BUFFER_SYNC_SECONDS, &[], sync_time);
    samples.counter(&names::NOZZLE_BUFFER_SYNC_ERRORS, &[], buffer.sync_errors);
    samples.counter(&names::NOZZLE_BUFFER_READ_ERRORS, &[], buffer.read_errors);
    samples.counter(&names::NOZZLE_BUFFER_READS, &[], buffer.block_reads);
    for cursor in &buffer.cursors {
        let name = [("destination", cursor.name.as_str())];
        samples.gauge_count(&names::NOZZLE_BACKLOG_LIMIT_BYTES, &name, cursor.max_bytes);
        let full = u64::from(cursor.full);
        samples.gauge_count(&names::NOZZLE_BACKLOG_FULL, &name, full);
        samples.gauge_count(&names::NOZZLE_BACKLOG_SKIPPED, &name, cursor.untold);
    }
}

fn intake(samples: &mut Samples, ledger: &Ledger) {
    let ingress = ledger.ingress.lock().clone();
    samples.counter(&names::NOZZLE_RECEIVED, &[], ingress.received);
    samples.counter(&names::NOZZLE_ACCEPTED, &[], ingress.accepted);
    for (reason, n) in &ingress.rejected {
        samples.counter(&names::NOZZLE_REJECTED, &[("reason", reason)], *n);
    }
    for (origin, n) in ledger.intake.upstream_lost() {
        samples.counter(&names::NOZZLE_UPSTREAM_LOST, &[("origin", origin)], n);
    }
    let silence = ledger.intake.silence().as_secs_f64();
    samples.gauge(&names::NOZZLE_SILENCE_SECONDS, &[], silence);
}

fn destination(samples: &mut Samples, line: &Line, buffer: &BufferReport) {
    let name = [("destination", line.name.as_str())];
    let with = |label, value| [("destination", line.name.as_str()), (label, value)];
    let state = &line.state;
    let Standing {
        received,
        pending,
        account,
    } = line.standing(buffer);
    samples.counter(&names::NOZZLE_DESTINATION_RECEIVED, &name, received);
    samples.counter(&names::NOZZLE_DELIVERED, &name, account.delivered);
    let retries = state.retries();
    for (def, label, counts) in [
        (&names::NOZZLE_FILTERED, "rule", &account.filtered),
        (&names::NOZZLE_DROPPED, "reason", &account.dropped),
        (
            &names::NOZZLE_DEAD_LETTERED,
            "reason",
            &account.dead_lettered,
        ),
        (&names::NOZZLE_RETRIED, "reason", &retries),
    ] {
        for (value, n) in counts {
            samples.counter(def, &with(label, value), *n);
        }
    }
    samples.gauge_count(&names::NOZZLE_PENDING, &name, pending);
    let cursor = buffer.cursors.iter().find(|one| one.name == line.name);
    let bytes = cursor.map_or(0, |cursor| cursor.bytes);
    samples.gauge_count(&names::NOZZLE_PENDING_BYTES, &name, bytes);
    samples.gauge(
        &names::NOZZLE_LAG_SECONDS,
        &name,
        lag(state.oldest.load(Relaxed)),
    );
    let delivered = state.delivered_bytes.load(Relaxed);
    samples.counter(&names::NOZZLE_DELIVERED_BYTES, &name, delivered);
    samples.counter(&names::NOZZLE_FAILURES, &name, state.failures.load(Relaxed));
    let in_flight = state.in_flight.load(Relaxed) as u64;
    samples.gauge_count(&names::NOZZLE_IN_FLIGHT, &name, in_flight);
    let limit = state.limit.load(Relaxed) as u64;
    samples.gauge_count(&names::NOZZLE_CONCURRENCY, &name, limit);
    let held = Duration::from_nanos(state.rate_held.load(Relaxed));
    samples.counter_f64(&names::NOZZLE_RATE_HELD, &name, held.as_secs_f64());
    samples.gauge(&names::NOZZLE_BREAKER, &name, f64::from(state.breaker()));
    for (outcome, n) in [
        ("matched", &state.matched),
        ("not_matched", &state.unmatched),
    ] {
        samples.counter(
            &names::NOZZLE_FILTER_EVENTS,
            &with("outcome", outcome),
            n.load(Relaxed),
        );
    }
    if line.filter.is_some()
        && let Some(matched) = suspicion(state)
    {
        samples.gauge(
            &names::NOZZLE_FILTER_SUSPECT,
            &with("matched", matched),
            1.0,
        );
    }
    samples.counter(
        &names::NOZZLE_QUOTA_NOTICES,
        &name,
        state.notices.load(Relaxed),
    );
    let letters = &line.dead_letters;
    samples.gauge_count(&names::NOZZLE_DEAD_LETTER_BYTES, &name, letters.bytes());
    for (reason, n) in letters.gone() {
        samples.counter(&names::NOZZLE_DEAD_LETTERS_GONE, &with("reason", reason), n);
    }
}

/// Seconds since `oldest`, which is in nanoseconds since 1970.
#[expect(clippy::cast_precision_loss, reason = "a difference of times")]
fn lag(oldest: i64) -> f64 {
    match oldest {
        0 => 0.0,
        oldest => (now().saturating_sub(oldest).max(0) as f64) / 1e9,
    }
}

fn source(slot: &Slot) -> [(&str, &str); 4] {
    let [app, space, org] = slot.names();
    [
        ("source_id", &slot.source_id),
        ("app", app),
        ("space", space),
        ("org", org),
    ]
}
