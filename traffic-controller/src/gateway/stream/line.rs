//! The client's line: one chunk at a time, and word of when the connection has taken it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;

/// Knows whether the chunk that was handed to the HTTP stack is still there.
#[derive(Debug, Default)]
pub(crate) struct Line {
    busy: AtomicBool,
    sender: AtomicWaker,
}

impl Line {
    /// A chunk for the HTTP stack. The line is busy until the stack lets it go: its bytes are in the socket's buffer, or
    /// the connection broke.
    pub(crate) fn chunk(self: &Arc<Self>, bytes: Vec<u8>) -> Bytes {
        self.busy.store(true, Ordering::Relaxed);
        Bytes::from_owner(Chunk {
            bytes,
            line: Arc::clone(self),
        })
    }

    /// Waits until no chunk is on its way.
    pub(crate) fn poll_free(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.busy.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        self.sender.register(cx.waker());
        // It may have been let go before the waker was there.
        if self.busy.load(Ordering::Acquire) {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }
}

/// Bytes that tell their line when nobody has them any more.
struct Chunk {
    bytes: Vec<u8>,
    line: Arc<Line>,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.line.busy.store(false, Ordering::Release);
        self.line.sender.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_line_is_free_when_the_last_piece_of_its_chunk_is_gone() {
        let line = Arc::<Line>::default();
        let cx = Context::from_waker(Waker::noop());
        assert!(line.poll_free(&cx).is_ready());
        let chunk = line.chunk(b"abc".to_vec());
        let piece = chunk.slice(1..);
        assert!(line.poll_free(&cx).is_pending());
        drop(chunk);
        assert!(line.poll_free(&cx).is_pending());
        assert_eq!(piece, "bc");
        drop(piece);
        assert!(line.poll_free(&cx).is_ready());
    }
}
