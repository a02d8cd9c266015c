//! gRPC over hyper's HTTP/2, with messages that stay bytes.
//!
//! A server hands each call to a [`Service`], with the request's messages as [`Messages`] and the path
//! as text; it knows nothing of protobuf. A response stream is pulled from a [`MessageSource`] when the
//! line is free. A [`Message`] is a gather list that reaches the TLS layer without being copied, and
//! its [`Receipt`] tells whether the connection took it. A client has a [`Channel`] per server.
//!
//! All that belongs to one connection runs in one task, and what is to be sent leaves in one write at
//! the end of each poll of it.

mod assembler;
mod call;
mod channel;
mod dial;
pub(crate) mod driver;
mod finish;
mod message;
mod messages;
mod response;
mod server;
mod status;
pub(crate) mod transport;

pub use crate::accept::ConnectionStats;
pub use channel::{
    Channel, ChannelState, ChannelStats, ClientSender, ClientSettings, Endpoint, NotSent,
    PendingResponse,
};
pub use message::{Message, MessageSource, Receipt};
pub use messages::Messages;
pub use server::{Peer, Request, Response, Server, ServerSettings, ServerStats, Service};
pub use status::{Code, Status};
