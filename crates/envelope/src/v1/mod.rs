//! The dropsonde (v1) form of envelopes.

mod frame;
pub(crate) mod uuid;

use bytes::Bytes;
use thiserror::Error;

pub use frame::{AppId, V1Entry, V1Frame};

use crate::{Frame, Index};

/// The v1 form of one frame is no bigger than this, in bytes.
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

/// Collects v1 envelopes into one frame.
#[derive(Debug, Default)]
pub struct V1Builder {}

impl V1Builder {
    /// An empty builder.
    pub fn new() -> V1Builder {
        V1Builder::default()
    }

    /// Adds one serialized `events.Envelope`.
    ///
    /// # Errors
    /// When it is malformed; the frame is then as before.
    pub fn push(&mut self, _payload: &[u8]) -> Result<(), V1Error> {
        Err(V1Error::Malformed)
    }

    /// How many envelopes it holds.
    pub fn len(&self) -> usize {
        0
    }

    /// Whether it holds no envelope.
    pub fn is_empty(&self) -> bool {
        true
    }

    /// The frame of both forms; the builder is empty afterwards and can be used again.
    pub fn finish(&mut self) -> Frame {
        Frame::with_v1(Bytes::new(), Index::default(), V1Frame::default())
    }
}

impl V1Frame {
    pub(crate) fn of(_bytes: &Bytes, _index: &Index) -> V1Frame {
        V1Frame::default()
    }
}
