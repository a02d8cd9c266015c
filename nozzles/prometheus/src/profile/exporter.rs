//! The profile `firehose_exporter`: the names and labels of that program, version 7, which the dashboards and alert rules of
//! the Prometheus BOSH release ask for.

use loggregator_envelope::MetricRef;

use super::Request;
use super::request::EXPORTER_TAGS;
use crate::config::Mapping;
use crate::labels::Labels;
use crate::name;
use crate::store::family::{Head, Kind};
use crate::store::{Counts, Described, Refusal, Seen};
use crate::tags::Tags;

/// Names of the container metric's values, and what the exporter calls them.
const CONTAINER: [(&str, &str); 5] = [
    ("cpu", "container_metric_cpu_percentage"),
    ("memory", "container_metric_memory_bytes"),
    ("disk", "container_metric_disk_bytes"),
    ("memory_quota", "container_metric_memory_bytes_quota"),
    ("disk_quota", "container_metric_disk_bytes_quota"),
];

/// Names that end so pass for container metrics, whatever they are: they get neither kind nor origin into their name.
const LIKE_CONTAINER: [&str; 5] = ["_cpu", "_memory", "_disk", "_memory_quota", "_disk_quota"];

/// Copies of tags: tag, label.
const BOSH: [(&str, &str); 4] = [
    ("deployment", "bosh_deployment"),
    ("job", "bosh_job_name"),
    ("index", "bosh_job_id"),
    ("ip", "bosh_job_ip"),
];
const APPLICATION: [(&str, &str); 2] = [
    ("app_id", "application_id"),
    ("app_name", "application_name"),
];

pub(super) fn reserved(map: &Mapping) -> Vec<Head> {
    let own = own(map, &Counts::default());
    let own = own.into_iter().map(|(mut head, _)| {
        head.reserved = true;
        head
    });
    http_heads(map).into_iter().chain(own).collect()
}

pub(super) fn counter(map: &Mapping, tags: &Tags<'_>, raw: &str) -> Result<Described, Refusal> {
    let origin = tags.get("origin").unwrap_or_default();
    let (name, total) = if !map.retro_compat {
        let stem = raw.strip_suffix("_total").unwrap_or(raw);
        (format!("{}{stem}", map.prefix), true)
    } else if is_container(raw) {
        (format!("{}{}", map.prefix, container(raw)), false)
    } else {
        (format!("{}counter_event_{origin}_{raw}", map.prefix), true)
    };
    let help = format!("Counter event {} of {}.", printable(raw), printable(origin));
    let mut head = Head::new(Kind::Counter, name::exporter(&name), help);
    head.total = total;
    described(map, head, raw, tags, None)
}

pub(super) fn delta(map: &Mapping, tags: &Tags<'_>, raw: &str) -> Result<Described, Refusal> {
    let name = name::exporter(&format!("{}{raw}_delta", map.prefix));
    let help = format!("Last delta of the counter event {}.", printable(raw));
    let mut head = Head::new(Kind::Counter, name, help);
    head.total = false;
    described(map, head, raw, tags, None)
}

pub(super) fn gauge(
    map: &Mapping,
    tags: &Tags<'_>,
    metric: &MetricRef<'_>,
) -> Result<Described, Refusal> {
    let origin = tags.get("origin").unwrap_or_default();
    let (raw, prefix) = (metric.name, &map.prefix);
    let (name, help) = if !map.retro_compat {
        (
            format!("{prefix}{raw}"),
            format!("Value metric {}.", printable(raw)),
        )
    } else if is_container(raw) {
        (
            format!("{prefix}{}", container(raw)),
            format!("Container metric {}.", printable(raw)),
        )
    } else {
        (
            format!("{prefix}value_metric_{origin}_{raw}"),
            format!("Value metric {} of {}.", printable(raw), printable(origin)),
        )
    };
    let head = Head::new(Kind::Gauge, name::exporter(&name), help);
    described(map, head, raw, tags, Some(metric.unit))
}

pub(super) fn http(map: &Mapping, request: &Request<'_, '_>) -> [Described; 3] {
    let labels = |with_status: bool| {
        let tags = request.tags;
        let mut labels = Labels::default();
        labels.add("environment", &map.environment);
        labels.add("node_index", &map.node_index);
        labels.add("source_id", tags.source_id);
        for name in EXPORTER_TAGS {
            labels.add(name, tags.field(name).unwrap_or_default());
        }
        if tags.get("app_id").is_some() {
            labels.add("origin", "cf_app");
        }
        labels.add("method", request.method);
        labels.add("scheme", request.scheme);
        labels.add("host", &request.host);
        if with_status {
            labels.add("status_code", request.status);
        }
        copy(tags, &APPLICATION, &mut labels);
        labels.render()
    };
    let [requests, durations, sizes] = http_heads(map);
    [(requests, true), (durations, false), (sizes, true)].map(|(head, with_status)| Described {
        head,
        labels: labels(with_status),
    })
}

