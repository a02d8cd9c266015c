//! The profile `firehose_exporter` against the worked examples of its names and labels.

use super::events::{ROUTER, client_side, container, counter, event, gauge, request, timer};
use super::{fed, golden, store, text};
use crate::page::accept::Format;
use crate::page::proto::MetricFamily;
use crate::store::{Folded, Refusal};

const SECTION: &str = "profile = \"firehose_exporter\"\nenvironment = \"prod\"";
const TICK: i64 = 1_755_600_000_000;

/// The page without what tells about the exporter itself.
fn page(section: &str, events: &[loggregator_nozzle::Event]) -> String {
    let store = fed(section, events);
    store.lock().tick(TICK);
    let page = text(&store, Format::Text, 0);
    let own = |line: &&str| !line.contains("firehose_total_") && !line.contains("firehose_last_");
    page.lines()
        .filter(own)
        .map(|line| format!("{line}\n"))
        .collect()
}

fn from(origin: &'static str) -> Vec<(&'static str, &'static str)> {
    vec![("origin", origin), ("deployment", "cf")]
}

#[test]
fn a_container_metric() {
    golden("exporter_container.txt", &page(SECTION, &[container()]));
}

#[test]
fn a_counter_shows_its_total_and_on_request_its_delta() {
    let events = [event(
        "gorouter",
        "",
        &ROUTER,
        counter("responses.5xx", 1, 42),
    )];
    golden("exporter_counter.txt", &page(SECTION, &events));
    let section = format!("{SECTION}\nenable_delta = true\ndisable_retro_compat = true");
    golden("exporter_counter_delta.txt", &page(&section, &events));
}

#[test]
fn requests_are_rolled_up_once_and_shown_as_of_the_tick() {
    let events = [
        request("200", 12, "512", &[]),
        client_side("200", 11),
        request("500", 240, "128", &[]),
        // The router's own request to something that is no app.
        event(
            "gorouter",
            "",
            &[("peer_type", "client"), ("status_code", "404")],
            timer("http", 1),
        ),
        // Timers of other names are not exported.
        event("x", "", &[], timer("bbs.lock", 5)),
    ];
    golden("exporter_http.txt", &page(SECTION, &events));
}

#[test]
fn rollups_change_with_the_tick_only() {
    let store = fed(SECTION, &[request("200", 12, "512", &[])]);
    assert!(!text(&store, Format::Text, 0).contains("firehose_http_total"));
    store.lock().tick(TICK);
    let sample = |value: &str| format!("}} {value}\n");
    let first = text(&store, Format::Text, 0);
    assert!(first.contains(&sample("1 1755600000000")), "{first}");
    store.lock().fold(&request("200", 12, "512", &[]), 5);
    assert_eq!(
        text(&store, Format::Text, 5)
            .matches("1 1755600000000")
            .count(),
        first.matches("1 1755600000000").count()
    );
    store.lock().tick(TICK + 10_000);
    assert!(text(&store, Format::Text, 5).contains(&sample("2 1755600010000")));
    // What did not change keeps its time.
    store.lock().tick(TICK + 20_000);
    assert!(text(&store, Format::Text, 5).contains(&sample("2 1755600010000")));
}

#[test]
fn names_have_the_oddities_of_the_exporter() {
    let events = [
        event(
            "bbs",
            "",
            &from("bbs"),
            gauge(&[("LRPsMissing", "Metric", 0.0)]),
        ),
        event(
            "rep",
            "",
            &from("rep"),
            gauge(&[("CapacityTotalMemory", "MiB", 1.0)]),
        ),
        event(
            "garden",
            "",
            &from("garden-linux"),
            gauge(&[("numCPUS", "count", 4.0)]),
        ),
        event(
            "bbs",
            "",
            &from("bbs"),
            gauge(&[("memoryStats.numBytesAllocatedHeap", "count", 7.0)]),
        ),
        event(
            "mysql",
            "",
            &from("p.mysql"),
            gauge(&[("/p.mysql/performance/questions", "q/s", 9.0)]),
        ),
        event(
            "uaa",
            "",
            &from("uaa"),
            counter("requests.global.status.5XX.count", 1, 3),
        ),
        // What ends like a container metric passes for one.
        event(
            "worker",
            "",
            &from("worker"),
            gauge(&[("queue_memory", "", 5.0)]),
        ),
        event("worker", "", &from("worker"), counter("my_cpu", 2, 6)),
        // A single one of the five is called like all five.
        event(
            "app",
            "1",
            &from("rep"),
            gauge(&[("cpu", "percentage", 1.0)]),
        ),
    ];
    golden("exporter_names.txt", &page(SECTION, &events));
    let section = format!("{SECTION}\ndisable_retro_compat = true");
    golden("exporter_names_short.txt", &page(&section, &events));
}

