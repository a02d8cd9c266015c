//! What a receiver of remote write gets.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the report

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::events::{AT, at, counter, event, gauge, request};
use common::{Answers, Got, Running, Shared, samples, serve, status, until};
use loggregator_nozzle::{Batch, Delivery, Event, Outcome, Reason};
use parking_lot::Mutex;

/// Gives these answers in turn, then 204, and keeps what it got.
#[derive(Default)]
struct Receiver {
    answers: Mutex<Vec<http::Response<Bytes>>>,
    got: Shared<Got>,
}

impl Answers for Receiver {
    async fn answer(&self, got: Got) -> http::Response<Bytes> {
        self.got.lock().push(got);
        self.answers.lock().pop().unwrap_or_else(|| status(204))
    }
}

/// A destination that writes to such a receiver; the answers are given last first.
async fn running(extra: &str, answers: Vec<http::Response<Bytes>>) -> (Running, Arc<Receiver>) {
    let receiver = Arc::new(Receiver {
        answers: Mutex::new(answers),
        ..Receiver::default()
    });
    let (addr, _) = serve(([127, 0, 0, 1], 0).into(), Arc::clone(&receiver));
    let section = format!("remote_write.url = \"http://{addr}/write?x=y\"\n{extra}");
    (Running::start(&section).await, receiver)
}

fn lines(receiver: &Receiver, request: usize) -> Vec<String> {
    let got = receiver.got.lock();
    let lines = samples(&got[request].body);
    lines
        .iter()
        .map(|s| format!("{} @{}", s.line(), s.at))
        .collect()
}

const MS: i64 = AT / 1_000_000;

#[tokio::test]
async fn a_batch_is_one_sample_per_series_in_the_order_of_time() {
    let (running, receiver) = running("", vec![]).await;
    let hit = |at_ms: i64, total| at(at_ms * 1_000_000, "s", "", &[], counter("hits", 1, total));
    let level = |at_ms: i64, value| {
        at(
            at_ms * 1_000_000,
            "s",
            "",
            &[],
            gauge(&[("level", "", value)]),
        )
    };
    let batch = vec![
        hit(MS, 1),
        level(MS, 1.0),
        hit(MS + 5, 2),
        level(MS + 7, 2.0),
    ];
    assert_eq!(running.deliver(batch).await, Delivery::All);
    assert_eq!(
        lines(&receiver, 0),
        [
            format!("cf_hits_total{{source_id=\"s\"}} 2 @{}", MS + 5),
            format!("cf_level{{source_id=\"s\"}} 2 @{}", MS + 7),
        ]
    );
    // Later samples of the same time or before: a counter moves on, an overtaken gauge does not come.
    let batch = vec![hit(MS + 5, 3), level(MS + 6, 9.0)];
    assert_eq!(running.deliver(batch).await, Delivery::All);
    assert_eq!(
        lines(&receiver, 1),
        [format!("cf_hits_total{{source_id=\"s\"}} 3 @{}", MS + 6)]
    );
    let headers = receiver.got.lock()[0].headers.clone();
    assert_eq!(headers["content-type"], "application/x-protobuf");
    assert_eq!(headers["x-prometheus-remote-write-version"], "0.1.0");
    assert!(
        headers["user-agent"]
            .to_str()
            .unwrap()
            .starts_with("loggregator/")
    );
}

#[tokio::test]
async fn a_batch_is_counted_once_however_often_it_is_tried() {
    let mut busy = status(429);
    busy.headers_mut()
        .insert("retry-after", "7".parse().unwrap());
    let (running, receiver) = running("", vec![status(500), busy]).await;
    let batch = running.batch(vec![
        event("s", "", &[], counter("hits", 5, 0)),
        request("200", 12, "1", &[]),
    ]);
    let retry = |code: &str, after: Option<u64>| Delivery::Retry {
        why: Reason::new(code.to_owned(), "scripted"),
        after: after.map(Duration::from_secs),
    };
    let again = Batch::new(batch.events().to_vec(), 1);
    assert_eq!(
        running.destination.deliver(&batch).await,
        retry("status_429", Some(7))
    );
    assert_eq!(
        running.destination.deliver(&again).await,
        retry("status_500", None)
    );
    assert_eq!(running.destination.deliver(&again).await, Delivery::All);
    let first = lines(&receiver, 0);
    assert!(
        first.contains(&format!("cf_hits_total{{source_id=\"s\"}} 5 @{MS}")),
        "{first:?}"
    );
    assert_eq!(
        (lines(&receiver, 1), lines(&receiver, 2)),
        (first.clone(), first)
    );
}

