//! Starting and stopping: errors known at once, nothing lost that a reader would still take.

use std::time::{Duration, Instant};

use doppler::{Config, Error};
use loggregator_net::grpc::{ClientSettings, Code};
use loggregator_service::Lifecycle;

use crate::harness::*;

#[tokio::test]
async fn a_taken_port_a_missing_file_and_a_bad_setting_are_errors_at_start() {
    let taken = Doppler::start().await;
    let config = |change: &dyn Fn(&mut Config)| {
        let mut config = Config {
            grpc_addr: "127.0.0.1:0".parse().unwrap(),
            tls: Pki::shared().doppler(),
            ..Config::default()
        };
        change(&mut config);
        config
    };
    let start = |config| doppler::start(config, &Lifecycle::new());
    let error = start(config(&|c| c.grpc_addr = taken.running.grpc_addr)).unwrap_err();
    assert!(
        matches!(error, Error::Bind { addr, .. } if addr == taken.running.grpc_addr),
        "{error:?}"
    );
    let error = start(config(&|c| c.tls.key = "/nowhere.key".into())).unwrap_err();
    assert!(matches!(error, Error::Tls(_)), "{error:?}");
    let error = start(config(&|c| (c.log_bytes, c.send_budget) = (1, 1))).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("DOPPLER_LOG_BYTES") && text.contains("DOPPLER_SEND_BUDGET"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_lets_readers_read_to_the_end_and_then_ends_their_streams() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut reader = client.batched(logs_for("nozzle")).await;
    let mut v1 = client.subscribe(v1_firehose("")).await;
    let mut idle = client.batched(logs_for("idle")).await;
    doppler.subscribed(3).await;
    let mut sender = doppler.connect().batch_sender().await;
    let total = 20_000;
    for first in (0..total).step_by(100) {
        sender.batch(logs("app", first, 100)).await;
    }
    eventually("all to be taken", || {
        (doppler.report().ingress.accepted == total as u64).then_some(())
    })
    .await;

    // Nobody has read anything yet; the stop finds it all in the log.
    let (report, received, by_v1, idle_end) = tokio::join!(
        doppler.stop(),
        async {
            let received = reader.take(total).await;
            (received, reader.end().await)
        },
        async {
            let received = v1.take(total).await;
            (received.len(), end(&mut v1.messages).await)
        },
        async {
            assert_eq!(idle.take(total).await.len(), total);
            idle.end().await
        },
    );
    assert!(report.finished(), "{report:?}");
    assert_eq!(received.0, logs("app", 0, total));
    assert_eq!(by_v1.0, total);
    for status in [received.1, by_v1.1, idle_end] {
        assert_eq!(status.unwrap().code, Code::Unavailable);
    }
    assert_eq!(sender.finish().await.unwrap_err().code, Code::Unavailable);
    for row in doppler.report().subscriptions {
        assert_eq!(
            (row.delivered, row.pending, row.dropped_total()),
            (total as u64, 0, 0),
            "{row:?}"
        );
    }
    doppler.assert_balanced();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_read_cannot_hold_up_a_stop() {
    let doppler =
        Doppler::start_with(|config| config.drain_timeout = Duration::from_millis(500)).await;
    let narrow = ClientSettings {
        stream_window: 64 << 10,
        connection_window: 64 << 10,
        ..ClientSettings::default()
    };
    let _stalled = doppler
        .connect_with(narrow)
        .batched(logs_for("stalled"))
        .await;
    doppler.subscribed(1).await;
    let mut sender = doppler.connect().batch_sender().await;
    let envelope = log("app", &"x".repeat(1000));
    for _ in 0..40 {
        sender.batch(vec![envelope.clone(); 100]).await;
    }
    sender.finish().await.unwrap();
    let began = Instant::now();
    let report = doppler.stop().await;
    assert!(report.finished(), "{report:?}");
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let row = doppler.report().subscriptions.remove(0);
    assert!(
        row.delivered < 4_000 && row.received + row.pending > row.delivered,
        "{row:?}"
    );
    doppler.assert_balanced();
}

#[tokio::test]
async fn after_a_stop_the_port_is_free_and_calls_are_refused() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    within("a connection", client.channel.ready())
        .await
        .unwrap();
    assert!(doppler.stop().await.finished());
    let again = Doppler::start_with(|config| config.grpc_addr = doppler.running.grpc_addr).await;
    // The same channel finds the new doppler.
    within("a new connection", async {
        while client.channel.ready().await.is_err() {}
    })
    .await;
    assert_eq!(again.running.grpc_addr, doppler.running.grpc_addr);
}

/// Its stream ends while it still sends; the Go agents leave no sooner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emitter_that_never_pauses_cannot_hold_up_a_stop() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut reader = client.batched(logs_for("")).await;
    doppler.subscribed(1).await;
    let Sender { sender, response } = doppler.connect().batch_sender().await;
    let flood = tokio::spawn(async move {
        let batch = encode(&loggregator_proto::v2::EnvelopeBatch {
            batch: logs("app", 0, 100),
        });
        while sender.send(batch.clone()).await.is_ok() {}
    });
    let drain = tokio::spawn(async move { reader.end().await });
    eventually("the flood to begin", || {
        (doppler.report().ingress.accepted > 1_000).then_some(())
    })
    .await;
    let report = doppler.stop().await;
    assert!(report.finished(), "{report:?}");
    within("the emitter to notice", flood).await.unwrap();
    assert_eq!(response.wait().await.unwrap_err().code, Code::Unavailable);
    assert_eq!(drain.await.unwrap().unwrap().code, Code::Unavailable);
    let report = doppler.report();
    let row = &report.subscriptions[0];
    assert_eq!(
        (row.delivered, row.pending),
        (report.ingress.accepted, 0),
        "{row:?}"
    );
    doppler.assert_balanced();
}
