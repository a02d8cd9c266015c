//! A message on its way out: a gather list that is handed to the connection without a copy.

use std::collections::VecDeque;
use std::fmt;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use smallvec::SmallVec;

use super::status::Status;

/// Told once what became of a message.
pub trait Receipt: Send + Sync {
    /// `delivered`: the connection took the message's last byte. Not delivered: the message was
    /// dropped before that, because the stream or its connection ended.
    fn settle(self: Box<Self>, delivered: bool);
}

/// A gRPC message to send: chunks that are sent one after the other, not copied.
#[derive(Default)]
pub struct Message {
    /// The message's bytes, without the five-byte gRPC header.
    pub chunks: SmallVec<[Bytes; 8]>,
    /// Who wants to know what became of it.
    pub receipt: Option<Box<dyn Receipt>>,
}

impl Message {
    /// A message of these chunks that nobody waits for.
    pub fn new(chunks: SmallVec<[Bytes; 8]>) -> Self {
        Self {
            chunks,
            receipt: None,
        }
    }

    /// The same message with a receipt.
    pub fn with_receipt(mut self, receipt: Box<dyn Receipt>) -> Self {
        self.receipt = Some(receipt);
        self
    }

    /// Bytes in all chunks together, without the gRPC header.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }

    /// Whether the message has no bytes (which is a valid message).
    pub fn is_empty(&self) -> bool {
        self.chunks.iter().all(Bytes::is_empty)
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        let mut chunks = SmallVec::new();
        chunks.push(bytes);
        Self::new(chunks)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("chunks", &self.chunks.len())
            .field("bytes", &self.len())
            .field("receipt", &self.receipt.is_some())
            .finish()
    }
}

/// Where a server stream's messages come from.
///
/// It is polled only when the stream's line is free, that is when the connection has taken
/// (nearly) all of the previous message, so a source may join what has gathered in the meantime.
/// It is polled inside the connection's own task: it must not block.
pub trait MessageSource: Send + 'static {
    /// The next message; `None` ends the stream with OK, an error ends it with that status.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Status>>>;
}

/// Length of the header before each message: one byte of flags, four of length.
pub(super) const HEADER_LEN: usize = 5;
