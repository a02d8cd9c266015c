use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

static SECONDS: MetricDef = MetricDef {
    name: "test_seconds",
    kind: Kind::Histogram(&[0.1, 1.0]),
    unit: Unit::Seconds,
    labels: &["path"],
    help: "A test.",
};

#[test]
fn counters_and_collectors_share_one_family() {
    let metrics = Metrics::empty();
    metrics
        .counter(&names::TASK_RESTARTS, &[("task", "a")])
        .unwrap()
        .inc_by(2);
    metrics.collect(|samples| samples.counter(&names::TASK_RESTARTS, &[("task", "b")], 3));
    assert_eq!(
        metrics.encode(),
        "# HELP loggregator_task_restarts_total Restarts of a supervised task after a failure.
# TYPE loggregator_task_restarts_total counter
loggregator_task_restarts_total{task=\"a\"} 2
loggregator_task_restarts_total{task=\"b\"} 3
"
    );
}

#[test]
fn collectors_run_at_every_scrape() {
    let (metrics, hot) = (Metrics::empty(), Arc::new(AtomicU64::new(0)));
    let read = Arc::clone(&hot);
    metrics.collect(move |s| {
        s.gauge_count(&names::DOPPLER_LOG_BYTES, &[], read.load(Ordering::Relaxed))
    });
    assert!(
        metrics
            .encode()
            .contains("loggregator_doppler_log_bytes 0\n")
    );
    hot.store(7, Ordering::Relaxed);
    assert!(
        metrics
            .encode()
            .contains("loggregator_doppler_log_bytes 7\n")
    );
}

#[test]
fn asking_twice_gives_the_same_instance() {
    let metrics = Metrics::empty();
    let labels = [("input", "grpc"), ("reason", "malformed")];
    metrics
        .counter(&names::AGENT_REJECTED, &labels)
        .unwrap()
        .inc();
    // Order of the labels does not matter.
    let swapped = [labels[1], labels[0]];
    metrics
        .counter(&names::AGENT_REJECTED, &swapped)
        .unwrap()
        .inc();
    let text = metrics.encode();
    assert!(
        text.contains(
            "loggregator_agent_rejected_envelopes_total{input=\"grpc\",reason=\"malformed\"} 2\n"
        ),
        "{text}"
    );
}

#[test]
fn gauges_and_histograms_are_encoded() {
    let metrics = Metrics::empty();
    metrics.gauge(&names::READY, &[]).unwrap().set(1.0);
    let histogram = metrics
        .histogram(&SECONDS, &[("path", "/\"x\"\n")])
        .unwrap();
    histogram.observe(0.5);
    histogram.observe(5.0);
    assert_eq!(
        metrics.encode(),
        "# HELP loggregator_ready 1 when the component is ready to do its work, else 0; /readyz tells why.
# TYPE loggregator_ready gauge
loggregator_ready 1
# HELP test_seconds A test.
# TYPE test_seconds histogram
test_seconds_bucket{path=\"/\\\"x\\\"\\n\",le=\"0.1\"} 0
test_seconds_bucket{path=\"/\\\"x\\\"\\n\",le=\"1\"} 1
test_seconds_bucket{path=\"/\\\"x\\\"\\n\",le=\"+Inf\"} 2
test_seconds_sum{path=\"/\\\"x\\\"\\n\"} 5.5
test_seconds_count{path=\"/\\\"x\\\"\\n\"} 2
"
    );
}

#[test]
fn what_contradicts_the_table_is_an_error() {
    let metrics = Metrics::empty();
    let error = metrics
        .gauge(&names::AGENT_INGRESS, &[("input", "udp")])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "metric loggregator_agent_ingress_envelopes_total is a counter, not a gauge"
    );
    for labels in [
        &[][..],
        &[("output", "udp")],
        &[("input", "udp"), ("more", "x")],
    ] {
        let error = metrics.counter(&names::AGENT_INGRESS, labels).unwrap_err();
        assert!(matches!(error, MetricsError::Labels { .. }), "{error}");
    }
    assert_eq!(metrics.encode(), "");
}

#[test]
fn every_registry_tells_version_and_process() {
    let text = Metrics::new().encode();
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        text.contains(&format!(
            "loggregator_build_info{{version=\"{version}\"}} 1\n"
        )),
        "{text}"
    );
    assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
}

#[test]
fn names_follow_the_conventions() {
    let mut seen = std::collections::BTreeSet::new();
    let sections = names::SECTIONS.iter();
    let all = sections.flat_map(|section| section.metrics.iter().map(|def| (section.title, *def)));
    for (title, def) in all {
        let name = def.name;
        assert!(seen.insert(name), "{name} stands twice in the table");
        if title.ends_with("as the Go gateway names them") {
            continue;
        }
        let allowed = |s: &str| {
            s.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        assert!(
            allowed(name) && def.labels.iter().all(|label| allowed(label)),
            "{name}"
        );
        assert!(
            name.starts_with("loggregator_") || name.starts_with("process_"),
            "{name}"
        );
        assert_eq!(
            name.ends_with("_total"),
            def.kind == Kind::Counter,
            "{name}"
        );
        let base = name.trim_end_matches("_total");
        assert_eq!(base.ends_with("_bytes"), def.unit == Unit::Bytes, "{name}");
        assert_eq!(
            base.ends_with("_seconds"),
            def.unit == Unit::Seconds,
            "{name}"
        );
        assert!(
            def.help.ends_with('.') && !def.help.contains('|'),
            "{name}: {}",
            def.help
        );
    }
}
