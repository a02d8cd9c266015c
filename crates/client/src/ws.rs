//! The firehose over a WebSocket, as the traffic controller serves it: `/firehose/{subscription-id}` and
//! `/apps/{app-id}/stream`, one serialised v1 envelope per binary message.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::AUTHORIZATION;
use http::{HeaderValue, Uri};
use loggregator_net::{Backoff, ClientTls, TlsStream, tls_connect};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::{
    CloseFrame, WebSocketConfig, frame::coding::CloseCode,
};
use tokio_tungstenite::tungstenite::{self, Message};

/// What a WebSocket subscription is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Everything, shared among all clients with this subscription id.
    Firehose {
        /// The subscription id.
        id: String,
        /// Only logs, or only metrics.
        filter: Option<Filter>,
    },
    /// The logs of one app.
    App(String),
}

/// Half of a firehose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// `filter-type=logs`.
    Logs,
    /// `filter-type=metrics`.
    Metrics,
}

impl Subject {
    /// Path and query of the endpoint.
    #[must_use]
    pub fn path(&self) -> String {
        match self {
            Subject::Firehose { id, filter } => {
                let filter = match filter {
                    None => "",
                    Some(Filter::Logs) => "?filter-type=logs",
                    Some(Filter::Metrics) => "?filter-type=metrics",
                };
                format!("/firehose/{}{filter}", escape(id))
            }
            Subject::App(id) => format!("/apps/{}/stream", escape(id)),
        }
    }
}

/// Percent-encodes everything but what RFC 3986 leaves unreserved.
fn escape(segment: &str) -> String {
    let mut out = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Where to connect and how.
#[derive(Clone)]
pub struct WsConfig {
    /// `ws://host:port` or `wss://host:port`, without a path.
    pub url: String,
    /// The `Authorization` header's value, e.g. `bearer …`. Never logged.
    pub token: Option<String>,
    /// How to verify the server of a `wss` URL.
    pub tls: Option<Arc<ClientTls>>,
    /// Time to connect, handshakes included. Default 10 s.
    pub connect_timeout: Duration,
    /// A connection on which nothing arrives for so long, not even a ping, is dead. The traffic controller pings every
    /// 15 s. Default 60 s.
    pub idle_timeout: Duration,
    /// Largest message accepted, bytes. Default 10 MiB.
    pub max_message: usize,
    /// Between attempts to connect. Default 500 ms, up to 1 min.
    pub backoff: Backoff,
}

impl WsConfig {
    /// Connects to this URL with the default settings.
    #[must_use]
    pub fn new(url: &str) -> WsConfig {
        WsConfig {
            url: url.to_owned(),
            token: None,
            tls: None,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            max_message: 10 * 1024 * 1024,
            backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(60))
                .with_shape(2.0, 0.2),
        }
    }
}

impl std::fmt::Debug for WsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WsConfig")
            .field("url", &self.url)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

/// Why a connection could not be made or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WsError {
    /// The URL is not one of a WebSocket, or it asks for TLS that is not configured.
    #[error("{url:?} cannot be used: {reason}")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The token cannot be sent in a header. (It is not shown.)
    #[error("the token contains characters that no header may have")]
    Token,
    /// The server wants another token.
    #[error("the server refused the token ({status}): {body}")]
    Unauthorized {
        /// 401 or 403.
        status: u16,
        /// What the server says.
        body: String,
    },
    /// The server answered with something else than a WebSocket.
    #[error("the server answered {status}: {body}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What the server says.
        body: String,
    },
    /// The server cannot be reached.
    #[error("no connection to {addr}: {reason}")]
    Connect {
        /// Host and port.
        addr: String,
        /// What went wrong.
        reason: String,
    },
    /// The server ended the connection with this code and reason.
    #[error("the server closed the connection: {code} {reason}")]
    Closed {
        /// The WebSocket close code; 1006 when there was none.
        code: u16,
        /// The close reason.
        reason: String,
    },
    /// The connection broke, or nothing arrived on it for the idle timeout.
    #[error("the connection broke: {0}")]
    Broken(String),
}

impl WsError {
    /// Whether another attempt can help without a change on this side.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(
            self,
            WsError::Url { .. } | WsError::Token | WsError::Unauthorized { .. }
        )
    }
}

