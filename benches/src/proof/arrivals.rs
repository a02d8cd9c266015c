//! What arrived, checked line by line in the order of arrival.

use super::{SOURCES, index_of};

/// What arrived of each source. Lines may come more than once; that none comes for the first time after a later one is
/// what "in order" means then.
#[derive(Debug, Default)]
pub struct Arrivals {
    sources: Vec<Source>,
    /// Lines that are none of ours.
    pub foreign: u64,
}

#[derive(Debug, Default, Clone)]
struct Source {
    seen: Vec<bool>,
    distinct: u64,
    repeated: u64,
    late: u64,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// Different lines.
    pub distinct: u64,
    /// Lines that had come before.
    pub repeated: u64,
    /// Lines that came for the first time after a later one of their source.
    pub late: u64,
    /// Lines that were sent and did not come.
    pub missing: u64,
    /// Lines that are none of ours.
    pub foreign: u64,
}

impl Arrivals {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Arrivals {
        Arrivals {
            sources: vec![Source::default(); SOURCES],
            foreign: 0,
        }
    }

    /// Takes in a line of a source: `seq=N …`.
    pub fn line(&mut self, source: &str, line: &[u8]) {
        let source = index_of(source).and_then(|index| self.sources.get_mut(index));
        match (source, number(line)) {
            (Some(source), Some(number)) => source.take(number),
            _ => self.foreign += 1,
        }
    }

    /// What came of what was sent: so many lines of each source.
    #[must_use]
    pub fn summary(&self, sent: &[u64]) -> Summary {
        let mut summary = Summary {
            foreign: self.foreign,
            ..Summary::default()
        };
        for (source, sent) in self.sources.iter().zip(sent) {
            summary.distinct += source.distinct;
            summary.repeated += source.repeated;
            summary.late += source.late;
            summary.missing += sent.saturating_sub(source.distinct);
        }
        summary
    }
}

impl Source {
    fn take(&mut self, number: usize) {
        if number >= self.seen.len() {
            self.seen.resize(number, false);
            self.seen.push(true);
            self.distinct += 1;
        } else if self.seen[number] {
            self.repeated += 1;
        } else {
            self.seen[number] = true;
            self.distinct += 1;
            self.late += 1;
        }
    }
}

fn number(line: &[u8]) -> Option<usize> {
    let rest = std::str::from_utf8(line.strip_prefix(b"seq=")?).ok()?;
    rest.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_told_from_what_comes_late() {
        let mut arrivals = Arrivals::new();
        for line in ["seq=0 x", "seq=1 x", "seq=0 x", "seq=3 x", "seq=2 x", "boo"] {
            arrivals.line("app-00", line.as_bytes());
        }
        let mut sent = vec![0; SOURCES];
        sent[0] = 6;
        let expected = Summary {
            distinct: 4,
            repeated: 1,
            late: 1,
            missing: 2,
            foreign: 1,
        };
        assert_eq!(arrivals.summary(&sent), expected);
    }
}
