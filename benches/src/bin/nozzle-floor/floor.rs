//! The floor: the nozzle's bytes, written to the same kind of connection, and nothing else.

use std::io::Write as _;
use std::time::{Duration, Instant};

use loggregator_net::{ClientTls, Profile, tls_connect};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use crate::sink::{SERVER, Sink};
use crate::work::Work;
use crate::{Took, Wire, cpu};

const LONG: Duration = Duration::from_secs(10);

/// A run of it.
pub async fn run(work: &Work) -> Took {
    match work.wire {
        Wire::File => file(work),
        Wire::Udp => udp(work).await,
        Wire::Tcp | Wire::Http => {
            let sink = Sink::start(work.wire, &work.certs.tls(SERVER));
            let io = connect(&sink).await;
            stream(work, sink, io).await
        }
        Wire::Tls | Wire::Https => {
            let sink = Sink::start(work.wire, &work.certs.tls(SERVER));
            let profile = match work.wire {
                Wire::Https => Profile::Http,
                _ => Profile::Bytes,
            };
            let tls = ClientTls::mutual_with(&work.certs.tls("client"), profile).unwrap();
            let io = connect(&sink).await;
            let io = tls_connect(io, &tls, SERVER, LONG).await.unwrap();
            stream(work, sink, io).await
        }
    }
}

async fn connect(sink: &Sink) -> TcpStream {
    let io = TcpStream::connect(sink.addr).await.unwrap();
    io.set_nodelay(true).unwrap();
    io
}

fn file(work: &Work) -> Took {
    std::fs::remove_file(work.file()).ok();
    let mut file = std::fs::File::create(work.file()).unwrap();
    file.write_all(&work.pages[0]).unwrap();
    let (started, cpu) = (Instant::now(), cpu());
    for _ in 0..work.batches {
        file.write_all(&work.pages[0]).unwrap();
    }
    Took::since(started, cpu)
}

async fn udp(work: &Work) -> Took {
    let sink = Sink::start(work.wire, &work.certs.tls(SERVER));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(sink.addr).await.unwrap();
    let mut begun = (Instant::now(), cpu());
    for batch in 0..=work.batches {
        for page in &work.pages {
            socket.send(page).await.unwrap();
        }
        if batch == 0 {
            begun = (Instant::now(), cpu());
        }
    }
    let took = Took::since(begun.0, begun.1);
    sink.has_read(work.sent());
    took
}

async fn stream<IO: AsyncRead + AsyncWrite + Unpin>(work: &Work, sink: Sink, mut io: IO) -> Took {
    let answers = matches!(work.wire, Wire::Http | Wire::Https);
    let pages: Vec<Vec<u8>> = work
        .pages
        .iter()
        .map(|page| {
            let mut request = Vec::new();
            if answers {
                let head = format!(
                    "POST / HTTP/1.1\r\nhost: bench\r\ncontent-length: {}\r\n\r\n",
                    page.len()
                );
                request.extend_from_slice(head.as_bytes());
            }
            request.extend_from_slice(page);
            request
        })
        .collect();
    let mut begun = (Instant::now(), cpu());
    for batch in 0..=work.batches {
        for page in &pages {
            io.write_all(page).await.unwrap();
            io.flush().await.unwrap();
            if answers {
                answer(&mut io).await;
            }
        }
        if batch == 0 {
            begun = (Instant::now(), cpu());
        }
    }
    io.shutdown().await.unwrap();
    io.read_to_end(&mut Vec::new()).await.unwrap();
    sink.has_read(work.sent());
    Took::since(begun.0, begun.1)
}

/// Reads the head of an answer; it has no body.
async fn answer<IO: AsyncRead + Unpin>(io: &mut IO) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert_ne!(io.read_buf(&mut head).await.unwrap(), 0, "no answer");
    }
    assert!(head.starts_with(b"HTTP/1.1 200"));
}
