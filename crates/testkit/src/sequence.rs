//! Numbered log lines, and the check that they all arrive once and in order.
//!
//! A line is `seq=N`, counted per source from 0, padded if it is to have some weight. Lines of one source keep their order through the whole pipeline; lines
//! of different sources do not keep any order among each other, and are not checked for one.

use loggregator_client::message;
use loggregator_envelope::Frame;
use loggregator_proto::v2::Envelope;
use std::collections::BTreeMap;
use std::fmt;

/// Makes the next lines of any number of sources.
#[derive(Debug, Clone, Default)]
pub struct Numbering {
    next: BTreeMap<String, u64>,
    padding: String,
}

impl Numbering {
    /// Lines that are longer by so many bytes.
    pub fn padded(bytes: usize) -> Self {
        Self {
            padding: format!(" {}", "x".repeat(bytes)),
            ..Self::default()
        }
    }

    /// The next line of this source.
    pub fn next(&mut self, source: &str) -> Envelope {
        let next = self.next.entry(source.to_owned()).or_default();
        let line = format!("seq={next}{}", self.padding);
        *next += 1;
        message::log(line)
            .source(source, "0")
            .source_type("TEST")
            .build()
    }

    /// How many lines were made for this source.
    pub fn made(&self, source: &str) -> u64 {
        self.next.get(source).copied().unwrap_or_default()
    }

    /// How many lines were made in all.
    pub fn total(&self) -> u64 {
        self.next.values().sum()
    }
}

/// What arrived of one source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arrived {
    /// Lines.
    pub lines: u64,
    /// Lines with a number at or below an earlier one: repeated or out of order.
    pub out_of_order: u64,
    /// Numbers that were jumped over.
    pub gaps: u64,
    /// The number that comes next.
    pub next: u64,
}

/// Counts numbered lines as they arrive.
#[derive(Debug, Clone, Default)]
pub struct Checker {
    sources: BTreeMap<String, Arrived>,
    /// What the pipeline itself said was lost (in-band notices).
    pub told_lost: u64,
    /// Envelopes that are no numbered lines: metrics of the pipeline, for instance.
    pub others: u64,
}

impl Checker {
    /// Takes in everything in the frame.
    pub fn frame(&mut self, frame: &Frame) {
        for entry in frame.entries() {
            let envelope = frame.envelope(entry);
            if let Some(number) = envelope.log().and_then(|log| number(log.payload)) {
                self.line(frame.source_id(entry), number);
            } else if let Some(counter) = envelope.counter().filter(|counter| {
                counter.name == "dropped" && envelope.tag("reason").is_some()
                    || counter.name == "TruncatingBuffer.DroppedMessages"
            }) {
                self.told_lost += counter.delta;
            } else {
                self.others += 1;
            }
        }
    }

    fn line(&mut self, source: &str, number: u64) {
        if !self.sources.contains_key(source) {
            self.sources.insert(source.to_owned(), Arrived::default());
        }
        let Some(arrived) = self.sources.get_mut(source) else {
            return;
        };
        arrived.lines += 1;
        if number < arrived.next {
            arrived.out_of_order += 1;
        } else {
            arrived.gaps += number - arrived.next;
            arrived.next = number + 1;
        }
    }

    /// What arrived of a source.
    pub fn of(&self, source: &str) -> Arrived {
        self.sources.get(source).cloned().unwrap_or_default()
    }

    /// All numbered lines that arrived.
    pub fn lines(&self) -> u64 {
        self.sources.values().map(|arrived| arrived.lines).sum()
    }

    /// Repetitions and inversions of all sources.
    pub fn out_of_order(&self) -> u64 {
        self.sources
            .values()
            .map(|arrived| arrived.out_of_order)
            .sum()
    }

    /// Puts what another consumer saw beside this; for members of a shard group, whose streams are disjoint. Order is
    /// then no longer known, counts are.
    pub fn lines_with(&self, other: &Self) -> u64 {
        self.lines() + other.lines()
    }
}

impl fmt::Display for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} lines, {} told lost, {} others",
            self.lines(),
            self.told_lost,
            self.others
        )?;
        for (source, arrived) in &self.sources {
            writeln!(f, "  {source}: {arrived:?}")?;
        }
        Ok(())
    }
}

fn number(payload: &[u8]) -> Option<u64> {
    let rest = std::str::from_utf8(payload.strip_prefix(b"seq=")?).ok()?;
    rest.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_repeats_and_inversions_are_counted() {
        let mut checker = Checker::default();
        for number in [0, 1, 4, 3, 5, 5] {
            checker.line("a", number);
        }
        assert_eq!(
            checker.of("a"),
            Arrived {
                lines: 6,
                out_of_order: 2,
                gaps: 2,
                next: 6
            }
        );
        assert_eq!(checker.of("b"), Arrived::default());
    }

    #[test]
    fn numbers_count_per_source() {
        let mut numbering = Numbering::default();
        numbering.next("a");
        numbering.next("b");
        numbering.next("a");
        assert_eq!(
            (numbering.made("a"), numbering.made("b"), numbering.total()),
            (2, 1, 3)
        );
    }
}
