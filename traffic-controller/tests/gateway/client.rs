//! An HTTP/1.1 client that shows what is on the wire.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::rig::soon;

/// A connection.
pub struct Client<IO = TcpStream> {
    io: BufReader<IO>,
}

/// The head of an answer, without the date.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    /// Sorted, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Head {
    pub fn of(status: u16, headers: &[(&str, &str)]) -> Self {
        let mut headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        headers.sort();
        Self { status, headers }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl Client {
    pub async fn connect(addr: SocketAddr) -> Self {
        Self::over(TcpStream::connect(addr).await.unwrap())
    }

    /// Sends a GET.
    pub async fn get(addr: SocketAddr, target: &str) -> (Self, Head) {
        Self::ask(addr, "GET", target, &[]).await
    }

    pub async fn ask(
        addr: SocketAddr,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
    ) -> (Self, Head) {
        let mut client = Self::connect(addr).await;
        let head = client.request(method, target, headers).await;
        (client, head)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Client<IO> {
    pub fn over(io: IO) -> Self {
        Self {
            io: BufReader::new(io),
        }
    }

    pub async fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) -> Head {
        self.send(method, target, headers).await;
        self.head().await
    }

    pub async fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) {
        let mut request = format!("{method} {target} HTTP/1.1\r\nhost: gateway\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        self.io.write_all(request.as_bytes()).await.unwrap();
        self.io.flush().await.unwrap();
    }

    async fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(soon("a line", self.io.read_u8()).await.unwrap());
        }
        line.truncate(line.len() - 2);
        String::from_utf8(line).unwrap()
    }

    pub async fn head(&mut self) -> Head {
        let status = self.line().await;
        let status = status.strip_prefix("HTTP/1.1 ").unwrap()[..3]
            .parse()
            .unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line().await;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").unwrap();
            if !name.eq_ignore_ascii_case("date") {
                headers.push((name.to_ascii_lowercase(), value.to_owned()));
            }
        }
        headers.sort();
        Head { status, headers }
    }

    /// A body of known length.
    pub async fn body(&mut self, head: &Head) -> String {
        let length = head.header("content-length").unwrap().parse().unwrap();
        let mut body = vec![0; length];
        soon("the body", self.io.read_exact(&mut body))
            .await
            .unwrap();
        String::from_utf8(body).unwrap()
    }

    /// The next chunk; `None` at the end of the body, after which the connection is free for another request.
    pub async fn chunk(&mut self) -> Option<String> {
        let size = usize::from_str_radix(&self.line().await, 16).unwrap();
        let mut chunk = vec![0; size + 2];
        soon("a chunk", self.io.read_exact(&mut chunk))
            .await
            .unwrap();
        assert!(chunk.ends_with(b"\r\n"));
        chunk.truncate(size);
        (size > 0).then(|| String::from_utf8(chunk).unwrap())
    }
}
