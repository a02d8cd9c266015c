//! The messages that come in: of a request at a server, of a response at a client.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::Body;
use hyper::body::Incoming;

use super::assembler::Assembler;
use super::finish::{self, Finishing, Next};
use super::response::{self, Answer};
use super::server::Connection;
use super::status::Status;

/// The messages of a request (at a server) or of a response (at a client), in order.
///
/// A message that lay in one HTTP/2 frame is a shared slice of what was read from the connection;
/// another one is assembled once in an allocation of its size. Not reading holds the sender up
/// through flow control. Dropping it at a client cancels the call.
pub struct Messages {
    source: Source,
    assembler: Assembler,
    finish: Finish,
}

/// Asks the server for the end of a stream.
type Ask = Box<dyn FnOnce() -> finish::Answer + Send>;

/// How a stream at a client is ended.
enum Finish {
    /// By dropping it.
    Not,
    /// By asking for it.
    Can(Ask),
    /// It was asked for.
    Asked(Box<Finishing>),
}

enum Source {
    /// A request.
    Request {
        body: Incoming,
        connection: Arc<Connection>,
        goodbye: Arc<Goodbye>,
        /// Reading goes on after the call was answered for a server that shuts down.
        reads_on: bool,
    },
    /// A response whose headers have not come.
    Opening(Pin<Box<dyn Future<Output = Result<Answer, Status>> + Send>>),
    /// A response.
    Response(Incoming),
    /// All was said.
    Ended,
}

/// Tells a call at a server that shuts down to answer its client now, while its messages are read on.
#[derive(Default)]
pub(super) struct Goodbye {
    said: AtomicBool,
    call: AtomicWaker,
}

impl Goodbye {
    fn say(&self) {
        if !self.said.swap(true, Ordering::AcqRel) {
            self.call.wake();
        }
    }

    /// Ready when it is to be said.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        self.call.register(cx.waker());
        if self.said.load(Ordering::Acquire) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Messages {
    pub(super) fn of_request(
        body: Incoming,
        connection: &Arc<Connection>,
        goodbye: &Arc<Goodbye>,
    ) -> Self {
        Self {
            assembler: Assembler::new(connection.settings.max_message),
            source: Source::Request {
                body,
                connection: Arc::clone(connection),
                goodbye: Arc::clone(goodbye),
                reads_on: false,
            },
            finish: Finish::Not,
        }
    }

    /// At a server, for streams whose sender expects no answer to a message: loses nothing of what was under way when the
    /// server shuts down. The client is answered `UNAVAILABLE` as soon as nothing is at hand, which makes it stop; messages
    /// come until it has ended or reset its stream, or until whoever reads them has had enough, which should be soon. The
    /// service's own answer goes nowhere then.
    ///
    /// Without this, what arrives after that answer is thrown away, and the sender cannot know. Not for calls that a client
    /// makes again when it hears `UNAVAILABLE`. At a client it does nothing.
    pub fn read_on_after_stop(&mut self) {
        if let Source::Request { reads_on, .. } = &mut self.source {
            *reads_on = true;
        }
    }

    pub(super) fn of_response(
        opening: impl Future<Output = Result<Answer, Status>> + Send + 'static,
        max_message: usize,
    ) -> Self {
        Self {
            assembler: Assembler::new(max_message),
            source: Source::Opening(Box::pin(opening)),
            finish: Finish::Not,
        }
    }

    pub(super) fn can_finish(&mut self, ask: Ask) {
        self.finish = Finish::Can(ask);
    }

    /// At a client of a server stream: asks the server to end the stream behind what it has sent. Read on: what is under way
    /// still comes, and then the end, after this time at the latest. Dropping the messages instead loses what is under way, which the
    /// server counts as delivered. A server that does not know how to (it is not one of ours) is read as far as its answer,
    /// and a few megabytes at most. Must be called within a tokio runtime.
    pub fn finish(&mut self, within: Duration) {
        self.finish = match std::mem::replace(&mut self.finish, Finish::Not) {
            Finish::Can(ask) => Finish::Asked(Box::new(Finishing::new(ask(), within))),
            other => other,
        };
    }

    /// The next message; `None` when the stream ended well.
    ///
    /// An error is the last thing that comes: at a client the status that the server sent or that
    /// stands for how the connection broke, at a server that the request is broken, too large, or that
    /// the server is shutting down.
    pub async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`Messages::next`], for a poll function.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        loop {
            match self.assembler.next() {
                Ok(Some(message)) => {
                    if let Finish::Asked(finishing) = &mut self.finish
                        && finishing.took(message.len()).is_ready()
                    {
                        drop(self.end(Ok(())));
                    }
                    return Poll::Ready(Some(Ok(message)));
                }
                Ok(None) => {}
                Err(status) => {
                    if let Source::Request { connection, .. } = &self.source
                        && status.code == super::Code::ResourceExhausted
                    {
                        let counter = &connection.stats.messages_too_large;
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                    return self.end(Err(status));
                }
            }
            let chunk = match self.poll_chunk(cx) {
                Poll::Ready(chunk) => chunk,
                Poll::Pending => {
                    let Finish::Asked(finishing) = &mut self.finish else {
                        return Poll::Pending;
                    };
                    match ready!(finishing.poll(cx)) {
                        Next::LookAgain => continue,
                        Next::End => return self.end(Ok(())),
                    }
                }
            };
            match chunk {
                Ok(Some(chunk)) => self.assembler.push(chunk),
                Ok(None) if self.assembler.is_within_message() => {
                    return self.end(Err(Status::internal("unexpected EOF")));
                }
                outcome => return self.end(outcome.map(drop)),
            }
        }
    }

