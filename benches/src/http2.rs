//! gRPC over HTTP/2 by hand on the `h2` crate: connecting, and sending within flow control.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::SendStream;
use h2::client::SendRequest;
use http::Request;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::BenchError;
use crate::tls::PlainTls;

/// HTTP/2 settings of the generator's side.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub struct Windows {
    /// Bytes that one stream may have in flight towards us.
    pub stream: u32,
    /// Bytes that the connection may have in flight towards us.
    pub connection: u32,
    /// Largest DATA frame that we announce.
    pub frame: u32,
}

impl Default for Windows {
    /// Generous windows, and the frame size that every client announces unless told otherwise.
    fn default() -> Self {
        Self {
            stream: 1 << 20,
            connection: 4 << 20,
            frame: 16 << 10,
        }
    }
}

/// A client connection over mutual TLS. The connection's own task ends with it.
pub struct Client {
    send: SendRequest<Bytes>,
    driver: JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Client {
    /// Connects, with the name `doppler` expected on the certificate.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn connect(
        addr: SocketAddr,
        tls: Arc<ClientConfig>,
        windows: Windows,
    ) -> Result<Self, BenchError> {
        let context = |e: &dyn std::fmt::Display| BenchError::new(format!("{addr}: {e}"));
        let socket = TcpStream::connect(addr).await.map_err(|e| context(&e))?;
        let stream = PlainTls::connect(socket, tls, "doppler")
            .await
            .map_err(|e| context(&e))?
            .buffered(128 << 10);
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(windows.stream)
            .initial_connection_window_size(windows.connection)
            .max_frame_size(windows.frame)
            .max_send_buffer_size(1 << 20)
            // Many small messages wait here while a subscriber is told to stall; that is not an attack.
            .data_frame_budget(1 << 30)
            .enable_push(false)
            .handshake::<_, Bytes>(stream)
            .await
            .map_err(|e| context(&e))?;
        let driver = tokio::spawn(async move {
            // Its streams report what went wrong to those who use them.
            let _ended = connection.await;
        });
        Ok(Self { send, driver })
    }

    /// Opens a call of `path`; the request's messages go to the stream that comes back.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn call(
        &self,
        path: &str,
    ) -> Result<(h2::client::ResponseFuture, SendStream<Bytes>), BenchError> {
        let request = Request::post(format!("https://doppler{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(|e| BenchError::new(e.to_string()))?;
        let mut ready = self
            .send
            .clone()
            .ready()
            .await
            .map_err(|e| BenchError::new(format!("{path}: {e}")))?;
        ready
            .send_request(request, false)
            .map_err(|e| BenchError::new(format!("{path}: {e}")))
    }
}

/// Puts the five bytes that announce a message in front of it.
#[must_use]
pub fn framed(message: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(message.len() + 5);
    out.push(0);
    out.extend_from_slice(&(message.len() as u32).to_be_bytes());
    out.extend_from_slice(message);
    out.into()
}

/// Waits until the stream may take at least one byte; false when it has ended.
///
/// # Errors
/// When the connection broke.
pub async fn capacity(stream: &mut SendStream<Bytes>, wanted: usize) -> Result<usize, h2::Error> {
    stream.reserve_capacity(wanted);
    loop {
        let granted = stream.capacity();
        if granted > 0 {
            return Ok(granted);
        }
        match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(Ok(_)) => {}
            Some(Err(e)) => return Err(e),
            None => return Err(h2::Reason::CANCEL.into()),
        }
    }
}

/// Hands `data` to the connection as its flow control allows, so that at most a window of it waits anywhere.
///
/// # Errors
/// When the stream was reset or the connection broke.
pub async fn send_all(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        let granted = capacity(stream, data.len()).await?;
        let part = data.split_to(granted.min(data.len()));
        stream.send_data(part, false)?;
    }
    Ok(())
}
