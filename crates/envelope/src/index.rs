//! Where the envelopes of a frame lie, and what was noticed about each.

use std::ops::Range;

use crate::{Flags, Kind, KindSet};

/// One envelope of a frame, in 32 bytes.
///
/// Offsets are in bytes. Everything but [`start`](Entry::start) is relative to the record, so that an entry moves
/// with its record: to describe a copy of the record somewhere else, set `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where the record begins in the frame: at its header, `0a` and the length of the envelope as a varint.
    pub start: u32,
    /// Length of the whole record, header included.
    pub len: u32,
    /// [`source_hash`](crate::source_hash) of the source id.
    pub source_hash: u64,
    /// Where the source id begins, counted from `start`; 0 when there is none.
    source: u32,
    source_len: u32,
    /// Length of the record's header.
    head: u8,
    kind: Kind,
    flags: Flags,
}

impl Entry {
    pub(crate) fn new(
        record: Range<u32>,
        head: u8,
        kind: Kind,
        flags: Flags,
        source: Range<u32>,
        source_hash: u64,
    ) -> Entry {
        Entry {
            start: record.start,
            len: record.end - record.start,
            source_hash,
            source: source.start.saturating_sub(record.start),
            source_len: source.end - source.start,
            head,
            kind,
            flags,
        }
    }

    /// What the envelope holds.
    #[inline]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What else the scan noticed.
    #[inline]
    pub fn flags(&self) -> Flags {
        self.flags
    }

    /// The record: header and envelope. Records that lie side by side are a valid `EnvelopeBatch`.
    #[inline]
    pub fn record(&self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.len as usize
    }

    /// The envelope without its header: a serialized `loggregator.v2.Envelope`.
    #[inline]
    pub fn body(&self) -> Range<usize> {
        let start = self.start as usize;
        start + usize::from(self.head)..start + self.len as usize
    }

    /// The source id. Empty when the envelope has none.
    #[inline]
    pub fn source(&self) -> Range<usize> {
        let start = self.start as usize + self.source as usize;
        start..start + self.source_len as usize
    }

    /// The same entry for a copy of the record that begins at `start`.
    #[inline]
    #[must_use]
    pub fn at(self, start: u32) -> Entry {
        Entry { start, ..self }
    }

    /// The same entry after the record's header became `head` bytes long and `inserted` bytes were put in front of
    /// the body, and `appended` behind it.
    pub(crate) fn grown(self, head: u8, inserted: u32, appended: u32, flags: Flags) -> Entry {
        let body = self.len - u32::from(self.head);
        let source = match self.source {
            0 => 0,
            at => at - u32::from(self.head) + u32::from(head) + inserted,
        };
        Entry {
            len: u32::from(head) + inserted + body + appended,
            source,
            head,
            flags,
            ..self
        }
    }

    pub(crate) fn with_source(self, source: Range<u32>, source_hash: u64) -> Entry {
        let source_len = source.end - source.start;
        Entry {
            source: source.start - self.start,
            source_len,
            source_hash,
            ..self
        }
    }
}

/// The entries of a frame, with what all of them together are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    entries: Box<[Entry]>,
    kinds: KindSet,
    flags: Flags,
}

impl Index {
    pub(crate) fn new(entries: Vec<Entry>) -> Index {
        let mut kinds = KindSet::EMPTY;
        let mut flags = Flags::EMPTY;
        for entry in &entries {
            kinds.insert(entry.kind);
            flags = flags | entry.flags;
        }
        Index {
            entries: entries.into_boxed_slice(),
            kinds,
            flags,
        }
    }

    /// The envelopes in the order in which they lie in the frame.
    #[inline]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The kinds that occur.
    #[inline]
    pub fn kinds(&self) -> KindSet {
        self.kinds
    }

    /// The flags that any envelope has.
    #[inline]
    pub fn flags(&self) -> Flags {
        self.flags
    }

    /// How many envelopes there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no envelope.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Memory that the index takes, in bytes.
    pub fn memory(&self) -> usize {
        size_of_val::<[Entry]>(&self.entries)
    }
}

const _: () = assert!(
    size_of::<Entry>() <= 32,
    "an entry is counted per envelope held"
);
