//! Telling downstream what was dropped: a counter `dropped` per reason, as the loggregator agent has it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use loggregator_client::message;
use loggregator_envelope::{Frame, FrameBuilder};
use tokio_util::sync::CancellationToken;

use crate::intake::Intake;
use crate::stats::{Port, read};

/// Where and why something was dropped.
type Loss = (&'static str, &'static str);

/// Compares the counts of losses again and again, and tells what has grown.
pub(crate) struct Notices {
    intake: Arc<Intake>,
    source_id: String,
    told: BTreeMap<Loss, u64>,
    logged: BTreeMap<Loss, u64>,
}

impl Notices {
    pub(crate) fn new(intake: Arc<Intake>, source_id: String) -> Notices {
        Notices {
            intake,
            source_id,
            told: BTreeMap::new(),
            logged: BTreeMap::new(),
        }
    }

    pub(crate) async fn run(mut self, every: Duration, stop: CancellationToken) {
        while stop
            .run_until_cancelled(tokio::time::sleep(every))
            .await
            .is_some()
        {
            self.look();
        }
        self.look();
    }

    fn look(&mut self) {
        let losses = self.losses();
        for (loss, total) in &losses {
            let new = total - self.logged.insert(*loss, *total).unwrap_or(0);
            if new > 0 {
                tracing::warn!(
                    direction = loss.0,
                    reason = loss.1,
                    dropped = new,
                    total,
                    "envelopes were dropped"
                );
            }
        }
        // A notice among what waits for a doppler that is away would be dropped with it; it can wait until somebody
        // reads again.
        let report = self.intake.pool.report();
        if !report
            .links
            .iter()
            .any(|link| link.up && link.counts.delivered > 0)
        {
            return;
        }
        let mut frame = FrameBuilder::new();
        for ((direction, reason), total) in losses {
            let new = total - self.told.insert((direction, reason), total).unwrap_or(0);
            if new == 0 {
                continue;
            }
            let notice = message::counter("dropped", new)
                .source(&self.source_id, "")
                .tag("origin", "loggregator.metron")
                .tag("direction", direction)
                .tag("reason", reason)
                .tag("metric_version", "2.0");
            // A handful of small envelopes of our own.
            let _pushed = frame.push_message(&notice.build()).is_ok();
        }
        if !frame.is_empty() {
            let (bytes, index) = frame.finish();
            self.intake
                .accept(Port::Own, Frame::from_parts(bytes, index));
        }
    }

    /// All losses since the start.
    fn losses(&self) -> BTreeMap<Loss, u64> {
        let mut losses = BTreeMap::new();
        for (reason, envelopes) in self.intake.pool.report().total().dropped {
            losses.insert(("egress", reason.name()), envelopes);
        }
        let stats = &self.intake.stats;
        losses.insert(("ingress", "udp_kernel"), read(&stats.udp_kernel_drops));
        losses.insert(
            ("ingress", "syslog_udp_kernel"),
            read(&stats.syslog_udp_kernel_drops),
        );
        losses
    }
}
