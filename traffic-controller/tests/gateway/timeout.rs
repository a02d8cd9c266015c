//! The end of a response, and what the next one of the same reader begins with.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use loggregator_net::grpc::Status;

use crate::client::Client;
use crate::proxy::{batch, counter, data_event};
use crate::rig::{PATIENCE, Rig, soon, until};

const CLOSING: &str = "event: closing\ndata: closing due to stream timeout\n\n";

/// The totals of the counters in an event of data.
fn totals(event: &str) -> Vec<u64> {
    let json: serde_json::Value =
        serde_json::from_str(event.strip_prefix("data: ").unwrap().trim_end()).unwrap();
    let batch = json["batch"].as_array().unwrap();
    let total = |envelope: &serde_json::Value| {
        envelope["counter"]["total"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap()
    };
    batch.iter().map(total).collect()
}

/// Reads one response to its end; what it brought.
async fn response(addr: SocketAddr, target: &str) -> Vec<u64> {
    let (mut client, head) = Client::get(addr, target).await;
    assert_eq!(head.status, 200);
    let mut seen = Vec::new();
    loop {
        let event = client.chunk().await.unwrap();
        if event == CLOSING {
            assert_eq!(client.chunk().await, None);
            return seen;
        }
        seen.extend(totals(&event));
    }
}

#[tokio::test]
async fn a_sharded_reader_that_comes_back_sees_every_envelope_once() {
    let mut rig = Rig::with(|config| config.stream_timeout = Duration::from_millis(40)).await;
    let addr = rig.addr();
    let feeder = async {
        let proxy = rig.opened.next().await;
        for total in 0..400 {
            proxy.send(batch([counter(total)]));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        proxy
    };
    let reader = async {
        let (mut seen, mut responses) = (Vec::new(), 0);
        while seen.last() != Some(&399) {
            seen.extend(response(addr, "/v2/read?counter&shard_id=nozzle").await);
            responses += 1;
        }
        (seen, responses)
    };
    let (proxy, (seen, responses)) =
        soon("all envelopes", async { tokio::join!(feeder, reader) }).await;
    assert!(responses > 3, "{responses} responses");
    assert_eq!(seen, (0..400).collect::<Vec<_>>());
    assert!(!proxy.is_closed());
    assert!(rig.opened.none(), "one subscription served all responses");
    let report = rig.ledger_with_closed(responses).await;
    let delivered: u64 = report.subscriptions.iter().map(|line| line.delivered).sum();
    assert_eq!(delivered, 400);
}

#[tokio::test]
async fn members_of_a_shard_group_each_go_on_and_other_requests_do_not() {
    let mut rig = Rig::with(|config| config.stream_timeout = Duration::from_millis(300)).await;
    let target = "/v2/read?counter&shard_id=nozzle";
    let addr = rig.addr();
    tokio::join!(response(addr, target), response(addr, target));
    let (first, second) = (rig.opened.next().await, rig.opened.next().await);
    first.send(batch([counter(1)]));
    second.send(batch([counter(2)]));
    // Asks for something else, or as somebody else: begins anew.
    assert_eq!(
        response(addr, "/v2/read?counter&shard_id=other").await,
        Vec::<u64>::new()
    );
    rig.opened.next().await;
    let mut seen = [response(addr, target).await, response(addr, target).await].concat();
    seen.sort_unstable();
    assert_eq!(seen, [1, 2]);
    assert!(rig.opened.none());
}

#[tokio::test]
async fn without_a_shard_id_the_same_reader_goes_on_and_nobody_else() {
    let mut rig = Rig::with(|config| config.stream_timeout = Duration::from_millis(50)).await;
    let ask = async |token: &str| {
        let headers = [("authorization", token)];
        let (mut client, _) =
            Client::ask(rig.running.addr, "GET", "/v2/read?counter", &headers).await;
        let mut events = Vec::new();
        while let Some(event) = client.chunk().await {
            events.push(event);
        }
        events
    };
    assert_eq!(ask("bearer one").await, [CLOSING]);
    let one = rig.opened.next().await;
    one.send(batch([counter(7)]));
    assert_eq!(ask("bearer two").await, [CLOSING]);
    rig.opened.next().await;
    assert_eq!(
        ask("bearer one").await,
        [data_event([7]), CLOSING.to_owned()]
    );
    assert!(rig.opened.none());
}

#[tokio::test]
async fn a_reader_that_does_not_come_back_is_given_up_and_what_it_missed_is_counted() {
    let mut rig = Rig::with(|config| {
        config.stream_timeout = Duration::from_millis(20);
        config.resume_grace = Duration::from_millis(300);
    })
    .await;
    assert_eq!(
        response(rig.addr(), "/v2/read?counter&shard_id=n").await,
        Vec::<u64>::new()
    );
    let proxy = rig.opened.next().await;
    proxy.send(batch([counter(1), counter(2)]));
    proxy.closed().await;
    let report = rig.ledger_with_closed(2).await;
    let line = &report.subscriptions[1];
    assert_eq!(
        (line.id.as_str(), line.received, line.delivered),
        ("n", 2, 0)
    );
    assert_eq!(line.dropped["not_resumed"], 2);
    let metrics = rig.admin("/metrics").await;
    for line in [
        "loggregator_gateway_parked_streams 0\n",
        "loggregator_gateway_unparked_streams_total{outcome=\"expired\"} 1\n",
        "loggregator_gateway_ended_streams_total{reason=\"stream_timeout\"} 1\n",
        "loggregator_gateway_dropped_envelopes_total{reason=\"not_resumed\"} 2\n",
    ] {
        assert!(metrics.contains(line), "{line}{metrics}");
    }
}

#[tokio::test]
async fn without_a_grace_what_has_arrived_is_written_before_the_closing_event() {
    let mut rig = Rig::with(|config| {
        config.stream_timeout = Duration::from_millis(200);
        config.resume_grace = Duration::ZERO;
    })
    .await;
    let (mut client, _) = Client::get(rig.addr(), "/v2/read?counter&shard_id=n").await;
    let proxy = rig.opened.next().await;
    for total in 0..100 {
        proxy.send(batch([counter(total)]));
    }
    let mut seen = Vec::new();
    loop {
        let event = client.chunk().await.unwrap();
        if event == CLOSING {
            break;
        }
        seen.extend(totals(&event));
    }
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    assert_eq!(client.chunk().await, None);
    proxy.closed().await;
}

#[tokio::test]
async fn a_stop_ends_streams_with_what_has_arrived_and_a_closing_event() {
    let mut rig = Rig::with(|config| config.access_log = true).await;
    let (mut client, _) = Client::get(rig.addr(), "/v2/read?counter").await;
    let (mut idle, _) = Client::get(rig.addr(), "/v2/read?counter").await;
    let proxy = rig.opened.next().await;
    for total in 0..50 {
        proxy.send(batch([counter(total)]));
    }
    let lifecycle = rig.lifecycle.clone();
    let stopping = tokio::spawn(async move { lifecycle.shutdown(PATIENCE).await });
    let closing = "event: closing\ndata: closing due to gateway shutdown\n\n";
    for total in 0..50 {
        assert_eq!(client.chunk().await.unwrap(), data_event([total]));
    }
    assert_eq!(client.chunk().await.unwrap(), closing);
    assert_eq!(client.chunk().await, None);
    assert_eq!(idle.chunk().await.unwrap(), closing);
    assert_eq!(idle.chunk().await, None);
    let report = soon("the stop", stopping).await.unwrap();
    assert!(report.finished(), "{report:?}");
    assert!(report.took < Duration::from_secs(10), "{report:?}");
    proxy.closed().await;
    until("all subscriptions are closed", || {
        rig.proxy.open.load(Ordering::Relaxed) == 0
    })
    .await;
}

/// What had arrived before it went is not lost, and the reader need not come a third time.
#[tokio::test]
async fn a_parked_stream_whose_proxy_went_is_replaced_behind_what_it_brought() {
    let mut rig = Rig::with(|config| config.stream_timeout = Duration::from_millis(300)).await;
    let addr = rig.addr();
    let target = "/v2/read?counter&shard_id=nozzle";
    for ahead in [&[1, 2][..], &[]] {
        response(addr, target).await;
        let parked = rig.opened.next().await;
        for total in ahead {
            parked.send(batch([counter(*total)]));
        }
        parked.fail(Status::unavailable("the proxy is stopping"));
        let anew = async {
            let anew = rig.opened.next().await;
            anew.send(batch([counter(3)]));
            anew
        };
        let (anew, seen) = tokio::join!(anew, response(addr, target));
        assert_eq!(seen, [ahead, &[3]].concat());
        // It is parked now, and not for the next round.
        anew.fail(Status::unavailable("the proxy is stopping"));
        assert!(rig.opened.none());
        let (last, _) = tokio::join!(rig.opened.next(), response(addr, target));
        last.fail(Status::unavailable("the proxy is stopping"));
    }
}

#[tokio::test]
async fn what_a_parked_stream_brought_is_counted_when_it_cannot_be_replaced() {
    let mut rig = Rig::with(|config| config.stream_timeout = Duration::from_millis(20)).await;
    let target = "/v2/read?counter&shard_id=n";
    response(rig.addr(), target).await;
    let parked = rig.opened.next().await;
    parked.send(batch([counter(1), counter(2)]));
    parked.fail(Status::unavailable("the proxy is stopping"));
    rig.proxy.refuse(Status::unavailable("nobody"));
    let (_, head) = Client::get(rig.addr(), target).await;
    assert_eq!(head.status, 503);
    let report = rig.ledger_with_closed(2).await;
    let line = &report.subscriptions[1];
    assert_eq!((line.received, line.dropped["not_resumed"]), (2, 2));
}
