//! The profile `clean`: names and labels by the conventions of Prometheus.

use loggregator_envelope::MetricRef;

use super::Request;
use crate::config::Mapping;
use crate::labels::Labels;
use crate::name;
use crate::store::family::{Head, Kind};
use crate::store::{Described, Refusal};
use crate::tags::Tags;
use crate::unit::{self, Scale};

/// Tags that are labels of counters and gauges whatever `tags` says, unless `drop_tags` has them.
const FIXED: [&str; 13] = [
    "app_id",
    "app_name",
    "deployment",
    "index",
    "instance_id",
    "ip",
    "job",
    "organization_id",
    "organization_name",
    "origin",
    "source_id",
    "space_id",
    "space_name",
];

/// The five values of a container metric: key, name, unit, what it is, and what makes it base units.
const CONTAINER: [(&str, &str, &str, &str); 5] = [
    (
        "cpu",
        "container_cpu_usage_ratio",
        "ratio",
        "CPU time that the app instance uses, in parts of one core.",
    ),
    (
        "memory",
        "container_memory_usage_bytes",
        "bytes",
        "Memory that the app instance uses.",
    ),
    (
        "disk",
        "container_disk_usage_bytes",
        "bytes",
        "Disk that the app instance uses.",
    ),
    (
        "memory_quota",
        "container_memory_quota_bytes",
        "bytes",
        "Memory that the app instance may use.",
    ),
    (
        "disk_quota",
        "container_disk_quota_bytes",
        "bytes",
        "Disk that the app instance may use.",
    ),
];

/// Ends of names that say something else than a gauge to Prometheus.
const NOT_A_GAUGE: [&str; 6] = ["_total", "_created", "_bucket", "_count", "_sum", "_info"];

pub(super) fn reserved(map: &Mapping) -> Vec<Head> {
    let container = CONTAINER.iter().map(|row| container_head(map, row));
    let [requests, durations, sizes] = http_heads(map);
    let [lines, bytes] = log_heads(map);
    container
        .chain([requests, durations, sizes, lines, bytes])
        .collect()
}

pub(super) fn counter(map: &Mapping, tags: &Tags<'_>, raw: &str) -> Result<Described, Refusal> {
    let name = snake(raw)?;
    let base = name.strip_suffix("_total").unwrap_or(&name);
    let help = format!("Counter {} of the firehose.", printable(raw));
    Ok(Described {
        head: Head::new(Kind::Counter, format!("{}{base}", map.prefix), help),
        labels: labels(map, tags),
    })
}

pub(super) fn gauge(
    map: &Mapping,
    tags: &Tags<'_>,
    metric: &MetricRef<'_>,
    container: bool,
) -> Result<(Described, Scale), Refusal> {
    let known = unit::of(metric.unit);
    if container && let Some(row) = CONTAINER.iter().find(|(key, ..)| *key == metric.name) {
        let described = Described {
            head: container_head(map, row),
            labels: labels(map, tags),
        };
        // Its unit is a convention of the platform, whatever stands beside the value.
        let percent = || unit::of("percentage").map_or(Scale::ONE, |unit| unit.scale);
        let scale = if row.2 == "ratio" {
            percent()
        } else {
            Scale::ONE
        };
        return Ok((described, scale));
    }
    let mut name = snake(metric.name)?;
    if let Some(known) = known {
        name = unit::suffixed(&name, known);
    } else if NOT_A_GAUGE.iter().any(|end| name.ends_with(end)) {
        name.push_str("_value");
    }
    let raw = printable(metric.name);
    let help = match metric.unit {
        "" => format!("Gauge {raw} of the firehose."),
        unit => format!("Gauge {raw} of the firehose, there in {}.", printable(unit)),
    };
    let mut head = Head::new(Kind::Gauge, format!("{}{name}", map.prefix), help);
    head.unit = known.map(|unit| unit.base);
    let described = Described {
        head,
        labels: labels(map, tags),
    };
    Ok((described, known.map_or(Scale::ONE, |unit| unit.scale)))
}

pub(super) fn http(map: &Mapping, request: &Request<'_, '_>) -> [Described; 3] {
    let [requests, durations, sizes] = http_heads(map);
    let labels = |with_status: bool| {
        let mut labels = own(map);
        labels.add("method", request.method);
        labels.add("host", &request.host);
        if with_status {
            labels.add("status_code", request.status);
        }
        rollup(map, request.tags, &mut labels);
        labels.render()
    };
    [
        Described {
            head: requests,
            labels: labels(true),
        },
        Described {
            head: durations,
            labels: labels(false),
        },
        Described {
            head: sizes,
            labels: labels(false),
        },
    ]
}

