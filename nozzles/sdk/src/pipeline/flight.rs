//! One attempt to deliver a batch.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::work::Work;
use crate::destination::{BoxFuture, Delivery, DynDestination, Reason};
use crate::event::Batch;

/// Code of an attempt that took too long.
pub(crate) const TIMEOUT: &str = "timeout";
/// Code of an attempt that panicked.
pub(crate) const PANICKED: &str = "panicked";

pub(crate) type Flight = BoxFuture<'static, Landed>;

/// What came of an attempt.
pub(crate) struct Landed {
    pub work: Work,
    pub delivery: Delivery,
    pub took: Duration,
}

/// Has the batch delivered. Taking too long and panicking are failures like others.
pub(crate) fn fly(destination: Arc<dyn DynDestination>, work: Work, timeout: Duration) -> Flight {
    Box::pin(async move {
        let started = Instant::now();
        let most_tried = work.most_tried();
        let Work {
            events,
            notices,
            tried,
        } = work;
        let batch = Batch::new(events, most_tried);
        let retry = |code, detail: String| Delivery::Retry {
            why: Reason::new(code, detail),
            after: None,
        };
        let delivering = async { tokio::time::timeout(timeout, destination.deliver(&batch)).await };
        let delivery = match AssertUnwindSafe(delivering).catch_unwind().await {
            Ok(Ok(delivery)) => delivery,
            Ok(Err(_)) => retry(TIMEOUT, format!("no answer within {timeout:?}")),
            Err(_) => retry(
                PANICKED,
                "the destination panicked; standard error says where".to_owned(),
            ),
        };
        Landed {
            work: Work {
                events: batch.into_events(),
                notices,
                tried,
            },
            delivery,
            took: started.elapsed(),
        }
    })
}
