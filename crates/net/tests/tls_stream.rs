//! The TLS stream against itself and against plain rustls: bulk, ends of all kinds, bad input.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use std::io::{Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::*;
use loggregator_net::{HandshakeError, Profile, ServerTls, TlsStream, tls_accept, tls_connect};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::net::{TcpListener, TcpStream};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that do not repeat with any record or buffer size.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251 + i / 7919) as u8).collect()
}

async fn pair(capacity: usize) -> (TlsStream<DuplexStream>, TlsStream<DuplexStream>) {
    let (left, right) = duplex(capacity);
    let (server, client) = (server_tls(), client_tls());
    let (accepted, connected) = tokio::join!(
        tls_accept(left, &server, TIMEOUT),
        tls_connect(right, &client, "doppler", TIMEOUT)
    );
    (accepted.unwrap(), connected.unwrap())
}

/// Both directions at once, through transports from tiny to large, with all sizes of writes.
#[tokio::test]
async fn bulk_in_both_directions_at_once() {
    for (capacity, total, step) in [
        (1, 3_000, 1_000),
        (97, 200_000, 30_000),
        (4096, 1_500_000, 16_393),
        (1 << 20, 6_000_000, 300_000),
    ] {
        let (server, client) = soon(pair(capacity.max(64))).await;
        let up = transfer(server, total, step);
        let down = transfer(client, total, step);
        let (up, down) = soon(async { tokio::join!(up, down) }).await;
        assert!(
            up == pattern(total) && down == pattern(total),
            "capacity {capacity}"
        );
    }
}

/// Sends the pattern, says goodbye, and returns what it got.
async fn transfer<IO>(stream: TlsStream<IO>, total: usize, step: usize) -> Vec<u8>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut reader, mut writer) = split(stream);
    let sending = tokio::spawn(async move {
        for chunk in pattern(total).chunks(step) {
            writer.write_all(chunk).await.unwrap();
            writer.flush().await.unwrap();
        }
        writer.shutdown().await.unwrap();
        writer
    });
    let mut got = Vec::new();
    reader.read_to_end(&mut got).await.unwrap();
    drop(sending.await.unwrap());
    got
}

#[tokio::test]
async fn many_small_vectored_writes_leave_in_one_flush() {
    let (mut server, mut client) = soon(pair(1 << 20)).await;
    for byte in 0..200_u8 {
        let bytes = [byte; 3];
        let parts = [
            std::io::IoSlice::new(&bytes[..1]),
            std::io::IoSlice::new(&[]),
            std::io::IoSlice::new(&bytes[1..]),
        ];
        assert_eq!(server.write_vectored(&parts).await.unwrap(), 3);
    }
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(50), client.read_exact(&mut byte));
    assert!(early.await.is_err(), "sent before the flush");
    server.flush().await.unwrap();
    let mut got = vec![0; 600];
    soon(client.read_exact(&mut got)).await.unwrap();
    assert_eq!((got[0], got[3], got[599]), (0, 1, 199));
}

/// A writer that nobody reads from is stopped, and goes on when somebody does.
#[tokio::test]
async fn writing_stops_when_nobody_reads() {
    let (server, mut client) = soon(pair(1000)).await;
    let (_reader, mut writer) = split(server);
    let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let progress = Arc::clone(&sent);
    let sending = tokio::spawn(async move {
        for chunk in pattern(1_000_000).chunks(1000) {
            writer.write_all(chunk).await.unwrap();
            progress.fetch_add(chunk.len(), std::sync::atomic::Ordering::Relaxed);
        }
        writer.shutdown().await.unwrap();
    });
    let sent = || sent.load(std::sync::atomic::Ordering::Relaxed);
    until("the buffer fills", || sent() >= 100_000).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(sent() < 160_000, "{} bytes are buffered", sent());
    let mut got = Vec::new();
    soon(client.read_to_end(&mut got)).await.unwrap();
    assert!(got == pattern(1_000_000));
    sending.await.unwrap();
}

