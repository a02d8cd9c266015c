//! The gRPC client: one connection to a server, shared by all calls, made again when it broke.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Uri, header};
use http_body::{Body, Frame};
use tokio::sync::{mpsc, oneshot, watch};

use super::dial::{Dialer, Sender};
use super::finish::{self, FINISH};
use super::message::{Gather, Line, Message};
use super::messages::Messages;
use super::response::{self, Answer};
use super::status::Status;
use crate::{Backoff, ClientTls};

/// Where a channel goes.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// `host:port`; a name is resolved at each attempt.
    pub addr: String,
    /// The name that the server's certificate must carry; also the call's authority.
    pub server_name: String,
    /// TLS, or plain text (HTTP/2 with prior knowledge) for tests and tools.
    pub tls: Option<Arc<ClientTls>>,
    /// How to behave.
    pub settings: ClientSettings,
}

/// How a channel behaves.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Largest message accepted, bytes. Default 10 MiB.
    pub max_message: usize,
    /// HTTP/2 window per stream, bytes. Default 256 KiB.
    pub stream_window: u32,
    /// HTTP/2 window per connection, bytes. Default 512 MiB, so that a stream that nobody reads does
    /// not stop its neighbours; what a connection may hold is bounded by streams × stream window.
    pub connection_window: u32,
    /// Largest HTTP/2 frame accepted, bytes. Default 256 KiB.
    pub max_frame: u32,
    /// Bytes of one stream that may wait in the connection to be sent. Default 400 KiB.
    pub send_buffer: usize,
    /// Time to connect, TLS and the server's first HTTP/2 frame included. Default 20 s.
    pub connect_timeout: Duration,
    /// A connection that is silent for so long is pinged, also without calls. Default 15 s; zero is
    /// never. Servers punish pings that come more often than each 10 s.
    pub keepalive_interval: Duration,
    /// A ping that is not answered within this time ends the connection. Default 20 s.
    pub keepalive_timeout: Duration,
    /// A peer that does not acknowledge sent bytes for so long is cut. Default 20 s.
    pub tcp_user_timeout: Duration,
    /// The least time from one attempt to connect to the next. Default: 1 s, growing by 1.6 up to
    /// 120 s, ±20 %; starts again at 1 s after an attempt that succeeded.
    pub backoff: Backoff,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            max_message: 10 * 1024 * 1024,
            stream_window: 256 * 1024,
            connection_window: 512 * 1024 * 1024,
            max_frame: 256 * 1024,
            send_buffer: 400 * 1024,
            connect_timeout: Duration::from_secs(20),
            keepalive_interval: Duration::from_secs(15),
            keepalive_timeout: Duration::from_secs(20),
            tcp_user_timeout: Duration::from_secs(20),
            backoff: Backoff::default(),
        }
    }
}

/// What a channel's connection is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelState {
    /// Not connected; the next call connects.
    Idle,
    /// Connecting.
    Connecting,
    /// Connected.
    Ready,
    /// The last attempt failed, or its connection was lost too soon, for this reason. The next one is
    /// made after the backoff, if somebody wants it.
    Failed(Status),
}

/// What a channel has seen. All counters only grow.
#[derive(Debug, Default)]
pub struct ChannelStats {
    /// Attempts to connect.
    pub attempts: AtomicU64,
    /// Attempts that succeeded.
    pub connected: AtomicU64,
    /// Connections that ended.
    pub lost: AtomicU64,
}

/// A client's connection to one server: made at the first call, made again after it broke, shared by
/// all calls. Clones are the same channel; when the last is dropped and its calls have ended, the
/// connection is closed.
///
/// Everything but [`Channel::new`] must be called within a tokio runtime.
#[derive(Clone, Debug)]
pub struct Channel {
    dialer: Arc<Dialer>,
    /// How many streams have got a number.
    streams: Arc<AtomicU64>,
}

