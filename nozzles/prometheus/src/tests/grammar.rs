//! A strict reader of both text formats, as scrapers have it: what it accepts, they accept.

use std::collections::{HashMap, HashSet};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Text,
    OpenMetrics,
}

/// What is wrong with the page, if anything.
pub fn check(page: &str, dialect: Dialect) -> Result<(), String> {
    let open = dialect == Dialect::OpenMetrics;
    if !page.is_empty() && !page.ends_with('\n') {
        return Err("the last line does not end".to_owned());
    }
    let mut lines: Vec<&str> = page.lines().collect();
    if open && lines.pop() != Some("# EOF") {
        return Err("no # EOF at the end".to_owned());
    }
    let mut reader = Reader {
        open,
        family: None,
        done: HashSet::new(),
        seen: HashSet::new(),
        counts: HashMap::new(),
    };
    for line in lines {
        reader
            .line(line)
            .map_err(|error| format!("{error}: {line}"))?;
    }
    reader.finish()
}

struct Family {
    name: String,
    kind: String,
    unit: Option<String>,
    samples: usize,
}

struct Reader {
    open: bool,
    family: Option<Family>,
    done: HashSet<String>,
    seen: HashSet<String>,
    /// Of each histogram series: the last bucket's bound and count, and whether infinity came.
    counts: HashMap<String, (f64, f64)>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        if let Some(comment) = line.strip_prefix("# ") {
            return self.comment(comment);
        }
        if line.is_empty() || line.starts_with('#') {
            return Err("no comment and no sample".to_owned());
        }
        self.sample(line)
    }

    fn comment(&mut self, comment: &str) -> Result<(), String> {
        let mut words = comment.splitn(3, ' ');
        let (word, name) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let text = words.next().ok_or("comment without a text")?;
        if !is_name(name) {
            return Err("no name".to_owned());
        }
        match word {
            "HELP" => {
                self.finish()?;
                if !self.done.insert(name.to_owned()) {
                    return Err("family comes twice".to_owned());
                }
                escapes(text, self.open)?;
                self.family = Some(Family {
                    name: name.to_owned(),
                    kind: String::new(),
                    unit: None,
                    samples: 0,
                });
            }
            "TYPE" => {
                let family = self
                    .family
                    .as_mut()
                    .filter(|f| f.name == name && f.kind.is_empty());
                let family = family.ok_or("TYPE does not follow HELP")?;
                if !["counter", "gauge", "histogram", "summary"].contains(&text) {
                    return Err("unknown type".to_owned());
                }
                if self.open && text == "counter" && name.ends_with("_total") {
                    return Err("a counter's family ends in _total".to_owned());
                }
                family.kind = text.to_owned();
            }
            "UNIT" if self.open => {
                let family = self
                    .family
                    .as_mut()
                    .filter(|f| f.name == name && f.samples == 0);
                let family = family.ok_or("UNIT is not before the samples")?;
                if !name.ends_with(&format!("_{text}")) {
                    return Err("the name does not end with its unit".to_owned());
                }
                family.unit = Some(text.to_owned());
            }
            _ => return Err("unknown comment".to_owned()),
        }
        Ok(())
    }

    fn sample(&mut self, line: &str) -> Result<(), String> {
        let end = line.find(['{', ' ']).ok_or("no value")?;
        let (name, rest) = line.split_at(end);
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest, self.open)?,
            None => (Vec::new(), rest),
        };
        let rest = rest.strip_prefix(' ').ok_or("no space before the value")?;
        let (values, exemplar) = match rest.split_once(" # ") {
            Some((values, exemplar)) => (values, Some(exemplar)),
            None => (rest, None),
        };
        let mut words = values.split(' ');
        let value = number(words.next().unwrap_or(""))?;
        if let Some(timestamp) = words.next() {
            if self.open {
                number(timestamp)?;
            } else {
                timestamp.parse::<i64>().map_err(|e| e.to_string())?;
            }
        }
        if words.next().is_some() {
            return Err("more behind the timestamp".to_owned());
        }
        let open = self.open;
        let family = self.family.as_mut().ok_or("sample without a family")?;
        family.samples += 1;
        let end = name
            .strip_prefix(&family.name)
            .ok_or("sample of another family")?;
        let expected: &[&str] = match family.kind.as_str() {
            "counter" if open => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            "summary" => &["", "_sum", "_count"],
            _ => &[""],
        };
        if !expected.contains(&end) {
            return Err(format!("a {} has no sample {end}", family.kind));
        }
        let special = match (family.kind.as_str(), end) {
            ("histogram", "_bucket") => Some("le"),
            ("summary", "") => Some("quantile"),
            _ => None,
        };
        for forbidden in ["le", "quantile"] {
            let there = labels.iter().any(|(name, _)| name == forbidden);
            if there != (special == Some(forbidden))
                && (family.kind != "gauge" && family.kind != "counter")
            {
                return Err(format!("label {forbidden}"));
            }
        }
        if matches!(family.kind.as_str(), "counter" | "histogram")
            && (value.is_nan() || value < 0.0)
            && end != "_sum"
        {
            return Err("not a count".to_owned());
        }
        if special == Some("le") {
            let (bounds, others): (Vec<_>, Vec<_>) = labels.iter().partition(|(n, _)| n == "le");
            let text = &bounds[0].1;
            let bound = number(text)?;
            if open && bound.is_finite() && !text.contains(['.', 'e']) {
                return Err("le is not canonical".to_owned());
            }
            let last = self
                .counts
                .entry(format!("{name}{others:?}"))
                .or_insert((f64::NEG_INFINITY, 0.0));
            if bound <= last.0 || value < last.1 {
                return Err("buckets do not ascend".to_owned());
            }
            *last = (bound, value);
        }
        if let Some(exemplar) = exemplar {
            if !open || !matches!(end, "_bucket" | "_total") {
                return Err("exemplar where there can be none".to_owned());
            }
            let exemplar = exemplar
                .strip_prefix('{')
                .ok_or("exemplar without labels")?;
            let (labels, rest) = self::labels(exemplar, true)?;
            let length: usize = labels
                .iter()
                .map(|(n, v)| n.chars().count() + v.chars().count())
                .sum();
            if length > 128 {
                return Err("exemplar too long".to_owned());
            }
            for word in rest
                .strip_prefix(' ')
                .ok_or("exemplar without a value")?
                .split(' ')
            {
                number(word)?;
            }
        }
        let mut sorted = labels;
        sorted.sort();
        if !self.seen.insert(format!("{name}{sorted:?}")) {
            return Err("series comes twice".to_owned());
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), String> {
        if let Some((series, _)) = self.counts.iter().find(|(_, last)| last.0 != f64::INFINITY) {
            return Err(format!("no bucket +Inf: {series}"));
        }
        match self.family.take() {
            Some(family) if family.kind.is_empty() || family.samples == 0 => {
                Err(format!("family {} has no type or no samples", family.name))
            }
            _ => Ok(()),
        }
    }
}

