//! The compliance suite against a destination that does as it is told: it checks the framework, and itself.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the report

#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use loggregator_nozzle::Kinds;
use loggregator_nozzle::compliance;

use support::{Scripted, ScriptedKind};

#[tokio::test(flavor = "multi_thread")]
async fn one_batch_at_a_time() {
    let kinds = Kinds::new().with(ScriptedKind);
    let left_out = compliance::run(&kinds, "scripted", || async { Scripted::new(1) }).await;
    assert!(left_out.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn four_batches_at_a_time() {
    let kinds = Kinds::new().with(ScriptedKind);
    let left_out = compliance::run(&kinds, "scripted", || async { Scripted::new(4) }).await;
    assert!(left_out.is_empty());
}
