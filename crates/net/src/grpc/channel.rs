//! skeleton
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::message::Message;
use super::messages::Messages;
use super::status::Status;
use crate::{Backoff, ClientTls};

/// Where a channel goes.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// `host:port`; a name is resolved at each attempt.
    pub addr: String,
    /// The name that the server's certificate must carry; also the call's authority.
    pub server_name: String,
    /// TLS, or plain text for tests and tools.
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
    /// Time to connect, TLS and the server's first HTTP/2 frame included. Default 20 s.
    pub connect_timeout: Duration,
    /// A connection that is silent for so long is pinged. Default 15 s; zero is never.
    pub keepalive_interval: Duration,
    /// A ping that is not answered within this time ends the connection. Default 20 s.
    pub keepalive_timeout: Duration,
    /// A peer that does not acknowledge sent bytes for so long is cut. Default 20 s.
    pub tcp_user_timeout: Duration,
    /// Between failed attempts to connect.
    pub backoff: Backoff,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            max_message: 10 * 1024 * 1024,
            stream_window: 256 * 1024,
            connection_window: 512 * 1024 * 1024,
            max_frame: 256 * 1024,
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
    /// The last attempt failed for this reason; the next one is made after the backoff, when
    /// somebody wants it.
    Failed(Status),
}

/// A client's connection to one server: made at the first call, made again after it broke, shared by
/// all calls. Clones are the same channel; when the last is dropped and its calls have ended, the
/// connection is closed.
#[derive(Clone, Debug)]
pub struct Channel {
    state: watch::Receiver<ChannelState>,
}

impl Channel {
    /// A channel that is not connected yet.
    pub fn new(_endpoint: Endpoint) -> Self {
        let (_sender, state) = watch::channel(ChannelState::Idle);
        Self { state }
    }

    /// Follows the state of the connection.
    pub fn state(&self) -> watch::Receiver<ChannelState> {
        self.state.clone()
    }

    /// Connects if need be and waits for the outcome: of the attempt under way, or of the next one,
    /// for which it waits the backoff out. A loop around this is paced by the backoff.
    pub async fn ready(&self) -> Result<(), Status> {
        Err(Status::unavailable("not done yet"))
    }

    /// Sends one message and receives many. Fails at once while the channel waits out a backoff.
    /// Returns as soon as the request is on its way; see [`Messages::opened`].
    pub async fn server_stream(
        &self,
        _path: &'static str,
        _request: Bytes,
    ) -> Result<Messages, Status> {
        Err(Status::unavailable("not done yet"))
    }

    /// Sends many messages and receives at most one.
    pub async fn client_stream(
        &self,
        _path: &'static str,
    ) -> Result<(ClientSender, PendingResponse), Status> {
        Err(Status::unavailable("not done yet"))
    }

    /// One message each way.
    pub async fn unary(&self, _path: &'static str, _request: Bytes) -> Result<Bytes, Status> {
        Err(Status::unavailable("not done yet"))
    }
}

/// The sending half of a client stream. Dropping it ends the stream well (half-close) after what was
/// sent; dropping the [`PendingResponse`] cancels the call.
#[derive(Debug)]
pub struct ClientSender {}

/// The call has ended; here is the message back. Why is told by the [`PendingResponse`].
#[derive(Debug)]
pub struct NotSent(pub Message);

impl ClientSender {
    /// Hands a message to the stream; waits while the previous one is still held up by flow control.
    pub async fn send(&mut self, message: impl Into<Message>) -> Result<(), NotSent> {
        Err(NotSent(message.into()))
    }
}

/// The answer to a client stream.
#[derive(Debug)]
pub struct PendingResponse {}

impl PendingResponse {
    /// Waits for the end of the call: the response message if there was one, or the error.
    pub async fn wait(self) -> Result<Option<Bytes>, Status> {
        Err(Status::unavailable("not done yet"))
    }
}
