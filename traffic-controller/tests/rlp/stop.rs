//! The stop: what was received goes out, and every stream ends with OK.

use std::time::Duration;

use loggregator_net::grpc::Code;
use loggregator_proto::v2::{EgressBatchRequest, EnvelopeBatch};
use loggregator_service::lifecycle::StopReason;
use prost::Message as _;

use crate::rig::{Rig, line, logs, soon};

#[tokio::test]
async fn streams_get_what_was_received_and_end_with_ok() {
    let rig = Rig::new().await;
    let mut idle = rig.read(logs()).await;
    let mut behind = rig
        .read(EgressBatchRequest {
            shard_id: "behind".to_owned(),
            ..logs()
        })
        .await;
    let subscription = rig.doppler().subscription(1).await;
    for i in 0..60 {
        subscription.send(&[line(format!("{i:060000}"))]);
    }
    rig.ledger_when("it is behind", |report| report.subscriptions[1].pending > 0)
        .await;
    rig.lifecycle.stop(StopReason::Requested);
    assert_eq!(idle.end().await, (Code::Ok, String::new()));
    let mut received = 0;
    loop {
        match soon("a batch or the end", behind.messages.next()).await {
            Some(Ok(message)) => {
                received += EnvelopeBatch::decode(message).unwrap().batch.len();
            }
            None => break,
            Some(Err(status)) => panic!("{status}"),
        }
    }
    assert!(received > 0);
    drop((idle, behind));
    let outcome = soon(
        "it is down",
        rig.lifecycle.shutdown(Duration::from_secs(20)),
    )
    .await;
    assert!(outcome.finished(), "{outcome:?}");
    let report = rig.running.ledger().report();
    assert!(report.balanced(), "{report:?}");
    let row = &report.subscriptions[1];
    assert_eq!(row.delivered, received as u64, "{row:?}");
}
