//! The router without any network: what is delivered, to whom, and that every number adds up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use loggregator_log::LogConfig;
use loggregator_proto::v2::envelope::Message as Body;
use loggregator_proto::v2::selector::Message as Select;
use loggregator_proto::{events, plumbing, v2};
use proptest::prelude::*;
use prost::Message;

use super::{Router, RouterConfig, Subscription};

const BUDGET: usize = 64 << 10;

fn router(log_bytes: usize) -> Arc<Router> {
    Router::new(RouterConfig {
        log: LogConfig {
            bytes: log_bytes,
            segment_bytes: 16 << 10,
        },
        resume_grace: Duration::from_secs(60),
        ..RouterConfig::default()
    })
}

fn log(source: &str, n: i64) -> v2::Envelope {
    sized_log(source, n, 20)
}

fn sized_log(source: &str, n: i64, size: usize) -> v2::Envelope {
    let payload = Bytes::from(vec![b'.'; size]);
    envelope(source, n, Body::Log(v2::Log { payload, r#type: 0 }))
}

fn counter(source: &str, n: i64, name: &str) -> v2::Envelope {
    envelope(
        source,
        n,
        Body::Counter(v2::Counter {
            name: name.to_owned(),
            delta: 1,
            total: 0,
        }),
    )
}

fn gauge(source: &str, n: i64, names: &[&str]) -> v2::Envelope {
    let value = v2::GaugeValue {
        unit: String::new(),
        value: 1.0,
    };
    let metrics = names
        .iter()
        .map(|name| ((*name).to_owned(), value.clone()))
        .collect();
    envelope(source, n, Body::Gauge(v2::Gauge { metrics }))
}

fn envelope(source: &str, n: i64, message: Body) -> v2::Envelope {
    v2::Envelope {
        timestamp: n,
        source_id: source.to_owned(),
        message: Some(message),
        ..v2::Envelope::default()
    }
}

fn send(router: &Router, envelopes: Vec<v2::Envelope>) {
    let batch = v2::EnvelopeBatch { batch: envelopes }.encode_to_vec();
    router.ingest(&batch).unwrap();
}

fn any(message: Select) -> v2::Selector {
    v2::Selector {
        source_id: String::new(),
        message: Some(message),
    }
}

fn of(source: &str, message: Select) -> v2::Selector {
    v2::Selector {
        source_id: source.to_owned(),
        message: Some(message),
    }
}

fn logs() -> Select {
    Select::Log(v2::LogSelector {})
}

fn counters(name: &str) -> Select {
    Select::Counter(v2::CounterSelector {
        name: name.to_owned(),
    })
}

fn gauges(names: &[&str]) -> Select {
    Select::Gauge(v2::GaugeSelector {
        names: names.iter().map(|n| (*n).to_owned()).collect(),
    })
}

fn everything() -> Vec<v2::Selector> {
    vec![
        any(logs()),
        any(counters("")),
        any(gauges(&[])),
        any(Select::Timer(v2::TimerSelector {})),
        any(Select::Event(v2::EventSelector {})),
    ]
}

fn subscribe(router: &Arc<Router>, shard_id: &str, selectors: Vec<v2::Selector>) -> Subscription {
    named(router, shard_id, "", selectors)
}

fn named(
    router: &Arc<Router>,
    shard_id: &str,
    name: &str,
    selectors: Vec<v2::Selector>,
) -> Subscription {
    let request = v2::EgressBatchRequest {
        shard_id: shard_id.to_owned(),
        selectors,
        deterministic_name: name.to_owned(),
        ..v2::EgressBatchRequest::default()
    };
    router.subscribe_v2(&request, "test").unwrap()
}

fn subscribe_v1(
    router: &Arc<Router>,
    shard_id: &str,
    filter: Option<plumbing::Filter>,
) -> Subscription {
    let request = plumbing::SubscriptionRequest {
        shard_id: shard_id.to_owned(),
        filter,
    };
    router.subscribe_v1(&request, "test").unwrap()
}

/// One batch, with its bytes and its receipt.
fn poll(subscription: &mut Subscription, budget: usize) -> Option<super::Batch> {
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..1000 {
        match subscription.poll_batch(&mut cx, budget) {
            Poll::Ready(batch) => return batch,
            Poll::Pending if subscription.wait_for_test() => return None,
            Poll::Pending => {}
        }
    }
    None
}

fn bytes(batch: &super::Batch) -> Vec<u8> {
    batch
        .chunks
        .iter()
        .flat_map(|chunk| chunk.iter().copied())
        .collect()
}

/// Everything there is to read, delivered.
fn drain(subscription: &mut Subscription) -> Vec<v2::Envelope> {
    let mut all = Vec::new();
    while let Some(batch) = poll(subscription, BUDGET) {
        all.extend(v2::EnvelopeBatch::decode(&bytes(&batch)[..]).unwrap().batch);
        batch.receipt.settle(true);
    }
    all
}

fn drain_v1(subscription: &mut Subscription) -> Vec<events::Envelope> {
    let mut all = Vec::new();
    while let Some(batch) = poll(subscription, BUDGET) {
        let response = plumbing::BatchResponse::decode(&bytes(&batch)[..]).unwrap();
        all.extend(
            response
                .payload
                .iter()
                .map(|p| events::Envelope::decode(&p[..]).unwrap()),
        );
        batch.receipt.settle(true);
    }
    all
}

fn numbers(envelopes: &[v2::Envelope]) -> Vec<i64> {
    envelopes
        .iter()
        .filter(|e| e.source_id != "doppler")
        .map(|e| e.timestamp)
        .collect()
}

/// The ledger's rows add up.
fn balanced(router: &Router) {
    for row in router.report("test").subscriptions {
        assert!(row.balanced(), "{row:?}");
    }
}

fn lost_total(router: &Router, reason: &str) -> u64 {
    router
        .report("test")
        .subscriptions
        .iter()
        .filter_map(|row| row.dropped.get(reason))
        .sum()
}

#[test]
fn a_firehose_gets_the_very_bytes_joined() {
    let router = router(1 << 20);
    let mut firehose = subscribe(&router, "", everything());
    let mut sent = Vec::new();
    for i in 0..10 {
        let batch = v2::EnvelopeBatch {
            batch: (0..50).map(|n| log("app", i * 50 + n)).collect(),
        }
        .encode_to_vec();
        router.ingest(&batch).unwrap();
        sent.extend(batch);
    }
    let batch = poll(&mut firehose, BUDGET).unwrap();
    assert_eq!(
        bytes(&batch),
        sent,
        "all frames in one message, byte for byte"
    );
    assert_eq!(batch.envelopes, 500);
    batch.receipt.settle(true);
    assert!(poll(&mut firehose, BUDGET).is_none());
    assert_eq!(router.stats().egress_v2, 500);
    balanced(&router);
}

#[test]
fn a_frame_above_the_budget_is_split() {
    let router = router(4 << 20);
    let mut firehose = subscribe(&router, "", everything());
    send(
        &router,
        (0..100).map(|n| sized_log("app", n, 1000)).collect(),
    );
    let mut seen = Vec::new();
    while let Some(batch) = poll(&mut firehose, 10_000) {
        assert!(bytes(&batch).len() <= 10_000);
        seen.extend(v2::EnvelopeBatch::decode(&bytes(&batch)[..]).unwrap().batch);
        batch.receipt.settle(true);
    }
    assert_eq!(numbers(&seen), (0..100).collect::<Vec<_>>());
    send(&router, vec![sized_log("app", 100, 50_000)]);
    assert_eq!(
        drain(&mut firehose).len(),
        1,
        "one envelope above the budget still goes"
    );
}

#[test]
fn selectors_mean_what_the_go_router_takes_them_to_mean() {
    let router = router(1 << 20);
    let cases: Vec<(&str, Vec<v2::Selector>, Vec<i64>)> = vec![
        ("no selector", vec![], vec![]),
        (
            "no message",
            vec![v2::Selector {
                source_id: "a".into(),
                message: None,
            }],
            vec![],
        ),
        ("any log", vec![any(logs())], vec![1, 2]),
        ("log of a", vec![of("a", logs())], vec![1]),
        (
            "log twice is once",
            vec![any(logs()), of("a", logs()), any(logs())],
            vec![1, 2],
        ),
        ("any counter", vec![any(counters(""))], vec![3, 4]),
        ("counter x", vec![any(counters("x"))], vec![3]),
        ("counter x of b", vec![of("b", counters("x"))], vec![]),
        (
            "gauge a+b, any order",
            vec![any(gauges(&["b", "a"]))],
            vec![6],
        ),
        ("gauge a", vec![any(gauges(&["a"]))], vec![5]),
        (
            "gauge a twice never matches",
            vec![any(gauges(&["a", "a"]))],
            vec![],
        ),
        (
            "gauge with the empty name",
            vec![any(gauges(&[""]))],
            vec![7],
        ),
        (
            "log of b and counter x",
            vec![of("b", logs()), any(counters("x"))],
            vec![2, 3],
        ),
        (
            "counter x by two ways",
            vec![of("a", counters("")), any(counters("x"))],
            vec![3],
        ),
        (
            "logs, and counters of a",
            vec![any(logs()), of("a", counters(""))],
            vec![1, 2, 3],
        ),
    ];
    let mut open: Vec<_> = cases
        .iter()
        .map(|(name, selectors, want)| (name, subscribe(&router, "", selectors.clone()), want))
        .collect();
    send(
        &router,
        vec![
            log("a", 1),
            log("b", 2),
            counter("a", 3, "x"),
            counter("b", 4, "y"),
            gauge("a", 5, &["a"]),
            gauge("a", 6, &["a", "b"]),
            gauge("a", 7, &[]),
            v2::Envelope {
                timestamp: 8,
                source_id: "a".into(),
                ..v2::Envelope::default()
            },
        ],
    );
    for (name, subscription, want) in &mut open {
        let mut got = numbers(&drain(subscription));
        got.sort_unstable();
        assert_eq!(got, **want, "{name}");
    }
    balanced(&router);
}

#[test]
fn members_of_a_shard_share_evenly_whatever_the_batches() {
    for batch in [1, 7, 100] {
        let router = router(4 << 20);
        let mut members: Vec<_> = (0..3)
            .map(|_| subscribe(&router, "shard", everything()))
            .collect();
        let mut other = subscribe(&router, "other", everything());
        for first in (0..300).step_by(batch) {
            let last = (first + batch as i64).min(300);
            send(&router, (first..last).map(|n| log("app", n)).collect());
        }
        let got: Vec<_> = members.iter_mut().map(|m| numbers(&drain(m))).collect();
        let mut all: Vec<_> = got.concat();
        all.sort_unstable();
        assert_eq!(
            all,
            (0..300).collect::<Vec<_>>(),
            "each envelope to exactly one"
        );
        for share in &got {
            assert!(
                (97..=103).contains(&share.len()),
                "batches of {batch}: {}",
                share.len()
            );
            assert!(share.windows(2).all(|w| w[0] < w[1]), "in order");
        }
        assert_eq!(drain(&mut other).len(), 300, "another shard id gets all");
        balanced(&router);
    }
}

#[test]
fn shards_are_per_selector_not_per_request() {
    let router = router(1 << 20);
    let mut both = subscribe(&router, "s", vec![any(logs()), any(counters(""))]);
    let mut logs_only = subscribe(&router, "s", vec![any(logs())]);
    send(
        &router,
        (0..100)
            .map(|n| {
                if n % 2 == 0 {
                    log("a", n)
                } else {
                    counter("a", n, "x")
                }
            })
            .collect(),
    );
    let (first, second) = (drain(&mut both), drain(&mut logs_only));
    let logs_in = |all: &[v2::Envelope]| all.iter().filter(|e| e.timestamp % 2 == 0).count();
    assert_eq!(first.len() - logs_in(&first), 50, "counters have one taker");
    assert_eq!(logs_in(&first) + logs_in(&second), 50);
    assert_eq!(logs_in(&first), 25, "logs are shared");
    balanced(&router);
}

#[test]
fn deterministic_names_fix_the_member_of_a_counter() {
    let router = router(1 << 20);
    let mut members: Vec<_> = ["z", "", "a"]
        .into_iter()
        .map(|name| named(&router, "s", name, everything()))
        .collect();
    send(
        &router,
        (0..30).map(|n| counter("src", n, "other-hash")).collect(),
    );
    send(
        &router,
        (0..30).map(|n| counter("src", n, "hash")).collect(),
    );
    let got: Vec<_> = members.iter_mut().map(|m| drain(m).len()).collect();
    assert_eq!(
        got,
        [0, 60, 0],
        "both hashes are 0 modulo 3: the first in the order of names, which is the unnamed"
    );
}

#[test]
fn the_share_of_a_member_that_leaves_goes_to_the_others() {
    let router = router(4 << 20);
    let mut first = subscribe(&router, "s", everything());
    let mut second = subscribe(&router, "s", everything());
    send(&router, (0..100).map(|n| log("app", n)).collect());
    let batch = poll(&mut first, 1000).unwrap();
    let taken = v2::EnvelopeBatch::decode(&bytes(&batch)[..])
        .unwrap()
        .batch
        .len();
    assert!(taken < 50);
    batch.receipt.settle(true);
    // One more batch is on its way when the connection breaks.
    let lost = poll(&mut first, 1000).unwrap();
    drop(first);
    lost.receipt.settle(false);
    send(&router, (100..120).map(|n| log("app", n)).collect());
    assert_eq!(
        taken + drain(&mut second).len(),
        120,
        "nothing that was still in the log is lost"
    );
    balanced(&router);
}

#[test]
fn a_named_subscription_goes_on_where_it_stopped() {
    for selectors in [everything(), vec![of("app", logs())]] {
        let router = router(4 << 20);
        let mut first = subscribe(&router, "nozzle", selectors.clone());
        send(&router, (0..10).map(|n| log("app", n)).collect());
        assert_eq!(drain(&mut first).len(), 10);
        send(&router, (10..20).map(|n| log("app", n)).collect());
        let undelivered = poll(&mut first, BUDGET).unwrap();
        drop(first);
        undelivered.receipt.settle(false);
        send(&router, (20..30).map(|n| log("app", n)).collect());
        let mut second = subscribe(&router, "nozzle", selectors);
        send(&router, (30..40).map(|n| log("app", n)).collect());
        assert_eq!(numbers(&drain(&mut second)), (10..40).collect::<Vec<_>>());
        balanced(&router);
    }
}

#[test]
fn what_an_id_that_stays_away_would_have_got_is_counted() {
    for selectors in [everything(), vec![of("app", logs())]] {
        let router = Router::new(RouterConfig {
            resume_grace: Duration::ZERO,
            ..RouterConfig::default()
        });
        let first = subscribe(&router, "nozzle", selectors.clone());
        send(&router, (0..10).map(|n| log("app", n)).collect());
        drop(first);
        send(&router, (10..20).map(|n| log("app", n)).collect());
        router.expire();
        assert_eq!(lost_total(&router, "grace_expired"), 20);
        let mut second = subscribe(&router, "nozzle", selectors);
        assert!(drain(&mut second).is_empty(), "its place is gone");
        balanced(&router);
    }
}

#[test]
fn what_a_connection_gives_back_after_the_grace_period_is_counted() {
    for selectors in [everything(), vec![of("app", logs())]] {
        let router = Router::new(RouterConfig {
            resume_grace: Duration::ZERO,
            ..RouterConfig::default()
        });
        let mut first = subscribe(&router, "nozzle", selectors);
        send(&router, (0..10).map(|n| log("app", n)).collect());
        let undelivered = poll(&mut first, BUDGET).unwrap();
        drop(first);
        router.expire();
        undelivered.receipt.settle(false);
        assert_eq!(lost_total(&router, "grace_expired"), 10);
        balanced(&router);
    }
}

#[test]
fn a_lapped_reader_is_told_how_much_of_what_it_missed() {
    let router = router(256 << 10);
    let mut slow = subscribe(&router, "slow", everything());
    let mut fast = subscribe(&router, "fast", everything());
    let mut fast_got = 0;
    for n in 0..2000 {
        let source = if n % 4 == 0 { "quiet" } else { "loud" };
        send(&router, vec![sized_log(source, n, 500)]);
        fast_got += drain(&mut fast).len();
    }
    assert_eq!(fast_got, 2000, "the slow one costs the fast one nothing");
    let got = drain(&mut slow);
    let notices: u64 = got
        .iter()
        .filter(|e| e.source_id == "doppler")
        .map(|e| match &e.message {
            Some(Body::Counter(c)) if c.name == "dropped" => c.delta,
            other => panic!("{other:?}"),
        })
        .sum();
    let read = numbers(&got).len() as u64;
    assert_eq!(read + notices, 2000, "exactly");
    assert!(read > 100);
    let row = router
        .report("test")
        .subscriptions
        .into_iter()
        .find(|row| row.id == "slow")
        .unwrap();
    assert_eq!(row.dropped.values().sum::<u64>(), notices);
    assert_eq!(
        row.lost_sources.iter().map(|s| s.dropped).sum::<u64>(),
        notices
    );
    balanced(&router);
}

#[test]
fn the_loudest_are_shed_first() {
    let router = router(4 << 20);
    let mut reader = subscribe(&router, "", everything());
    let mut got = Vec::new();
    // Four logs full, for a reader that is half as fast as what comes.
    for n in 0..20_000 {
        let source = if n % 50 == 0 { "quiet" } else { "loud" };
        send(&router, vec![sized_log(source, n, 700)]);
        if n % 20 == 0 {
            let batch = poll(&mut reader, 7500).unwrap();
            got.extend(v2::EnvelopeBatch::decode(&bytes(&batch)[..]).unwrap().batch);
            batch.receipt.settle(true);
        }
    }
    got.extend(drain(&mut reader));
    let quiet = got.iter().filter(|e| e.source_id == "quiet").count();
    let loud = got.iter().filter(|e| e.source_id == "loud").count();
    assert_eq!(quiet, 400, "a quiet source arrives whole");
    assert_eq!(lost_total(&router, "lapped"), 0);
    assert_eq!(lost_total(&router, "shed") as usize, 20_000 - quiet - loud);
    let newest = got.iter().rfind(|e| e.source_id == "loud").unwrap();
    assert_eq!(
        newest.timestamp, 19_999,
        "the newest lines of the loud one arrive"
    );
    balanced(&router);
}

#[test]
fn a_reader_that_is_not_about_to_be_lapped_loses_nothing() {
    let router = router(4 << 20);
    let mut reader = subscribe(&router, "", everything());
    let sent = (3 << 20) / 1000;
    for n in 0..sent {
        send(&router, vec![sized_log("loud", n, 700)]);
    }
    assert!(!router.log().is_nearly_full());
    assert_eq!(drain(&mut reader).len(), sent as usize);
}

#[test]
fn one_plan_leaves_three_quarters_of_the_log() {
    let router = router(4 << 20);
    let mut reader = subscribe(&router, "", everything());
    let mut sent = 0;
    while !router.log().is_nearly_full() {
        send(&router, vec![sized_log("loud", sent, 700)]);
        sent += 1;
    }
    let got = numbers(&drain(&mut reader)).len();
    let kept = sent as usize / 4 * 3;
    assert!(
        got.abs_diff(kept) < kept / 20,
        "{got} of {sent} arrived, three quarters are {kept}"
    );
    balanced(&router);
}

#[test]
fn v1_subscriptions_see_the_dropsonde_form() {
    let app = "b3015d69-09cd-476d-aace-ad2d824d5ab7";
    let router = router(1 << 20);
    let filter = |app: &str, message| {
        Some(plumbing::Filter {
            app_id: app.to_owned(),
            message,
        })
    };
    let log_filter = || Some(plumbing::filter::Message::Log(plumbing::LogFilter {}));
    let metric_filter = || Some(plumbing::filter::Message::Metric(plumbing::MetricFilter {}));
    let mut all = subscribe_v1(&router, "", None);
    let mut only_logs = subscribe_v1(&router, "", filter("", log_filter()));
    let mut only_metrics = subscribe_v1(&router, "", filter("", metric_filter()));
    let mut of_app = subscribe_v1(&router, "", filter(app, None));
    let mut system = subscribe_v1(&router, "", filter("system", None));
    let mut timer = envelope(
        &app.to_uppercase(),
        6,
        Body::Timer(v2::Timer {
            name: "http".into(),
            start: 1,
            stop: 2,
        }),
    );
    timer.tags.insert("request_id".into(), app.into());
    let mut error = log("component", 7);
    error.tags.insert("__v1_type".into(), "Error".into());
    send(
        &router,
        vec![
            log(app, 1),
            log("other", 2),
            counter(app, 3, "c"),
            gauge(
                app,
                4,
                &["cpu", "memory", "disk", "memory_quota", "disk_quota"],
            ),
            gauge(app, 5, &["x", "y"]),
            timer,
            error,
            sized_log(app, 8, 0),
            envelope(app, 9, Body::Event(v2::Event::default())),
        ],
    );
    let stamps = |envelopes: Vec<events::Envelope>| {
        let mut stamps: Vec<_> = envelopes.iter().map(|e| e.timestamp.unwrap()).collect();
        stamps.sort_unstable();
        stamps
    };
    // Five unitless metrics of value 1 are a container metric; two metrics are two value metrics.
    assert_eq!(stamps(drain_v1(&mut all)), [1, 2, 3, 4, 5, 5, 6, 7]);
    assert_eq!(stamps(drain_v1(&mut only_logs)), [1, 2]);
    assert_eq!(stamps(drain_v1(&mut only_metrics)), [3, 4, 5, 5, 6, 7]);
    assert_eq!(stamps(drain_v1(&mut of_app)), [1, 4, 6]);
    assert_eq!(stamps(drain_v1(&mut system)), [3, 5, 5, 7]);
    let rows = router.report("test").subscriptions;
    assert_eq!(
        rows[0].dropped.get("no_v1_form"),
        Some(&1),
        "the empty log: {:?}",
        rows[0]
    );
    assert_eq!(router.stats().ingress, 1 + 1 + 1 + 1 + 2 + 1 + 1 + 1);
    balanced(&router);
}

#[test]
fn ten_thousand_tails_each_get_their_own() {
    let router = router(8 << 20);
    let mut tails: Vec<_> = (0..10_000)
        .map(|i| subscribe(&router, "", vec![of(&format!("app-{i}"), logs())]))
        .collect();
    for n in 0..100 {
        send(
            &router,
            (0..100)
                .map(|i| log(&format!("app-{}", n * 100 + i), n * 100 + i))
                .collect(),
        );
    }
    for (i, tail) in tails.iter_mut().enumerate() {
        assert_eq!(numbers(&drain(tail)), [i as i64]);
    }
    drop(tails);
    balanced(&router);
    assert_eq!(router.stats().subscriptions, 0);
}

#[test]
fn malformed_input_is_refused_and_counted_alone() {
    let router = router(1 << 20);
    let mut firehose = subscribe(&router, "", everything());
    assert!(router.ingest(b"\x0a\x7f\x01").is_err());
    let mut batch = v2::EnvelopeBatch {
        batch: vec![log("a", 1)],
    }
    .encode_to_vec();
    batch.extend_from_slice(b"\x0a\x04\x12\x02\xff\xfe");
    batch.extend(
        v2::EnvelopeBatch {
            batch: vec![log("a", 2)],
        }
        .encode_to_vec(),
    );
    let ingested = router.ingest(&batch).unwrap();
    assert_eq!((ingested.envelopes, ingested.rejected), (2, 1));
    assert_eq!(numbers(&drain(&mut firehose)), [1, 2]);
    let stats = router.stats();
    assert_eq!((stats.rejected_frames, stats.rejected_envelopes), (1, 1));
}

/// Five million envelopes of two bytes are a legal batch, and must not cost a hundred times their size at once.
#[test]
fn a_batch_of_tiny_envelopes_stays_within_the_log() {
    let router = router(8 << 20);
    let batch = [0x0a, 0x00].repeat(1 << 20);
    let ingested = router.ingest(&batch).unwrap();
    assert_eq!(ingested.envelopes, 1 << 20);
    let fill = router.log().fill();
    assert!(fill.bytes <= fill.limit + (1 << 20), "{fill:?}");
}

#[derive(Debug, Clone)]
enum Step {
    Send {
        source: usize,
        count: i64,
        size: usize,
    },
    Subscribe {
        shard: usize,
        what: usize,
    },
    Leave(usize),
    Poll {
        who: usize,
        budget: usize,
    },
    Settle {
        which: usize,
        delivered: bool,
    },
    Expire,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0usize..4, 1i64..30, 1usize..400).prop_map(|(source, count, size)| Step::Send { source, count, size }),
        2 => (0usize..3, 0usize..5).prop_map(|(shard, what)| Step::Subscribe { shard, what }),
        1 => (0usize..8).prop_map(Step::Leave),
        6 => (0usize..8, 1usize..20_000).prop_map(|(who, budget)| Step::Poll { who, budget }),
        4 => (0usize..8, prop::bool::weighted(0.8)).prop_map(|(which, delivered)| Step::Settle { which, delivered }),
        1 => Just(Step::Expire),
    ]
}

fn choices(what: usize) -> Vec<v2::Selector> {
    match what {
        0 => everything(),
        1 => vec![any(logs())],
        2 => vec![of("s0", logs()), of("s1", counters(""))],
        3 => vec![any(counters("x")), of("s2", logs())],
        _ => vec![any(logs()), of("s0", counters(""))],
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever happens, in whatever order: every row of the ledger adds up, nobody gets an envelope twice, and in a
    /// log that never overflows the groups that stay get every envelope.
    #[test]
    fn the_ledger_always_adds_up(steps in proptest::collection::vec(step(), 1..200), small in prop::bool::ANY) {
        let router = router(if small { 128 << 10 } else { 64 << 20 });
        let mut open: Vec<(Subscription, String)> = Vec::new();
        let mut flying: Vec<super::Batch> = Vec::new();
        let mut n = 0;
        let keeper = ["keep", ""].map(|shard| subscribe(&router, shard, everything()));
        let [mut keeper, mut lone] = keeper;
        for step in steps {
            match step {
                Step::Send { source, count, size } => {
                    let kind = |i: i64| match i % 3 {
                        0 => counter(&format!("s{source}"), i, "x"),
                        _ => sized_log(&format!("s{source}"), i, size),
                    };
                    send(&router, (n..n + count).map(kind).collect());
                    n += count;
                }
                Step::Subscribe { shard, what } if open.len() < 8 => {
                    let shard = ["", "a", "b"][shard];
                    open.push((subscribe(&router, shard, choices(what)), shard.to_owned()));
                }
                Step::Subscribe { .. } => {}
                Step::Leave(who) => {
                    if who < open.len() {
                        open.remove(who);
                    }
                }
                Step::Poll { who, budget } => {
                    if let Some((subscription, _)) = open.get_mut(who) {
                        flying.extend(poll(subscription, budget));
                    }
                }
                Step::Settle { which, delivered } => {
                    if which < flying.len() {
                        flying.remove(which).receipt.settle(delivered);
                    }
                }
                Step::Expire => router.expire(),
            }
        }
        for batch in flying {
            batch.receipt.settle(true);
        }
        for (subscription, _) in &mut open {
            drain(subscription);
        }
        balanced(&router);
        for reader in [&mut keeper, &mut lone] {
            let got = numbers(&drain(reader));
            prop_assert!(got.windows(2).all(|pair| pair[0] < pair[1]), "in order, none twice");
            if !small {
                prop_assert_eq!(got.len() as i64, n);
            }
        }
        balanced(&router);
        let rows = router.report("test").subscriptions;
        let kept = rows.iter().find(|row| row.id == "keep").unwrap();
        prop_assert_eq!(kept.received as i64, n, "received and matching");
        prop_assert_eq!(kept.pending, 0);
    }
}

/// What each source lost stands in the ledger beside the sum.
#[test]
fn losses_are_attributed() {
    let router = router(256 << 10);
    let idle = subscribe(&router, "idle", vec![any(logs())]);
    for n in 0..3000 {
        send(&router, vec![sized_log(&format!("s{}", n % 3), n, 300)]);
    }
    let row = router.report("test").subscriptions.remove(0);
    let by_source: BTreeMap<_, _> = row
        .lost_sources
        .iter()
        .map(|s| (s.source_id.as_str(), s.dropped))
        .collect();
    assert_eq!(by_source.len(), 3);
    assert_eq!(by_source.values().sum::<u64>(), row.dropped["lapped"]);
    let (min, max) = (
        by_source.values().min().unwrap(),
        by_source.values().max().unwrap(),
    );
    assert!(max - min <= 1, "{by_source:?}");
    drop(idle);
}

/// What is scraped must only grow, also when the ledger forgets old rows.
#[test]
fn losses_of_forgotten_rows_stay_in_the_sums() {
    let router = router(16 << 20);
    let readers = 300;
    for n in 0..readers {
        let mut subscription = subscribe(&router, "", everything());
        send(&router, vec![log("app", n)]);
        let batch = poll(&mut subscription, 1 << 20).unwrap();
        batch.receipt.settle(false);
    }
    let stats = router.stats();
    assert_eq!(stats.dropped, readers as u64);
    assert_eq!(stats.dropped_by_reason["disconnected"], readers as u64);
    assert!(router.report("").subscriptions.len() < readers as usize);
}
