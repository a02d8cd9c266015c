//! Starting and stopping: errors known at once, nothing lost that a reader would still take.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use doppler::{Config, Error};
use loggregator_net::grpc::{ClientSettings, Code};
use loggregator_proto::{rpc, v2};
use loggregator_service::Lifecycle;

use crate::harness::*;
use crate::robustness::{call, raw_h2, status};

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

/// An emitter learns that its stream has ended from the end of its stream. What it wrote until then is under way, and as
/// nobody tells it what became of a batch, it will not send that again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_emitters_had_under_way_when_the_doppler_stopped_reaches_the_readers() {
    let framed = |message: Bytes| {
        let mut framed = BytesMut::from(&[0][..]);
        framed.put_u32(u32::try_from(message.len()).unwrap());
        framed.put_slice(&message);
        framed.freeze()
    };
    let batch = |first| {
        let batch = logs("app", first, 3);
        encode(&v2::EnvelopeBatch { batch })
    };
    let single = |first| encode(&log("app", &format!("{first}")));
    let dropsonde = |first| {
        let payload = encode(&v1_log("app", &format!("{first}")));
        encode(&loggregator_proto::plumbing::EnvelopeData { payload })
    };
    let ways = [
        (rpc::INGRESS_BATCH_SENDER, [batch(0), batch(3)], 3),
        (rpc::INGRESS_SENDER, [single(0), single(3)], 1),
        (
            rpc::DOPPLER_INGESTOR_PUSHER,
            [dropsonde(0), dropsonde(3)],
            1,
        ),
    ];
    for (path, [first, last], envelopes) in ways {
        let doppler = Doppler::start().await;
        let mut reader = doppler.connect().batched(logs_for("nozzle")).await;
        doppler.subscribed(1).await;
        let mut emitter = raw_h2(&doppler).await;
        let (response, mut stream) = emitter.send_request(call(path), false).unwrap();
        stream.send_data(framed(first), false).unwrap();
        eventually("the first to be taken", || {
            (doppler.report().ingress.accepted == envelopes).then_some(())
        })
        .await;
        let told = async {
            assert_eq!(status(response).await.unwrap().0, "14", "{path}");
            stream.send_data(framed(last), true).unwrap();
        };
        let began = Instant::now();
        let (report, ()) = tokio::join!(doppler.stop(), told);
        assert!(report.finished(), "{path}: {report:?}");
        assert!(began.elapsed() < PATIENCE, "{path}: nobody had to be cut");
        assert_eq!(doppler.report().ingress.accepted, 2 * envelopes, "{path}");
        assert_eq!(
            reader.take(2 * envelopes as usize).await.len() as u64,
            2 * envelopes
        );
        assert_eq!(reader.end().await.unwrap().code, Code::Unavailable);
        doppler.assert_balanced();
    }
}

/// It is told, and says nothing: neither that it has ended nor anything else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emitter_that_does_not_end_its_stream_cannot_hold_up_a_stop() {
    let doppler = Doppler::start_with(|config| config.drain_timeout = Duration::from_secs(1)).await;
    let mut reader = doppler.connect().batched(logs_for("nozzle")).await;
    doppler.subscribed(1).await;
    let mut emitter = raw_h2(&doppler).await;
    let path = call(rpc::INGRESS_BATCH_SENDER);
    let (response, _stream) = emitter.send_request(path, false).unwrap();
    eventually("the call to arrive", || {
        let open = &doppler.running.server.open_calls;
        (open.load(std::sync::atomic::Ordering::Relaxed) == 2).then_some(())
    })
    .await;
    let (report, end) = tokio::join!(doppler.stop(), reader.end());
    assert!(report.finished(), "{report:?}");
    assert_eq!(status(response).await.unwrap().0, "14");
    // The readers' turn came before the time of the drain was over.
    assert_eq!(end.unwrap().code, Code::Unavailable);
    let cut = &doppler.running.server.cut_at_drain;
    assert_eq!(cut.load(std::sync::atomic::Ordering::Relaxed), 0);
}
