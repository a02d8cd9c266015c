//! The labels of one series.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// Labels in the making. A name is there once: who comes first keeps it, a later one is renamed `exported_…`, as Prometheus
/// does it when a scraped label meets one of the target.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    sorted: BTreeMap<String, String>,
    /// Behind the others, in this order.
    copies: Vec<(&'static str, String)>,
}

impl Labels {
    /// Adds a label, unless it is empty, which means the same to Prometheus as not being there, or says what is known.
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        if value.is_empty() || self.sorted.get(name).is_some_and(|known| known == value) {
            return;
        }
        if self.has(name) {
            let exported = format!("exported_{name}");
            if !self.has(&exported) {
                self.sorted.insert(exported, value.to_owned());
            }
            return;
        }
        self.sorted.insert(name.to_owned(), value.to_owned());
    }

    /// Adds a label that stands behind the others.
    pub(crate) fn add_copy(&mut self, name: &'static str, value: &str) {
        if !value.is_empty() && !self.has(name) {
            self.copies.push((name, value.to_owned()));
        }
    }

    fn has(&self, name: &str) -> bool {
        self.sorted.contains_key(name) || self.copies.iter().any(|(copy, _)| *copy == name)
    }

    /// `a="1",b="2"`, as it stands between the braces.
    pub(crate) fn render(&self) -> String {
        let mut out = String::new();
        let sorted = self.sorted.iter().map(|(name, value)| (&**name, value));
        let copies = self.copies.iter().map(|(name, value)| (*name, value));
        for (name, value) in sorted.chain(copies) {
            if !out.is_empty() {
                out.push(',');
            }
            out.push_str(name);
            out.push_str("=\"");
            escape(&mut out, value);
            out.push('"');
        }
        out
    }
}

/// Escapes a label's value.
pub(crate) fn escape(out: &mut String, value: &str) {
    if !value.contains(['\\', '"', '\n']) {
        out.push_str(value);
        return;
    }
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

/// Reads what [`Labels::render`] wrote.
pub(crate) fn pairs(rendered: &str) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
    let mut rest = rendered;
    std::iter::from_fn(move || {
        let (name, tail) = rest.split_once("=\"")?;
        let mut escaped = false;
        let end = tail.bytes().position(|b| {
            let ends = b == b'"' && !escaped;
            escaped = b == b'\\' && !escaped;
            ends
        })?;
        rest = tail[end + 1..].strip_prefix(',').unwrap_or("");
        Some((name, unescape(&tail[..end])))
    })
}

fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => out.push('\n'),
                Some(other) => out.push(other),
                None => {}
            },
            (c, false) => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_there_once_and_the_loser_is_renamed() {
        let mut labels = Labels::default();
        labels.add_copy("bosh_job_name", "router");
        for (name, value) in [
            ("unit", "own"),
            ("unit", "tag"),
            ("unit", "third"),
            ("bosh_job_name", "tag"),
            ("a", "\\\"\n"),
            ("empty", ""),
        ] {
            labels.add(name, value);
        }
        let text = labels.render();
        assert_eq!(
            text,
            "a=\"\\\\\\\"\\n\",exported_bosh_job_name=\"tag\",exported_unit=\"tag\",unit=\"own\",bosh_job_name=\"router\""
        );
        let read: Vec<_> = pairs(&text).map(|(n, v)| format!("{n}:{v}")).collect();
        assert_eq!(
            read,
            [
                "a:\\\"\n",
                "exported_bosh_job_name:tag",
                "exported_unit:tag",
                "unit:own",
                "bosh_job_name:router"
            ]
        );
    }
}
