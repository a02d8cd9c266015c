//! `order-worker`: takes orders off a queue and works on them, for ever.

use super::origin::Origin;
use super::{Actor, app, around};
use loggregator_proto::v2::Envelope;
use std::time::Duration;

pub(super) struct Worker {
    origin: Origin,
    order: u32,
    queue: u32,
}

impl Worker {
    pub(super) fn new() -> Self {
        Self {
            origin: app("order-worker", "0", "APP/PROC/WORKER").tag("process_type", "worker"),
            order: 48_210,
            queue: 4,
        }
    }
}

impl Actor for Worker {
    fn step(&mut self, at: i64, rng: &mut fastrand::Rng, out: &mut Vec<Envelope>) -> Duration {
        self.order += 1;
        self.queue = (self.queue + rng.u32(..3)).saturating_sub(1).min(40);
        let order = self.order;
        let line = match rng.u32(..20) {
            0 => {
                format!("level=warn msg=\"payment gateway slow, retrying\" order={order} attempt=2")
            }
            1 => format!(
                "level=info msg=\"invoice mailed\" order={order} bytes={}",
                rng.u32(20_000..90_000)
            ),
            _ => format!(
                "level=info msg=\"order processed\" order={order} took={}ms",
                rng.u32(40..900)
            ),
        };
        out.push(self.origin.out(at, line));
        out.push(self.origin.counter(at, "orders_processed", 1));
        if self.order.is_multiple_of(5) {
            out.push(
                self.origin
                    .gauge(at, [("queue_length", f64::from(self.queue), "orders")]),
            );
        }
        around(rng, Duration::from_millis(900))
    }
}
