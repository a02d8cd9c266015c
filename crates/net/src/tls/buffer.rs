//! Big read buffers that belong to a connection only while it has unread bytes in them, so that a
//! thousand quiet connections cost none.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// Ciphertext is read from the socket in pieces of up to this size.
const READ_SIZE: usize = 128 * 1024;

/// Spare buffers kept per thread.
const SPARE: usize = 4;

thread_local! {
    static POOL: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes that were read and not yet used.
#[derive(Default)]
pub(super) struct ReadBuffer {
    block: Option<Box<[u8]>>,
    start: usize,
    end: usize,
}

impl ReadBuffer {
    pub fn unread(&self) -> &[u8] {
        self.block
            .as_ref()
            .map_or(&[], |block| &block[self.start..self.end])
    }

    /// Marks the first `count` unread bytes as used.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            self.clear();
        }
    }

    /// Forgets what is unread and gives the block back.
    pub fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
        if let Some(block) = self.block.take() {
            give_back(block);
        }
    }

    /// One read from `io` into an empty buffer. Returns the number of bytes; 0 is the end.
    pub fn poll_fill<IO: AsyncRead + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        debug_assert!(self.unread().is_empty());
        let mut block = self.block.take().unwrap_or_else(take);
        let mut buf = ReadBuf::new(&mut block);
        let outcome = Pin::new(io).poll_read(cx, &mut buf);
        let filled = buf.filled().len();
        if outcome.is_pending() || filled == 0 {
            give_back(block);
            ready!(outcome)?;
            return Poll::Ready(Ok(0));
        }
        (self.start, self.end) = (0, filled);
        self.block = Some(block);
        Poll::Ready(Ok(filled))
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        self.clear();
    }
}

fn take() -> Box<[u8]> {
    POOL.try_with(|pool| pool.borrow_mut().pop())
        .ok()
        .flatten()
        .unwrap_or_else(|| vec![0; READ_SIZE].into_boxed_slice())
}

fn give_back(block: Box<[u8]>) {
    // Fails only while the thread ends; then the block is freed.
    POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        if pool.len() < SPARE {
            pool.push(block);
        }
    })
    .unwrap_or_default();
}
