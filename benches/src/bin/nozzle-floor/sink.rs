//! The receiver: counts what arrives, or keeps it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use loggregator_net::{Profile, ServerTls, TlsFiles, tls_accept};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::task::TaskTracker;

use crate::Wire;

/// The name in the receiver's certificate.
pub const SERVER: &str = "doppler";
const LONG: Duration = Duration::from_secs(10);
/// After so long without a datagram there are no more.
const QUIET: Duration = Duration::from_millis(300);
/// Bytes read at a time.
const READ: usize = 1 << 18;

/// What arrived.
#[derive(Debug, Default)]
struct Seen {
    bytes: AtomicU64,
    kept: Option<Mutex<Vec<Vec<u8>>>>,
}

impl Seen {
    fn take(&self, bytes: &[u8]) {
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if let Some(kept) = &self.kept {
            kept.lock().unwrap().push(bytes.to_vec());
        }
    }
}

/// A receiver in this process.
pub struct Listening {
    pub addr: SocketAddr,
    wire: Wire,
    seen: Arc<Seen>,
    connections: TaskTracker,
}

/// Starts one.
pub async fn listen(wire: Wire, files: &TlsFiles, keep: bool) -> Listening {
    let seen = Arc::new(Seen {
        kept: keep.then(Mutex::default),
        ..Seen::default()
    });
    let connections = TaskTracker::new();
    let addr = if wire == Wire::Udp {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap();
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(n) = socket.recv(&mut buffer).await {
                seen.take(&buffer[..n]);
            }
        });
        addr
    } else {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let profile = match wire {
            Wire::Https => Profile::Http,
            _ => Profile::Bytes,
        };
        let tls = matches!(wire, Wire::Tls | Wire::Https)
            .then(|| ServerTls::mutual(files, profile).unwrap());
        let (seen, tracker) = (Arc::clone(&seen), connections.clone());
        tokio::spawn(async move {
            while let Ok((io, _)) = listener.accept().await {
                io.set_nodelay(true).unwrap();
                let (seen, tls) = (Arc::clone(&seen), tls.clone());
                tracker.spawn(async move {
                    match tls {
                        None => serve(wire, io, &seen).await,
                        Some(tls) => {
                            serve(wire, tls_accept(io, &tls, LONG).await.unwrap(), &seen).await
                        }
                    }
                });
            }
        });
        addr
    };
    Listening {
        addr,
        wire,
        seen,
        connections,
    }
}

impl Listening {
    /// Waits until everything that was sent has arrived. What was asked over HTTP is answered, so it has.
    async fn done(&self) {
        match self.wire {
            Wire::Udp => {
                let mut before = u64::MAX;
                while before != self.seen.bytes.load(Ordering::Relaxed) {
                    before = self.seen.bytes.load(Ordering::Relaxed);
                    tokio::time::sleep(QUIET).await;
                }
            }
            Wire::Tcp | Wire::Tls => {
                self.connections.close();
                self.connections.wait().await;
            }
            Wire::Http | Wire::Https | Wire::File => {}
        }
    }

    /// What arrived: in one piece, or in datagrams, or in bodies of requests.
    pub async fn pages(self) -> Vec<Vec<u8>> {
        self.done().await;
        let kept = std::mem::take(&mut *self.seen.kept.as_ref().unwrap().lock().unwrap());
        match self.wire {
            Wire::Tcp | Wire::Tls => vec![kept.concat()],
            _ => kept,
        }
    }
}

async fn serve<IO: AsyncRead + AsyncWrite + Unpin>(wire: Wire, mut io: IO, seen: &Seen) {
    if matches!(wire, Wire::Http | Wire::Https) {
        while let Some(body) = request(&mut io).await {
            seen.take(&body);
            io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .await
                .unwrap();
            io.flush().await.unwrap();
        }
        io.shutdown().await.ok();
        return;
    }
    let mut buffer = vec![0; READ];
    loop {
        match io.read(&mut buffer).await.unwrap() {
            0 => break,
            n => seen.take(&buffer[..n]),
        }
    }
    io.shutdown().await.ok();
}

/// The body of the next request; nothing at the connection's end.
async fn request<IO: AsyncRead + Unpin>(io: &mut IO) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(READ);
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if io.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let fields = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
    let mut lengths = fields
        .lines()
        .filter_map(|line| line.strip_prefix("content-length: "));
    let length: usize = lengths.next().expect("the body's length").parse().unwrap();
    let end = head + length;
    while bytes.len() < end {
        assert_ne!(io.read_buf(&mut bytes).await.unwrap(), 0, "half a request");
    }
    assert_eq!(bytes.len(), end, "one request at a time");
    Some(bytes.split_off(head))
}

/// The receiver's process: says where it listens, and once its input ends how many bytes came.
pub async fn run(wire: Wire, files: &TlsFiles) {
    let listening = listen(wire, files, false).await;
    println!("{}", listening.addr);
    let end = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    end.await.unwrap().unwrap();
    listening.done().await;
    println!("{}", listening.seen.bytes.load(Ordering::Relaxed));
    // Its connections may be open still.
    std::process::exit(0);
}

/// The receiver's process, as it is seen from outside.
pub struct Sink {
    pub addr: SocketAddr,
    wire: Wire,
    child: Child,
    said: BufReader<ChildStdout>,
    input: ChildStdin,
}

impl Sink {
    pub fn start(wire: Wire, files: &TlsFiles) -> Sink {
        let name = format!("{wire:?}").to_lowercase();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([&name, "--sink"])
            .args([&files.ca, &files.cert, &files.key])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut addr = String::new();
        said.read_line(&mut addr).unwrap();
        let addr = addr.trim_end().parse().unwrap();
        Sink {
            addr,
            wire,
            child,
            said,
            input,
        }
    }

    /// Waits for its end. Everything must have arrived, unless it was sent in datagrams.
    pub fn has_read(mut self, sent: usize) {
        drop(self.input);
        let mut read = String::new();
        self.said.read_to_string(&mut read).unwrap();
        assert!(self.child.wait().unwrap().success());
        let (read, sent) = (read.trim_end(), sent.to_string());
        match self.wire {
            Wire::Udp => println!("{read} of {sent} bytes arrived"),
            _ => assert_eq!(read, sent, "bytes that arrived"),
        }
    }
}
