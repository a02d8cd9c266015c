//! gRPC over hyper's HTTP/2, with messages that stay bytes.
mod channel;
mod message;
mod messages;
mod server;
mod status;

pub use channel::{
    Channel, ChannelState, ClientSender, ClientSettings, Endpoint, NotSent, PendingResponse,
};
pub use message::{Message, MessageSource, Receipt};
pub use messages::Messages;
pub use server::{Peer, Request, Response, Server, ServerSettings, ServerStats, Service};
pub use status::{Code, Status};
