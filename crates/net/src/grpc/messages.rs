//! skeleton
use super::status::Status;
use bytes::Bytes;
use std::task::{Context, Poll};

/// The messages of a request (server) or of a response (client).
#[derive(Debug)]
pub struct Messages {}

impl Messages {
    /// The next message; `None` when the stream ended well.
    pub async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }
    /// As [`Messages::next`], for a poll function.
    pub fn poll_next(&mut self, _cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        Poll::Ready(None)
    }
    /// The next message if it has arrived already. `None`: nothing yet, or the end.
    pub fn try_next_buffered(&mut self) -> Option<Result<Bytes, Status>> {
        None
    }
    /// Client side: waits until the server answered the call with headers, which servers may hold
    /// back until the first message.
    pub async fn opened(&mut self) -> Result<(), Status> {
        Ok(())
    }
}
