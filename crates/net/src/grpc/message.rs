//! A message on its way out: a gather list that is handed to the connection without a copy.

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

/// A gRPC message to send: chunks that are sent one after the other, not copied. Its receipt is
/// settled exactly once, also when the message is dropped without having been sent.
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

impl Drop for Message {
    fn drop(&mut self) {
        if let Some(receipt) = self.receipt.take() {
            receipt.settle(false);
        }
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

    /// The client wants no more, but all that it was sent. False: nothing more is taken from this source, it is dropped, and
    /// the stream ends with OK behind what was. True: the source ends by itself when it has given what it holds for this client.
    fn finish(&mut self) -> bool {
        false
    }

    /// Whether the source knows itself when it has nothing more to say to a server that shuts down.
    /// Otherwise it ends the first time that it has nothing ready.
    fn drains_itself(&self) -> bool {
        false
    }
}

/// Length of the header before each message: one byte of flags, four of length.
pub(super) const HEADER_LEN: usize = 5;

/// While more than this of a stream's messages waits in the connection, its line is not free: the
/// source is not asked for more. Small enough that a stalled stream holds little; not zero, so that a
/// stream of small messages needs no extra wake-up for each.
const LINE_FREE: usize = 16 * 1024;

/// How much of a stream's messages the connection has not taken yet.
#[derive(Default)]
pub(super) struct Line {
    waiting: AtomicUsize,
    waker: AtomicWaker,
}

impl Line {
    /// Ready when the next message may be asked for.
    pub fn poll_free(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waiting.load(Ordering::Acquire) <= LINE_FREE {
            return Poll::Ready(());
        }
        self.waker.register(cx.waker());
        if self.waiting.load(Ordering::Acquire) <= LINE_FREE {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn add(&self, count: usize) {
        self.waiting.fetch_add(count, Ordering::AcqRel);
    }

    fn sub(&self, count: usize) {
        let before = self.waiting.fetch_sub(count, Ordering::AcqRel);
        if before > LINE_FREE && before - count <= LINE_FREE {
            self.waker.wake();
        }
    }
}

/// A message with its header, as the HTTP/2 connection reads it.
pub(super) struct Gather {
    header: [u8; HEADER_LEN],
    /// Bytes of the header that are taken.
    header_taken: usize,
    chunks: SmallVec<[Bytes; 8]>,
    /// The first chunk that is not all taken.
    first: usize,
    remaining: usize,
    receipt: Option<Box<dyn Receipt>>,
    line: Arc<Line>,
}

impl Gather {
    /// # Errors
    /// The message is longer than the header can say.
    pub fn new(mut message: Message, line: &Arc<Line>) -> Result<Self, Status> {
        let length = message.len();
        let Ok(prefix) = u32::try_from(length) else {
            return Err(Status::new(
                super::Code::ResourceExhausted,
                format!("grpc: message too large ({length} bytes)"),
            ));
        };
        let mut header = [0; HEADER_LEN];
        header[1..].copy_from_slice(&prefix.to_be_bytes());
        let remaining = HEADER_LEN + length;
        line.add(remaining);
        Ok(Self {
            header,
            header_taken: 0,
            chunks: std::mem::take(&mut message.chunks),
            first: 0,
            remaining,
            receipt: message.receipt.take(),
            line: Arc::clone(line),
        })
    }
}

impl Buf for Gather {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        if self.header_taken < HEADER_LEN {
            return &self.header[self.header_taken..];
        }
        self.chunks[self.first..]
            .iter()
            .find(|chunk| !chunk.is_empty())
            .map_or(&[], |chunk| chunk)
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let header = &self.header[self.header_taken..];
        let slices = std::iter::once(header)
            .chain(self.chunks[self.first..].iter().map(|chunk| &chunk[..]))
            .filter(|slice| !slice.is_empty());
        let mut count = 0;
        for (slot, slice) in dst.iter_mut().zip(slices) {
            *slot = IoSlice::new(slice);
            count += 1;
        }
        count
    }

    fn advance(&mut self, count: usize) {
        assert!(
            count <= self.remaining,
            "advanced past the end of a message: {count} of {}",
            self.remaining
        );
        let from_header = count.min(HEADER_LEN - self.header_taken);
        self.header_taken += from_header;
        let mut left = count - from_header;
        while left > 0 {
            let chunk = &mut self.chunks[self.first];
            let step = left.min(chunk.len());
            chunk.advance(step);
            left -= step;
            if chunk.is_empty() {
                // Free what the chunk held as soon as it is sent.
                *chunk = Bytes::new();
                self.first += 1;
            }
        }
        self.remaining -= count;
        if self.remaining == 0
            && let Some(receipt) = self.receipt.take()
        {
            receipt.settle(true);
        }
        self.line.sub(count);
    }
}

impl Drop for Gather {
    fn drop(&mut self) {
        if let Some(receipt) = self.receipt.take() {
            receipt.settle(self.remaining == 0);
        }
        self.line.sub(self.remaining);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    struct Note(Arc<Mutex<Vec<bool>>>);

    impl Receipt for Note {
        fn settle(self: Box<Self>, delivered: bool) {
            self.0.lock().unwrap().push(delivered);
        }
    }

    fn message(parts: &[&'static str], notes: &Arc<Mutex<Vec<bool>>>) -> Message {
        let chunks = parts
            .iter()
            .map(|part| Bytes::from_static(part.as_bytes()))
            .collect();
        Message::new(chunks).with_receipt(Box::new(Note(Arc::clone(notes))))
    }

    #[test]
    fn reads_as_header_and_chunks_whatever_the_steps() {
        let whole = b"\0\0\0\0\x06abcdef";
        for step in 1..=whole.len() {
            let notes = Arc::default();
            let line = Arc::default();
            let mut gather =
                Gather::new(message(&["", "ab", "", "cde", "f", ""], &notes), &line).unwrap();
            let mut read = Vec::new();
            while gather.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 16];
                let count = gather.chunks_vectored(&mut slices);
                let seen: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
                assert_eq!(seen.len(), gather.remaining());
                assert!(seen.starts_with(gather.chunk()) && !gather.chunk().is_empty());
                let take = step.min(seen.len());
                read.extend_from_slice(&seen[..take]);
                assert!(notes.lock().unwrap().is_empty());
                gather.advance(take);
            }
            assert_eq!(read, whole);
            drop(gather);
            assert_eq!(*notes.lock().unwrap(), [true]);
            assert_eq!(line.waiting.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn a_message_that_is_dropped_half_way_is_not_delivered() {
        let notes = Arc::default();
        let line = Arc::default();
        let mut gather = Gather::new(message(&["abc"], &notes), &line).unwrap();
        gather.advance(7);
        drop(gather);
        assert_eq!(*notes.lock().unwrap(), [false]);
        assert_eq!(line.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_line_is_free_when_little_waits() {
        let line = Arc::<Line>::default();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let big = Message::from(Bytes::from(vec![0; LINE_FREE + 100]));
        assert!(line.poll_free(&mut cx).is_ready());
        let mut gather = Gather::new(big, &line).unwrap();
        assert!(line.poll_free(&mut cx).is_pending());
        gather.advance(105);
        assert!(line.poll_free(&mut cx).is_ready());
    }
}
