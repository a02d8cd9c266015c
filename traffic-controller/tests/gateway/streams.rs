//! Streams of events.

use std::sync::atomic::Ordering;
use std::time::Duration;

use loggregator_net::grpc::{Code, Status};

use crate::client::{Client, Head};
use crate::proxy::{batch, counter, data_event};
use crate::rig::{Rig, until};

#[tokio::test]
async fn the_head_comes_before_any_data_and_each_batch_is_one_event() {
    let mut rig = Rig::new().await;
    let (mut client, head) = Client::get(rig.addr(), "/v2/read?counter&shard_id=s").await;
    let expected = Head::of(
        200,
        &[
            ("content-type", "text/event-stream"),
            ("cache-control", "no-cache"),
            ("connection", "keep-alive"),
            ("loggregator-resume-grace", "10"),
            ("transfer-encoding", "chunked"),
        ],
    );
    assert_eq!(head, expected);
    let proxy = rig.opened.next().await;
    assert_eq!(proxy.request.shard_id, "s");
    assert!(proxy.request.use_preferred_tags);
    proxy.send(batch([counter(2)]));
    let example = r#"data: {"batch":[{"timestamp":"1795293671306864594","source_id":"src","instance_id":"3","deprecated_tags":{},"tags":{"a":"b"},"counter":{"name":"c","delta":"0","total":"2"}}]}"#;
    assert_eq!(client.chunk().await.unwrap(), format!("{example}\n\n"));
    proxy.send(batch([counter(3), counter(4)]));
    assert_eq!(client.chunk().await.unwrap(), data_event([3, 4]));

    drop(client);
    proxy.closed().await;
    let report = rig.ledger_with_closed(1).await;
    let line = &report.subscriptions[0];
    assert_eq!(
        (report.component.as_str(), line.api.as_str()),
        ("rlp-gateway", "sse")
    );
    assert_eq!((line.id.as_str(), line.selector.as_str()), ("s", "counter"));
    assert_eq!((line.received, line.delivered), (3, 3));
}

#[tokio::test]
async fn silence_is_broken_by_heartbeats() {
    let mut rig = Rig::with(|config| config.heartbeat_interval = Duration::from_millis(100)).await;
    let (mut client, _) = Client::get(rig.addr(), "/v2/read?counter").await;
    let proxy = rig.opened.next().await;
    for _ in 0..2 {
        let event = client.chunk().await.unwrap();
        let seconds = event
            .strip_prefix("event: heartbeat\ndata: ")
            .and_then(|rest| rest.strip_suffix("\n\n"))
            .unwrap();
        let seconds: u64 = seconds.parse().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        assert!(now.unwrap().as_secs().abs_diff(seconds) < 60, "{event}");
    }
    proxy.send(batch([counter(1)]));
    while let Some(event) = client.chunk().await {
        if event == data_event([1]) {
            return;
        }
        assert!(event.starts_with("event: heartbeat\n"), "{event}");
    }
    panic!("the data event never came");
}

#[tokio::test]
async fn the_proxys_end_is_a_clean_end_without_an_event() {
    let mut rig = Rig::new().await;
    for status in [
        Some(Status::new(
            Code::ResourceExhausted,
            "unable to create stream",
        )),
        Some(Status::new(Code::Cancelled, "")),
        None,
    ] {
        let (mut client, head) = Client::get(rig.addr(), "/v2/read?counter").await;
        assert_eq!(head.status, 200);
        let proxy = rig.opened.next().await;
        match status {
            Some(status) => proxy.fail(status),
            None => drop(proxy),
        }
        assert_eq!(client.chunk().await, None);
        // The connection goes on.
        let head = client.request("GET", "/v2/read", &[]).await;
        assert_eq!(head.status, 400);
    }
    let report = rig.ledger_with_closed(3).await;
    assert!(
        report
            .subscriptions
            .iter()
            .all(|line| line.dropped.values().sum::<u64>() == 0)
    );
}

#[tokio::test]
async fn a_malformed_envelope_is_left_out_and_a_malformed_batch_ends_the_stream() {
    let mut rig = Rig::new().await;
    let (mut client, _) = Client::get(rig.addr(), "/v2/read?counter").await;
    let proxy = rig.opened.next().await;
    let bad = [0x0a, 3, 0x12, 1, 0xff];
    proxy.send([&batch([counter(1)])[..], &bad, &batch([counter(2)])].concat());
    assert_eq!(client.chunk().await.unwrap(), data_event([1, 2]));
    proxy.send(vec![0x0a, 9]);
    assert_eq!(client.chunk().await, None);
    let report = rig.ledger_with_closed(1).await;
    let line = &report.subscriptions[0];
    assert_eq!((line.received, line.delivered), (3, 2));
    assert_eq!(line.dropped["malformed"], 1);
    assert_eq!(report.ingress.rejected["malformed_batch"], 1);
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_proxy_up() {
    let mut rig = Rig::new().await;
    let (mut client, _) = Client::get(rig.addr(), "/v2/read?counter").await;
    let proxy = rig.opened.next().await;
    const BATCHES: usize = 120;
    for n in 0..BATCHES {
        // About 150 kB of JSON each: together more than sockets hold.
        proxy.send(batch((0..1000).map(|_| counter(n as u64))));
    }
    let mut taken = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = proxy.taken.load(Ordering::Relaxed);
        if now == taken && now > 0 {
            break;
        }
        taken = now;
    }
    assert!(taken < BATCHES, "all {taken} batches were taken");
    let mut event = String::new();
    for n in 0..BATCHES {
        while !event.ends_with("\n\n") {
            event.push_str(&client.chunk().await.unwrap());
        }
        assert!(
            event == data_event((0..1000).map(|_| n as u64)),
            "batch {n}"
        );
        event.clear();
    }
    until("everything was taken", || {
        proxy.taken.load(Ordering::Relaxed) == BATCHES
    })
    .await;
}
