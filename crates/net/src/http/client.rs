//! A small HTTP/1.1 client for questions to other services: one connection per request, everything bounded.
//!
//! Each request has a connection of its own and asks for its end (`Connection: close`), so that every answer comes from
//! a server whose certificate was checked just now. An answer that has no end in sight is read as it comes, see
//! [`Client::open`].

mod kept;
mod streaming;

use std::sync::Arc;
use std::time::Duration;

use ::http::header::{AUTHORIZATION, CONNECTION, COOKIE, HOST, HeaderValue, LOCATION};
use ::http::uri::{Authority, PathAndQuery, Scheme};
use ::http::{HeaderMap, Method, Response, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;

pub use kept::Kept;
pub use streaming::Streaming;

use crate::{ClientTls, HandshakeError, socket, tls_connect};

/// A connection, with TLS or without.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A request of a [`Client`]: its URI is absolute.
pub type Question = ::http::Request<Bytes>;

/// What a [`Client`] may spend.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Time for the TLS handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// Largest body of an answer, bytes. Default 1 MiB.
    pub max_body: usize,
    /// Redirects of a GET that are followed. Default 0: a redirect is the answer.
    pub max_redirects: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            max_body: 1 << 20,
            max_redirects: 0,
        }
    }
}

/// Asks `http://` and `https://` servers.
#[derive(Clone, Debug)]
pub struct Client {
    /// For `https://`; without it such a URI is an error.
    pub tls: Option<Arc<ClientTls>>,
    /// The name that the server's certificate must carry. `None`: the URI's host.
    pub server_name: Option<String>,
    /// What a request may spend.
    pub limits: Limits,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status, whatever it is.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, at most [`Limits::max_body`] bytes.
    pub body: Bytes,
}

/// Why there is no answer. Names the place (scheme, host and port) and never a header or a query.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The URI is not absolute, or of another scheme than `http` and `https`.
    #[error("not an absolute http:// or https:// address")]
    Address,
    /// `https://`, and the client has no certificates to check it with.
    #[error("{place}: no certificates are set up for https")]
    NoTls {
        /// Where to.
        place: String,
    },
    /// No connection.
    #[error("{place}: cannot connect: {source}")]
    Connect {
        /// Where to.
        place: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// No TLS connection.
    #[error("{place}: {source}")]
    Handshake {
        /// Where to.
        place: String,
        /// Why.
        source: HandshakeError,
    },
    /// The connection failed, or what came is no HTTP.
    #[error("{place}: the request failed: {source}")]
    Exchange {
        /// Where to.
        place: String,
        /// Why.
        source: hyper::Error,
    },
    /// The body broke off.
    #[error("{place}: the answer broke off: {reason}")]
    Body {
        /// Where from.
        place: String,
        /// Why.
        reason: String,
    },
    /// The body is too large.
    #[error("{place}: the answer is longer than {limit} bytes")]
    TooLong {
        /// Where from.
        place: String,
        /// [`Limits::max_body`].
        limit: usize,
    },
    /// A redirect to nowhere.
    #[error("{place}: redirect without a usable location")]
    Redirect {
        /// Where from.
        place: String,
    },
    /// Redirects without end.
    #[error("{place}: stopped after {limit} redirects")]
    TooManyRedirects {
        /// Where the last came from.
        place: String,
        /// [`Limits::max_redirects`].
        limit: usize,
    },
    /// The time was up.
    #[error("{place}: no answer in time")]
    Timeout {
        /// Where to.
        place: String,
    },
}

impl Client {
    /// Sends a request and takes in the whole answer, by `deadline`.
    ///
    /// Redirects are followed for GET, as many as [`Limits::max_redirects`] says. `Authorization` and `Cookie` go with a
    /// redirect only to the same scheme, host and port.
    ///
    /// # Errors
    /// When there is no whole answer, see [`ClientError`]. Any status is an answer.
    pub async fn send(&self, question: Question, deadline: Instant) -> Result<Answer, ClientError> {
        let place = place(question.uri());
        tokio::time::timeout_at(deadline, self.follow(question))
            .await
            .unwrap_or(Err(ClientError::Timeout { place }))
    }

    async fn follow(&self, mut question: Question) -> Result<Answer, ClientError> {
        let mut redirects = 0;
        loop {
            let again = (question.method() == Method::GET && self.limits.max_redirects > 0)
                .then(|| question.clone());
            let from = question.uri().clone();
            let answer = self.once(question).await?;
            let Some(mut next) = again.filter(|_| redirected(answer.status)) else {
                return Ok(answer);
            };
            let place = place(&from);
            if redirects == self.limits.max_redirects {
                let limit = self.limits.max_redirects;
                return Err(ClientError::TooManyRedirects { place, limit });
            }
            redirects += 1;
            let to = answer
                .headers
                .get(LOCATION)
                .and_then(|location| target(&from, location))
                .ok_or(ClientError::Redirect { place })?;
            if (to.scheme(), authority(&to)) != (from.scheme(), authority(&from)) {
                next.headers_mut().remove(AUTHORIZATION);
                next.headers_mut().remove(COOKIE);
            }
            *next.uri_mut() = to;
            question = next;
        }
    }

    async fn once(&self, question: Question) -> Result<Answer, ClientError> {
        let place = place(question.uri());
        let (io, _) = self.connect(question.uri(), &place).await?;
        self.exchange(TokioIo::new(io), question, place).await
    }

