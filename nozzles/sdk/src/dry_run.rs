//! A destination that is only tried: everything is rendered and counted, nothing is sent.

use std::sync::Arc;

use crate::destination::{Delivery, Destination, Outcome};
use crate::event::Batch;
use crate::kind::Plan;

/// Stands for the real one, which is not started.
pub(crate) struct DryRun {
    plan: Arc<dyn Plan>,
}

impl DryRun {
    pub(crate) fn new(destination: &str, plan: Arc<dyn Plan>) -> DryRun {
        tracing::warn!(
            destination,
            "dry run: nothing is sent, and all counts as delivered"
        );
        DryRun { plan }
    }
}

impl Destination for DryRun {
    async fn deliver(&self, batch: &Batch) -> Delivery {
        let outcome = |event| match self.plan.render(event) {
            Ok(_) => Outcome::Delivered,
            Err(why) => Outcome::Rejected(why),
        };
        Delivery::Each(batch.events().iter().map(outcome).collect())
    }
}