fn http_heads(map: &Mapping) -> [Head; 3] {
    [
        (Kind::Counter, "http", "Requests of HTTP clients."),
        (
            Kind::Histogram,
            "http_duration_seconds",
            "Duration of HTTP requests.",
        ),
        (
            Kind::Summary,
            "http_response_size_bytes",
            "Size of HTTP responses.",
        ),
    ]
    .map(|(kind, name, help)| {
        let mut head = Head::new(kind, format!("{}{name}", map.prefix), help.to_owned());
        (head.ticked, head.reserved) = (true, true);
        head
    })
}

/// The exporter's metrics about itself.
pub(crate) fn own(map: &Mapping, counts: &Counts) -> Vec<(Head, f64)> {
    let kinds = [counts.container, counts.http, counts.counter, counts.value];
    let metrics = Seen {
        count: kinds.iter().map(|seen| seen.count).sum(),
        last: kinds.iter().map(|seen| seen.last).max().unwrap_or_default(),
    };
    let pairs: [(&str, &str, &str, Seen); 6] = [
        ("envelopes", "envelope", "envelopes", counts.envelopes),
        ("metrics", "metric", "metrics", metrics),
        (
            "container_metrics",
            "container_metric",
            "container metrics",
            counts.container,
        ),
        ("http_metrics", "http_metric", "HTTP metrics", counts.http),
        (
            "counter_events",
            "counter_event",
            "counter events",
            counts.counter,
        ),
        (
            "value_metrics",
            "value_metric",
            "value metrics",
            counts.value,
        ),
    ];
    #[expect(clippy::cast_precision_loss, reason = "as every Prometheus value")]
    let number = |n: u64| n as f64;
    let mut own = Vec::new();
    let mut counter = |name: String, help: String, value: f64| {
        let mut head = Head::new(Kind::Counter, name, help);
        head.total = false;
        own.push((head, value));
    };
    for (many, _, words, seen) in &pairs {
        counter(
            format!("{}total_{many}_received", map.prefix),
            format!("Number of {words} received."),
            number(seen.count),
        );
    }
    // What is lost before it gets here is counted by the nozzle, not by its destination.
    counter(
        format!("{}total_envelopes_dropped", map.prefix),
        "Number of envelopes dropped by this destination.".to_owned(),
        0.0,
    );
    counter(
        format!("{}total_metrics_dropped", map.prefix),
        "Number of metrics that could not be taken.".to_owned(),
        number(counts.refused.iter().sum()),
    );
    for (_, one, words, seen) in &pairs {
        #[expect(clippy::cast_precision_loss, reason = "as every Prometheus value")]
        let at = (seen.last / 1_000_000_000) as f64;
        let head = Head::new(
            Kind::Gauge,
            format!("{}last_{one}_received_timestamp", map.prefix),
            format!("Time of the last of the {words}, in seconds since 1970."),
        );
        own.push((head, at));
    }
    own.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    own
}

fn is_container(raw: &str) -> bool {
    CONTAINER.iter().any(|(key, _)| *key == raw)
        || LIKE_CONTAINER.iter().any(|end| raw.ends_with(end))
}

fn container(raw: &str) -> &str {
    let known = CONTAINER.iter().find(|(key, _)| *key == raw);
    known.map_or(raw, |(_, name)| name)
}

fn described(
    map: &Mapping,
    head: Head,
    raw: &str,
    tags: &Tags<'_>,
    unit: Option<&str>,
) -> Result<Described, Refusal> {
    if raw.is_empty() {
        return Err(Refusal::InvalidName);
    }
    let mut labels = Labels::default();
    labels.add("environment", &map.environment);
    labels.add("unit", unit.unwrap_or_default());
    copy(tags, &BOSH, &mut labels);
    copy(tags, &APPLICATION, &mut labels);
    labels.add("source_id", tags.get("source_id").unwrap_or(tags.source_id));
    let instance = tags.field("instance_id").unwrap_or_default();
    labels.add("instance_id", instance);
    for changed in [false, true] {
        for (tag, value) in tags.iter().filter(|(tag, _)| *tag != "instance_id") {
            if let Some(label) = name::exporter_label(tag)
                && changed == (label != tag)
            {
                labels.add(&label, value);
            }
        }
    }
    Ok(Described {
        head,
        labels: labels.render(),
    })
}

fn copy(tags: &Tags<'_>, copies: &[(&'static str, &'static str)], labels: &mut Labels) {
    for (tag, label) in copies {
        labels.add_copy(label, tags.get(tag).unwrap_or_default());
    }
}

fn printable(raw: &str) -> String {
    let text = raw.chars().filter(|c| !c.is_control());
    text.take(100).collect()
}