    /// A connection to the server that an address names, and whether HTTP/2 is spoken on it.
    async fn connect(&self, uri: &Uri, place: &str) -> Result<(Box<dyn Io>, bool), ClientError> {
        let place = || place.to_owned();
        let host = uri.host().ok_or(ClientError::Address)?;
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let tls = match uri.scheme_str() {
            Some("http") => None,
            Some("https") => Some(
                self.tls
                    .as_ref()
                    .ok_or_else(|| ClientError::NoTls { place: place() })?,
            ),
            _ => return Err(ClientError::Address),
        };
        let port = uri
            .port_u16()
            .unwrap_or(if tls.is_some() { 443 } else { 80 });
        let connect = |source| ClientError::Connect {
            place: place(),
            source,
        };
        let stream = TcpStream::connect((host.as_str(), port))
            .await
            .map_err(connect)?;
        socket::tune(&stream, Duration::ZERO).map_err(connect)?;
        let Some(tls) = tls else {
            return Ok((Box::new(stream), false));
        };
        let name = self.server_name.as_deref().unwrap_or(&host);
        let stream = tls_connect(stream, tls, name, self.limits.handshake_timeout)
            .await
            .map_err(|source| ClientError::Handshake {
                place: place(),
                source,
            })?;
        let http2 = stream.connection().alpn_protocol() == Some(b"h2");
        Ok((Box::new(stream), http2))
    }

    async fn exchange<IO: Read + Write + Unpin + Send + 'static>(
        &self,
        io: IO,
        mut question: Question,
        place: String,
    ) -> Result<Answer, ClientError> {
        let failed = |source| ClientError::Exchange {
            place: place.clone(),
            source,
        };
        to_origin_form(&mut question)?;
        let close = HeaderValue::from_static("close");
        question.headers_mut().insert(CONNECTION, close);

        let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .map_err(failed)?;
        let exchange = async {
            let response = sender
                .send_request(question.map(Full::new))
                .await
                .map_err(failed)?;
            self.whole(&place, response).await
        };
        tokio::pin!(exchange);
        tokio::select! {
            done = &mut exchange => done,
            // The connection ends with the answer, which is then complete, or with an error, which the exchange sees.
            _ = connection => exchange.await,
        }
    }

    /// Takes in the body of an answer.
    async fn whole(
        &self,
        place: &str,
        response: Response<Incoming>,
    ) -> Result<Answer, ClientError> {
        let (head, body) = response.into_parts();
        let body = Limited::new(body, self.limits.max_body)
            .collect()
            .await
            .map_err(|error| self.broken(place, &*error))?;
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    }

    fn broken(&self, place: &str, error: &(dyn std::error::Error + 'static)) -> ClientError {
        if error.is::<LengthLimitError>() {
            return ClientError::TooLong {
                place: place.to_owned(),
                limit: self.limits.max_body,
            };
        }
        ClientError::Body {
            place: place.to_owned(),
            reason: error.to_string(),
        }
    }
}

/// As HTTP/1.1 asks the server itself: the path alone, and the host in a header.
fn to_origin_form(question: &mut Question) -> Result<(), ClientError> {
    let authority = authority(question.uri()).ok_or(ClientError::Address)?;
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| ClientError::Address)?;
    question.headers_mut().insert(HOST, host);
    let path = question.uri().path_and_query().cloned();
    *question.uri_mut() = path.unwrap_or(PathAndQuery::from_static("/")).into();
    Ok(())
}

fn redirected(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Host and port without user information.
fn authority(uri: &Uri) -> Option<Authority> {
    let authority = uri.authority()?;
    match authority.as_str().rsplit_once('@') {
        None => Some(authority.clone()),
        Some((_, host)) => host.parse().ok(),
    }
}

/// Scheme, host and port, for error texts.
fn place(uri: &Uri) -> String {
    let scheme = uri.scheme().map_or("", Scheme::as_str);
    authority(uri).map_or_else(
        || "no address".to_owned(),
        |authority| format!("{scheme}://{authority}"),
    )
}

/// Where a `Location` points: an absolute address, one without a scheme, a path, or a relative path.
fn target(from: &Uri, location: &HeaderValue) -> Option<Uri> {
    let text = location.to_str().ok()?;
    let text = text.split('#').next()?;
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    let lower = text.get(..8).map(str::to_ascii_lowercase);
    if lower.is_some_and(|start| start.starts_with("http://") || start == "https://") {
        return text.parse().ok();
    }
    if let Some(rest) = text.strip_prefix("//") {
        return format!("{scheme}://{rest}").parse().ok();
    }
    if text.starts_with('/') {
        return format!("{scheme}://{authority}{text}").parse().ok();
    }
    if text.is_empty() || text.contains(':') {
        return None;
    }
    let folder = from
        .path()
        .rsplit_once('/')
        .map_or("", |(folder, _)| folder);
    format!("{scheme}://{authority}{folder}/{text}")
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goes(from: &str, location: &str) -> Option<String> {
        let location = HeaderValue::from_str(location).unwrap();
        target(&from.parse().unwrap(), &location).map(|uri| uri.to_string())
    }

    #[test]
    fn locations_are_resolved_against_where_they_came_from() {
        let from = "https://cc.example:9023/internal/v4/x";
        for (location, expected) in [
            ("/a?b=c#d", Some("https://cc.example:9023/a?b=c")),
            ("y", Some("https://cc.example:9023/internal/v4/y")),
            ("//other/z", Some("https://other/z")),
            ("http://other:1/z", Some("http://other:1/z")),
            ("", None),
            ("ftp://other/z", None),
        ] {
            assert_eq!(goes(from, location).as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn places_show_no_user_information_and_no_query() {
        let uri = "https://bob:secret@uaa:1/check_token?token=x"
            .parse()
            .unwrap();
        assert_eq!(place(&uri), "https://uaa:1");
        assert_eq!(authority(&uri).unwrap().as_str(), "uaa:1");
    }
}
