//! What the peer has not acknowledged yet, as the operating system knows it.
//!
//! Linux answers per connection through a netlink socket (`sock_diag(7)`): exactly, in microseconds, without privileges. Where
//! that is not to be had there is no answer.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;

/// `AF_NETLINK`, `NETLINK_SOCK_DIAG`, `SOCK_DIAG_BY_FAMILY`, `AF_INET`, `AF_INET6`, `IPPROTO_TCP` of Linux.
const NETLINK: i32 = 16;
const SOCK_DIAG: i32 = 4;
const BY_FAMILY: u16 = 20;
const INET: u8 = 2;
const INET6: u8 = 10;
const TCP: u8 = 6;

/// A header of netlink, and a request of `sock_diag`.
const HEADER: usize = 16;
const REQUEST: usize = HEADER + 56;
/// Where the answer has the bytes of the send queue: behind its own head, 48 bytes of addresses, a timer, the receive queue.
const SEND_QUEUE: usize = HEADER + 4 + 48 + 4 + 4;

/// Asks about one connection.
#[derive(Debug)]
pub(crate) struct Outstanding {
    netlink: Socket,
    request: [u8; REQUEST],
}

impl Outstanding {
    /// For this connection.
    ///
    /// # Errors
    /// When the system does not have it.
    pub fn of(stream: &TcpStream) -> io::Result<Outstanding> {
        if !cfg!(target_os = "linux") {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let netlink = Socket::new(
            Domain::from(NETLINK),
            Type::DGRAM,
            Some(Protocol::from(SOCK_DIAG)),
        )?;
        netlink.set_nonblocking(true)?;
        let request = request(stream.local_addr()?, stream.peer_addr()?);
        let mut asked = Outstanding { netlink, request };
        asked.bytes()?;
        Ok(asked)
    }

    /// Bytes that were written and that the peer's system has not acknowledged.
    ///
    /// # Errors
    /// When the connection is gone, or the system does not say.
    pub fn bytes(&mut self) -> io::Result<u32> {
        self.netlink.send(&self.request)?;
        let mut answer = [0; 512];
        let len = self.netlink.read(&mut answer)?;
        let kind = u16::from_ne_bytes([answer[4], answer[5]]);
        if kind != BY_FAMILY || len < SEND_QUEUE + 4 {
            // An error message: the number is negative.
            let code = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
            return Err(io::Error::from_raw_os_error(code.wrapping_neg()));
        }
        let at = SEND_QUEUE;
        let bytes = [answer[at], answer[at + 1], answer[at + 2], answer[at + 3]];
        Ok(u32::from_ne_bytes(bytes))
    }
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
fn request(local: SocketAddr, peer: SocketAddr) -> [u8; REQUEST] {
    let mut request = [0; REQUEST];
    let mut put = |at: usize, bytes: &[u8]| request[at..at + bytes.len()].copy_from_slice(bytes);
    let family = if local.is_ipv4() { INET } else { INET6 };
    put(0, &(REQUEST as u32).to_ne_bytes());
    put(4, &BY_FAMILY.to_ne_bytes());
    put(6, &1_u16.to_ne_bytes());
    put(16, &[family, TCP]);
    // Connections in every state.
    put(20, &u32::MAX.to_ne_bytes());
    put(24, &local.port().to_be_bytes());
    put(26, &peer.port().to_be_bytes());
    for (at, ip) in [(28, local.ip()), (44, peer.ip())] {
        match ip {
            IpAddr::V4(ip) => put(at, &ip.octets()),
            IpAddr::V6(ip) => put(at, &ip.octets()),
        }
    }
    // Any interface, and no cookie.
    put(64, &[0xff; 8]);
    request
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn counts(addr: &str) {
        let listener = match TcpListener::bind(addr).await {
            Err(_) if addr.starts_with('[') => return, // a system without IPv6
            listener => listener.unwrap(),
        };
        let mut ours = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (mut theirs, _) = listener.accept().await.unwrap();
        let mut outstanding = Outstanding::of(&ours).unwrap();
        assert_eq!(outstanding.bytes().unwrap(), 0);
        // A peer that does not read acknowledges what its buffers hold, and no more.
        let mut written = 0;
        while let Ok(n) = ours.try_write(&[b'x'; 65_536]) {
            written += n;
        }
        assert!(outstanding.bytes().unwrap() > 0);
        let mut buffer = vec![0; written];
        theirs.read_exact(&mut buffer).await.unwrap();
        while outstanding.bytes().unwrap() > 0 {
            tokio::task::yield_now().await;
        }
        ours.shutdown().await.unwrap();
    }

    #[tokio::test]
    #[cfg_attr(not(target_os = "linux"), ignore = "Linux only")]
    async fn it_is_what_the_peer_has_not_acknowledged() {
        counts("127.0.0.1:0").await;
        counts("[::1]:0").await;
    }
}
