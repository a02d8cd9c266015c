//! TCP listeners and the options of TCP connections.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpStream;

/// Connections that the kernel holds while we have not accepted them.
const BACKLOG: i32 = 1024;

/// Binds now, so that a port that is taken is known at once. `[::]` takes IPv4 too, and IPv4 alone on a system without
/// IPv6.
pub(crate) fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    match bind(addr) {
        Err(error) if addr.is_ipv6() && addr.ip().is_unspecified() && no_ipv6(&error) => {
            bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port())))
        }
        bound => bound,
    }
}

/// Whether an error of `[::]` can mean that there is no IPv6; there are several that do.
fn no_ipv6(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
    )
}

fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let describe = |error: io::Error| {
        io::Error::new(error.kind(), format!("listen tcp {addr}: bind: {error}"))
    };
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into()).map_err(describe)?;
    socket.listen(BACKLOG).map_err(describe)?;
    Ok(socket.into())
}

/// Sends small writes at once, and gives up a peer that does not acknowledge for `user_timeout`
/// (zero: the system's default).
pub(crate) fn tune(stream: &TcpStream, user_timeout: Duration) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    if !user_timeout.is_zero() {
        socket.set_tcp_user_timeout(Some(user_timeout))?;
    }
    Ok(())
}
