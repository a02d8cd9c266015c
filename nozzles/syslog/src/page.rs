//! Messages in a row, framed, in one buffer: what a batch becomes.

use std::io::Write as _;

/// How messages are told apart on a stream (RFC 6587).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Framing {
    /// `LENGTH SPACE MESSAGE`: any byte may stand in a message.
    #[default]
    OctetCounting,
    /// A line break ends a message, so that there must be none in it.
    Newline,
}

/// How messages lie in a [`Page`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prefix {
    /// One after the other: they end in a line break, or the page's ends tell them apart.
    None,
    /// Each behind its length.
    Length,
}

/// Digits of a length for which room is left before it is known. A length of other digits moves its message.
const DIGITS: usize = 3;

/// Bytes of a buffer that is kept for the next batch. A usual batch takes less; what an unusual one took is given back.
const KEPT: usize = 4 << 20;

/// Ends of messages that are kept room for.
const KEPT_ENDS: usize = KEPT / 64;

/// A buffer of messages. It is used again for the next batch.
#[derive(Debug)]
pub(crate) struct Page {
    /// The messages, framed.
    pub bytes: Vec<u8>,
    /// Where each one ends.
    pub ends: Vec<usize>,
    prefix: Prefix,
    /// Where the message that is being written begins.
    start: usize,
    /// Where the messages of the event that is being written begin.
    event: usize,
}

/// A place in a page to which it can be taken back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    bytes: usize,
    messages: usize,
}

impl Page {
    pub fn new(prefix: Prefix) -> Page {
        Page {
            bytes: Vec::new(),
            ends: Vec::new(),
            prefix,
            start: 0,
            event: 0,
        }
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.bytes.shrink_to(KEPT);
        self.ends.shrink_to(KEPT_ENDS);
        self.event = 0;
    }

    /// Where the messages of the next event begin.
    pub fn mark(&mut self) -> Mark {
        self.event = self.ends.last().copied().unwrap_or_default();
        Mark {
            bytes: self.event,
            messages: self.ends.len(),
        }
    }

    /// Bytes since the last mark, with frames.
    pub fn since_mark(&self) -> usize {
        self.bytes.len().saturating_sub(self.event)
    }

    /// Forgets what came after `mark`.
    pub fn back_to(&mut self, mark: Mark) {
        self.bytes.truncate(mark.bytes);
        self.ends.truncate(mark.messages);
    }

    /// Begins a message.
    pub fn begin(&mut self) {
        if self.prefix == Prefix::Length {
            self.bytes.extend_from_slice(&[b' '; DIGITS + 1]);
        }
        self.start = self.bytes.len();
    }

    /// Bytes of the message so far.
    pub fn written(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Takes back the message that was written last.
    pub fn drop_last(&mut self) {
        self.ends.pop();
        self.bytes
            .truncate(self.ends.last().copied().unwrap_or_default());
    }

    /// Ends the message.
    pub fn end(&mut self) {
        if self.prefix == Prefix::Length {
            self.put_length();
        }
        self.ends.push(self.bytes.len());
    }

    fn put_length(&mut self) {
        let len = self.written();
        let digits = len.checked_ilog10().map_or(1, |log| log as usize + 1);
        let room = self.start - (DIGITS + 1);
        if digits != DIGITS {
            let end = self.bytes.len();
            self.bytes.resize(end + digits.saturating_sub(DIGITS), 0);
            self.bytes.copy_within(self.start..end, room + digits + 1);
            self.bytes.truncate(room + digits + 1 + len);
        }
        let mut at = &mut self.bytes[room..=room + digits];
        // It has exactly the room that this takes.
        write!(at, "{len} ").ok();
    }

    /// Each message with its frame.
    pub fn messages(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(from, to)| &self.bytes[from..*to])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(prefix: Prefix, lengths: &[usize]) -> Page {
        let mut page = Page::new(prefix);
        for len in lengths {
            page.begin();
            page.bytes.resize(page.bytes.len() + len, b'x');
            page.end();
        }
        page
    }

    #[test]
    fn lengths_of_any_digits_stand_before_their_messages() {
        let lengths = [0, 1, 9, 10, 99, 100, 999, 1000, 65_536, 100];
        let page = page(Prefix::Length, &lengths);
        let expected: Vec<u8> = lengths
            .iter()
            .flat_map(|len| [format!("{len} ").into_bytes(), vec![b'x'; *len]].concat())
            .collect();
        assert_eq!(page.bytes, expected);
        let third = page.messages().nth(2).unwrap();
        assert_eq!(third, b"9 xxxxxxxxx");
    }

    #[test]
    fn a_page_goes_back_to_a_mark() {
        let mut page = page(Prefix::Length, &[5, 12]);
        let bytes = page.bytes.clone();
        let mark = page.mark();
        page.begin();
        page.end();
        page.begin();
        page.back_to(mark);
        assert_eq!((&page.bytes, page.ends.len()), (&bytes, 2));
    }

    #[test]
    fn a_page_gives_memory_back() {
        let mut page = page(Prefix::Length, &[KEPT, KEPT]);
        page.ends.reserve(2 * KEPT_ENDS);
        page.clear();
        assert!(page.bytes.capacity() < 2 * KEPT);
        assert!(page.ends.capacity() < 2 * KEPT_ENDS);
    }

    #[test]
    fn without_lengths_messages_lie_one_after_the_other() {
        let page = page(Prefix::None, &[1, 2]);
        assert_eq!(page.bytes, b"xxx");
        let lengths: Vec<usize> = page.messages().map(<[u8]>::len).collect();
        assert_eq!(lengths, [1, 2]);
    }
}
