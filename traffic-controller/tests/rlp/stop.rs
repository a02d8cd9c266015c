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

#[tokio::test]
async fn a_client_that_takes_nothing_does_not_hold_up_a_stop() {
    let rig = Rig::with(1, |config, _| {
        config.drain_timeout = Duration::from_millis(300)
    })
    .await;
    let client = rig.read(logs()).await;
    let subscription = rig.doppler().subscription(0).await;
    for i in 0..400 {
        subscription.send(&[line(format!("{i:060000}"))]);
    }
    rig.ledger_when("it is behind", |report| report.subscriptions[0].pending > 0)
        .await;
    let outcome = soon(
        "it is down",
        rig.lifecycle.shutdown(Duration::from_secs(20)),
    )
    .await;
    assert!(outcome.finished(), "{outcome:?}");
    let report = rig.running.ledger().report();
    assert!(report.balanced(), "{report:?}");
    let row = &report.subscriptions[0];
    assert!(!row.open && row.dropped["shutdown"] > 0, "{row:?}");
    drop(client);
}