    /// The next message if it has arrived already. `None`: nothing yet, or the end; only
    /// [`Messages::next`] tells which, and must be called again before anybody is woken.
    pub fn try_next_buffered(&mut self) -> Option<Result<Bytes, Status>> {
        match self.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(message) => message,
            Poll::Pending => None,
        }
    }

    /// At a client: waits until the server has answered the call with headers, which many servers hold
    /// back until the first message. At a server: does nothing.
    ///
    /// # Errors
    /// The call ended without being opened; that was then the end of the stream.
    pub async fn opened(&mut self) -> Result<(), Status> {
        std::future::poll_fn(|cx| self.poll_opened(cx)).await
    }

    fn poll_opened(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        if let Source::Opening(opening) = &mut self.source {
            match ready!(opening.as_mut().poll(cx)) {
                Ok(Answer::Stream(body)) => self.source = Source::Response(body),
                Ok(Answer::Nothing) => self.source = Source::Ended,
                Err(status) => {
                    self.source = Source::Ended;
                    return Poll::Ready(Err(status));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The next bytes of the body; `None` at its good end.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        ready!(self.poll_opened(cx))?;
        loop {
            let body = match &mut self.source {
                Source::Request { body, .. } | Source::Response(body) => body,
                Source::Opening(_) | Source::Ended => return Poll::Ready(Ok(None)),
            };
            let frame = match Pin::new(body).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => return self.poll_draining(),
            };
            match (frame, &self.source) {
                (Some(Ok(frame)), source) => match frame.into_data() {
                    Ok(chunk) if chunk.is_empty() => {}
                    Ok(chunk) => return Poll::Ready(Ok(Some(chunk))),
                    Err(frame) => {
                        if let (Source::Response(_), Ok(trailers)) = (source, frame.into_trailers())
                        {
                            return Poll::Ready(response::trailers(&trailers).map(|()| None));
                        }
                    }
                },
                (Some(Err(error)), _) => return Poll::Ready(Err(response::broken(&error))),
                (None, Source::Response(_)) => {
                    return Poll::Ready(Err(Status::internal(
                        "server closed the stream without sending trailers",
                    )));
                }
                (None, _) => return Poll::Ready(Ok(None)),
            }
        }
    }

    /// A server that is shutting down takes what has come. Then it waits for no more, or says goodbye and reads on.
    fn poll_draining<T>(&self) -> Poll<Result<T, Status>> {
        match &self.source {
            Source::Request {
                connection,
                goodbye,
                reads_on,
                ..
            } if connection.is_draining() => {
                if !reads_on {
                    return Poll::Ready(Err(Status::draining()));
                }
                goodbye.say();
                Poll::Pending
            }
            _ => Poll::Pending,
        }
    }

    fn end(&mut self, outcome: Result<(), Status>) -> Poll<Option<Result<Bytes, Status>>> {
        self.source = Source::Ended;
        self.assembler = Assembler::new(0);
        self.finish = Finish::Not;
        Poll::Ready(outcome.err().map(Err))
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.source {
            Source::Request { .. } => "request",
            Source::Opening(_) => "opening",
            Source::Response(_) => "response",
            Source::Ended => "ended",
        };
        f.debug_struct("Messages").field("state", &state).finish()
    }
}
