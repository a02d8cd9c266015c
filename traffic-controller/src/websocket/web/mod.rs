//! The HTTP side: which paths there are, what is answered before a connection becomes a WebSocket, and the upgrade.

pub(crate) mod answers;
mod form;
pub(crate) mod handshake;
pub(crate) mod routes;
pub(crate) mod set_cookie;
