//! What goes out: selectors, shards, duplicates, joining, many readers on one connection.

use std::collections::BTreeSet;

use loggregator_proto::{plumbing, rpc, v2};
use v2::selector::Message as Selects;

use crate::harness::*;

#[tokio::test]
async fn every_selector_kind_selects_its_kind() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let timer = v2::Envelope {
        source_id: "app".to_owned(),
        message: Some(v2::envelope::Message::Timer(v2::Timer {
            name: "http".to_owned(),
            start: 1,
            stop: 2,
        })),
        ..Default::default()
    };
    let event = v2::Envelope {
        source_id: "app".to_owned(),
        message: Some(v2::envelope::Message::Event(v2::Event {
            title: "t".to_owned(),
            body: "b".to_owned(),
        })),
        ..Default::default()
    };
    let sent = vec![
        log("app", "hello"),
        log("other", "hello"),
        counter("app", "requests", 1),
        counter("app", "errors", 1),
        gauge("app", &["a", "b"]),
        gauge("app", &["a"]),
        gauge("app", &["a", "b", "c"]),
        timer,
        event,
    ];
    let named = |names: &[&str]| {
        Selects::Gauge(v2::GaugeSelector {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        })
    };
    let cases: Vec<(&str, v2::Selector, Vec<usize>)> = vec![
        ("any log", selector("", any_log()), vec![0, 1]),
        ("logs of app", selector("app", any_log()), vec![0]),
        ("logs of nobody", selector("App", any_log()), vec![]),
        ("any counter", selector("", any_counter()), vec![2, 3]),
        (
            "one counter",
            selector(
                "app",
                Selects::Counter(v2::CounterSelector {
                    name: "errors".to_owned(),
                }),
            ),
            vec![3],
        ),
        (
            "any gauge",
            selector("app", Selects::Gauge(v2::GaugeSelector::default())),
            vec![4, 5, 6],
        ),
        (
            "exactly a and b",
            selector("app", named(&["b", "a"])),
            vec![4],
        ),
        ("a twice", selector("", named(&["a", "a"])), vec![]),
        (
            "timers",
            selector("", Selects::Timer(v2::TimerSelector {})),
            vec![7],
        ),
        (
            "events",
            selector("", Selects::Event(v2::EventSelector {})),
            vec![8],
        ),
        (
            "no kind",
            v2::Selector {
                source_id: "app".to_owned(),
                message: None,
            },
            vec![],
        ),
    ];
    // A marker that every reader also selects tells it that all the rest has passed.
    let end = counter("end", "end", 1);
    let end_selector = selector("end", any_counter());
    let mut readers = Vec::new();
    for (name, selector, expected) in &cases {
        let reader = client
            .batched(request("", vec![selector.clone(), end_selector.clone()]))
            .await;
        readers.push((name, reader, expected));
    }
    doppler.subscribed(cases.len()).await;
    let mut sender = client.batch_sender().await;
    sender.batch(sent.clone()).await;
    sender.batch(vec![end.clone()]).await;
    for (name, mut reader, expected) in readers {
        let mut received = reader.until(|envelope| *envelope == end).await;
        received.pop();
        let expected: Vec<_> = expected.iter().map(|index| sent[*index].clone()).collect();
        assert_eq!(received, expected, "{name}");
    }
    doppler.assert_balanced();
}

/// The Go router repeats an envelope once per selector that matches it.
#[tokio::test]
async fn an_envelope_that_several_selectors_match_comes_once() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    for shard in ["", "shard"] {
        let overlapping = vec![
            selector("", any_log()),
            selector("app", any_log()),
            selector("app", any_log()),
        ];
        let mut reader = client.batched(request(shard, overlapping)).await;
        doppler.subscribed(1).await;
        client.send_batch(logs("app", 0, 10)).await;
        assert_eq!(reader.take(10).await, logs("app", 0, 10));
        reader.nothing_more().await;
        drop(reader);
        doppler.subscribed(0).await;
    }
}

#[tokio::test]
async fn one_shard_id_with_different_selectors_is_different_groups() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut all = client
        .batched(request("shard", vec![selector("", any_log())]))
        .await;
    let mut some = client
        .batched(request("shard", vec![selector("app", any_log())]))
        .await;
    doppler.subscribed(2).await;
    client.send_batch(logs("app", 0, 20)).await;
    assert_eq!(all.take(20).await, logs("app", 0, 20));
    assert_eq!(some.take(20).await, logs("app", 0, 20));
}