/// What a [`WsStream`] has to say.
#[derive(Debug)]
pub enum WsEvent {
    /// The subscription stands.
    Connected,
    /// A serialised v1 envelope.
    Envelope(Bytes),
    /// The connection is lost, or could not be made; the next attempt is made after this time. Envelopes of the time in
    /// between are missed, unless the server keeps them for the subscription id.
    Disconnected {
        /// Why.
        error: WsError,
        /// When the next attempt is made.
        retry_in: Duration,
    },
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl Io for TcpStream {}
impl Io for TlsStream<TcpStream> {}

type Socket = WebSocketStream<Box<dyn Io>>;

enum State {
    /// Until the next attempt.
    Waiting(Option<Pin<Box<Sleep>>>),
    Connecting(Pin<Box<dyn Future<Output = Result<Socket, WsError>> + Send>>),
    Open(Box<Open>),
}

/// A WebSocket subscription that connects again when it must.
pub struct WsStream {
    config: WsConfig,
    subject: Subject,
    backoff: Backoff,
    state: State,
}

impl WsStream {
    /// Not connected yet; [`next`](WsStream::next) connects.
    #[must_use]
    pub fn new(config: WsConfig, subject: Subject) -> WsStream {
        let backoff = config.backoff.clone();
        WsStream {
            config,
            subject,
            backoff,
            state: State::Waiting(None),
        }
    }

    /// What happens next. May be cancelled. An error is one that another attempt would meet again; the stream may be asked
    /// again all the same.
    pub async fn next(&mut self) -> Result<WsEvent, WsError> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`next`](WsStream::next), for a poll function. Must be called within a tokio runtime.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<WsEvent, WsError>> {
        loop {
            match &mut self.state {
                State::Waiting(pause) => {
                    if let Some(pause) = pause {
                        ready!(pause.as_mut().poll(cx));
                    }
                    let connecting = connect(self.config.clone(), self.subject.clone());
                    self.state = State::Connecting(Box::pin(connecting));
                }
                State::Connecting(connecting) => {
                    return Poll::Ready(match ready!(connecting.as_mut().poll(cx)) {
                        Ok(socket) => {
                            let open = Open::new(socket, self.config.idle_timeout);
                            self.state = State::Open(Box::new(open));
                            Ok(WsEvent::Connected)
                        }
                        Err(error) => self.lost(error),
                    });
                }
                State::Open(open) => {
                    return Poll::Ready(match ready!(open.poll_receive(cx)) {
                        Ok(payload) => {
                            self.backoff.reset();
                            Ok(WsEvent::Envelope(payload))
                        }
                        Err(error) => self.lost(error),
                    });
                }
            }
        }
    }

    /// Ends the connection with a close frame, waiting a moment for the server's.
    pub async fn close(self) {
        if let State::Open(open) = self.state {
            let mut socket = open.socket;
            let frame = CloseFrame {
                code: CloseCode::Normal,
                reason: "".into(),
            };
            let closing = async {
                if socket.close(Some(frame)).await.is_ok() {
                    while let Some(Ok(_)) = socket.next().await {}
                }
            };
            // Whoever does not answer is left alone: the connection ends either way.
            let _answered = tokio::time::timeout(Duration::from_secs(1), closing)
                .await
                .is_ok();
        }
    }

    fn lost(&mut self, error: WsError) -> Result<WsEvent, WsError> {
        let retry_in = self.backoff.next_delay();
        self.state = State::Waiting(Some(Box::pin(tokio::time::sleep(retry_in))));
        if error.is_retryable() {
            Ok(WsEvent::Disconnected { error, retry_in })
        } else {
            Err(error)
        }
    }
}

async fn connect(config: WsConfig, subject: Subject) -> Result<Socket, WsError> {
    let (target, uri) = Target::parse(&config, &subject)?;
    let addr = target.addr();
    match tokio::time::timeout(config.connect_timeout, handshake(&config, target, uri)).await {
        Ok(result) => result,
        Err(_) => Err(WsError::Connect {
            addr,
            reason: "timed out".to_owned(),
        }),
    }
}

async fn handshake(config: &WsConfig, target: Target, uri: Uri) -> Result<Socket, WsError> {
    let failed = |reason: String| WsError::Connect {
        addr: target.addr(),
        reason,
    };
    let mut request = uri
        .into_client_request()
        .map_err(|e| failed(e.to_string()))?;
    if let Some(token) = &config.token {
        let mut value = HeaderValue::from_str(token).map_err(|_| WsError::Token)?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    let tcp = TcpStream::connect((target.host.as_str(), target.port))
        .await
        .map_err(|e| failed(e.to_string()))?;
    tcp.set_nodelay(true).map_err(|e| failed(e.to_string()))?;
    let io: Box<dyn Io> = match &target.tls {
        None => Box::new(tcp),
        Some(tls) => {
            let stream = tls_connect(tcp, tls, &target.host, config.connect_timeout).await;
            Box::new(stream.map_err(|e| failed(e.to_string()))?)
        }
    };
    let limits = WebSocketConfig::default()
        .max_message_size(Some(config.max_message))
        .max_frame_size(Some(config.max_message));
    match tokio_tungstenite::client_async_with_config(request, io, Some(limits)).await {
        Ok((socket, _response)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => {
            let status = response.status().as_u16();
            let body = response.body().as_deref().unwrap_or_default();
            let body = String::from_utf8_lossy(&body[..body.len().min(1000)])
                .trim()
                .to_owned();
            Err(match status {
                401 | 403 => WsError::Unauthorized { status, body },
                _ => WsError::Refused { status, body },
            })
        }
        Err(error) => Err(failed(error.to_string())),
    }
}

impl std::fmt::Debug for WsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WsStream")
            .field("config", &self.config)
            .field("subject", &self.subject)
            .field("connected", &matches!(self.state, State::Open(_)))
            .finish_non_exhaustive()
    }
}