#[tokio::test]
async fn what_is_refused_is_split_or_given_up_by_its_status() {
    let (running, receiver) = running("", vec![status(401), status(413), status(400)]).await;
    let events = || {
        vec![
            event("s", "", &[], counter("a", 1, 1)),
            event("s", "", &[], counter("b", 1, 1)),
        ]
    };
    let batch = running.batch(events());
    let refused = Reason::new("status_400", "scripted");
    assert_eq!(
        running.destination.deliver(&batch).await,
        Delivery::Refused(refused)
    );
    let half = Batch::new(batch.events()[..1].to_vec(), 0);
    let large = Reason::new("status_413", "scripted");
    assert_eq!(
        running.destination.deliver(&half).await,
        Delivery::TooLarge(large)
    );
    let half = Batch::new(batch.events()[1..].to_vec(), 0);
    let never = Outcome::Rejected(Reason::new("status_401", "scripted"));
    assert_eq!(
        running.destination.deliver(&half).await,
        Delivery::Each(vec![never])
    );
    assert_eq!(running.deliver(events()).await, Delivery::All);
    assert_eq!(receiver.got.lock().len(), 4);
}

#[tokio::test]
async fn two_falls_back_to_one() {
    for refusal in [status(415), status(204)] {
        let (running, receiver) = running("remote_write.protocol = \"2.0\"", vec![refusal]).await;
        let events = || vec![event("s", "", &[], counter("a", 1, 1))];
        assert_eq!(running.deliver(events()).await, Delivery::All);
        assert_eq!(running.deliver(events()).await, Delivery::All);
        let got = receiver.got.lock();
        let versions: Vec<_> = got
            .iter()
            .map(|g| g.headers["x-prometheus-remote-write-version"].clone())
            .collect();
        assert_eq!(versions, ["2.0.0", "0.1.0", "0.1.0"]);
        assert_eq!(
            got[0].headers["content-type"],
            "application/x-protobuf;proto=io.prometheus.write.v2.Request"
        );
        assert_eq!(
            samples(&got[1].body)[0].line(),
            "cf_a_total{source_id=\"s\"} 1"
        );
    }
}

#[tokio::test]
async fn a_receiver_of_two_gets_two() {
    let mut written = status(204);
    written.headers_mut().insert(
        "x-prometheus-remote-write-samples-written",
        "1".parse().unwrap(),
    );
    let (running, receiver) = running("remote_write.protocol = \"2.0\"", vec![written]).await;
    assert_eq!(
        running
            .deliver(vec![event("s", "", &[], counter("a", 1, 1))])
            .await,
        Delivery::All
    );
    assert_eq!(receiver.got.lock().len(), 1);
}

#[tokio::test]
async fn the_end_of_a_series_is_told() {
    let (running, receiver) = running("expire = \"1s\"", vec![]).await;
    let came = |received: i64, name: &str| {
        let event = at(received, "s", "", &[], gauge(&[(name, "", 1.0)]));
        Event::new(0, received, event.body().clone())
    };
    assert_eq!(running.deliver(vec![came(AT, "old")]).await, Delivery::All);
    // Time goes on with the events.
    assert_eq!(
        running.deliver(vec![came(AT + 2_000_000_000, "new")]).await,
        Delivery::All
    );
    let ended = until("ended", async || {
        let got = receiver.got.lock();
        got.get(2).map(|got| samples(&got.body))
    })
    .await;
    assert_eq!(ended.len(), 1);
    assert_eq!((ended[0].name.as_str(), ended[0].at), ("cf_old", MS + 2000));
    assert_eq!(ended[0].value.to_bits(), 0x7ff0_0000_0000_0002);
    let told =
        "loggregator_nozzle_prometheus_remote_write_ended_series_total{destination=\"subject\"} 1";
    until("counted", async || {
        running.metrics.encode().contains(told).then_some(())
    })
    .await;
}

#[tokio::test]
async fn requests_have_a_size_credentials_and_headers() {
    let extra = "remote_write.max_samples = 3\nremote_write.headers = { X-Scope-OrgID = \"cf\" }\n\
                 remote_write.auth = { username = \"me\", password = \"secret\" }";
    let (running, receiver) = running(extra, vec![]).await;
    let events = (0..8).map(|n| event(&n.to_string(), "", &[], counter("a", 1, 1)));
    assert_eq!(running.deliver(events.collect()).await, Delivery::All);
    let got = receiver.got.lock();
    let sizes: Vec<_> = got.iter().map(|g| samples(&g.body).len()).collect();
    assert_eq!(sizes, [3, 3, 2]);
    assert_eq!(got[0].headers["x-scope-orgid"], "cf");
    assert_eq!(got[0].headers["authorization"], "Basic bWU6c2VjcmV0");
}

#[tokio::test]
async fn samples_that_no_series_takes_are_rejected_after_the_others_are_written() {
    let (running, receiver) = running("", vec![status(503)]).await;
    let batch = running.batch(vec![
        event("s", "", &[], gauge(&[("a.b", "", 1.0)])),
        event("s", "", &[], gauge(&[("a-b", "", 2.0)])),
    ]);
    assert!(matches!(
        running.destination.deliver(&batch).await,
        Delivery::Retry { .. }
    ));
    let Delivery::Each(outcomes) = running.destination.deliver(&batch).await else {
        panic!("all were taken");
    };
    assert_eq!(outcomes[0], Outcome::Delivered);
    assert!(matches!(&outcomes[1], Outcome::Rejected(why) if why.code == "name_collision"));
    assert_eq!(receiver.got.lock().len(), 2);
}
