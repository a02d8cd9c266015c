//! Cutting a stream of bytes into lines.

/// What happens to a line longer than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LongLines {
    /// It becomes several lines of the limit's length, so that nothing is lost.
    #[default]
    Split,
    /// Its beginning is kept, the rest is thrown away; the line counts as truncated.
    Truncate,
}

/// What a [`Splitter`] met besides ordinary lines, since its beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LineCounts {
    /// Lines that came out in several pieces.
    pub split: u64,
    /// Lines whose end was thrown away.
    pub truncated: u64,
    /// Lines without a byte in them, which are left out.
    pub blank: u64,
}

/// Cuts what it is [`feed`](Splitter::feed)ed at line feeds. A carriage return before the line feed belongs to the line's
/// end. Holds at most one unfinished line of the limit's length, whatever arrives; complete lines are not copied.
#[derive(Debug)]
pub(crate) struct Splitter {
    limit: usize,
    long: LongLines,
    /// The unfinished line.
    carry: Vec<u8>,
    /// Pieces of the unfinished line are out already.
    continued: bool,
    /// The rest of the unfinished line is thrown away.
    skipping: bool,
    counts: LineCounts,
}

impl Splitter {
    /// A splitter for lines of up to `limit` bytes, at least one, the carriage return included.
    pub(crate) fn new(limit: usize, long: LongLines) -> Splitter {
        let limit = limit.max(1);
        Splitter {
            limit,
            long,
            carry: Vec::new(),
            continued: false,
            skipping: false,
            counts: LineCounts::default(),
        }
    }

    /// Takes the next bytes of the stream and hands over every line, or piece of one, that is ready.
    pub(crate) fn feed(&mut self, mut data: &[u8], mut line: impl FnMut(&[u8])) {
        while let Some(at) = memchr::memchr(b'\n', data) {
            let whole =
                self.carry.is_empty() && !self.continued && !self.skipping && at <= self.limit;
            if whole {
                match trim(&data[..at]) {
                    [] => self.counts.blank += 1,
                    text => line(text),
                }
            } else {
                self.append(&data[..at], &mut line);
                self.finish(&mut line);
            }
            data = &data[at + 1..];
        }
        self.append(data, &mut line);
    }

    /// The stream has ended: hands over what is left as a line.
    pub(crate) fn end(&mut self, mut line: impl FnMut(&[u8])) {
        if !self.carry.is_empty() {
            self.finish(&mut line);
        }
        (self.continued, self.skipping) = (false, false);
    }

    /// Bytes of the unfinished line that are held.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.carry.len()
    }

    /// What was met so far.
    pub(crate) fn counts(&self) -> LineCounts {
        self.counts
    }

    fn append(&mut self, mut part: &[u8], line: &mut impl FnMut(&[u8])) {
        if self.skipping {
            return;
        }
        while self.carry.len() + part.len() > self.limit {
            let (fits, rest) = part.split_at(self.limit - self.carry.len());
            self.carry.extend_from_slice(fits);
            line(&self.carry);
            self.carry.clear();
            part = rest;
            match self.long {
                LongLines::Split => {
                    self.counts.split += u64::from(!self.continued);
                    self.continued = true;
                }
                LongLines::Truncate => {
                    self.counts.truncated += 1;
                    self.skipping = true;
                    return;
                }
            }
        }
        self.carry.extend_from_slice(part);
    }

    fn finish(&mut self, line: &mut impl FnMut(&[u8])) {
        if !self.skipping {
            match trim(&self.carry) {
                [] if self.continued => {}
                [] => self.counts.blank += 1,
                text => line(text),
            }
        }
        self.carry.clear();
        (self.continued, self.skipping) = (false, false);
    }
}

fn trim(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds the pieces and ends the stream.
    fn cut(limit: usize, long: LongLines, pieces: &[&[u8]]) -> (Vec<String>, LineCounts) {
        let mut splitter = Splitter::new(limit, long);
        let mut lines = Vec::new();
        for piece in pieces {
            splitter.feed(piece, |l| {
                lines.push(String::from_utf8_lossy(l).into_owned())
            });
            assert!(splitter.held() <= limit);
        }
        splitter.end(|l| lines.push(String::from_utf8_lossy(l).into_owned()));
        (lines, splitter.counts())
    }

    #[test]
    fn lines_come_out_whole_however_they_arrive() {
        let (lines, counts) = cut(
            100,
            LongLines::Split,
            &[b"one\ntw", b"o", b"\r\n\n\r\nthree\nunfinished"],
        );
        assert_eq!(lines, ["one", "two", "three", "unfinished"]);
        assert_eq!(
            counts,
            LineCounts {
                blank: 2,
                ..Default::default()
            }
        );
    }

    #[test]
    fn a_long_line_is_split_and_counted_once() {
        let (lines, counts) = cut(4, LongLines::Split, &[b"abcdefgh", b"ij\nkl\nmnop\n"]);
        assert_eq!(lines, ["abcd", "efgh", "ij", "kl", "mnop"]);
        assert_eq!(
            counts,
            LineCounts {
                split: 1,
                ..Default::default()
            }
        );
    }

    #[test]
    fn or_truncated() {
        let (lines, counts) = cut(
            4,
            LongLines::Truncate,
            &[b"abcdefgh", b"ij", b"\nkl\nmnopq"],
        );
        assert_eq!(lines, ["abcd", "kl", "mnop"]);
        assert_eq!(
            counts,
            LineCounts {
                truncated: 2,
                ..Default::default()
            }
        );
    }

    proptest! {
        #[test]
        fn splitting_keeps_every_byte(text in "[a-c\n]{0,60}", cuts in prop::collection::vec(0usize..60, 0..5), limit in 1usize..9) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &text.as_bytes()[w[0]..w[1]]).collect();
            let (lines, _) = cut(limit, LongLines::Split, &pieces);
            let expected: Vec<String> = text
                .split('\n')
                .flat_map(|l| l.as_bytes().chunks(limit))
                .map(|c| String::from_utf8_lossy(c).into_owned())
                .collect();
            prop_assert_eq!(lines, expected);
        }
    }
}