/// What is cut off without a flush is what was said to be unsent, never more.
#[tokio::test]
async fn what_was_not_sent_is_known_when_a_connection_is_cut() {
    let (mut server, mut client) = soon(pair(100_000)).await;
    server.write_all(b"flushed").await.unwrap();
    server.flush().await.unwrap();
    assert_eq!(server.unsent(), 0);
    let mut written = 7;
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(count) = Pin::new(&mut server).poll_write(&mut cx, &[1; 1000]) {
        written += count.unwrap();
    }
    let sent = written - server.unsent() as usize;
    drop(server);
    let mut got = Vec::new();
    soon(client.read_to_end(&mut got)).await.unwrap_err();
    assert!(sent <= got.len(), "{sent} of {} bytes", got.len());
    // Records of 1000 bytes: what encryption adds to the waiting ones is all that is taken off too many.
    assert!(sent + 5000 > got.len(), "{sent} of {} bytes", got.len());
}

#[tokio::test]
async fn a_goodbye_is_an_end_and_a_cut_is_an_error() {
    let (mut server, mut client) = soon(pair(100_000)).await;
    client.write_all(b"last words").await.unwrap();
    client.shutdown().await.unwrap();
    let mut got = Vec::new();
    soon(server.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"last words");
    // Half-closed: the other direction still works.
    server.write_all(b"answer").await.unwrap();
    server.flush().await.unwrap();
    let mut answer = [0; 6];
    soon(client.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"answer");
    assert_eq!(
        client.write(b"x").await.unwrap_err().kind(),
        std::io::ErrorKind::BrokenPipe
    );

    let (mut server, mut client) = soon(pair(100_000)).await;
    client.write_all(b"last words").await.unwrap();
    client.flush().await.unwrap();
    drop(client);
    let mut got = Vec::new();
    let error = soon(server.read_to_end(&mut got)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(got, b"last words");
}

/// Changes a byte of the ciphertext: an error, not wrong plaintext, and not a hang.
#[tokio::test]
async fn tampered_and_truncated_records_are_errors() {
    for truncate in [false, true] {
        let (near, middle_near) = duplex(1 << 16);
        let (middle_far, far) = duplex(1 << 16);
        let (server, client) = (server_tls(), client_tls());
        let relay = tokio::spawn(async move {
            let (mut from_client, mut to_client) = split(middle_near);
            let (mut from_server, mut to_server) = split(middle_far);
            let back = tokio::spawn(async move {
                // Ends when either side goes away.
                drop(tokio::io::copy(&mut from_server, &mut to_client).await);
            });
            let mut buffer = vec![0; 1 << 16];
            loop {
                let count = from_client.read(&mut buffer).await.unwrap();
                if count == 0 {
                    break;
                }
                let mut bytes = buffer[..count].to_vec();
                if count > 20_000 {
                    if truncate {
                        bytes.truncate(10_000);
                        to_server.write_all(&bytes).await.unwrap();
                        break;
                    }
                    bytes[10_000] ^= 1;
                }
                if to_server.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            drop(to_server);
            back.abort();
        });
        let (accepted, connected) = tokio::join!(
            tls_accept(far, &server, TIMEOUT),
            tls_connect(near, &client, "doppler", TIMEOUT)
        );
        let (mut accepted, mut connected) = (accepted.unwrap(), connected.unwrap());
        connected.write_all(&pattern(40_000)).await.unwrap();
        connected.flush().await.unwrap();
        let mut got = Vec::new();
        let error = soon(accepted.read_to_end(&mut got)).await.unwrap_err();
        let expected = if truncate {
            std::io::ErrorKind::UnexpectedEof
        } else {
            std::io::ErrorKind::InvalidData
        };
        assert_eq!(error.kind(), expected, "{error}");
        assert!(pattern(40_000).starts_with(&got));
        drop(connected);
        relay.await.unwrap();
    }
}

#[tokio::test]
async fn garbage_instead_of_a_handshake_fails_it() {
    for garbage in [
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        vec![0; 1000],
        vec![0xff; 70_000],
        pattern(70_000),
        // A record that promises a long handshake message, then silence and an end.
        vec![22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff],
    ] {
        let (near, far) = duplex(1 << 17);
        let server = server_tls();
        let (mut reader, mut writer) = split(near);
        let feed = async {
            writer.write_all(&garbage).await.unwrap();
            writer.shutdown().await.unwrap();
            let mut answer = Vec::new();
            reader.read_to_end(&mut answer).await.unwrap();
        };
        let (outcome, ()) =
            soon(async { tokio::join!(tls_accept(far, &server, TIMEOUT), feed) }).await;
        let error = outcome.unwrap_err();
        assert!(
            matches!(error, HandshakeError::Tls(_) | HandshakeError::Io(_)),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_half_open_handshake_ends_in_time() {
    let (mut near, far) = duplex(1 << 17);
    near.write_all(&[22, 3, 1, 0x01]).await.unwrap();
    let limit = Duration::from_millis(50);
    let error = soon(tls_accept(far, &server_tls(), limit))
        .await
        .unwrap_err();
    assert!(matches!(error, HandshakeError::Timeout));
    let (_near, far) = duplex(1 << 17);
    let error = soon(tls_connect(far, &client_tls(), "doppler", limit)).await;
    assert!(matches!(error, Err(HandshakeError::Timeout)));
}

#[tokio::test]
async fn a_plain_http_request_is_told_so() {
    let tls = ServerTls::mutual(&DOPPLER, Profile::Http).unwrap();
    let (mut near, far) = duplex(1 << 17);
    near.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    near.shutdown().await.unwrap();
    let (outcome, answer) = soon(async {
        tokio::join!(tls_accept(far, &tls, TIMEOUT), async {
            let mut answer = String::new();
            near.read_to_string(&mut answer).await.unwrap();
            answer
        })
    })
    .await;
    assert!(matches!(outcome, Err(HandshakeError::PlainHttp)));
    assert_eq!(
        answer,
        "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
    );
}

/// Against rustls with its own blocking stream, as server and as client, with a change of keys in the
/// middle.
#[tokio::test]
async fn works_with_plain_rustls() {
    let total = 2_000_000;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let peer = std::thread::spawn(move || {
        let name = "doppler".try_into().unwrap();
        let client = rustls::ClientConnection::new(client_tls().current(), name).unwrap();
        let tcp = std::net::TcpStream::connect(addr).unwrap();
        talk(rustls::StreamOwned::new(client, tcp), total)
    });
    let (tcp, _) = listener.accept().await.unwrap();
    let stream = soon(tls_accept(tcp, &server_tls(), TIMEOUT)).await.unwrap();
    assert!(soon(converse(stream, total)).await == pattern(total));
    assert!(peer.join().unwrap() == pattern(total));

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let peer = std::thread::spawn(move || {
        let server = rustls::ServerConnection::new(server_tls().current()).unwrap();
        let (tcp, _) = listener.accept().unwrap();
        talk(rustls::StreamOwned::new(server, tcp), total)
    });
    let tcp = TcpStream::connect(addr).await.unwrap();
    let stream = tls_connect(tcp, &client_tls(), "doppler", TIMEOUT)
        .await
        .unwrap();
    assert!(soon(converse(stream, total)).await == pattern(total));
    assert!(peer.join().unwrap() == pattern(total));
}

/// Reads the pattern, then sends it back; blocking.
fn talk<C, S>(mut stream: rustls::StreamOwned<C, std::net::TcpStream>, total: usize) -> Vec<u8>
where
    C: std::ops::DerefMut + std::ops::Deref<Target = rustls::ConnectionCommon<S>>,
    S: rustls::SideData,
{
    let mut got = vec![0; total];
    let (first, second) = got.split_at_mut(total / 2);
    stream.read_exact(first).unwrap();
    stream.conn.refresh_traffic_keys().unwrap();
    stream.write_all(b"more").unwrap();
    stream.flush().unwrap();
    stream.read_exact(second).unwrap();
    stream.write_all(&pattern(total)).unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    // Wait for the peer's end, so that ours does not reset the connection.
    drop(stream.read(&mut [0]));
    got
}

async fn converse(mut stream: TlsStream<TcpStream>, total: usize) -> Vec<u8> {
    let bytes = pattern(total);
    stream.write_all(&bytes[..total / 2]).await.unwrap();
    stream.flush().await.unwrap();
    let mut more = [0; 4];
    stream.read_exact(&mut more).await.unwrap();
    stream.write_all(&bytes[total / 2..]).await.unwrap();
    stream.flush().await.unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await.unwrap();
    stream.shutdown().await.unwrap();
    got
}
