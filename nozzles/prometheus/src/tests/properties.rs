//! Whatever emitters send, the page can be read.

use loggregator_proto::v2::envelope::Message;
use proptest::prelude::*;

use super::events::{counter, event, gauge, log, timer};
use super::{OPENMETRICS, store, text};
use crate::labels;
use crate::page::accept::Format;

/// Few enough names that they collide.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[aB._-]{0,4}",
        "\\PC{0,12}",
        prop::sample::select(vec![
            "cpu",
            "memory",
            "disk",
            "memory_quota",
            "disk_quota",
            "http",
            "http_requests",
            "a_total",
            "a_bucket",
            "a",
            "a_count",
            "log_lines",
            "x_memory",
            "unit",
            "environment",
            "le",
            "quantile",
            "a-b",
            "a_b",
            "source_id",
            "instance_id",
            "job",
            "bosh_job_name",
            "__name__",
        ])
        .prop_map(str::to_owned),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let value = (
        name(),
        prop::sample::select(vec!["", "ms", "MiB", "percentage", "x"]),
        any::<f64>(),
    );
    prop_oneof![
        (name(), any::<u64>(), any::<u64>())
            .prop_map(|(name, delta, total)| counter(&name, delta, total)),
        prop::collection::vec(value, 0..6).prop_map(|values| {
            let values: Vec<_> = values
                .iter()
                .map(|(n, u, v)| (n.as_str(), *u, *v))
                .collect();
            gauge(&values)
        }),
        (name(), -10_000_i64..1_000_000).prop_map(|(name, millis)| timer(&name, millis)),
        any::<bool>().prop_map(|err| log(err, "x")),
    ]
}

fn tags() -> impl Strategy<Value = Vec<(String, String)>> {
    let special = prop::sample::select(vec![
        "uri",
        "method",
        "status_code",
        "peer_type",
        "request_id",
        "app_id",
        "origin",
    ]);
    let tag = (
        prop_oneof![name(), special.prop_map(str::to_owned)],
        "\\PC{0,8}|[\\\\\"\n]{0,3}|http://[a-z]{1,2}/",
    );
    prop::collection::vec(tag, 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_page_is_grammatical(
        events in prop::collection::vec((name(), name(), tags(), message()), 0..20),
        exporter in any::<bool>(),
        short in any::<bool>(),
    ) {
        let section = match (exporter, short) {
            (false, false) => "log_rates = true",
            (false, true) => "namespace = \"\"\ntags = [\"a\"]\nlog_rates = true",
            (true, false) => "profile = \"firehose_exporter\"\nenvironment = \"e\"\nenable_delta = true",
            (true, true) => "profile = \"firehose_exporter\"\nenvironment = \"e\"\ndisable_retro_compat = true",
        };
        let store = store(section);
        for (source, instance, tags, message) in events {
            let tags: Vec<_> = tags.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            store.lock().fold(&event(&source, &instance, &tags, message), 0);
        }
        store.lock().tick(0);
        text(&store, Format::Text, 0);
        if !exporter {
            text(&store, OPENMETRICS, 0);
        }
        let page = crate::page::render(&store, Format::Protobuf, 0);
        super::clean::families(&page);
    }

    #[test]
    fn labels_read_back_as_they_were(values in prop::collection::btree_map("[a-z]{1,3}", "\\PC{0,5}|[\\\\\"\n,={}]{1,6}", 0..5)) {
        let mut made = labels::Labels::default();
        for (name, value) in &values {
            made.add(name, value);
        }
        let text = made.render();
        let read: Vec<_> = labels::pairs(&text).map(|(n, v)| (n.to_owned(), v.into_owned())).collect();
        let expected: Vec<_> = values.into_iter().filter(|(_, v)| !v.is_empty()).collect();
        prop_assert_eq!(read, expected);
    }
}