/// A connection that stands.
struct Open {
    socket: Socket,
    /// An answer to a ping, or to a close frame, may wait to be sent.
    unsent: bool,
    idle_timeout: Duration,
    /// Goes off when the time is up, and is set again if something arrived meanwhile.
    idle: Pin<Box<Sleep>>,
    heard: bool,
}

impl Open {
    fn new(socket: Socket, idle_timeout: Duration) -> Open {
        Open {
            socket,
            unsent: false,
            idle_timeout,
            idle: Box::pin(tokio::time::sleep(idle_timeout)),
            heard: false,
        }
    }

    /// The next payload; pings are answered on the way.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, WsError>> {
        loop {
            if self.unsent
                && let Poll::Ready(sent) = self.socket.poll_flush_unpin(cx)
            {
                self.unsent = false;
                sent.map_err(|e| WsError::Broken(e.to_string()))?;
            }
            let Poll::Ready(message) = self.socket.poll_next_unpin(cx) else {
                return self.poll_idle(cx).map(Err);
            };
            self.heard = true;
            match message {
                Some(Ok(Message::Binary(payload))) => return Poll::Ready(Ok(payload)),
                Some(Ok(Message::Text(text))) => return Poll::Ready(Ok(text.into())),
                Some(Ok(Message::Close(frame))) => {
                    // Sends the answer to the close frame; the connection is over whether it arrives or not.
                    let _sent = self.socket.poll_flush_unpin(cx).is_ready();
                    let (code, reason) = frame.map_or((1005, String::new()), |f| {
                        (f.code.into(), f.reason.to_string())
                    });
                    return Poll::Ready(Err(WsError::Closed { code, reason }));
                }
                // The answer to a ping is queued by the reader and leaves with the next flush.
                Some(Ok(Message::Ping(_))) => self.unsent = true,
                Some(Ok(Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(error)) => return Poll::Ready(Err(WsError::Broken(error.to_string()))),
                None => {
                    let (code, reason) = (1006, String::new());
                    return Poll::Ready(Err(WsError::Closed { code, reason }));
                }
            }
        }
    }

    /// Ready when nothing arrived for the idle timeout.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<WsError> {
        loop {
            ready!(self.idle.as_mut().poll(cx));
            let timeout = self.idle_timeout;
            if !std::mem::take(&mut self.heard) {
                let silence = format!("nothing arrived for {timeout:?}");
                return Poll::Ready(WsError::Broken(silence));
            }
            self.idle.as_mut().reset(Instant::now() + timeout);
        }
    }
}

struct Target {
    host: String,
    port: u16,
    tls: Option<Arc<ClientTls>>,
}

impl Target {
    fn parse(config: &WsConfig, subject: &Subject) -> Result<(Target, Uri), WsError> {
        let wrong = |reason: &str| WsError::Url {
            url: config.url.clone(),
            reason: reason.to_owned(),
        };
        let full = format!("{}{}", config.url.trim_end_matches('/'), subject.path());
        let uri: Uri = full
            .parse()
            .map_err(|e: http::uri::InvalidUri| wrong(&e.to_string()))?;
        let (tls, default_port) = match uri.scheme_str() {
            Some("ws") => (None, 80),
            Some("wss") => {
                let tls = config
                    .tls
                    .clone()
                    .ok_or_else(|| wrong("no certificate authority is configured for wss"))?;
                (Some(tls), 443)
            }
            _ => return Err(wrong("it must begin with ws:// or wss://")),
        };
        let host = uri.host().ok_or_else(|| wrong("it names no host"))?;
        // An IPv6 address is in brackets here and nowhere else.
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let port = uri.port_u16().unwrap_or(default_port);
        Ok((Target { host, port, tls }, uri))
    }