impl Channel {
    /// A channel that is not connected yet.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            dialer: Arc::new(Dialer::new(endpoint)),
            streams: Arc::default(),
        }
    }

    /// Where it goes.
    pub fn endpoint(&self) -> &Endpoint {
        self.dialer.endpoint()
    }

    /// Follows the state of the connection.
    pub fn state(&self) -> watch::Receiver<ChannelState> {
        self.dialer.state()
    }

    /// The counters.
    pub fn stats(&self) -> Arc<ChannelStats> {
        self.dialer.stats()
    }

    /// Connects if need be and waits for the outcome: of the attempt under way, or of the next one,
    /// for which it waits the backoff out. A loop around this is paced by the backoff.
    ///
    /// # Errors
    /// `UNAVAILABLE` with the reason why that attempt failed.
    pub async fn ready(&self) -> Result<(), Status> {
        self.dialer.ready().await
    }

    /// Sends one message and receives many. Returns as soon as the request is on its way; see
    /// [`Messages::opened`]. Dropping the messages cancels the call.
    ///
    /// # Errors
    /// `UNAVAILABLE` when the server cannot be reached; at once while the channel waits a backoff out.
    pub async fn server_stream(
        &self,
        path: &'static str,
        request: Bytes,
    ) -> Result<Messages, Status> {
        let mut request = self.request(path, RequestBody::once(request.into())?)?;
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        finish::number(request.headers_mut(), number);
        let (mut messages, sender) = self.start(request).await?;
        let channel = self.clone();
        messages.can_finish(Box::new(move || {
            Box::pin(async move { channel.finish(sender, number).await })
        }));
        Ok(messages)
    }

    /// Asks the server for the end of a stream, on its connection.
    async fn finish(self, sender: Sender, number: u64) -> Result<(), Status> {
        let mut request = self.request(FINISH, RequestBody::once(Bytes::new().into())?)?;
        finish::number(request.headers_mut(), number);
        let mut requests = sender.requests;
        let answer = requests.try_send_request(request).await;
        let answer = answer.map_err(|error| response::broken(error.error()))?;
        let head = std::future::ready(response::head(answer));
        single(&mut self.messages(head)).await.map(drop)
    }

    /// Sends many messages and receives at most one.
    ///
    /// # Errors
    /// `UNAVAILABLE` when the server cannot be reached; at once while the channel waits a backoff out.
    pub async fn client_stream(
        &self,
        path: &'static str,
    ) -> Result<(ClientSender, PendingResponse), Status> {
        let (messages, queue) = mpsc::channel(1);
        let (alive, cancelled) = oneshot::channel();
        let body = RequestBody {
            line: Arc::default(),
            state: Sending::Queue { queue, cancelled },
        };
        let (answer, _) = self.start(self.request(path, body)?).await?;
        let pending = PendingResponse {
            messages: answer,
            _alive: alive,
        };
        Ok((ClientSender { messages }, pending))
    }

    /// One message each way. Dropping the future cancels the call.
    ///
    /// # Errors
    /// The server's status, or `UNAVAILABLE` when it cannot be reached.
    pub async fn unary(&self, path: &'static str, request: Bytes) -> Result<Bytes, Status> {
        let mut messages = self.server_stream(path, request).await?;
        single(&mut messages).await?.ok_or_else(|| {
            Status::internal(
                "cardinality violation: received no response message from non-server-streaming RPC",
            )
        })
    }

    /// Puts a call onto the connection, and tells which. The answer is still to come.
    async fn start(
        &self,
        mut request: http::Request<RequestBody>,
    ) -> Result<(Messages, Sender), Status> {
        loop {
            let mut sender = self.dialer.sender().await?;
            let mut answer = Box::pin(sender.requests.try_send_request(request));
            // The connection may have ended without our knowing it. It then gives the request back
            // unsent as soon as it is asked, and the next one gets it.
            match poll_fn(|cx| Poll::Ready(answer.as_mut().poll(cx))).await {
                Poll::Ready(Err(mut error)) => match error.take_message() {
                    Some(unsent) => {
                        self.dialer.forget(&sender);
                        request = unsent;
                    }
                    None => return Err(response::broken(error.error())),
                },
                Poll::Ready(Ok(early)) => {
                    let head = std::future::ready(response::head(early));
                    drop(answer);
                    return Ok((self.messages(head), sender));
                }
                Poll::Pending => {
                    let head = async move {
                        match answer.await {
                            Ok(response) => response::head(response),
                            Err(error) => Err(response::broken(error.error())),
                        }
                    };
                    return Ok((self.messages(head), sender));
                }
            }
        }
    }

    fn messages(
        &self,
        head: impl Future<Output = Result<Answer, Status>> + Send + 'static,
    ) -> Messages {
        Messages::of_response(head, self.endpoint().settings.max_message)
    }

    fn request(
        &self,
        path: &'static str,
        body: RequestBody,
    ) -> Result<http::Request<RequestBody>, Status> {
        let endpoint = self.endpoint();
        let scheme = if endpoint.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let invalid = |error: http::Error| {
            Status::invalid_argument(format!(
                "path {path:?} or authority {:?}: {error}",
                endpoint.server_name
            ))
        };
        let uri = Uri::builder()
            .scheme(scheme)
            .authority(endpoint.server_name.as_str())
            .path_and_query(path)
            .build()
            .map_err(invalid)?;
        let mut request = http::Request::new(body);
        *request.method_mut() = http::Method::POST;
        *request.version_mut() = http::Version::HTTP_2;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("loggregator-net/", env!("CARGO_PKG_VERSION"))),
        );
        Ok(request)
    }
}

