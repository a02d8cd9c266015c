//! From the intake into the buffer.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use loggregator_envelope::Frame;
use loggregator_service::Lifecycle;

use crate::buffer::Buffer;
use crate::intake::Intake;
use crate::ledger::{Ledger, MALFORMED};

/// Takes in until the nozzle stops or nothing more can come; then nothing more is taken into the buffer.
pub(crate) async fn take_in(
    mut intake: Box<dyn Intake>,
    buffer: Buffer,
    ledger: Arc<Ledger>,
    lifecycle: Lifecycle,
) {
    let stop = lifecycle.token();
    while let Some(Some(batch)) = stop
        .run_until_cancelled(poll_fn(|cx| intake.poll_next(cx)))
        .await
    {
        take(batch, &buffer, &ledger).await;
    }
    // What has arrived already would be lost with the connection.
    intake.stop();
    while let Some(batch) = poll_fn(|cx| intake.poll_next(cx)).await {
        take(batch, &buffer, &ledger).await;
    }
    buffer.close();
}

async fn take(batch: Bytes, buffer: &Buffer, ledger: &Ledger) {
    let Ok(parsed) = Frame::parse(batch) else {
        let mut ingress = ledger.ingress.lock();
        ingress.received += 1;
        *ingress.rejected.entry(MALFORMED.to_owned()).or_default() += 1;
        return;
    };
    let appended = buffer.append(&parsed.frame, now()).await;
    let mut ingress = ledger.ingress.lock();
    ingress.received += u64::from(parsed.rejected) + parsed.frame.len() as u64;
    ingress.accepted += appended.accepted;
    for (reason, n) in [
        (MALFORMED, u64::from(parsed.rejected)),
        (appended.why, appended.refused),
    ] {
        if n > 0 {
            *ingress.rejected.entry(reason.to_owned()).or_default() += n;
        }
    }
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    })
}
