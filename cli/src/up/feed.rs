//! The example apps, sent to the agent as any emitter would.

use super::plan::Plan;
use crate::demo::Demo;
use anyhow::Result;
use bytes::Bytes;
use loggregator_client::message::nanos;
use loggregator_client::{AGENT, Connector};
use loggregator_net::ClientTls;
use loggregator_proto::rpc;
use loggregator_proto::v2::EnvelopeBatch;
use loggregator_service::Lifecycle;
use prost::Message as _;
use std::time::{Duration, SystemTime};
use tokio::time::MissedTickBehavior;

/// How often the apps are asked what happened.
const TICK: Duration = Duration::from_millis(50);

/// Starts the apps; they stop with the lifecycle, before the agent drains.
///
/// # Errors
/// When the client certificate cannot be used.
pub fn start(plan: &Plan, lifecycle: &Lifecycle) -> Result<()> {
    let tls = ClientTls::mutual(&plan.tls(&plan.pki.client))?;
    let channel = Connector::new(AGENT, Some(tls)).channel(&plan.agent_grpc.addr.to_string());
    let stop = lifecycle.token();
    lifecycle.spawn("demo", async move {
        let mut demo = Demo::new(fastrand::u64(..), nanos(SystemTime::now()));
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let batch = demo.until(nanos(SystemTime::now()));
            if batch.is_empty() {
                continue;
            }
            let envelopes = batch.len();
            let bytes: Bytes = EnvelopeBatch { batch }.encode_to_vec().into();
            if let Err(status) = channel.unary(rpc::INGRESS_SEND, bytes).await
                && !stop.is_cancelled()
            {
                tracing::warn!(%status, envelopes, "the agent did not take what the example apps said");
            }
        }
    });
    Ok(())
}
