//! Subscribers over the v1 WebSocket of a traffic controller: one dropsonde envelope per binary message.
//!
//! Written by hand so that the generator stays cheap: frames are cut out of the read buffer where they lie.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::BenchError;
use crate::control::{Shared, wait_for};
use crate::receive::{Receiver, ReceiverReport};
use crate::tls::PlainTls;

/// One WebSocket subscriber.
pub struct WebSocket {
    /// The traffic controller.
    pub addr: SocketAddr,
    /// TLS, when it has a certificate.
    pub tls: Option<Arc<ClientConfig>>,
    /// `/firehose/…` or `/apps/…/stream`.
    pub path: String,
    /// Value of the `Authorization` header, when one is needed.
    pub token: Option<String>,
    /// The run.
    pub control: Shared,
}

/// Bytes read at a time.
const READ: usize = 128 << 10;
/// Largest frame that is believed.
const MAX_FRAME: usize = 16 << 20;

impl WebSocket {
    /// Reads until the run ends. An error ends reading and is reported.
    pub async fn run(self, mut receiver: Receiver) -> ReceiverReport {
        let mut phase = self.control.phase();
        let result = tokio::select! {
            result = self.connect(&mut receiver) => result,
            _ = wait_for(&mut phase, |_| false) => Ok(()),
        };
        receiver.finish(result.err().map(|e| e.to_string()))
    }

    async fn connect(&self, receiver: &mut Receiver) -> Result<(), BenchError> {
        let failed = |e: std::io::Error| BenchError::new(format!("websocket {}: {e}", self.addr));
        let socket = TcpStream::connect(self.addr).await.map_err(failed)?;
        match &self.tls {
            None => {
                socket.set_nodelay(true).map_err(failed)?;
                self.read(socket, receiver).await
            }
            Some(tls) => {
                let stream = PlainTls::connect(socket, tls.clone(), "localhost")
                    .await
                    .map_err(failed)?;
                self.read(stream.buffered(READ), receiver).await
            }
        }
    }

    async fn read<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut stream: S,
        receiver: &mut Receiver,
    ) -> Result<(), BenchError> {
        let failed = |e: std::io::Error| BenchError::new(format!("websocket {}: {e}", self.addr));
        let token = self
            .token
            .as_ref()
            .map(|t| format!("Authorization: {t}\r\n"))
            .unwrap_or_default();
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: bG9nZ3JlZ2F0b3JiZW5jaA==\r\nSec-WebSocket-Version: 13\r\n{token}\r\n",
            self.path, self.addr
        );
        stream.write_all(request.as_bytes()).await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;

        let mut buffer: Vec<u8> = Vec::with_capacity(READ);
        let head = loop {
            if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            if buffer.len() > 16 << 10 || stream.read_buf(&mut buffer).await.map_err(failed)? == 0 {
                return Err(BenchError::new(format!(
                    "no answer to the upgrade: {}",
                    text(&buffer)
                )));
            }
        };
        if !buffer.starts_with(b"HTTP/1.1 101") {
            return Err(BenchError::new(format!(
                "the upgrade was refused: {}",
                text(&buffer)
            )));
        }
        buffer.drain(..head);
        loop {
            let mut replies = Vec::new();
            let mut used = Ok(0);
            receiver.piece(|piece| {
                used = frames(&buffer, |frame, body| match frame {
                    0x1 | 0x2 => piece.envelope(body, true),
                    0x9 => replies.push(body.to_vec()),
                    _ => {}
                });
            });
            buffer.drain(..used?);
            for body in replies {
                stream.write_all(&pong(&body)).await.map_err(failed)?;
                stream.flush().await.map_err(failed)?;
            }
            if buffer.capacity() - buffer.len() < READ / 2 {
                buffer.reserve(READ);
            }
            if stream.read_buf(&mut buffer).await.map_err(failed)? == 0 {
                return Err(BenchError::new("the traffic controller hung up"));
            }
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned()
}

/// A pong as clients must send it: masked. A mask of zeros leaves the body as it is.
fn pong(body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x8a, 0x80 | body.len().min(125) as u8, 0, 0, 0, 0];
    frame.extend_from_slice(&body[..body.len().min(125)]);
    frame
}

/// Hands every complete unfragmented frame to `each` (opcode, body); returns the bytes used.
fn frames(buffer: &[u8], mut each: impl FnMut(u8, &[u8])) -> Result<usize, BenchError> {
    let mut at = 0;
    while let [first, second, rest @ ..] = &buffer[at..] {
        if second & 0x80 != 0 {
            return Err(BenchError::new("a server must not mask its frames"));
        }
        let (head, len) = match (second & 0x7f, rest) {
            (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
            (127, [0, 0, 0, 0, a, b, c, d, ..]) => {
                (10, u32::from_be_bytes([*a, *b, *c, *d]) as usize)
            }
            (126 | 127, short) if short.len() < 8 => break,
            (127, _) => return Err(BenchError::new("a frame of over 4 GiB")),
            (len, _) => (2, usize::from(len)),
        };
        if len > MAX_FRAME {
            return Err(BenchError::new(format!("a frame of {len} bytes")));
        }
        let Some(body) = buffer.get(at + head..at + head + len) else {
            break;
        };
        if first & 0x0f == 0x8 {
            let (code, reason) = body.split_at(body.len().min(2));
            return Err(BenchError::new(format!(
                "closed with {code:?} {}",
                text(reason)
            )));
        }
        each(first & 0x0f, body);
        at += head + len;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_wherever_the_bytes_end() {
        let mut wire = vec![0x82, 3, 1, 2, 3, 0x89, 0];
        wire.extend_from_slice(&[0x82, 126, 1, 0]);
        wire.extend(std::iter::repeat_n(7u8, 256));
        wire.extend_from_slice(&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        wire.extend(std::iter::repeat_n(8u8, 65_536));
        let mut seen = Vec::new();
        for cut in [1, 2, 4, 8, 9, 10, 100, 270, 275, 65_000] {
            seen.clear();
            let mut at = frames(&wire[..cut], |op, body| seen.push((op, body.len()))).unwrap();
            at += frames(&wire[at..], |op, body| seen.push((op, body.len()))).unwrap();
            assert_eq!(
                (at, &seen[..]),
                (wire.len(), &[(2, 3), (9, 0), (2, 256), (2, 65_536)][..]),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn closing_and_masked_frames_are_errors() {
        let error = frames(&[0x88, 4, 3, 240, b'n', b'o'], |_, _| {})
            .unwrap_err()
            .to_string();
        assert!(error.contains("[3, 240] no"), "{error}");
        assert!(frames(&[0x82, 0x81, 0, 0, 0, 0, 1], |_, _| {}).is_err());
        assert_eq!(pong(b"ab"), [0x8a, 0x82, 0, 0, 0, 0, b'a', b'b']);
    }
}