#[test]
fn labels_are_unique_where_the_exporter_repeats_them() {
    let tags = [
        ("origin", "x"),
        ("job", "router"),
        ("bosh_job_name", "tag"),
        ("environment", "tag"),
        ("unit", "tag"),
        ("a-b", "dash"),
        ("a_b", "underscore"),
        ("with space", "escaped"),
        ("source_id", "of the tag"),
        ("instance_id", "tag"),
        ("empty", ""),
        ("__v1_type", "ValueMetric"),
        ("quote", "\\ \" \n"),
    ];
    let events = [event(
        "of the envelope",
        "7",
        &tags,
        gauge(&[("v", "own", 1.0)]),
    )];
    golden("exporter_labels.txt", &page(SECTION, &events));
}

#[test]
fn the_exporter_tells_about_itself() {
    let store = fed(
        SECTION,
        &[
            container(),
            event("gorouter", "", &ROUTER, counter("c", 1, 42)),
            request("200", 12, "512", &[]),
            client_side("200", 11),
        ],
    );
    let page = text(&store, Format::Text, 0);
    let own: String = page
        .lines()
        .filter(|line| line.contains("firehose_total_") || line.contains("firehose_last_"))
        .map(|line| format!("{line}\n"))
        .collect();
    golden("exporter_own.txt", &own);
}

#[test]
fn its_own_names_cannot_be_taken() {
    let store = store(&format!("{SECTION}\ndisable_retro_compat = true"));
    for name in ["http", "http_total", "total_envelopes_received_total"] {
        let event = event("x", "", &[], counter(name, 1, 1));
        let folded = store.lock().fold(&event, 0);
        assert_eq!(folded, Folded::Refused(Refusal::ReservedName), "{name}");
    }
}

#[test]
fn the_protobuf_page_says_the_same() {
    let store = fed(SECTION, &[request("200", 12, "512", &[]), container()]);
    store.lock().tick(TICK);
    let page = crate::page::render(&store, Format::Protobuf, 0);
    let families = super::clean::families(&page);
    let find = |name: &str| -> MetricFamily {
        families
            .iter()
            .find(|f| f.name == name)
            .unwrap_or_else(|| panic!("{name}"))
            .clone()
    };
    let requests = find("firehose_http_total");
    assert_eq!(
        (requests.r#type, requests.metric[0].timestamp_ms),
        (0, TICK)
    );
    assert_eq!(
        requests.metric[0].counter.as_ref().map(|c| c.value),
        Some(1.0)
    );
    let size = find("firehose_http_response_size_bytes");
    let summary = size.metric[0].summary.as_ref().unwrap();
    assert_eq!(
        (
            summary.sample_count,
            summary.sample_sum,
            summary.quantile.len()
        ),
        (1, 512.0, 4)
    );
    let cpu = find("firehose_container_metric_cpu_percentage");
    assert_eq!(cpu.metric[0].gauge.as_ref().map(|g| g.value), Some(12.5));
    let labels: Vec<_> = cpu.metric[0]
        .label
        .iter()
        .map(|l| l.name.as_str())
        .collect();
    assert!(labels.contains(&"bosh_job_name") && labels.contains(&"application_name"));
}

#[test]
fn a_request_of_no_app_has_no_origin() {
    let tags = [
        ("peer_type", "Server"),
        ("method", "PROPFIND"),
        ("uri", "http://nowhere.example.com:8080/x"),
        ("status_code", "404"),
    ];
    let store = fed(SECTION, &[event("gorouter", "", &tags, timer("http", 1))]);
    store.lock().tick(TICK);
    let page = text(&store, Format::Text, 0);
    let expected = "firehose_http_total{environment=\"prod\",host=\"nowhere.example.com:8080\",method=\"PROPFIND\",node_index=\"0\",scheme=\"http\",source_id=\"gorouter\",status_code=\"404\"} 1 1755600000000\n";
    assert!(page.contains(expected), "{page}");
}