/// The only message of a response, if there is one.
async fn single(messages: &mut Messages) -> Result<Option<Bytes>, Status> {
    let Some(message) = messages.next().await.transpose()? else {
        return Ok(None);
    };
    match messages.next().await.transpose()? {
        None => Ok(Some(message)),
        Some(_) => Err(Status::internal(
            "cardinality violation: expected <EOF> for non server-streaming RPCs, but received another message",
        )),
    }
}

/// The sending half of a client stream. Dropping it ends the stream well (half-close) after what was
/// sent; dropping the [`PendingResponse`] cancels the call.
#[derive(Debug)]
pub struct ClientSender {
    messages: mpsc::Sender<Message>,
}

/// The call has ended; here is the message back, its receipt not settled. Why is told by the
/// [`PendingResponse`].
#[derive(Debug)]
pub struct NotSent(pub Message);

impl ClientSender {
    /// Hands a message to the stream; waits while the previous one is still held up by flow control.
    /// At most one message waits here, and one in the connection. What becomes of the message is told
    /// by its receipt.
    ///
    /// # Errors
    /// The call has ended.
    pub async fn send(&self, message: impl Into<Message>) -> Result<(), NotSent> {
        let message = message.into();
        self.messages
            .send(message)
            .await
            .map_err(|error| NotSent(error.0))
    }

    /// Whether the call has ended, so that no message can be sent any more.
    pub fn is_closed(&self) -> bool {
        self.messages.is_closed()
    }

    /// Waits until the call has ended.
    pub async fn closed(&self) {
        self.messages.closed().await;
    }
}

/// The answer to a client stream. Dropping it cancels the call.
#[derive(Debug)]
pub struct PendingResponse {
    messages: Messages,
    /// Its drop is what the request's body notices.
    _alive: oneshot::Sender<()>,
}

impl PendingResponse {
    /// Waits for the end of the call: the response message if there was one.
    ///
    /// # Errors
    /// The status with which the server ended the call, or that stands for how the connection broke.
    pub async fn wait(mut self) -> Result<Option<Bytes>, Status> {
        single(&mut self.messages).await
    }
}

/// The body of a request.
pub(super) struct RequestBody {
    line: Arc<Line>,
    state: Sending,
}

enum Sending {
    Once(Option<Box<Gather>>),
    Queue {
        queue: mpsc::Receiver<Message>,
        cancelled: oneshot::Receiver<()>,
    },
}

impl RequestBody {
    fn once(message: Message) -> Result<Self, Status> {
        let line = Arc::default();
        let gather = Gather::new(message, &line)?;
        Ok(Self {
            line,
            state: Sending::Once(Some(Box::new(gather))),
        })
    }
}

impl Body for RequestBody {
    type Data = Gather;
    type Error = h2::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Gather>, h2::Error>>> {
        let this = self.get_mut();
        let (queue, cancelled) = match &mut this.state {
            Sending::Once(gather) => {
                return Poll::Ready(gather.take().map(|gather| Ok(Frame::data(*gather))));
            }
            Sending::Queue { queue, cancelled } => (queue, cancelled),
        };
        if Pin::new(cancelled).poll(cx).is_ready() {
            return Poll::Ready(Some(Err(h2::Reason::CANCEL.into())));
        }
        std::task::ready!(this.line.poll_free(cx));
        let Some(message) = std::task::ready!(queue.poll_recv(cx)) else {
            return Poll::Ready(None);
        };
        // Nobody builds a message of 4 GiB; if somebody does, the call ends here.
        let gather = Gather::new(message, &this.line)
            .map_err(|_too_large| h2::Error::from(h2::Reason::INTERNAL_ERROR));
        Poll::Ready(Some(gather.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, Sending::Once(None))
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestBody")
    }
}
