//! The profile `clean`.

use loggregator_nozzle::{Event, Names};
use prost::Message as _;
use std::sync::Arc;

use super::events::{
    APP, ROUTER, at, client_side, container, counter, event, gauge, log, request, timer,
};
use super::{OPENMETRICS, fed, golden, store, text};
use crate::page;
use crate::page::accept::Format;
use crate::page::proto::MetricFamily;
use crate::store::{Folded, Refusal};

/// The families of a page of messages.
pub fn families(mut page: &[u8]) -> Vec<MetricFamily> {
    let mut families = Vec::new();
    while !page.is_empty() {
        families.push(MetricFamily::decode_length_delimited(&mut page).unwrap());
    }
    families
}

fn everything() -> Vec<Event> {
    let bbs = [
        ("origin", "bbs"),
        ("job", "diego-api"),
        ("with space", "x"),
        ("le", "y"),
    ];
    vec![
        container(),
        event("gorouter", "", &ROUTER, counter("responses.5xx", 1, 42)),
        event("bbs", "", &bbs, gauge(&[("LRPsMissing", "Metric", 0.0)])),
        event("bbs", "", &bbs, gauge(&[("RequestLatency", "ms", 9.0)])),
        event(
            "rep",
            "",
            &bbs,
            gauge(&[("CapacityTotalMemory", "MiB", 2.0)]),
        ),
        event("rep", "", &bbs, gauge(&[("ContainerCount", "Metric", 3.0)])),
        event(
            "odd",
            "",
            &bbs,
            gauge(&[("a.nan", "", f64::NAN), ("b.inf", "", f64::NEG_INFINITY)]),
        ),
        request("200", 12, "512", &[]),
        client_side("200", 11),
        request("500", 2240, "128", &[]),
        event("bbs", "0", &bbs, timer("lock.held", 30)),
        event(
            APP,
            "0",
            &[("app_name", "shop"), ("source_type", "APP/PROC/WEB")],
            log(false, "hello"),
        ),
        event(
            APP,
            "1",
            &[("app_name", "shop"), ("source_type", "APP/PROC/WEB")],
            log(false, "hi"),
        ),
        event(
            APP,
            "1",
            &[("app_name", "shop"), ("source_type", "APP/PROC/WEB")],
            log(true, "oops"),
        ),
    ]
}

const SECTION: &str = "log_rates = true\nlabels = { foundation = \"prod\" }";

#[test]
fn the_page_in_both_text_formats() {
    let store = fed(SECTION, &everything());
    golden("clean.txt", &text(&store, Format::Text, 0));
    golden("clean.openmetrics.txt", &text(&store, OPENMETRICS, 0));
}

