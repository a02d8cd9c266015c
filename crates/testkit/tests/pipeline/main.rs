//! Whole pipelines under test: what goes in at an agent comes out at every kind of reader, or is counted as lost.
//!
//! One program, so that it is linked once. Each test has a deployment of its own, on ports of its own.

// Helpers of tests may unwrap as tests do: a panic is the report.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod fan_out;
mod groups;
mod inputs;
mod path;
mod restarts;
mod reverse;
mod two_dopplers;

use loggregator_proto::plumbing::SubscriptionRequest;
use loggregator_testkit::{Pipeline, assert_ledger_balanced, eventually};

/// A v1 subscription to everything, under this shard id.
fn v1_firehose(shard_id: &str) -> SubscriptionRequest {
    SubscriptionRequest {
        shard_id: shard_id.to_owned(),
        ..SubscriptionRequest::default()
    }
}

/// Waits until every ledger balances with nothing pending at an open subscription, then checks all of them.
async fn at_rest(pipeline: &Pipeline) {
    eventually("nothing is pending any more", async || {
        pipeline.reports().await.is_ok_and(|reports| {
            reports
                .iter()
                .flat_map(|report| &report.subscriptions)
                .all(|row| !row.open || row.pending == 0)
        })
    })
    .await;
    let reports = pipeline
        .reports()
        .await
        .expect("every component that runs answers");
    assert_ledger_balanced(&reports);
}
