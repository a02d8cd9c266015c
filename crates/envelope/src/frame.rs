//! The frame: the unit in which envelopes travel through the process.

use std::{ops::Range, sync::OnceLock};

use bytes::Bytes;

use crate::{Entry, EnvelopeRef, Fault, Index, ScanError, select::FrameBuilder, v1::V1Frame};

/// Immutable bytes of an `EnvelopeBatch` whose entries tile it exactly, with their index.
///
/// Any run of its records is a valid `EnvelopeBatch` by itself, and so is one frame written after another.
#[derive(Debug, Default)]
pub struct Frame {
    bytes: Bytes,
    index: Index,
    v1: OnceLock<V1Frame>,
}

/// What [`Frame::parse`] made of a batch.
#[derive(Debug)]
pub struct Parsed {
    /// The good envelopes.
    pub frame: Frame,
    /// How many malformed envelopes were left out.
    pub rejected: u32,
}

impl Frame {
    /// Scans a received batch. The bytes are kept as they are when nothing has to be left out; otherwise the good
    /// envelopes are copied once.
    ///
    /// # Errors
    /// See [`scan`](crate::scan()).
    pub fn parse(batch: Bytes) -> Result<Parsed, ScanError> {
        let scan = crate::scan(&batch)?;
        if scan.tiles {
            return Ok(Parsed {
                frame: Frame::from_parts(batch, scan.index),
                rejected: scan.rejected,
            });
        }
        let mut builder = FrameBuilder::new();
        for entry in scan.index.entries() {
            // It fits: it is a part of a batch that did.
            let fault = |_| ScanError {
                offset: entry.record().start,
                kind: Fault::TooLarge,
            };
            builder.push_entry(&batch, entry).map_err(fault)?;
        }
        let (bytes, index) = builder.finish();
        Ok(Parsed {
            frame: Frame::from_parts(bytes, index),
            rejected: scan.rejected,
        })
    }

    /// A frame of bytes and their index, which must come from a tiling scan of equal bytes. With another index the
    /// frame answers nonsense or nothing, but does no harm.
    pub fn from_parts(bytes: Bytes, index: Index) -> Frame {
        Frame {
            bytes,
            index,
            v1: OnceLock::new(),
        }
    }

    /// A frame of envelopes that came in as v1, which keeps that form for v1 readers.
    pub fn with_v1(bytes: Bytes, index: Index, v1: V1Frame) -> Frame {
        Frame {
            bytes,
            index,
            v1: OnceLock::from(v1),
        }
    }

    /// The bytes, their index, and the v1 form if there is one.
    pub fn into_parts(self) -> (Bytes, Index, Option<V1Frame>) {
        (self.bytes, self.index, self.v1.into_inner())
    }

    /// All records: an `EnvelopeBatch`.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The envelopes in order.
    pub fn entries(&self) -> &[Entry] {
        self.index.entries()
    }

    /// How many envelopes there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no envelope.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The source id of an entry of this frame.
    pub fn source_id(&self, entry: &Entry) -> &str {
        let bytes = self.bytes.get(entry.source()).unwrap_or_default();
        // The scan checked it.
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// A view of an entry of this frame.
    pub fn envelope(&self, entry: &Entry) -> EnvelopeRef<'_> {
        EnvelopeRef::new(self.bytes.get(entry.body()).unwrap_or_default())
    }

    fn slice(&self, range: Range<usize>) -> Bytes {
        if range.start <= range.end && range.end <= self.bytes.len() {
            self.bytes.slice(range)
        } else {
            Bytes::new()
        }
    }

    /// One record, header included, sharing the frame's memory. Empty when there is no such envelope.
    pub fn record(&self, i: usize) -> Bytes {
        self.entries()
            .get(i)
            .map(|entry| self.slice(entry.record()))
            .unwrap_or_default()
    }

    /// Consecutive records, sharing the frame's memory. Empty when the range is, or goes beyond the frame.
    pub fn run(&self, range: Range<usize>) -> Bytes {
        match self.entries().get(range) {
            Some([first, .., last]) => self.slice(first.record().start..last.record().end),
            Some([only]) => self.slice(only.record()),
            _ => Bytes::new(),
        }
    }

    /// The v1 form: made when first asked for, then shared.
    pub fn v1(&self) -> &V1Frame {
        self.v1
            .get_or_init(|| V1Frame::of(&self.bytes, &self.index))
    }

    /// The v1 form if somebody asked for it before.
    pub fn v1_if_made(&self) -> Option<&V1Frame> {
        self.v1.get()
    }

    /// Memory that the frame takes, in bytes: bytes, index, and the v1 form if it was made.
    pub fn memory(&self) -> usize {
        self.bytes.len() + self.index.memory() + self.v1.get().map_or(0, V1Frame::memory)
    }
}
