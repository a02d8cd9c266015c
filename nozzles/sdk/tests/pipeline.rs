//! Whole nozzles with a destination that does as it is told.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the report

#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::time::Duration;

use loggregator_nozzle::compliance::{Behaviour, Peer as _};
use loggregator_nozzle::{Letter, ReloadError, Reloaded, Replayed, replay};
use loggregator_service::Lifecycle;

use support::nozzle::{Nozzle, PATIENCE, config, file, kinds};
use support::{PANIC, Scripted};

fn on_disk(peer: &Scripted) -> String {
    format!("[buffer.disk]\npath = {:?}\n", peer.scratch().join("state"))
}

async fn texts(peer: &Scripted) -> Vec<String> {
    let received = peer.received().await.into_iter();
    received
        .map(|one| String::from_utf8(one.body.to_vec()).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_the_quota_is_told_and_the_account_adds_up() {
    let peer = Scripted::new(1);
    let nozzle = Nozzle::start(&file(&peer, "", "quota = { events = 10, burst = 1 }")).await;
    nozzle.feed(500);
    let line = nozzle.settled("d", 500).await;
    let dropped = line.dropped["quota"];
    assert_eq!(line.delivered + dropped, 500);
    assert!(line.delivered >= 10 && dropped > 400, "{line:?}");
    let loser = &line.lost_sources[0];
    assert_eq!((loser.source_id.as_str(), loser.dropped), ("app", dropped));
    assert_eq!(
        [&loser.org, &loser.space, &loser.app],
        ["acme", "dev", "shop"]
    );
    let texts = texts(&peer).await;
    let told = |text: &String| {
        let rest = text.strip_prefix("nozzle test: ")?;
        let (n, rest) = rest.split_once(' ')?;
        assert!(rest.ends_with("left out: quota of 10 per second"), "{text}");
        n.parse::<u64>().ok()
    };
    let notices: Vec<u64> = texts.iter().filter_map(told).collect();
    assert!(!notices.is_empty() && notices.iter().sum::<u64>() <= dropped);
    assert_eq!(texts.len() as u64, line.delivered + notices.len() as u64);
    nozzle.lifecycle.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_kept_and_can_be_put_back() {
    let peer = Scripted::new(1);
    peer.behave(Behaviour::Poison("line 7".to_owned())).await;
    let text = file(&peer, &on_disk(&peer), "");
    let nozzle = Nozzle::start(&text).await;
    nozzle.feed(10);
    let line = nozzle.settled("d", 10).await;
    assert_eq!((line.delivered, line.dead_lettered["poisoned"]), (9, 1));
    nozzle.lifecycle.shutdown(PATIENCE).await;
    let folder = peer.scratch().join("state/dead-letters/d");
    let letters = || -> Vec<Letter> {
        let files = std::fs::read_dir(&folder)
            .unwrap()
            .map(|e| e.unwrap().path());
        let files = files.filter(|path| path.extension().is_some_and(|e| e == "ndjson"));
        let texts: Vec<String> = files.map(|p| std::fs::read_to_string(p).unwrap()).collect();
        let lines = texts.iter().flat_map(|text| text.lines());
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let first = letters();
    assert_eq!(first.len(), 1);
    assert_eq!(
        (
            first[0].reason.as_str(),
            first[0].seq,
            first[0].source_id.as_str()
        ),
        ("poisoned", 7, "app")
    );
    let put_back = || async {
        let lifecycle = Lifecycle::new();
        replay(&config(&text), &kinds(), "d", None, &lifecycle)
            .await
            .unwrap()
    };
    let refused = Replayed {
        dead_lettered: 1,
        ..Replayed::default()
    };
    assert_eq!(put_back().await, refused);
    assert_eq!(letters().len(), 1, "a dead letter again");
    peer.behave(Behaviour::Healthy).await;
    let delivered = Replayed {
        delivered: 1,
        ..Replayed::default()
    };
    assert_eq!(put_back().await, delivered);
    assert_eq!(letters(), []);
    assert_eq!(texts(&peer).await.last().unwrap(), "line 7");
    assert_eq!(put_back().await, Replayed::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_fails_does_not_hold_up_a_stop_when_the_buffer_is_on_disk() {
    let peer = Scripted::new(1);
    peer.behave(Behaviour::Away).await;
    let text = file(&peer, &on_disk(&peer), "");
    let nozzle = Nozzle::start(&text).await;
    nozzle.feed(10);
    nozzle.until("d", |line| line.received == 10).await;
    let report = nozzle.lifecycle.shutdown(PATIENCE).await;
    assert!(report.finished(), "{report:?}");
    assert_eq!(nozzle.line("d").pending, 10);
    drop(nozzle);
    peer.behave(Behaviour::Healthy).await;
    let again = Nozzle::start(&text).await;
    again.settled("d", 10).await;
    assert_eq!(texts(&peer).await.len(), 10);
    again.lifecycle.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_in_memory_makes_the_drain_unfinished() {
    let peer = Scripted::new(1);
    peer.behave(Behaviour::Away).await;
    let nozzle = Nozzle::start(&file(&peer, "", "")).await;
    nozzle.feed(10);
    nozzle.until("d", |line| line.received == 10).await;
    let report = nozzle.lifecycle.shutdown(Duration::from_millis(300)).await;
    assert_eq!(report.unfinished, ["destinations/destination d"]);
    assert_eq!(nozzle.line("d").pending, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_share_left_out_is_lost_at_once_and_says_whose_it_was() {
    let peer = Scripted::new(1);
    peer.behave(Behaviour::Away).await;
    let buffer = "[buffer.memory]\nmax_bytes = \"64KiB\"";
    let nozzle = Nozzle::start(&file(&peer, buffer, "")).await;
    for _ in 0..40 {
        nozzle.feed(100);
    }
    let away = nozzle
        .until("d", |line| line.received == 4000 && line.pending < 4000)
        .await;
    assert_eq!(away.delivered, 0);
    assert_eq!(away.pending + away.dropped["backlog_full"], 4000);
    let whose: u64 = away.lost_sources.iter().map(|source| source.dropped).sum();
    assert_eq!(whose, away.dropped["backlog_full"]);

    // It is counted once, also when the destination comes to it.
    peer.behave(Behaviour::Healthy).await;
    let back = nozzle.settled("d", 4000).await;
    assert_eq!(back.dropped, away.dropped);
    assert_eq!(back.delivered, away.pending);
    assert_eq!(back.lost_sources, away.lost_sources);
    nozzle.lifecycle.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_restarts_only_what_changed_and_loses_nothing() {
    let (peer, other) = (Scripted::new(1), Scripted::new(1));
    let second = |more: &str| {
        format!(
            "[[destination]]\nname = \"e\"\n{more}\n[destination.scripted]\n{}\n",
            other.config()
        )
    };
    let text = |more: &str| file(&peer, "", "") + &second(more);
    let nozzle = Nozzle::start(&text("")).await;
    nozzle.feed(10);
    nozzle.settled("e", 10).await;
    let reloaded = nozzle
        .running
        .reload(config(&text("filter = 'text == \"line 3\"'")));
    assert_eq!(
        reloaded.await,
        Ok(Reloaded {
            restarted: vec!["e".to_owned()],
            unchanged: vec!["d".to_owned()],
        })
    );
    nozzle.feed(10);
    let line = nozzle.settled("e", 20).await;
    assert_eq!((line.delivered, line.filtered["filter"]), (11, 9));
    assert_eq!(nozzle.settled("d", 20).await.delivered, 20);
    let impossible = file(&peer, "[buffer.memory]\nmax_bytes = \"1MiB\"", "");
    assert_eq!(
        nozzle.running.reload(config(&impossible)).await,
        Err(ReloadError {
            reasons: vec![
                "[buffer] cannot change while the nozzle runs".to_owned(),
                "which destinations there are, and their order, cannot change while the nozzle runs"
                    .to_owned(),
            ],
            restart: true,
        })
    );
    nozzle.feed(10);
    assert_eq!(nozzle.settled("e", 30).await.delivered, 12);
    nozzle.lifecycle.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_cannot_be_started_anew_comes_back_and_loses_nothing() {
    let (peer, folder) = (Scripted::new(1), tempfile::tempdir().unwrap());
    let needed = |name: &str| folder.path().join(name);
    let text = |name: &str| file(&peer, "", "") + &format!("needs = {:?}\n", needed(name));
    std::fs::write(needed("one"), "").unwrap();
    let nozzle = Nozzle::start(&text("one")).await;
    nozzle.feed(10);
    nozzle.settled("d", 10).await;

    // Neither as it is wanted nor as it was.
    std::fs::remove_file(needed("one")).unwrap();
    let refused = nozzle
        .running
        .reload(config(&text("two")))
        .await
        .unwrap_err();
    let reason = refused.to_string();
    assert!(reason.contains("nor as before"), "{reason}");
    nozzle.feed(10);
    nozzle.until("d", |line| line.received == 20).await;
    assert_eq!(nozzle.line("d").pending, 10);
    std::fs::write(needed("one"), "").unwrap();
    assert_eq!(nozzle.settled("d", 20).await.delivered, 20);

    // What is not there yet is no obstacle to the next configuration.
    std::fs::remove_file(needed("one")).unwrap();
    nozzle
        .running
        .reload(config(&text("two")))
        .await
        .unwrap_err();
    nozzle.feed(10);
    std::fs::write(needed("two"), "").unwrap();
    let reloaded = nozzle.running.reload(config(&text("two"))).await.unwrap();
    assert_eq!(reloaded.restarted, ["d"]);
    assert_eq!(nozzle.settled("d", 30).await.delivered, 30);
    assert_eq!(texts(&peer).await.len(), 30);
    nozzle.lifecycle.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_tells_what_is_wrong_and_when_it_is_over() {
    let peer = Scripted::new(1);
    peer.behave(Behaviour::Away).await;
    let more = "breaker = { failures = 1, pause = \"10ms\" }";
    let nozzle = Nozzle::start(&file(&peer, "max_stuck = \"5s\"", more)).await;
    nozzle.feed(3);
    nozzle
        .until_reasons(|reasons| {
            reasons == ["destination d: the circuit breaker is open, 3 events wait: connect"]
        })
        .await;
    nozzle
        .until_reasons(|reasons| {
            let stuck = |reason: &String| {
                reason.starts_with("destination d: nothing delivered for ")
                    && reason.ends_with(" s, 3 events wait: connect")
            };
            reasons.iter().any(stuck)
        })
        .await;
    peer.behave(Behaviour::Healthy).await;
    nozzle.until_reasons(<[String]>::is_empty).await;
    nozzle.lifecycle.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_panics_is_tried_again() {
    let peer = Scripted::new(1);
    peer.behave(Behaviour::Poison(PANIC.to_owned())).await;
    let nozzle = Nozzle::start(&file(&peer, "", "")).await;
    nozzle.feed(10);
    assert_eq!(nozzle.settled("d", 10).await.delivered, 10);
    let metrics = nozzle.running.metrics().encode();
    assert!(
        metrics.contains(
            "loggregator_nozzle_retried_events_total{destination=\"d\",reason=\"panicked\"} 10\n"
        ),
        "{metrics}"
    );
    assert!(nozzle.lifecycle.fault().is_none());
    nozzle.lifecycle.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_and_sends_nothing() {
    let peer = Scripted::new(1);
    let nozzle = Nozzle::start(&file(&peer, "", "dry_run = true")).await;
    nozzle.feed(10);
    assert_eq!(nozzle.settled("d", 10).await.delivered, 10);
    assert!(texts(&peer).await.is_empty());
    nozzle.lifecycle.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_process_delivered_does_not_come_again() {
    let peer = Scripted::new(1);
    let text = file(&peer, "", "") + "resume = 4\n";
    let nozzle = Nozzle::start(&text).await;
    nozzle.feed(10);
    assert_eq!(nozzle.settled("d", 10).await.delivered, 10);
    let expected: Vec<String> = (4..10).map(|n| format!("line {n}")).collect();
    assert_eq!(texts(&peer).await, expected);
    nozzle.lifecycle.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tap_shows_what_passes_each_edge() {
    let peer = Scripted::new(1);
    let nozzle = Nozzle::start(&file(&peer, "", "filter = 'text == \"line 3\"'")).await;
    assert_eq!(
        nozzle.running.edges(),
        ["intake", "d/in", "d/out", "d/rendered"]
    );
    let mut taps: Vec<_> = nozzle
        .running
        .edges()
        .iter()
        .map(|edge| nozzle.running.tap(edge, "").unwrap())
        .collect();
    nozzle.feed(5);
    nozzle.settled("d", 5).await;
    for tap in &mut taps[..2] {
        for _ in 0..5 {
            assert!(tap.next().await.unwrap().contains("\"envelope\":{"));
        }
    }
    assert!(taps[2].next().await.unwrap().contains("\"seq\":3,"));
    let rendered: serde_json::Value = serde_json::from_str(&taps[3].next().await.unwrap()).unwrap();
    assert_eq!(rendered["body"], "line 3");
    assert_eq!(rendered["fields"]["source"], "app");
    nozzle.lifecycle.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_selected_does_not_reach_the_buffer() {
    let peer = Scripted::new(1);
    let select = "[select]\nfilter = 'text != \"line 3\"'";
    let nozzle = Nozzle::start(&file(&peer, select, "")).await;
    nozzle.feed(5);
    let line = nozzle.settled("d", 4).await;
    assert_eq!((line.delivered, line.filtered_total()), (4, 0));
    let ingress = nozzle.running.report().ingress;
    assert_eq!((ingress.received, ingress.accepted), (5, 4));
    assert_eq!(ingress.rejected, [("filter".to_owned(), 1)].into());
    assert_eq!(texts(&peer).await, ["line 0", "line 1", "line 2", "line 4"]);
    nozzle.lifecycle.shutdown(PATIENCE).await;
}

/// What is taken in has no number yet when it is looked at; a share of it is a share all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_sample_is_taken_in() {
    let peer = Scripted::new(1);
    let select = "[select]\nfilter = 'sample(0.5)'";
    let nozzle = Nozzle::start(&file(&peer, select, "")).await;
    let half = loggregator_nozzle::filter::Filter::parse("sample(0.5)").unwrap();
    let taken = |number| half.matches(&loggregator_nozzle::Event::new(number, 0, "".into()));
    let expected = (0..1000).filter(|number| taken(*number)).count() as u64;
    assert!((400..600).contains(&expected), "{expected}");
    nozzle.feed(1000);
    nozzle.settled("d", expected).await;
    let ingress = nozzle.running.report().ingress;
    assert_eq!((ingress.received, ingress.accepted), (1000, expected));
    nozzle.lifecycle.shutdown(PATIENCE).await;
}

/// What the admin server answers, headers left out; `lines` of it, or all.
async fn get(addr: std::net::SocketAddr, path: &str, lines: Option<usize>) -> String {
    use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reader = tokio::io::BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).await.unwrap();
    }
    let mut body = String::new();
    match lines {
        None => {
            reader.read_to_string(&mut body).await.unwrap();
        }
        Some(n) => {
            for _ in 0..n {
                reader.read_line(&mut body).await.unwrap();
            }
        }
    }
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_server_shows_destinations_talkers_and_what_flows() {
    let peer = Scripted::new(1);
    let extra = "admin_addr = \"127.0.0.1:0\"";
    let nozzle = Nozzle::start(&file(&peer, extra, "")).await;
    let addr = nozzle.running.admin_addr.unwrap();
    let tapping = tokio::spawn(get(
        addr,
        "/tap?edge=d%2Frendered&filter=text+%3D%3D+%22line+3%22",
        Some(2),
    ));
    // The tap is there when the metrics say so.
    while !nozzle
        .running
        .metrics()
        .encode()
        .contains("loggregator_nozzle_taps 1\n")
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    nozzle.feed(5);
    nozzle.settled("d", 5).await;
    let tapped = tapping.await.unwrap();
    assert!(tapped.contains("\"body\":\"line 3\""), "{tapped}");
    let json = |body: String| serde_json::from_str::<serde_json::Value>(&body).unwrap();
    let destinations = json(get(addr, "/destinations", None).await);
    let shown = &destinations["destinations"][0];
    assert_eq!(
        [
            &shown["name"],
            &shown["kind"],
            &shown["guarantee"],
            &shown["breaker"]
        ],
        ["d", "scripted", "none", "closed"]
    );
    assert_eq!(shown["pending"], 0);
    let talkers = json(get(addr, "/talkers", None).await);
    assert_eq!(talkers["lines"]["total"], 5);
    assert_eq!(talkers["lines"]["sources"][0]["app"], "shop");
    let edges = json(get(addr, "/edges", None).await);
    assert_eq!(edges["edges"][3], "d/rendered");
    let report: loggregator_service::ledger::Report =
        serde_json::from_str(&get(addr, "/ledger", None).await).unwrap();
    assert!(report.balanced());
    assert_eq!(report.subscriptions[0].delivered, 5);
    let error = get(addr, "/tap?edge=x", None).await;
    assert_eq!(
        error,
        "there is no edge `x`; there are intake, d/in, d/out, d/rendered\n"
    );
    nozzle.lifecycle.shutdown(PATIENCE).await;
}
