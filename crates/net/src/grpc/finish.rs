//! How a client ends a stream of messages without losing what is under way.
//!
//! A client that resets a stream loses what the server's connection has taken and its own has not brought yet, and the server
//! counts that as delivered. gRPC has no better way: in a call with one request, the client's half of the stream is closed from the
//! start. So our servers know one call more, on the same connection: `Finish` names a stream by a number that the client gave it in
//! a header, and the server ends that stream with OK behind what its connection has taken. What the source still has stays
//! with the source. Other servers answer UNIMPLEMENTED; then a client reads what had come by that answer, and resets.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use tokio::time::Sleep;

use super::server::Connection;
use super::status::{Code, Status};

/// The call that asks for a stream's end; its request and its response are empty messages.
pub(super) const FINISH: &str = "/loggregator.net.Streams/Finish";

/// The number of a stream, of the client's choice and unique on its connection: in the stream's request, and in that of
/// [`FINISH`].
const NUMBER: HeaderName = HeaderName::from_static("loggregator-stream-number");

/// Bytes of messages that are still taken from a server that does not know [`FINISH`].
const UNASKED_BYTES: usize = 4 * 1024 * 1024;

/// Writes a stream's number into a request.
pub(super) fn number(headers: &mut HeaderMap, number: u64) {
    headers.insert(NUMBER, HeaderValue::from(number));
}

/// The streams of one connection of a server that can be asked to end.
#[derive(Default)]
pub(super) struct Streams(Mutex<HashMap<u64, Arc<Asked>>>);

#[derive(Default)]
struct Asked {
    asked: AtomicBool,
    stream: AtomicWaker,
}

impl Streams {
    /// Asks the stream that this request names for its end.
    ///
    /// # Errors
    /// There is no such stream, or none any more.
    pub fn finish(&self, headers: &HeaderMap) -> Result<(), Status> {
        let found = numbered(headers).and_then(|number| self.0.lock().get(&number).cloned());
        let Some(stream) = found else {
            let number = headers.get(NUMBER);
            return Err(Status::new(Code::NotFound, format!("no stream {number:?}")));
        };
        stream.asked.store(true, Ordering::Release);
        stream.stream.wake();
        Ok(())
    }
}

fn numbered(headers: &HeaderMap) -> Option<u64> {
    headers.get(NUMBER)?.to_str().ok()?.parse().ok()
}

/// One stream's place among the [`Streams`] of its connection.
pub(super) struct Finishable {
    connection: Arc<Connection>,
    number: u64,
    asked: Arc<Asked>,
}

impl Finishable {
    /// `None`: the request has no number.
    pub fn of(connection: &Arc<Connection>, headers: &HeaderMap) -> Option<Self> {
        let number = numbered(headers)?;
        let asked = Arc::default();
        let streams = &connection.streams;
        streams.0.lock().insert(number, Arc::clone(&asked));
        Some(Self {
            connection: Arc::clone(connection),
            number,
            asked,
        })
    }

    /// Whether the client has asked for the end; wakes the stream when it does.
    pub fn is_asked(&self, cx: &Context<'_>) -> bool {
        self.asked.stream.register(cx.waker());
        self.asked.asked.load(Ordering::Acquire)
    }
}

impl Drop for Finishable {
    fn drop(&mut self) {
        let mut streams = self.connection.streams.0.lock();
        let listed = streams.get(&self.number);
        if listed.is_some_and(|listed| Arc::ptr_eq(listed, &self.asked)) {
            streams.remove(&self.number);
        }
    }
}

/// The answer to [`FINISH`] at a client.
pub(super) type Answer = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

/// A client's stream between asking for the end and the end.
pub(super) struct Finishing {
    answer: Option<Answer>,
    /// The server ends the stream by itself.
    agreed: bool,
    until: Pin<Box<Sleep>>,
    /// What is still taken if the server does not.
    bytes_left: usize,
}

impl Finishing {
    pub fn new(answer: Answer, within: Duration) -> Self {
        Self {
            answer: Some(answer),
            agreed: true,
            until: Box::pin(tokio::time::sleep(within)),
            bytes_left: UNASKED_BYTES,
        }
    }

    /// A message came. Ready when it was the last that is taken.
    pub fn took(&mut self, bytes: usize) -> Poll<()> {
        if self.agreed {
            return Poll::Pending;
        }
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        if self.bytes_left == 0 {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Asked when nothing has come: what to do.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if let Some(answer) = &mut self.answer
            && let Poll::Ready(answer) = answer.as_mut().poll(cx)
        {
            self.answer = None;
            if let Err(status) = answer {
                tracing::debug!(%status, "the server does not end a stream when asked");
                self.agreed = false;
                // What came before the answer may have come since.
                return Poll::Ready(Next::LookAgain);
            }
        }
        if !self.agreed || self.until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Next::End);
        }
        Poll::Pending
    }
}

/// See [`Finishing::poll`].
pub(super) enum Next {
    LookAgain,
    End,
}
