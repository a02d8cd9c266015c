//! Expiry and bounds.

use super::events::{APP, counter, event, gauge, log, request, timer};
use super::{fed, store, text};
use crate::page::accept::Format;
use crate::store::{Folded, Refusal, Store};

#[test]
fn what_is_shown_and_what_is_added_to_end_together() {
    let store = store("expire = \"10s\"");
    let hit = || event("s", "", &[], counter("hits", 5, 0));
    let shown = |now| text(&store, Format::Text, now).contains("cf_hits_total");
    store.lock().fold(&hit(), 0);
    store.lock().fold(&hit(), 9_000);
    assert!(shown(18_999));
    // Over before any sweep.
    assert!(!shown(19_000));
    // It starts from nothing, swept or not.
    store.lock().fold(&hit(), 19_000);
    assert!(text(&store, Format::Text, 19_000).ends_with("cf_hits_total{source_id=\"s\"} 5\n"));
    let mut gone = 0;
    store.lock().sweep(28_999, |_, _| gone += 1);
    assert_eq!(gone, 0);
    store.lock().sweep(29_000, |_, _| gone += 1);
    assert_eq!(gone, 1);
    let left = |store: &Store| (store.series(), store.streams());
    assert_eq!(left(&store.lock()), (0, 0));
    store.lock().fold(&hit(), 29_500);
    assert!(text(&store, Format::Text, 29_500).ends_with("cf_hits_total{source_id=\"s\"} 5\n"));
    assert_eq!(store.lock().counts.expired, 1);
}

#[test]
fn a_series_that_samples_keep_alive_does_not_flicker() {
    let store = store("expire = \"10s\"");
    for now in (0..100_000).step_by(9_999) {
        assert_eq!(
            store.lock().fold(&request("200", 1, "1", &[]), now),
            Folded::Taken
        );
        store.lock().sweep(now + 9_998, |_, _| {});
        assert!(text(&store, Format::Text, now + 9_998).contains("cf_http_requests_total{"));
    }
    let page = text(&store, Format::Text, 99_990);
    assert!(page.contains("status_code=\"200\"} 11\n"), "{page}");
}

#[test]
fn caps_refuse_and_count_and_known_series_go_on() {
    let section = "max_series = 4\nmax_series_per_family = 2";
    let store = store(section);
    let fold = |name: &str, source: &str| {
        let event = event(source, "", &[], gauge(&[(name, "", 1.0)]));
        store.lock().fold(&event, 0)
    };
    assert_eq!(fold("a", "1"), Folded::Taken);
    assert_eq!(fold("a", "2"), Folded::Taken);
    assert_eq!(fold("a", "3"), Folded::Refused(Refusal::FamilyLimit));
    assert_eq!(fold("b", "1"), Folded::Taken);
    assert_eq!(fold("c", "1"), Folded::Taken);
    assert_eq!(fold("d", "1"), Folded::Refused(Refusal::SeriesLimit));
    assert_eq!(fold("a", "1"), Folded::Taken);
    // Refused streams are remembered, but not without bound.
    for source in 0..100 {
        assert!(matches!(fold("e", &source.to_string()), Folded::Refused(_)));
    }
    let store = store.lock();
    assert_eq!((store.series(), store.streams()), (4, 8));
    assert_eq!(store.counts.refused[Refusal::FamilyLimit as usize], 1);
    assert_eq!(store.counts.refused[Refusal::SeriesLimit as usize], 101);
}

#[test]
fn labels_and_tags_are_bounded_in_bytes_and_expiry_gives_them_back() {
    let store = store("max_bytes = \"64KiB\"\nexpire = \"10s\"");
    let long = "x".repeat(4000);
    let fold = |source: &str, now: u64| {
        let event = event(source, "", &[("long", &long)], gauge(&[("a", "", 1.0)]));
        store.lock().fold(&event, now)
    };
    let taken = (0..100)
        .take_while(|source| fold(&source.to_string(), 0) == Folded::Taken)
        .count();
    // Each has its labels in its series, and all its tags in the key of its stream.
    assert_eq!(taken, 7);
    for source in 100..200 {
        let refused = Folded::Refused(Refusal::SeriesLimit);
        assert_eq!(fold(&source.to_string(), 0), refused);
    }
    assert!(store.lock().bytes() <= 64 << 10);
    assert_eq!(fold("0", 9_999), Folded::Taken, "known ones go on");

    store.lock().sweep(10_000, |_, _| {});
    let one = store.lock().bytes();
    assert!((8000..9000).contains(&one), "{one}");
    store.lock().sweep(19_999, |_, _| {});
    assert_eq!(store.lock().bytes(), 0);
    assert_eq!(fold("200", 20_000), Folded::Taken);
    assert_eq!(store.lock().bytes(), one + "00".len() * 2);
}

