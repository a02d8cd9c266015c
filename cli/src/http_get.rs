//! Small HTTP requests: what `status`, `up` and `nozzle tap` ask the admin servers.

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;

/// A ledger of 10,000 subscriptions is a few megabytes.
const LARGEST_ANSWER: usize = 64 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(10);

/// Fetches `base` + `path` over plain HTTP/1.1.
///
/// # Errors
/// When nothing answers within ten seconds, or not with 200.
pub async fn get(base: &str, path: &str) -> Result<Bytes> {
    let authority = authority(base);
    tokio::time::timeout(PATIENCE, fetch(authority, path))
        .await
        .with_context(|| {
            format!(
                "no answer from http://{authority}{path} within {} s",
                PATIENCE.as_secs()
            )
        })?
        .with_context(|| format!("cannot fetch http://{authority}{path}"))
}

fn authority(base: &str) -> &str {
    let authority = base.strip_prefix("http://").unwrap_or(base);
    authority.trim_end_matches('/')
}

async fn fetch(authority: &str, path: &str) -> Result<Bytes> {
    let stream = TcpStream::connect(authority).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = http::Request::get(path)
        .header("host", authority)
        .header("connection", "close")
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = match Limited::new(response.into_body(), LARGEST_ANSWER)
            .collect()
            .await
        {
            Ok(body) => body.to_bytes(),
            Err(error) => bail!("the answer broke off: {error}"),
        };
        ensure!(
            status.is_success(),
            "it answered {status}: {}",
            String::from_utf8_lossy(&body[..body.len().min(200)])
        );
        Ok(body)
    };
    tokio::pin!(exchange);
    tokio::select! {
        done = &mut exchange => done,
        // The connection ends with the answer, which is then complete.
        _ = connection => exchange.await,
    }
}

/// An answer that does not end, a line at a time.
pub struct Lines {
    body: hyper::body::Incoming,
    buffer: Vec<u8>,
}

/// A line that is longer ends the stream.
const LONGEST_LINE: usize = 16 * 1024 * 1024;

impl Lines {
    /// Asks for `base` + `path`.
    ///
    /// # Errors
    /// When nothing answers within ten seconds, or not with 200.
    pub async fn open(base: &str, path: &str) -> Result<Self> {
        let authority = authority(base);
        let opening = async {
            let stream = TcpStream::connect(authority).await?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            // It ends when the body is dropped.
            tokio::spawn(connection);
            let request = http::Request::get(path)
                .header("host", authority)
                .body(Empty::<Bytes>::new())?;
            let response = sender.send_request(request).await?;
            let status = response.status();
            if !status.is_success() {
                let body = Limited::new(response.into_body(), 4096).collect().await;
                let text = body.map(|body| body.to_bytes()).unwrap_or_default();
                bail!("{}", String::from_utf8_lossy(&text).trim());
            }
            Ok(response.into_body())
        };
        let opened = tokio::time::timeout(PATIENCE, opening).await;
        let body = opened.with_context(|| {
            format!(
                "no answer from http://{authority} within {} s",
                PATIENCE.as_secs()
            )
        })??;
        Ok(Self {
            body,
            buffer: Vec::new(),
        })
    }

    /// The next line without its end; `None` when the other side has ended.
    ///
    /// # Errors
    /// When the connection breaks, or a line has no end.
    pub async fn next(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            ensure!(self.buffer.len() < LONGEST_LINE, "a line has no end");
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => bail!("the answer broke off: {error}"),
            }
        }
    }
}

/// `path?key=value&…`, with everything in the values that means something in a query written as its bytes. Empty values are
/// left out.
pub fn query(path: &str, values: &[(&str, &str)]) -> String {
    let mut text = path.to_owned();
    let mut mark = '?';
    for (key, value) in values.iter().filter(|(_, value)| !value.is_empty()) {
        text.push(mark);
        text.push_str(key);
        text.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
                text.push(char::from(byte));
            } else {
                text.push_str(&format!("%{byte:02X}"));
            }
        }
        mark = '&';
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_query_are_encoded() {
        assert_eq!(
            query(
                "/tap",
                &[("edge", "a/in"), ("filter", "org == \"ä&b\""), ("x", "")]
            ),
            "/tap?edge=a/in&filter=org%20%3D%3D%20%22%C3%A4%26b%22"
        );
        assert_eq!(query("/tap", &[("filter", "")]), "/tap");
    }
}