pub(super) fn timer(map: &Mapping, tags: &Tags<'_>, raw: &str) -> Result<Described, Refusal> {
    let mut name = snake(raw)?;
    if let Some(seconds) = unit::of("seconds") {
        name = unit::suffixed(&name, seconds);
    }
    let help = format!("Duration of {} in the firehose.", printable(raw));
    let mut head = Head::new(Kind::Histogram, format!("{}{name}", map.prefix), help);
    head.unit = Some("seconds");
    let mut labels = own(map);
    rollup(map, tags, &mut labels);
    Ok(Described {
        head,
        labels: labels.render(),
    })
}

pub(super) fn log(map: &Mapping, tags: &Tags<'_>, stream: &str) -> [Described; 2] {
    let mut labels = own(map);
    labels.add("stream", stream);
    labels.add("source_type", tags.get("source_type").unwrap_or_default());
    rollup(map, tags, &mut labels);
    let labels = labels.render();
    log_heads(map).map(|head| Described {
        head,
        labels: labels.clone(),
    })
}

fn container_head(map: &Mapping, row: &(&str, &str, &'static str, &str)) -> Head {
    let (_, name, unit, help) = row;
    let mut head = reserve(map, Kind::Gauge, name, help);
    head.unit = Some(unit);
    head
}

fn http_heads(map: &Mapping) -> [Head; 3] {
    let requests = reserve(
        map,
        Kind::Counter,
        "http_requests",
        "Requests that the routers answered.",
    );
    let mut durations = reserve(
        map,
        Kind::Histogram,
        "http_request_duration_seconds",
        "Time from the first byte of a request to the last of its answer, at the router.",
    );
    durations.unit = Some("seconds");
    let mut sizes = reserve(
        map,
        Kind::Histogram,
        "http_response_size_bytes",
        "Bytes of the answer's body.",
    );
    (sizes.unit, sizes.sizes) = (Some("bytes"), true);
    [requests, durations, sizes]
}

fn log_heads(map: &Mapping) -> [Head; 2] {
    let lines = reserve(map, Kind::Counter, "log_lines", "Log lines.");
    let mut bytes = reserve(map, Kind::Counter, "log_bytes", "Bytes of log lines.");
    bytes.unit = Some("bytes");
    [lines, bytes]
}

fn reserve(map: &Mapping, kind: Kind, name: &str, help: &str) -> Head {
    let mut head = Head::new(kind, format!("{}{name}", map.prefix), help.to_owned());
    head.reserved = true;
    head
}

fn snake(raw: &str) -> Result<String, Refusal> {
    let name = name::snake(raw);
    if name.is_empty() {
        return Err(Refusal::InvalidName);
    }
    Ok(name)
}

/// A text for HELP: short, and without control characters.
fn printable(raw: &str) -> String {
    let text = raw.chars().filter(|c| !c.is_control());
    text.take(100).collect()
}

/// The labels that the configuration gives to everything.
fn own(map: &Mapping) -> Labels {
    let mut labels = Labels::default();
    for (name, value) in &map.labels {
        labels.add(name, value);
    }
    labels
}

/// Labels of counters and gauges: the configured ones, then the envelope's source and instance, then its tags. Names that
/// are allowed as they are come before those that had to be changed.
fn labels(map: &Mapping, tags: &Tags<'_>) -> String {
    let mut labels = own(map);
    let wanted = |name: &str| {
        let listed = map.tags.as_ref().is_none_or(|tags| tags.contains(name));
        (listed || FIXED.contains(&name)) && !map.drop_tags.contains(name)
    };
    for (name, value) in [
        ("source_id", tags.source_id),
        ("instance_id", tags.instance_id),
    ] {
        if wanted(name) {
            labels.add(name, value);
        }
    }
    for changed in [false, true] {
        for (tag, value) in tags.iter().filter(|(tag, _)| wanted(tag)) {
            if let Some(label) = name::label(tag)
                && changed == (label != tag)
            {
                labels.add(&label, value);
            }
        }
    }
    labels.render()
}

fn rollup(map: &Mapping, tags: &Tags<'_>, labels: &mut Labels) {
    for tag in &map.rollup_tags {
        if let (Some(label), Some(value)) = (name::label(tag), tags.field(tag)) {
            labels.add(&label, value);
        }
    }
}