#[tokio::test]
async fn a_shard_is_shared_without_loss_or_duplicates() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut readers = Vec::new();
    for _ in 0..4 {
        readers.push(doppler.connect().batched(logs_for("nozzle")).await);
    }
    doppler.subscribed(4).await;
    let mut sender = client.batch_sender().await;
    for first in (0..4_000).step_by(100) {
        sender.batch(logs("app", first, 100)).await;
    }
    let mut shares = vec![0; readers.len()];
    let (all, mut received) = tokio::sync::mpsc::channel(16);
    let tasks: Vec<_> = readers
        .into_iter()
        .enumerate()
        .map(|(index, mut reader)| {
            let all = all.clone();
            tokio::spawn(async move {
                loop {
                    all.send((index, payloads(&reader.batch().await)))
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    let mut seen = BTreeSet::new();
    while seen.len() < 4_000 {
        let (index, payloads) = within("the rest", received.recv()).await.unwrap();
        for payload in payloads {
            assert!(seen.insert(payload.clone()), "{payload} twice");
            shares[index] += 1;
        }
    }
    assert!(tokio::time::timeout(QUIET, received.recv()).await.is_err());
    assert!(
        shares.iter().all(|share| (700..=1_300).contains(share)),
        "{shares:?}"
    );
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

/// CRC-64 of the counter's name picks the member, in the order of the members' names.
#[tokio::test]
async fn deterministic_names_fix_who_gets_which_counter() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let member = |name: &str| v2::EgressBatchRequest {
        deterministic_name: name.to_owned(),
        ..request("shard", vec![selector("", any_counter())])
    };
    let mut blue = client.batched(member("blue")).await;
    let mut black = client.batched(member("black")).await;
    doppler.subscribed(2).await;
    let mut sender = client.batch_sender().await;
    // "hash" is even, "other-hash" odd; "black" sorts before "blue".
    sender
        .batch(
            (0..20)
                .flat_map(|n| [counter("x", "hash", n), counter("y", "other-hash", n)])
                .collect(),
        )
        .await;
    assert_eq!(
        black.take(20).await,
        (0..20).map(|n| counter("x", "hash", n)).collect::<Vec<_>>()
    );
    assert_eq!(
        blue.take(20).await,
        (0..20)
            .map(|n| counter("y", "other-hash", n))
            .collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn v1_filters_divide_logs_metrics_and_apps() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let only_logs = || Some(plumbing::filter::Message::Log(plumbing::LogFilter {}));
    let only_metrics = || Some(plumbing::filter::Message::Metric(plumbing::MetricFilter {}));
    let mut all = client.batch_subscribe(v1_firehose("")).await;
    let mut logs_only = client
        .batch_subscribe(v1_filtered("", "", only_logs()))
        .await;
    let mut metrics_only = client
        .batch_subscribe(v1_filtered("", "", only_metrics()))
        .await;
    let mut app = client.batch_subscribe(v1_filtered("", "app", None)).await;
    let mut app_metrics = client
        .batch_subscribe(v1_filtered("", "app", only_metrics()))
        .await;
    doppler.subscribed(5).await;
    client
        .send_batch(vec![
            log("app", "one"),
            counter("app", "requests", 1),
            log("other", "two"),
        ])
        .await;
    assert_eq!(all.take(3).await.len(), 3);
    let received = logs_only.take(2).await;
    assert_eq!(
        received.iter().map(v1_message).collect::<Vec<_>>(),
        ["one", "two"]
    );
    assert_eq!(
        metrics_only.take(1).await[0]
            .counter_event
            .as_ref()
            .unwrap()
            .name,
        "requests"
    );
    assert_eq!(
        app.take(1).await.iter().map(v1_message).collect::<Vec<_>>(),
        ["one"]
    );
    // A counter of an app belongs to the app id `system` on this side.
    for reader in [
        &mut app,
        &mut app_metrics,
        &mut logs_only,
        &mut metrics_only,
    ] {
        reader.nothing_more().await;
    }
}

/// No timer holds a lone envelope back, and a burst is joined because the reader is busy.
#[tokio::test]
async fn a_lone_envelope_comes_alone_and_a_burst_joined_within_the_budget() {
    let doppler = Doppler::start_with(|config| config.send_budget = 64 << 10).await;
    let client = doppler.connect();
    let mut reader = client.batched(logs_for("")).await;
    doppler.subscribed(1).await;
    let mut sender = client.batch_sender().await;
    sender.batch(logs("app", 0, 1)).await;
    assert_eq!(reader.batch().await.len(), 1);
    reader.nothing_more().await;

    let total = 20_000;
    for first in (0..total).step_by(10) {
        sender.batch(logs("app", first, 10)).await;
    }
    let (mut received, mut messages) = (Vec::new(), 0);
    while received.len() < total {
        let bytes = within("a batch", reader.messages.next())
            .await
            .unwrap()
            .unwrap();
        assert!(bytes.len() <= 64 << 10, "{} bytes", bytes.len());
        received.extend(
            <v2::EnvelopeBatch as prost::Message>::decode(bytes)
                .unwrap()
                .batch,
        );
        messages += 1;
    }
    assert_eq!(received, logs("app", 0, total));
    assert!(messages < 2_000, "{messages} messages: nothing was joined");
}

#[tokio::test]
async fn a_single_envelope_above_the_budget_goes_alone() {
    let doppler = Doppler::start_with(|config| config.send_budget = 4 << 10).await;
    let client = doppler.connect();
    let mut reader = client.batched(logs_for("")).await;
    doppler.subscribed(1).await;
    let sent = vec![
        log("app", "small"),
        log("app", &"large".repeat(10_000)),
        log("app", "small"),
    ];
    client.send_batch(sent.clone()).await;
    assert_eq!(reader.take(3).await, sent);
}

/// A traffic controller puts all its subscriptions on one connection.
#[tokio::test]
async fn fifteen_hundred_subscriptions_on_one_connection() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut readers = Vec::new();
    for index in 0..1_500 {
        readers.push(
            client
                .batch_subscribe(v1_filtered("", &format!("app-{index}"), None))
                .await,
        );
    }
    doppler.subscribed(1_500).await;
    let batch = (0..1_500)
        .map(|index| log(&format!("app-{index}"), &format!("hello {index}")))
        .collect();
    client.send_batch(batch).await;
    for (index, reader) in readers.iter_mut().enumerate() {
        assert_eq!(
            v1_message(&reader.take(1).await[0]),
            format!("hello {index}")
        );
    }

    // All of them leave at once. Another stream of the same connection does not notice.
    let mut stays = client.batched(logs_for("")).await;
    doppler.subscribed(1_501).await;
    drop(readers);
    doppler.subscribed(1).await;
    client.send_batch(logs("app", 0, 3)).await;
    assert_eq!(stays.take(3).await, logs("app", 0, 3));
    let accepted = doppler
        .running
        .server
        .accepted
        .load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(accepted, 1, "all of it on one connection");
    doppler.assert_balanced();
}

#[tokio::test]
async fn a_reader_that_leaves_is_unregistered_and_one_that_comes_back_goes_on() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let mut reader = client.batched(logs_for("nozzle")).await;
    doppler.subscribed(1).await;
    let mut sender = client.batch_sender().await;
    sender.batch(logs("app", 0, 10)).await;
    assert_eq!(reader.take(10).await, logs("app", 0, 10));
    drop(reader);
    doppler.subscribed(0).await;

    sender.batch(logs("app", 10, 10)).await;
    eventually("the logs to be taken", || {
        (doppler.report().ingress.accepted == 20).then_some(())
    })
    .await;
    let mut back = client.batched(logs_for("nozzle")).await;
    assert_eq!(
        back.take(10).await,
        logs("app", 10, 10),
        "what came in between"
    );
    doppler.assert_balanced();
}

#[tokio::test]
async fn a_reader_without_a_name_starts_anew() {
    let doppler = Doppler::start().await;
    let client = doppler.connect();
    let reader = client.batched(logs_for("")).await;
    doppler.subscribed(1).await;
    drop(reader);
    doppler.subscribed(0).await;
    let mut sender = client.sender(rpc::INGRESS_SENDER).await;
    sender.send(&log("app", "missed")).await;
    eventually("the log to be taken", || {
        (doppler.report().ingress.accepted == 1).then_some(())
    })
    .await;
    let mut back = client.batched(logs_for("")).await;
    doppler.subscribed(1).await;
    sender.send(&log("app", "seen")).await;
    assert_eq!(payloads(&back.take(1).await), ["seen"]);
}