/// The labels up to `}`, and what follows.
#[allow(clippy::type_complexity)]
fn labels(mut rest: &str, open: bool) -> Result<(Vec<(String, String)>, &str), String> {
    let mut labels = Vec::new();
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            let names: HashSet<_> = labels
                .iter()
                .map(|(name, _): &(String, String)| name)
                .collect();
            if names.len() != labels.len() {
                return Err("label comes twice".to_owned());
            }
            return Ok((labels, rest));
        }
        if !labels.is_empty() {
            rest = rest.strip_prefix(',').ok_or("no comma between labels")?;
        }
        let (name, value) = rest.split_once("=\"").ok_or("no label")?;
        if !is_name(name) || name.contains(':') || name.starts_with("__") {
            return Err(format!("no label name: {name}"));
        }
        let mut escaped = false;
        let end = value
            .char_indices()
            .find(|(_, c)| {
                let ends = *c == '"' && !escaped;
                escaped = *c == '\\' && !escaped;
                ends
            })
            .ok_or("label value does not end")?
            .0;
        escapes(&value[..end], true)?;
        if open && value[..end].is_empty() {
            return Err("empty label".to_owned());
        }
        labels.push((name.to_owned(), value[..end].to_owned()));
        rest = &value[end + 1..];
    }
}

fn escapes(text: &str, quotes: bool) -> Result<(), String> {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('\\' | 'n') => {}
                Some('"') if quotes => {}
                other => return Err(format!("escape {other:?}")),
            },
            '\n' => return Err("line break".to_owned()),
            '"' if quotes => return Err("bare quote".to_owned()),
            _ => {}
        }
    }
    Ok(())
}

fn number(text: &str) -> Result<f64, String> {
    match text {
        "NaN" => Ok(f64::NAN),
        "+Inf" => Ok(f64::INFINITY),
        "-Inf" => Ok(f64::NEG_INFINITY),
        text if text
            .bytes()
            .all(|b| b.is_ascii_digit() || b"+-.e".contains(&b)) =>
        {
            text.parse().map_err(|_| format!("no number: {text}"))
        }
        text => Err(format!("no number: {text}")),
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

#[test]
fn the_reader_is_strict() {
    let good = "# HELP a_seconds x\n# TYPE a_seconds gauge\n# UNIT a_seconds seconds\na_seconds{x=\"\\\"\"} 1.5\n# EOF\n";
    assert_eq!(check(good, Dialect::OpenMetrics), Ok(()));
    for (page, dialect) in [
        ("# HELP a x\n# TYPE a gauge\na 1\n", Dialect::OpenMetrics),
        ("# HELP a x\n# TYPE a gauge\na 1", Dialect::Text),
        ("# HELP a x\n# TYPE a gauge\n", Dialect::Text),
        (
            "# HELP a x\n# TYPE a gauge\na{x=\"1\",x=\"2\"} 1\n",
            Dialect::Text,
        ),
        (
            "# HELP a x\n# TYPE a gauge\na{x=\"1\"} 1\na{x=\"1\"} 2\n",
            Dialect::Text,
        ),
        ("# HELP a x\n# TYPE a gauge\na{x=\"\"\"} 1\n", Dialect::Text),
        ("# HELP a x\n# TYPE a gauge\na{0=\"\"} 1\n", Dialect::Text),
        ("# HELP a x\n# TYPE a gauge\na one\n", Dialect::Text),
        (
            "# HELP a x\n# TYPE a counter\na 1\n# EOF\n",
            Dialect::OpenMetrics,
        ),
        (
            "# HELP a_total x\n# TYPE a_total counter\na_total 1\n# EOF\n",
            Dialect::OpenMetrics,
        ),
        (
            "# HELP a x\n# TYPE a histogram\na_bucket{le=\"1\"} 1\na_sum 1\na_count 1\n",
            Dialect::Text,
        ),
        (
            "# HELP a x\n# TYPE a histogram\na_bucket{le=\"1\"} 2\na_bucket{le=\"+Inf\"} 1\n",
            Dialect::Text,
        ),
        (
            "# HELP a x\n# TYPE a gauge\n# HELP a x\n# TYPE a gauge\na 1\n",
            Dialect::Text,
        ),
        (
            "# HELP a x\n# TYPE a gauge\n# UNIT a s\na 1\n# EOF\n",
            Dialect::OpenMetrics,
        ),
    ] {
        assert!(check(page, dialect).is_err(), "{page}");
    }
}
