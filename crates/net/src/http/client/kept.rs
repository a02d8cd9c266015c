//! Connections that are used again.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{Connection, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Answer, Client, ClientError, Io, Question, place, to_origin_form};

type Transport = TokioIo<Box<dyn Io>>;

/// A [`Client`] that keeps its connections, for requests that come often and go to few places. HTTP/1.1, one request at a
/// time on each connection. Redirects are answers.
#[derive(Debug)]
pub struct Kept {
    client: Client,
    /// Connections that are kept for the next request.
    pub max_idle: usize,
    /// How long one is kept.
    pub max_age: Duration,
    idle: Mutex<Vec<Open>>,
}

/// A connection. It is driven while a request is under way, and by nobody else.
struct Open {
    place: String,
    sender: SendRequest<Full<Bytes>>,
    connection: Pin<Box<Connection<Transport, Full<Bytes>>>>,
    idle_since: Instant,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// What came of a request on a kept connection.
enum Tried {
    Answer(Result<Answer, ClientError>),
    /// The connection had ended before the request was sent; this is the request.
    NotSent(http::Request<Full<Bytes>>),
}

impl Kept {
    /// Keeps at most 32 connections, each for at most 90 s without a request.
    #[must_use]
    pub fn new(client: Client) -> Kept {
        Kept {
            client,
            max_idle: 32,
            max_age: Duration::from_secs(90),
            idle: Mutex::default(),
        }
    }

    /// Sends a request and takes in the whole answer, by `deadline`. A request is sent twice only if the first time it was
    /// certainly not sent.
    ///
    /// # Errors
    /// When there is no whole answer, see [`ClientError`]. Any status is an answer.
    pub async fn send(&self, question: Question, deadline: Instant) -> Result<Answer, ClientError> {
        let place = place(question.uri());
        tokio::time::timeout_at(deadline, self.send_to(&place, question))
            .await
            .unwrap_or(Err(ClientError::Timeout { place }))
    }

    async fn send_to(&self, place: &str, mut question: Question) -> Result<Answer, ClientError> {
        let uri = question.uri().clone();
        to_origin_form(&mut question)?;
        let mut request = question.map(Full::new);
        while let Some(open) = self.take(place) {
            match self.exchange_on(open, request).await {
                Tried::Answer(answer) => return answer,
                Tried::NotSent(again) => request = again,
            }
        }
        let (io, _) = self.client.connect(&uri, place).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
            .await
            .map_err(|source| ClientError::Exchange {
                place: place.to_owned(),
                source,
            })?;
        let open = Open {
            place: place.to_owned(),
            sender,
            connection: Box::pin(connection),
            idle_since: Instant::now(),
        };
        match self.exchange_on(open, request).await {
            Tried::Answer(answer) => answer,
            Tried::NotSent(_) => Err(ClientError::Body {
                place: place.to_owned(),
                reason: "the server closed the connection at once".to_owned(),
            }),
        }
    }

    /// A connection to this place that was used last; those that are too old are dropped.
    fn take(&self, place: &str) -> Option<Open> {
        let now = Instant::now();
        let mut idle = self.idle.lock();
        idle.retain(|open| now.duration_since(open.idle_since) < self.max_age);
        let at = idle.iter().rposition(|open| open.place == place)?;
        Some(idle.remove(at))
    }

    async fn exchange_on(&self, open: Open, request: http::Request<Full<Bytes>>) -> Tried {
        let Open {
            place,
            mut sender,
            mut connection,
            ..
        } = open;
        let (tried, connection) = {
            let exchange = async {
                // Also the first chance to learn that the server has closed it.
                if sender.ready().await.is_err() {
                    return Tried::NotSent(request);
                }
                match sender.try_send_request(request).await {
                    Ok(response) => Tried::Answer(self.client.whole(&place, response).await),
                    Err(mut error) => match error.take_message() {
                        Some(request) => Tried::NotSent(request),
                        None => Tried::Answer(Err(ClientError::Exchange {
                            place: place.clone(),
                            source: error.into_error(),
                        })),
                    },
                }
            };
            tokio::pin!(exchange);
            let tried = tokio::select! {
                biased;
                _ = &mut connection => None,
                tried = &mut exchange => Some(tried),
            };
            match tried {
                Some(tried) => (tried, Some(connection)),
                None => {
                    // It ended: with the answer, which is then complete, or without, which the exchange sees once it is gone.
                    drop(connection);
                    (exchange.await, None)
                }
            }
        };
        if let (Some(connection), Tried::Answer(Ok(_))) = (connection, &tried)
            && !sender.is_closed()
        {
            let mut idle = self.idle.lock();
            if idle.len() < self.max_idle {
                idle.push(Open {
                    place,
                    sender,
                    connection,
                    idle_since: Instant::now(),
                });
            }
        }
        tried
    }
}