    fn addr(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;
    use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

    #[test]
    fn paths_are_those_of_the_traffic_controller() {
        let firehose = |filter| {
            Subject::Firehose {
                id: "my nozzle/1".to_owned(),
                filter,
            }
            .path()
        };
        assert_eq!(firehose(None), "/firehose/my%20nozzle%2F1");
        assert_eq!(
            firehose(Some(Filter::Logs)),
            "/firehose/my%20nozzle%2F1?filter-type=logs"
        );
        assert_eq!(
            firehose(Some(Filter::Metrics)),
            "/firehose/my%20nozzle%2F1?filter-type=metrics"
        );
        assert_eq!(Subject::App("guid".to_owned()).path(), "/apps/guid/stream");
    }

    #[test]
    fn the_token_is_not_shown() {
        let config = WsConfig {
            token: Some("bearer secret".to_owned()),
            ..WsConfig::new("ws://h:1")
        };
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[tokio::test]
    async fn urls_that_cannot_work_are_errors_at_once() {
        for url in ["http://h:1", "h:1", "wss://h:1", "ws://"] {
            let mut stream = WsStream::new(WsConfig::new(url), Subject::App("a".to_owned()));
            let error = stream.next().await.unwrap_err();
            assert!(matches!(error, WsError::Url { .. }), "{url}: {error}");
        }
    }

    async fn server() -> (TcpListener, WsConfig) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = WsConfig::new(&format!("ws://{}", listener.local_addr().unwrap()));
        config.token = Some("bearer t".to_owned());
        config.backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(5));
        (listener, config)
    }

    #[allow(clippy::result_large_err)] // the callback's type is given
    fn check(request: &Request, response: Response) -> Result<Response, ErrorResponse> {
        if request
            .headers()
            .get(AUTHORIZATION)
            .is_some_and(|v| v == "bearer t")
        {
            assert_eq!(request.uri().path(), "/firehose/id");
            Ok(response)
        } else {
            Err(http::Response::builder()
                .status(401)
                .body(Some("no".to_owned()))
                .unwrap())
        }
    }

    async fn accept(
        listener: &TcpListener,
    ) -> Result<WebSocketStream<TcpStream>, tungstenite::Error> {
        let (tcp, _) = listener.accept().await.unwrap();
        tokio_tungstenite::accept_hdr_async(tcp, check).await
    }

    fn firehose() -> Subject {
        Subject::Firehose {
            id: "id".to_owned(),
            filter: None,
        }
    }

    #[tokio::test]
    async fn payloads_arrive_pings_are_answered_and_a_lost_connection_is_made_again() {
        let (listener, config) = server().await;
        let serving = tokio::spawn(async move {
            let mut socket = accept(&listener).await.unwrap();
            socket.send(Message::Ping("p".into())).await.unwrap();
            let pong = socket.next().await.unwrap().unwrap();
            assert_eq!(pong, Message::Pong("p".into()));
            socket.send(Message::Binary("one".into())).await.unwrap();
            let frame = CloseFrame {
                code: CloseCode::Policy,
                reason: "slow".into(),
            };
            socket.close(Some(frame)).await.unwrap();
            while let Some(Ok(_)) = socket.next().await {}
            let mut socket = accept(&listener).await.unwrap();
            socket.send(Message::Binary("two".into())).await.unwrap();
            assert!(
                matches!(socket.next().await, Some(Ok(Message::Close(Some(f)))) if f.code == CloseCode::Normal)
            );
        });
        let mut stream = WsStream::new(config, firehose());
        let mut seen = Vec::new();
        while seen.len() < 5 {
            seen.push(match stream.next().await.unwrap() {
                WsEvent::Connected => "connected".to_owned(),
                WsEvent::Envelope(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
                WsEvent::Disconnected { error, .. } => error.to_string(),
            });
        }
        let closed = "the server closed the connection: 1008 slow";
        assert_eq!(seen, ["connected", "one", closed, "connected", "two"]);
        stream.close().await;
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn a_refused_token_is_final_and_an_absent_server_is_not() {
        let (listener, mut config) = server().await;
        config.token = Some("bearer wrong".to_owned());
        let refusing = tokio::spawn(async move { accept(&listener).await.is_err() });
        let mut stream = WsStream::new(config, firehose());
        let error = stream.next().await.unwrap_err();
        assert!(
            matches!(&error, WsError::Unauthorized { status: 401, body } if body == "no"),
            "{error}"
        );
        assert!(refusing.await.unwrap()); // and with it the listener is gone
        let event = stream.next().await.unwrap();
        assert!(
            matches!(
                event,
                WsEvent::Disconnected {
                    error: WsError::Connect { .. },
                    ..
                }
            ),
            "{event:?}"
        );
    }

    #[tokio::test]
    async fn a_silent_connection_is_given_up() {
        let (listener, mut config) = server().await;
        config.idle_timeout = Duration::from_millis(20);
        let holding = tokio::spawn(async move { accept(&listener).await.unwrap() });
        let mut stream = WsStream::new(config, firehose());
        assert!(matches!(stream.next().await.unwrap(), WsEvent::Connected));
        let _socket = holding.await.unwrap();
        let event = stream.next().await.unwrap();
        assert!(
            matches!(
                event,
                WsEvent::Disconnected {
                    error: WsError::Broken(_),
                    ..
                }
            ),
            "{event:?}"
        );
    }
}
