//! What series are called, and which labels they have.

mod clean;
mod exporter;
mod request;

use loggregator_envelope::MetricRef;

use crate::config::{Mapping, Profile};
use crate::store::family::Head;
use crate::store::{Described, Refusal};
use crate::tags::{Tags, part};
use crate::unit::Scale;

pub(crate) use self::exporter::own as exporter_own;
pub(crate) use self::request::Request;

/// Names that no emitter can take.
pub(crate) fn reserved(map: &Mapping) -> Vec<Head> {
    match map.profile {
        Profile::Clean => clean::reserved(map),
        Profile::FirehoseExporter => exporter::reserved(map),
    }
}

/// The series of a counter.
pub(crate) fn counter(map: &Mapping, tags: &Tags<'_>, name: &str) -> Result<Described, Refusal> {
    match map.profile {
        Profile::Clean => clean::counter(map, tags, name),
        Profile::FirehoseExporter => exporter::counter(map, tags, name),
    }
}

/// The series of a counter's deltas, where they are wanted.
pub(crate) fn delta(
    map: &Mapping,
    tags: &Tags<'_>,
    name: &str,
) -> Option<Result<Described, Refusal>> {
    map.enable_delta.then(|| exporter::delta(map, tags, name))
}

/// The series of a value, and how the value becomes base units. `container`: it is one of the five of a container metric.
pub(crate) fn gauge(
    map: &Mapping,
    tags: &Tags<'_>,
    metric: &MetricRef<'_>,
    container: bool,
) -> Result<(Described, Scale), Refusal> {
    match map.profile {
        Profile::Clean => clean::gauge(map, tags, metric, container),
        Profile::FirehoseExporter => {
            exporter::gauge(map, tags, metric).map(|described| (described, Scale::ONE))
        }
    }
}

/// The series of requests, of their duration and of the size of their answers.
pub(crate) fn http(map: &Mapping, request: &Request<'_, '_>) -> [Described; 3] {
    match map.profile {
        Profile::Clean => clean::http(map, request),
        Profile::FirehoseExporter => exporter::http(map, request),
    }
}

/// The histogram of a timer.
pub(crate) fn timer(map: &Mapping, tags: &Tags<'_>, name: &str) -> Result<Described, Refusal> {
    clean::timer(map, tags, name)
}

/// The counters of lines and bytes of a log stream.
pub(crate) fn log(map: &Mapping, tags: &Tags<'_>, stream: &str) -> [Described; 2] {
    clean::log(map, tags, stream)
}

/// Appends what tells timers and logs apart to a key.
pub(crate) fn rollup_key(map: &Mapping, tags: &Tags<'_>, key: &mut Vec<u8>) {
    for name in &map.rollup_tags {
        part(key, tags.field(name).unwrap_or_default());
    }
}