#[test]
fn what_clients_write_as_they_like_is_bounded() {
    let store = fed(
        "max_hosts = 2",
        &[
            request("200", 1, "1", &[("uri", "https://A.example.com:443/")]),
            request("200", 1, "1", &[("uri", "https://b.example.com/")]),
            request("200", 1, "1", &[("uri", "https://c.example.com/")]),
            request(
                "200",
                1,
                "1",
                &[("uri", "https://a.example.com/"), ("method", "SEARCH")],
            ),
            request("999", 1, "-1", &[("uri", "https://a.example.com/")]),
            // A scanner that no route is for.
            event(
                "gorouter",
                "",
                &[
                    ("peer_type", "Server"),
                    ("method", "GET"),
                    ("uri", "http://x1/"),
                    ("status_code", "404"),
                ],
                timer("http", 1),
            ),
        ],
    );
    let page = text(&store, Format::Text, 0);
    let requests: Vec<_> = page
        .lines()
        .filter(|line| line.starts_with("cf_http_requests_total"))
        .map(|line| {
            line.split(",origin")
                .next()
                .unwrap()
                .split(",source_id")
                .next()
                .unwrap()
        })
        .map(|line| line.split(",organization_name").next().unwrap())
        .map(|line| line.replace("app_name=\"shop\",", ""))
        .collect();
    assert_eq!(
        requests,
        [
            "cf_http_requests_total{host=\"a.example.com\",method=\"GET\"",
            "cf_http_requests_total{host=\"b.example.com\",method=\"GET\"",
            "cf_http_requests_total{host=\"other\",method=\"GET\"",
            "cf_http_requests_total{host=\"a.example.com\",method=\"other\"",
            "cf_http_requests_total{host=\"a.example.com\",method=\"GET\"",
            "cf_http_requests_total{host=\"other\",method=\"GET\"",
        ]
    );
    assert!(page.contains("status_code=\"other\""));
    assert!(!page.contains(&format!("{APP}:")));
}

#[test]
fn hosts_that_are_gone_make_room() {
    let store = store("max_hosts = 1\nexpire = \"10s\"");
    let ask = |host: &str, now| {
        let uri = format!("https://{host}/");
        store
            .lock()
            .fold(&request("200", 1, "1", &[("uri", &uri)]), now);
        store.lock().sweep(now, |_, _| {});
        text(&store, Format::Text, now).contains(&format!("host=\"{host}\""))
    };
    assert!(ask("a", 0));
    assert!(!ask("b", 1_000));
    assert!(!ask("b", 10_500));
    assert!(ask("b", 12_000));
}

#[test]
fn labels_and_names_have_a_length() {
    let store = store("");
    let long = "x".repeat(9000);
    let event = |name: &str, tag: &str| event("s", "", &[("t", tag)], counter(name, 1, 1));
    assert_eq!(
        store.lock().fold(&event("a", &long), 0),
        Folded::Refused(Refusal::LabelsTooLong)
    );
    assert_eq!(
        store.lock().fold(&event(&long, ""), 0),
        Folded::Refused(Refusal::InvalidName)
    );
    assert_eq!(store.lock().series(), 0);
}

#[test]
fn streams_with_long_keys_are_not_kept() {
    // None of these tags is a label, so that the labels are short; of the others, some go into keys only.
    let store = store("tags = [\"t\"]\nrollup_tags = [\"long\"]\nlog_rates = true");
    let long = "x".repeat(16 * 1024);
    let folded = |tag: &str, message| {
        let event = event(APP, "", &[("long", tag), ("peer_type", "Server")], message);
        store.lock().fold(&event, 0)
    };
    let messages = || {
        [
            counter("c", 1, 1),
            gauge(&[("a", "", 1.0), ("b", "", 2.0), ("c", "", 3.0)]),
            timer("http", 1),
            timer("t", 1),
            log(false, "line"),
        ]
    };
    for message in messages() {
        assert_eq!(
            folded(&long, message),
            Folded::Refused(Refusal::LabelsTooLong)
        );
    }
    let left = |store: &Store| (store.series(), store.streams());
    assert_eq!(left(&store.lock()), (0, 0));
    let refused = store.lock().counts.refused[Refusal::LabelsTooLong as usize];
    assert_eq!(refused, 7);
    // Long gauge names go the same way, and leave their neighbours alone.
    let mixed = gauge(&[(&long, "", 1.0), ("b", "", 2.0)]);
    assert_eq!(folded("", mixed), Folded::Taken);
    assert_eq!(left(&store.lock()), (1, 1));
    assert_eq!(folded(&long[..16_000], counter("d", 1, 1)), Folded::Taken);
}
