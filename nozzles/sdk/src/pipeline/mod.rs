//! From the buffer to one destination: read, filter, enrich, deliver, settle.

use std::sync::Arc;
use std::time::Duration;

use loggregator_service::Lifecycle;
use parking_lot::Mutex;

use crate::account::Account;
use crate::buffer::Cursor;
use crate::config::DestinationConfig;
use crate::destination::{Delivery, DynDestination};
use crate::enrich::Directory;
use crate::event::Batch;
use crate::filter::Filter;
use crate::kind::Plan;

/// Everything that a destination's task needs.
pub(crate) struct Pipeline {
    pub config: DestinationConfig,
    pub plan: Box<dyn Plan>,
    pub filter: Filter,
    pub directory: Option<Arc<dyn Directory>>,
    pub destination: Arc<dyn DynDestination>,
    pub cursor: Cursor,
    pub shared: Arc<Shared>,
}

/// What others may know of a running pipeline.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub account: Mutex<Account>,
}

impl Pipeline {
    /// Delivers until the buffer is closed and empty, or the time is up.
    pub(crate) async fn run(mut self, lifecycle: Lifecycle) {
        let cut = lifecycle.cut();
        cut.run_until_cancelled(self.deliver_all()).await;
        cut.run_until_cancelled(self.destination.close()).await;
    }

    async fn deliver_all(&mut self) {
        let limits = self.plan.limits();
        let events = self.config.batch.events.unwrap_or(limits.batch_events);
        let (_, mut account) = self.cursor.start();
        while let Some(read) = self.cursor.next(events, limits.batch_bytes).await {
            for lost in &read.lost {
                let n = lost.range.end - lost.range.start;
                *account.dropped.entry(lost.reason.to_owned()).or_default() += n;
            }
            let all = read.events.len();
            let mut wanted: Vec<_> = read
                .events
                .into_iter()
                .filter(|event| self.filter.matches(event))
                .collect();
            if let Some(directory) = &self.directory {
                wanted = wanted
                    .into_iter()
                    .map(|event| {
                        let names = directory.names(&event);
                        event.with_names(names)
                    })
                    .collect();
            }
            *account.filtered.entry("filter".to_owned()).or_default() +=
                (all - wanted.len()) as u64;
            account.delivered += self.deliver(wanted).await;
            self.cursor.checkpoint(account.total(), &account);
            self.shared.account.lock().clone_from(&account);
        }
    }

    async fn deliver(&self, events: Vec<crate::event::Event>) -> u64 {
        let mut batch = Batch::new(events, 0);
        while !batch.is_empty() {
            match self.destination.deliver(&batch).await {
                Delivery::All => return batch.len() as u64,
                failed => {
                    tracing::warn!(destination = self.config.name, ?failed, "not delivered");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    batch = Batch::new(batch.events().to_vec(), batch.attempt() + 1);
                }
            }
        }
        0
    }
}
