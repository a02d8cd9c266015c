//! Names of metrics and labels: what Prometheus allows, and how loggregator's become such.

/// Labels that mean something to Prometheus itself.
pub(crate) const RESERVED_LABELS: &[&str] = &["le", "quantile"];

/// Whether this is a metric's name, `[a-zA-Z_:][a-zA-Z0-9_:]*`.
pub(crate) fn is_metric_name(text: &str) -> bool {
    let rest = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b':';
    matches!(text.as_bytes(), [first, others @ ..]
        if rest(*first) && !first.is_ascii_digit() && others.iter().all(|b| rest(*b)))
}

/// Whether this is a label's name that is not of Prometheus' own, `[a-zA-Z_][a-zA-Z0-9_]*` without `__` at its beginning.
pub(crate) fn is_label_name(text: &str) -> bool {
    is_metric_name(text) && !text.contains(':') && !text.starts_with("__")
}

/// A name in snake case, as one writes it by hand: `numCPUS` is `num_cpus`, `LRPsMissing` is `lrps_missing`, `responses.5xx`
/// is `responses_5xx`. Empty when nothing in the text can stand in a name.
pub(crate) fn snake(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len() + 8);
    let upper = |i: usize| chars.get(i).is_some_and(char::is_ascii_uppercase);
    let lower = |i: usize| chars.get(i).is_some_and(char::is_ascii_lowercase);
    for (i, &c) in chars.iter().enumerate() {
        if !c.is_ascii_alphanumeric() {
            if !out.ends_with('_') {
                out.push('_');
            }
            continue;
        }
        if i > 0 && c.is_ascii_uppercase() {
            // The last capital of several begins the next word, unless what follows is the plural's `s`: `LRPs`.
            let plural = chars.get(i + 1) == Some(&'s') && !lower(i + 2);
            let begins = lower(i - 1) || chars[i - 1].is_ascii_digit();
            let next = upper(i - 1) && lower(i + 1) && !plural;
            if (begins || next) && !out.ends_with('_') {
                out.push('_');
            }
        }
        out.push(c.to_ascii_lowercase());
    }
    out.trim_matches('_').to_owned()
}

/// A name as `firehose_exporter` normalises it, oddities included: a `_` for every other character, and one at every
/// change between lower case, digits and capitals; runs of `_` stay.
pub(crate) fn exporter(text: &str) -> String {
    let chars: Vec<char> = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    let mut out = String::with_capacity(text.len() + 8);
    for (i, &c) in chars.iter().enumerate() {
        let before = i.checked_sub(1).map(|i| chars[i]);
        let boundary = before.is_some_and(|before| {
            let lower_upper = before.is_ascii_lowercase() && c.is_ascii_uppercase();
            let to_digit = before.is_ascii_alphabetic() && c.is_ascii_digit();
            let of_digit = before.is_ascii_digit() && c.is_ascii_alphabetic();
            let last_capital = before.is_ascii_uppercase()
                && c.is_ascii_uppercase()
                && chars.get(i + 1).is_some_and(char::is_ascii_lowercase);
            lower_upper || to_digit || of_digit || last_capital
        });
        if boundary {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// A label's name: what Prometheus does not allow becomes `_`; one that means something to it gets `tag_` in front. `None` for names that begin with `__` and for empty ones.
pub(crate) fn label(text: &str) -> Option<std::borrow::Cow<'_, str>> {
    if text.is_empty() || text.starts_with("__") {
        return None;
    }
    if RESERVED_LABELS.contains(&text) {
        return Some(format!("tag_{text}").into());
    }
    if is_label_name(text) {
        return Some(text.into());
    }
    let mut out: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    if out.starts_with(|c: char| c.is_ascii_digit()) || out.starts_with("__") {
        out.insert_str(0, "tag_");
    }
    Some(out.into())
}

/// A label's name as `firehose_exporter` and its library write it: `-` becomes `_`; a name that still has what is not
/// allowed is escaped, `U__` in front, `_` doubled and the rest by its number.
pub(crate) fn exporter_label(text: &str) -> Option<String> {
    if text.is_empty() || text.starts_with("__") {
        return None;
    }
    let text = text.replace('-', "_");
    if is_label_name(&text) {
        return Some(text);
    }
    if text.starts_with("__") {
        return None;
    }
    let mut out = String::from("U__");
    for (i, c) in text.chars().enumerate() {
        match c {
            '_' => out.push_str("__"),
            c if c.is_ascii_alphabetic() || (c.is_ascii_digit() && i > 0) => out.push(c),
            c => out.push_str(&format!("_{:x}_", u32::from(c))),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_names_are_what_one_would_write() {
        for (raw, name) in [
            ("responses.5xx", "responses_5xx"),
            ("LRPsMissing", "lrps_missing"),
            ("CapacityTotalMemory", "capacity_total_memory"),
            ("numCPUS", "num_cpus"),
            ("numCPUs", "num_cpus"),
            (
                "memoryStats.numBytesAllocatedHeap",
                "memory_stats_num_bytes_allocated_heap",
            ),
            (
                "/p.mysql/performance/questions",
                "p_mysql_performance_questions",
            ),
            ("HTTPServerErrors", "http_server_errors"),
            ("__a--b..c__", "a_b_c"),
            ("x509Certs", "x509_certs"),
            ("größe", "gr_e"),
            ("…", ""),
            ("", ""),
        ] {
            assert_eq!(snake(raw), name, "{raw}");
        }
    }

    #[test]
    fn the_exporters_names_have_its_oddities() {
        for (raw, name) in [
            ("responses.5xx", "responses_5_xx"),
            ("LRPsMissing", "lr_ps_missing"),
            ("CapacityTotalMemory", "capacity_total_memory"),
            ("numCPUS", "num_cpus"),
            (
                "memoryStats.numBytesAllocatedHeap",
                "memory_stats_num_bytes_allocated_heap",
            ),
            (
                "/p.mysql/performance/questions",
                "_p_mysql_performance_questions",
            ),
            (
                "requests.global.status.5XX.count",
                "requests_global_status_5_xx_count",
            ),
            (
                "This_is_-_a-MetricName.Example/-._/._with:0_-._/totals",
                "this_is___a_metric_name_example_______with_0_____totals",
            ),
        ] {
            assert_eq!(exporter(raw), name, "{raw}");
        }
    }

    #[test]
    fn labels_are_always_allowed_names() {
        for (raw, name) in [
            ("a", Some("a")),
            ("a-b", Some("a_b")),
            ("a b", Some("a_b")),
            ("1st", Some("tag_1st")),
            ("..x", Some("tag___x")),
            ("le", Some("tag_le")),
            ("__x", None),
            ("", None),
        ] {
            assert_eq!(label(raw).as_deref(), name, "{raw}");
        }
        for (raw, name) in [
            ("a-b", Some("a_b")),
            ("a b_c", Some("U__a_20_b__c")),
            ("1a", Some("U___31_a")),
            ("é", Some("U___e9_")),
            ("-_x", None),
            ("__x", None),
        ] {
            assert_eq!(exporter_label(raw).as_deref(), name, "{raw}");
        }
    }
}
