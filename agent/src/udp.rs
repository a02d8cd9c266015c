//! UDP sockets: a large receive buffer, and the number of datagrams that it did not save.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

/// Largest datagram there is.
const DATAGRAM: usize = 65_535;
/// Datagrams that are handed on together, if they have arrived together.
const JOIN: usize = 100;

/// A bound socket and where the kernel counts what it dropped.
#[derive(Debug)]
pub(crate) struct Udp {
    socket: UdpSocket,
    /// The same socket without the runtime's notion of what is ready, for the last look at it.
    raw: std::net::UdpSocket,
    inode: u64,
}

/// Answers how many datagrams the kernel has dropped for one socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KernelDrops {
    inode: u64,
}

impl Udp {
    /// Binds now. `receive_buffer` is a wish: the kernel grants at most `net.core.rmem_max`.
    pub(crate) fn bind(addr: SocketAddr, receive_buffer: usize) -> io::Result<Udp> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_recv_buffer_size(receive_buffer)?;
        socket.bind(&addr.into())?;
        // Linux reports twice what it grants, the other half is for its own use.
        let granted = socket.recv_buffer_size()? / 2;
        if granted < receive_buffer {
            tracing::info!(
                %addr, granted, wanted = receive_buffer,
                "the receive buffer is smaller than wanted; raise net.core.rmem_max to lose fewer datagrams in bursts"
            );
        }
        let raw = std::net::UdpSocket::from(socket);
        let inode = fs::File::from(raw.as_fd().try_clone_to_owned()?)
            .metadata()?
            .ino();
        Ok(Udp {
            socket: UdpSocket::from_std(raw.try_clone()?)?,
            raw,
            inode,
        })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub(crate) fn kernel_drops(&self) -> KernelDrops {
        KernelDrops { inode: self.inode }
    }

    /// Hands every datagram to `datagram`, and calls `flush` when there are no more for now, or enough. Ends at `stop`,
    /// after what has arrived by then.
    pub(crate) async fn run<H: Handler>(
        self,
        mut handler: H,
        stop: CancellationToken,
    ) -> io::Result<()> {
        let mut buffer = vec![0; DATAGRAM];
        loop {
            tokio::select! {
                ready = self.socket.readable() => ready?,
                () = stop.cancelled() => {
                    drain(|| self.raw.recv(&mut buffer).map(|len| handler.datagram(&buffer[..len])), usize::MAX);
                    handler.flush();
                    return Ok(());
                }
            }
            while drain(
                || {
                    self.socket
                        .try_recv(&mut buffer)
                        .map(|len| handler.datagram(&buffer[..len]))
                },
                JOIN,
            ) {
                handler.flush();
                // Others want to run too.
                tokio::task::yield_now().await;
            }
            handler.flush();
        }
    }
}

/// Receives until there is nothing more for now, or `most` times; true in the second case.
fn drain(mut receive: impl FnMut() -> io::Result<()>, most: usize) -> bool {
    for _ in 0..most {
        match receive() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            // Such as the echo of an ICMP message; the socket is fine.
            Err(error) => tracing::debug!(%error, "receiving a datagram"),
            Ok(()) => {}
        }
    }
    true
}

/// Who takes the datagrams.
pub(crate) trait Handler: Send {
    fn datagram(&mut self, datagram: &[u8]);
    fn flush(&mut self);
}

impl KernelDrops {
    /// As `/proc/net/udp` and `udp6` say; none where they cannot be read.
    pub(crate) fn read(self) -> Option<u64> {
        ["/proc/net/udp", "/proc/net/udp6"]
            .iter()
            .filter_map(|path| fs::read_to_string(path).ok())
            .find_map(|table| drops_of(&table, self.inode))
    }

    /// Calls `report` with every new count, until `stop`.
    pub(crate) async fn watch(
        self,
        every: std::time::Duration,
        stop: CancellationToken,
        report: impl Fn(u64) + Send + 'static,
    ) {
        let mut ticks = tokio::time::interval(every);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Some(drops) = self.read() {
                report(drops);
            }
        }
    }
}

/// The last column of the socket's line; the inode is the tenth.
fn drops_of(table: &str, inode: u64) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        let found: u64 = columns.nth(9)?.parse().ok()?;
        (found == inode)
            .then(|| columns.last()?.parse().ok())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn drops_are_the_last_column_of_the_sockets_line() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n  \
             10: 0100007F:0D81 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000 0\n  \
             11: 0100007F:0D82 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000 13\n";
        assert_eq!(drops_of(table, 4712), Some(13));
        assert_eq!(drops_of(table, 4711), Some(0));
        assert_eq!(drops_of(table, 1), None);
    }

    #[tokio::test]
    async fn the_kernels_count_of_a_flooded_socket_rises() {
        let udp = Udp::bind("127.0.0.1:0".parse().unwrap(), 4096).unwrap();
        let drops = udp.kernel_drops();
        assert_eq!(drops.read(), Some(0));
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..200 {
            sender
                .send_to(&[0; 1024], udp.local_addr().unwrap())
                .unwrap();
        }
        assert!(drops.read().unwrap() > 0);
    }

    struct Count(std::sync::mpsc::Sender<usize>, usize);
    impl Handler for Count {
        fn datagram(&mut self, datagram: &[u8]) {
            self.1 += datagram.len();
        }
        fn flush(&mut self) {
            self.0.send(self.1).unwrap();
        }
    }

    #[tokio::test]
    async fn what_has_arrived_before_the_stop_is_read() {
        let udp = Udp::bind("127.0.0.1:0".parse().unwrap(), 1 << 20).unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..5 {
            sender.send_to(&[0; 10], udp.local_addr().unwrap()).unwrap();
        }
        let stop = CancellationToken::new();
        stop.cancel();
        let (flushed, counts) = std::sync::mpsc::channel();
        tokio::time::timeout(Duration::from_secs(5), udp.run(Count(flushed, 0), stop))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(counts.iter().last(), Some(50));
    }
}
