//! The dropsonde (v1) form of envelopes.
//!
//! Old readers get a [`V1Frame`]: [`Frame::v1`](crate::Frame::v1) makes it from the v2 bytes the first time somebody
//! asks. Old emitters' envelopes go through a [`V1Builder`], which makes the v2 form at once and keeps the v1 form as the
//! original would have re-encoded it. The conversions are those of go-loggregator's `conversion` package.

mod cast;
mod frame;
mod model;
mod of_v2;
mod tag_names;
mod to_v2;
mod uuid;
mod wire_message;

use bytes::Bytes;
use thiserror::Error;

use self::frame::Records;
pub use self::frame::{AppId, V1Entry, V1Frame};
use crate::{
    EnvelopeRef, Frame, FrameBuilder, Index,
    wire::{Encode, Sink as _},
};

/// The v1 form that is made of one frame is no bigger than this, in bytes. A gauge repeats all tags for every metric,
/// so that a small frame could otherwise fill the memory.
pub const MAX_V1_FRAME: usize = 64 << 20;

/// Why bytes are no v1 envelope. The texts are those of the original, which operators search for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum V1Error {
    /// A required field is absent; with its full name.
    #[error("proto: required field {0} not set")]
    Required(&'static str),
    /// The bytes are no protobuf message.
    #[error("proto: cannot parse invalid wire-format data")]
    Malformed,
    /// The frame has no room for another envelope.
    #[error("the frame would have 4 GiB or more")]
    Full,
}

/// Appends the v2 form of one serialized `events.Envelope` to an `EnvelopeBatch`, for readers that want nothing but v2.
///
/// # Errors
/// When it is malformed or lacks a required field; `batch` is then as before.
pub fn append_v2(payload: &[u8], batch: &mut Vec<u8>) -> Result<(), V1Error> {
    let (envelope, _) = model::parse(payload)?;
    batch.message(1, &to_v2::convert(&envelope));
    Ok(())
}

/// Collects v1 envelopes into one frame of both forms.
///
/// After [`finish`](V1Builder::finish) the builder is empty and can be used again.
#[derive(Debug, Default)]
pub struct V1Builder {
    v2: FrameBuilder,
    v1: Records,
    /// Memory for the envelope at hand, v2 and v1.
    body: Vec<u8>,
    again: Vec<u8>,
}

impl V1Builder {
    /// An empty builder.
    pub fn new() -> V1Builder {
        V1Builder::default()
    }

    /// Adds one serialized `events.Envelope`.
    ///
    /// # Errors
    /// When it is malformed, lacks a required field, or the frame is full; the frame is then as before.
    pub fn push(&mut self, payload: &[u8]) -> Result<(), V1Error> {
        let (envelope, canonical) = model::parse(payload)?;
        let payload = if canonical {
            payload
        } else {
            self.again.clear();
            envelope.encode(&mut self.again);
            &self.again
        };
        if !self.v1.has_room(payload.len(), u32::MAX as usize) {
            return Err(V1Error::Full);
        }
        self.body.clear();
        to_v2::convert(&envelope).encode(&mut self.body);
        let number = self.v2.len() as u32;
        // What is written here is never malformed.
        self.v2
            .push_envelope(&self.body)
            .map_err(|_| V1Error::Full)?;
        self.v1.push(payload, number);
        Ok(())
    }

    /// How many envelopes it holds.
    pub fn len(&self) -> usize {
        self.v2.len()
    }

    /// Whether it holds no envelope.
    pub fn is_empty(&self) -> bool {
        self.v2.is_empty()
    }

    /// How many bytes it holds in its v2 form.
    pub fn bytes(&self) -> usize {
        self.v2.bytes()
    }

    /// The frame of both forms.
    pub fn finish(&mut self) -> Frame {
        let (bytes, index) = self.v2.finish();
        Frame::with_v1(bytes, index, std::mem::take(&mut self.v1).finish())
    }
}

impl V1Frame {
    /// The v1 form of a frame.
    pub(crate) fn of(bytes: &Bytes, index: &Index) -> V1Frame {
        let bodies = index
            .entries()
            .iter()
            .map(|entry| bytes.get(entry.body()).unwrap_or_default());
        V1Frame::of_bodies(bodies, bytes.len(), index.len())
    }

    /// The v1 forms of one envelope; [`envelope`](V1Entry::envelope) is 0 in all of them.
    pub fn of_envelope(envelope: EnvelopeRef<'_>) -> V1Frame {
        V1Frame::of_bodies([envelope.bytes()], envelope.bytes().len(), 1)
    }

    fn of_bodies<'a>(
        bodies: impl IntoIterator<Item = &'a [u8]>,
        bytes: usize,
        envelopes: usize,
    ) -> V1Frame {
        // A log line takes about as much in either form: names of tags go, the source id comes twice.
        let size = bytes + bytes / 8;
        let mut records = Records::with_capacity(size.min(MAX_V1_FRAME), envelopes);
        for (number, body) in bodies.into_iter().enumerate() {
            of_v2::convert(body, number as u32, &mut records);
        }
        records.finish()
    }
}