#[test]
fn the_page_in_protobuf_has_native_histograms_and_exemplars() {
    let store = fed(SECTION, &everything());
    let families = families(&page::render(&store, Format::Protobuf, 0));
    let names: Vec<_> = families.iter().map(|f| f.name.as_str()).collect();
    assert!(
        names.is_sorted() && names.contains(&"cf_http_requests_total"),
        "{names:?}"
    );
    let family = families
        .iter()
        .find(|f| f.name == "cf_http_request_duration_seconds")
        .unwrap();
    assert_eq!((family.r#type, family.unit.as_str()), (4, "seconds"));
    let histogram = family.metric[0].histogram.as_ref().unwrap();
    assert_eq!(
        (
            histogram.sample_count,
            histogram.schema,
            histogram.zero_count
        ),
        (2, 3, 0)
    );
    assert_eq!(histogram.positive_span.len(), 2);
    assert_eq!(histogram.positive_delta, [1, 0]);
    // 12 ms is in (2^(-52/8), 2^(-51/8)] s.
    assert_eq!(histogram.positive_span[0].offset, -51);
    let exemplar = histogram.bucket[8].exemplar.as_ref().unwrap();
    assert_eq!(
        (exemplar.value, histogram.bucket[8].upper_bound),
        (2.24, 2.5)
    );
    assert!(histogram.bucket[2].exemplar.is_none());
    let off = fed("native_histograms = false", &everything()[7..8]);
    let families = self::families(&page::render(&off, Format::Protobuf, 0));
    let histogram = families
        .iter()
        .find_map(|f| f.metric[0].histogram.clone())
        .unwrap();
    assert_eq!(
        (histogram.zero_threshold, histogram.positive_span.len()),
        (0.0, 0)
    );
}

#[test]
fn names_from_the_cloud_controller_are_labels() {
    let names = Names {
        app: "shop".to_owned(),
        space: "dev".to_owned(),
        org: "acme".to_owned(),
        ..Names::default()
    };
    let bare = event(APP, "0", &[("app_name", "old")], counter("hits", 1, 1));
    let store = fed("", &[bare.with_names(Some(Arc::new(names)))]);
    let page = text(&store, Format::Text, 0);
    let expected = format!(
        "cf_hits_total{{app_name=\"shop\",instance_id=\"0\",organization_name=\"acme\",source_id=\"{APP}\",space_name=\"dev\"}} 1\n"
    );
    assert!(page.ends_with(&expected), "{page}");
}

#[test]
fn listed_tags_are_labels_beside_the_fixed_ones_and_streams_add_up() {
    let tags = |disk: &'static str| {
        [
            ("origin", "x"),
            ("disk", disk),
            ("job", "j"),
            ("extra", "e"),
        ]
    };
    let store = store("tags = [\"extra\"]\ndrop_tags = [\"job\"]");
    let fold = |disk, delta, total, now| {
        let event = at(
            i64::try_from(now).unwrap(),
            "s",
            "",
            &tags(disk),
            counter("reads", delta, total),
        );
        assert_eq!(store.lock().fold(&event, now), Folded::Taken);
        let page = text(&store, Format::Text, now);
        page.lines().last().unwrap().to_owned()
    };
    let line =
        |value: u64| format!("cf_reads_total{{extra=\"e\",origin=\"x\",source_id=\"s\"}} {value}");
    assert_eq!(fold("a", 1, 100, 1), line(100));
    // Another disk goes into the same series from now on.
    assert_eq!(fold("b", 7, 5000, 2), line(107));
    assert_eq!(fold("b", 0, 5003, 3), line(110));
    assert_eq!(fold("a", 0, 101, 4), line(111));
}

#[test]
fn colliding_names_keep_the_first_and_types_do_not_change() {
    let store = store("");
    let fold = |message| {
        store
            .lock()
            .fold(&event("s", "", &[("origin", "x")], message), 0)
    };
    assert_eq!(fold(gauge(&[("a.b", "", 1.0)])), Folded::Taken);
    assert_eq!(
        fold(gauge(&[("a-b", "", 2.0)])),
        Folded::Refused(Refusal::NameCollision)
    );
    assert_eq!(
        fold(gauge(&[("aB", "", 3.0)])),
        Folded::Refused(Refusal::NameCollision)
    );
    assert_eq!(fold(gauge(&[("a.b", "", 4.0)])), Folded::Taken);
    // A gauge, a counter, a histogram and the names of its parts.
    assert_eq!(
        fold(counter("a_b", 1, 1)),
        Folded::Refused(Refusal::TypeConflict)
    );
    assert_eq!(fold(timer("held", 1)), Folded::Taken);
    assert_eq!(
        fold(counter("held_seconds", 1, 1)),
        Folded::Refused(Refusal::TypeConflict)
    );
    assert_eq!(
        fold(counter("http.requests", 1, 1)),
        Folded::Refused(Refusal::ReservedName)
    );
    assert_eq!(
        fold(counter("log_lines_total", 1, 1)),
        Folded::Refused(Refusal::ReservedName)
    );
    assert_eq!(
        fold(counter("…", 1, 1)),
        Folded::Refused(Refusal::InvalidName)
    );
    assert_eq!(
        fold(timer("held", -1)),
        Folded::Refused(Refusal::NegativeDuration)
    );
    // One refused value does not cost its envelope the others.
    assert_eq!(
        fold(gauge(&[("a-b", "", 2.0), ("c", "", 1.0)])),
        Folded::Taken
    );
    // Other labels, no collision.
    let other = event("s", "", &[("origin", "y")], gauge(&[("a-b", "", 5.0)]));
    assert_eq!(store.lock().fold(&other, 0), Folded::Taken);
    assert_eq!(
        text(&store, Format::Text, 0),
        "# HELP cf_a_b Gauge a.b of the firehose.\n# TYPE cf_a_b gauge\n\
         cf_a_b{origin=\"x\",source_id=\"s\"} 4\ncf_a_b{origin=\"y\",source_id=\"s\"} 5\n\
         # HELP cf_c Gauge c of the firehose.\n# TYPE cf_c gauge\ncf_c{origin=\"x\",source_id=\"s\"} 1\n\
         # HELP cf_held_seconds Duration of held in the firehose.\n# TYPE cf_held_seconds histogram\n\
         cf_held_seconds_bucket{origin=\"x\",source_id=\"s\",le=\"0.005\"} 1\n\
         cf_held_seconds_bucket{origin=\"x\",source_id=\"s\",le=\"0.01\"} 1\n\
         cf_held_seconds_bucket{origin=\"x\",source_id=\"s\",le=\"0.025\"} 1\n\
         cf_held_seconds_bucket{origin=\"x\",source_id=\"s\",le=\"0.05\"} 1\n\
         cf_held_seconds_bucket{origin=\"x\",source_id=\"s\",le=\"0.1\"} 1\n\
         cf_held_seconds_bucket{origin=\"x\",source_id=\"s\",le=\"0.25\"} 1\n\
         cf_held_seconds_bucket{origin=\"x\",source_id=\"s\",le=\"0.5\"} 1\n\
         cf_held_seconds_bucket{origin=\"x\",source_id=\"s\",le=\"1\"} 1\n\
         cf_held_seconds_bucket{origin=\"x\",source_id=\"s\",le=\"2.5\"} 1\n\
         cf_held_seconds_bucket{origin=\"x\",source_id=\"s\",le=\"5\"} 1\n\
         cf_held_seconds_bucket{origin=\"x\",source_id=\"s\",le=\"10\"} 1\n\
         cf_held_seconds_bucket{origin=\"x\",source_id=\"s\",le=\"+Inf\"} 1\n\
         cf_held_seconds_sum{origin=\"x\",source_id=\"s\"} 0.001\n\
         cf_held_seconds_count{origin=\"x\",source_id=\"s\"} 1\n"
    );
}
