//! Clients: a WebSocket one, and one that sends HTTP requests as they are.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::rig::soon;

/// A connected WebSocket.
pub struct Ws<IO = TcpStream>(pub WebSocketStream<IO>);

impl Ws {
    /// Connects without TLS.
    pub async fn connect(addr: SocketAddr, path: &str) -> Self {
        Self::connect_with(addr, path, "").await.unwrap()
    }

    /// Connects with an `Authorization` header, unless it is empty.
    pub async fn connect_with(
        addr: SocketAddr,
        path: &str,
        authorization: &str,
    ) -> Result<Self, Error> {
        let io = TcpStream::connect(addr).await?;
        Self::over(io, addr, path, authorization).await
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Ws<IO> {
    pub async fn over(
        io: IO,
        addr: SocketAddr,
        path: &str,
        authorization: &str,
    ) -> Result<Self, Error> {
        let mut request = format!("ws://{addr}{path}").into_client_request()?;
        if !authorization.is_empty() {
            request
                .headers_mut()
                .insert("authorization", authorization.parse().unwrap());
        }
        let handshake = Box::pin(tokio_tungstenite::client_async(request, io));
        let (socket, response) = soon("the handshake", handshake).await?;
        assert_eq!(response.status(), 101);
        Ok(Self(socket))
    }

    /// The next binary message; pings are answered on the way.
    pub async fn payload(&mut self) -> Vec<u8> {
        match self.message().await {
            Some(Ok(Message::Binary(payload))) => payload.to_vec(),
            other => panic!("no payload: {other:?}"),
        }
    }

    /// The next message that is no ping.
    pub async fn message(&mut self) -> Option<Result<Message, Error>> {
        loop {
            match soon("a message", self.0.next()).await {
                Some(Ok(Message::Ping(_))) => {}
                other => return other,
            }
        }
    }

    /// The server's close frame, which must come next.
    pub async fn closed(&mut self) -> CloseFrame {
        match self.message().await {
            Some(Ok(Message::Close(Some(frame)))) => frame,
            other => panic!("no close frame: {other:?}"),
        }
    }

    /// Closes and waits for the end.
    pub async fn close(mut self) {
        self.0.send(Message::Close(None)).await.unwrap();
        while let Some(message) = soon("the end", self.0.next()).await {
            message.unwrap();
        }
    }
}

/// An HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case, sorted; without `date`.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// One request on a connection of its own.
pub async fn http(
    addr: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
) -> Answer {
    let mut request = format!("{method} {target} HTTP/1.1\r\nhost: {addr}\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    let mut io = TcpStream::connect(addr).await.unwrap();
    io.write_all(request.as_bytes()).await.unwrap();
    soon("an answer", read_answer(&mut io)).await
}

/// Reads one answer with a known length.
pub async fn read_answer(io: &mut (impl AsyncRead + Unpin)) -> Answer {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = io.read_u8().await;
        match byte {
            Ok(byte) => head.push(byte),
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&head)),
        }
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let status = lines
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let mut headers: Vec<_> = lines
        .map(|line| line.split_once(':').unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .filter(|(name, _)| name != "date")
        .collect();
    headers.sort();
    let mut answer = Answer {
        status,
        headers,
        body: String::new(),
    };
    let length = answer
        .header("content-length")
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    io.read_exact(&mut body).await.unwrap();
    answer.body = String::from_utf8(body).unwrap();
    answer
}
