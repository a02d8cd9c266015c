//! One small HTTP request: what `status` and `up` ask the admin servers.

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
    let authority = base
        .strip_prefix("http://")
        .unwrap_or(base)
        .trim_end_matches('/');
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
