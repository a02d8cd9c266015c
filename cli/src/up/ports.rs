//! Ports for `up`: the usual ones where they are free, others where not.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

/// Which protocol a port is for; TCP and UDP ports do not get into each other's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Stream.
    Tcp,
    /// Datagram.
    Udp,
}

/// An address on loopback, and whether it is the usual one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The address; its port is a real one, never 0.
    pub addr: SocketAddr,
    /// The usual port, when it was taken and this is another.
    pub instead_of: Option<u16>,
}

/// The usual port on 127.0.0.1 if nobody has it, else one that the system gives.
///
/// The port is free now; somebody may take it before the component binds it, which then fails with the address in its
/// message. Binding once here is what lets components know each other's addresses before any of them runs.
///
/// # Errors
/// When the system has no port to give.
pub fn choose(transport: Transport, usual: u16) -> std::io::Result<Choice> {
    if let Ok(addr) = probe(transport, usual) {
        return Ok(Choice {
            addr,
            instead_of: None,
        });
    }
    Ok(Choice {
        addr: probe(transport, 0)?,
        instead_of: Some(usual),
    })
}

fn probe(transport: Transport, port: u16) -> std::io::Result<SocketAddr> {
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match transport {
        Transport::Tcp => TcpListener::bind(addr)?.local_addr(),
        Transport::Udp => UdpSocket::bind(addr)?.local_addr(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_replaced_and_named() {
        for transport in [Transport::Tcp, Transport::Udp] {
            let taken = probe(transport, 0).unwrap().port();
            let _holder: Box<dyn std::any::Any> = match transport {
                Transport::Tcp => {
                    Box::new(TcpListener::bind((Ipv4Addr::LOCALHOST, taken)).unwrap())
                }
                Transport::Udp => Box::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, taken)).unwrap()),
            };
            let choice = choose(transport, taken).unwrap();
            assert_eq!(choice.instead_of, Some(taken));
            assert_ne!(choice.addr.port(), taken);
            assert!(choice.addr.ip().is_loopback() && choice.addr.port() != 0);
        }
    }

    #[test]
    fn a_free_port_is_taken_as_it_is() {
        let free = probe(Transport::Tcp, 0).unwrap();
        let choice = choose(Transport::Tcp, free.port()).unwrap();
        assert_eq!(
            choice,
            Choice {
                addr: free,
                instead_of: None
            }
        );
    }
}
