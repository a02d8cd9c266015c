//! Answers that are read as they come: streams of events.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::http::header::HeaderMap;
use ::http::{Response, StatusCode};
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Client, ClientError, Io, Question, place, to_origin_form};

/// Bytes of a body that may have arrived unread, over HTTP/2.
const WINDOW: u32 = 256 * 1024;

/// An answer whose body has not come yet. Not reading it holds the server up; dropping it ends the connection.
pub struct Streaming {
    /// Its status, whatever it is.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    body: Incoming,
    place: String,
    _connection: Connection,
}

/// The task of a connection, which ends with what holds it.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    /// Sends a request and takes in the head of its answer, by `deadline`. The body is read from what is returned, without
    /// a limit of time or size. Redirects are not followed. HTTP/2 is spoken when [`Client::tls`] offers it and the server
    /// chose it. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When there is no answer, see [`ClientError`]. Any status is an answer.
    pub async fn open(
        &self,
        question: Question,
        deadline: Instant,
    ) -> Result<Streaming, ClientError> {
        let place = place(question.uri());
        tokio::time::timeout_at(deadline, self.head(question, place.clone()))
            .await
            .unwrap_or(Err(ClientError::Timeout { place }))
    }

    async fn head(&self, mut question: Question, place: String) -> Result<Streaming, ClientError> {
        let (io, http2) = self.connect(question.uri(), &place).await?;
        let sent = if http2 {
            send_http2(io, question).await
        } else {
            to_origin_form(&mut question)?;
            send_http1(io, question).await
        };
        let (response, connection) = sent.map_err(|source| ClientError::Exchange {
            place: place.clone(),
            source,
        })?;
        let (head, body) = response.into_parts();
        Ok(Streaming {
            status: head.status,
            headers: head.headers,
            body,
            place,
            _connection: connection,
        })
    }
}

type Sent = Result<(Response<Incoming>, Connection), hyper::Error>;

async fn send_http1(io: Box<dyn Io>, question: Question) -> Sent {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
    // How a connection ended, its body tells.
    let connection = Connection(tokio::spawn(async { drop(connection.await) }));
    let response = sender.send_request(question.map(Full::new)).await?;
    Ok((response, connection))
}

async fn send_http2(io: Box<dyn Io>, question: Question) -> Sent {
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake(TokioIo::new(io))
        .await?;
    let connection = Connection(tokio::spawn(async { drop(connection.await) }));
    let response = sender.send_request(question.map(Full::new)).await?;
    Ok((response, connection))
}

impl Streaming {
    /// The next bytes of the body; `None` at its end.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ClientError>>> {
        loop {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Some(Err(error)) => {
                    return Poll::Ready(Some(Err(ClientError::Body {
                        place: self.place.clone(),
                        reason: error.to_string(),
                    })));
                }
            }
        }
    }

    /// The beginning of a body that is an answer after all, for messages about errors: at most `limit` bytes, nothing when
    /// it is longer or breaks off.
    pub async fn text(self, limit: usize) -> String {
        let whole = Limited::new(self.body, limit).collect().await;
        whole.map_or_else(
            |_| String::new(),
            |body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
        )
    }
}

impl std::fmt::Debug for Streaming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streaming")
            .field("place", &self.place)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}
