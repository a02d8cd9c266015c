//! New frames from records of others, without decoding.

use bytes::{BufMut, Bytes, BytesMut};
use loggregator_proto::v2;
use prost::Message;
use thiserror::Error;

use crate::{
    Entry, Index,
    scan::entry_of_body,
    wire::{Fault, Fields, Value, varint_len},
};

/// Why an envelope was not put into a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PushError {
    /// The bytes are no envelope.
    #[error("malformed envelope: {0}")]
    Malformed(Fault),
    /// The frame would have 4 GiB or more.
    #[error("the frame would have 4 GiB or more")]
    Full,
}

impl From<Fault> for PushError {
    fn from(fault: Fault) -> Self {
        if fault == Fault::TooLarge {
            PushError::Full
        } else {
            PushError::Malformed(fault)
        }
    }
}

/// Collects envelopes into one frame.
///
/// After [`finish`](FrameBuilder::finish) the builder is empty and can be used again; it keeps what memory it can.
#[derive(Debug, Default)]
pub struct FrameBuilder {
    bytes: BytesMut,
    entries: Vec<Entry>,
    /// Memory for the edit at hand.
    pub(crate) scratch: Vec<u8>,
}

impl FrameBuilder {
    /// An empty builder.
    pub fn new() -> FrameBuilder {
        FrameBuilder::default()
    }

    /// How many envelopes it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds no envelope.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many bytes it holds.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Adds records as they lie in a batch: `0a`, length, envelope, once or several times.
    ///
    /// # Errors
    /// When one of them is malformed. Those before it are in the frame.
    pub fn push_record(&mut self, records: &[u8]) -> Result<(), PushError> {
        let mut fields = Fields::new(records);
        while let Some(field) = fields.read()? {
            match (field.number, field.value) {
                (1, Value::Bytes(body)) => self.push_envelope(body)?,
                _ => return Err(PushError::Malformed(Fault::Tag)),
            }
        }
        Ok(())
    }

    /// Adds one serialized `loggregator.v2.Envelope`.
    ///
    /// # Errors
    /// When it is malformed or the frame is full; the frame is then as before.
    pub fn push_envelope(&mut self, body: &[u8]) -> Result<(), PushError> {
        let entry = entry_of_body(body)?;
        self.push_parts([body, &[], &[]], |start, _| entry.at(start))
    }

    /// Adds one envelope that is a value.
    ///
    /// # Errors
    /// When the frame is full; it is then as before.
    pub fn push_message(&mut self, envelope: &v2::Envelope) -> Result<(), PushError> {
        self.push_envelope(&envelope.encode_to_vec())
    }

    /// Adds an envelope of another frame. `bytes` are that frame's and `entry` is of its index; nothing is scanned
    /// again.
    ///
    /// # Errors
    /// When the frame is full; it is then as before.
    pub fn push_entry(&mut self, bytes: &[u8], entry: &Entry) -> Result<(), PushError> {
        let body = bytes.get(entry.body()).unwrap_or_default();
        self.push_parts([body, &[], &[]], |start, head| {
            entry.at(start).grown(head, 0, 0, entry.flags())
        })
    }

    /// Adds a record whose body is these parts; `entry` makes its entry from where the record begins and how long
    /// its header is.
    pub(crate) fn push_parts(
        &mut self,
        parts: [&[u8]; 3],
        entry: impl FnOnce(u32, u8) -> Entry,
    ) -> Result<(), PushError> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let head = 1 + varint_len(len as u64);
        let start = self.bytes.len();
        if u32::try_from(start + head + len).is_err() {
            return Err(PushError::Full);
        }
        self.bytes.reserve(head + len);
        self.bytes.put_u8(0x0a);
        let mut rest = len;
        while rest >= 0x80 {
            self.bytes.put_u8(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.bytes.put_u8(rest as u8);
        for part in parts {
            self.bytes.put_slice(part);
        }
        self.entries.push(entry(start as u32, head as u8));
        Ok(())
    }

    /// The collected frame; [`Frame::from_parts`](crate::Frame::from_parts) takes both.
    pub fn finish(&mut self) -> (Bytes, Index) {
        let capacity = self.entries.len();
        let entries = std::mem::replace(&mut self.entries, Vec::with_capacity(capacity));
        (self.bytes.split().freeze(), Index::new(entries))
    }
}
