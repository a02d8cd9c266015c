//! The HTTP side: which paths there are, what is answered before a connection becomes a WebSocket, and the upgrade.

pub(crate) mod answers;
pub(crate) mod handshake;
pub(crate) mod routes;
