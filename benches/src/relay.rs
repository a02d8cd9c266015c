//! The floor `raw-h2`: a relay over the same mutual TLS, HTTP/2 and gRPC framing that looks at nothing.
//!
//! It knows where a gRPC message ends, because messages of two emitters may not be mixed, and nothing else. Each
//! message goes to every subscriber as the chunks it came in. It drops nothing: each subscriber has a bounded queue,
//! and while one is full the emitters wait. It is what a careful engineer writes in an afternoon with good crates and
//! sensible windows; a doppler that checks, indexes, stores and selects is judged by how close it comes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response};
use loggregator_net::{ServerTls, tls_accept};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::http2::{Windows, send_all};
use crate::tls::PlainTls;

/// A peer has this long for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Messages that wait for one subscriber at most.
const QUEUE: usize = 64;

/// One gRPC message with its header, in the chunks it came in.
type Unit = Arc<[Bytes]>;

/// All subscribers.
#[derive(Default)]
struct Hub {
    subscribers: Mutex<Vec<mpsc::Sender<Unit>>>,
}

impl Hub {
    fn join(&self) -> mpsc::Receiver<Unit> {
        let (send, receive) = mpsc::channel(QUEUE);
        self.subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(send);
        receive
    }

    /// Gives `unit` to everybody; waits for those whose queue is full.
    async fn publish(&self, unit: Unit) {
        let mut full = Vec::new();
        {
            let mut subscribers = self
                .subscribers
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            subscribers.retain(|subscriber| match subscriber.try_send(unit.clone()) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    full.push(subscriber.clone());
                    true
                }
                Err(mpsc::error::TrySendError::Closed(_)) => false,
            });
        }
        for subscriber in full {
            // It may have left meanwhile.
            let _left = subscriber.send(unit.clone()).await;
        }
    }
}

/// Which TLS stream the floor runs over.
#[derive(Clone)]
pub enum Tls {
    /// [`PlainTls`]: rustls as anybody would drive it. What figures are compared with.
    Plain(Arc<ServerConfig>),
    /// The product's own stream, flushed whenever HTTP/2 asks.
    Product(Arc<ServerTls>),
}

/// Serves until the process ends. Calls whose path ends in `Sender` put in, all others take out.
pub async fn serve(listener: TcpListener, tls: Tls, windows: Windows) {
    let hub = Arc::new(Hub::default());
    while let Ok((socket, _peer)) = listener.accept().await {
        let (hub, tls) = (hub.clone(), tls.clone());
        tokio::spawn(async move {
            match tls {
                Tls::Plain(config) => {
                    if let Ok(stream) = PlainTls::accept(socket, config).await {
                        connection(stream, hub, windows).await;
                    }
                }
                Tls::Product(tls) => {
                    let settings = socket.set_nodelay(true);
                    if let (Ok(()), Ok(stream)) =
                        (settings, tls_accept(socket, &tls, HANDSHAKE).await)
                    {
                        connection(stream, hub, windows).await;
                    }
                }
            }
        });
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin>(stream: S, hub: Arc<Hub>, windows: Windows) {
    let handshake = h2::server::Builder::new()
        .initial_window_size(windows.stream)
        .initial_connection_window_size(windows.connection)
        .max_frame_size(windows.frame)
        .max_send_buffer_size(1 << 20)
        .max_concurrent_streams(10_000)
        .handshake::<_, Bytes>(stream);
    let Ok(mut connection) = handshake.await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let hub = hub.clone();
        // A stream that breaks is its peer's business.
        if request.uri().path().ends_with("Sender") {
            tokio::spawn(async move {
                let _broken = ingress(request.into_body(), respond, &hub).await;
            });
        } else {
            tokio::spawn(async move {
                let _broken = egress(respond, hub.join()).await;
            });
        }
    }
}

fn accepted() -> Response<()> {
    let mut response = Response::new(());
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

async fn ingress(
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
    hub: &Hub,
) -> Result<(), h2::Error> {
    let mut framing = Framing::default();
    while let Some(data) = body.data().await {
        let data = data?;
        let len = data.len();
        let mut units = Vec::new();
        framing.feed(data, |unit| units.push(unit));
        for unit in units {
            hub.publish(unit).await;
        }
        body.flow_control().release_capacity(len)?;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    respond
        .send_response(accepted(), false)?
        .send_trailers(trailers)
}

async fn egress(
    mut respond: SendResponse<Bytes>,
    mut queue: mpsc::Receiver<Unit>,
) -> Result<(), h2::Error> {
    let mut stream = respond.send_response(accepted(), false)?;
    while let Some(unit) = queue.recv().await {
        for chunk in unit.iter() {
            send_all(&mut stream, chunk.clone()).await?;
        }
    }
    Ok(())
}

/// Finds where messages end, without copying them.
#[derive(Default)]
struct Framing {
    /// Bytes of a header that came in two chunks.
    header: Vec<u8>,
    left: usize,
    parts: Vec<Bytes>,
}

impl Framing {
    fn feed(&mut self, mut data: Bytes, mut each: impl FnMut(Unit)) {
        while !data.is_empty() {
            if self.left == 0 {
                match data.first_chunk() {
                    Some(&[_, a, b, c, d]) if self.header.is_empty() => {
                        self.left = 5 + u32::from_be_bytes([a, b, c, d]) as usize;
                    }
                    _ => {
                        let part = data.split_to((5 - self.header.len()).min(data.len()));
                        self.header.extend_from_slice(&part);
                        let Some(&[_, a, b, c, d]) = self.header.first_chunk() else {
                            return;
                        };
                        self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                        self.parts.push(std::mem::take(&mut self.header).into());
                    }
                }
            }
            let part = data.split_to(self.left.min(data.len()));
            self.left -= part.len();
            if !part.is_empty() {
                self.parts.push(part);
            }
            if self.left == 0 {
                each(std::mem::take(&mut self.parts).into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_stay_whole_however_they_arrive() {
        let mut wire = Vec::new();
        for len in [0usize, 1, 4, 300] {
            wire.push(0);
            wire.extend_from_slice(&(len as u32).to_be_bytes());
            wire.extend((0..len).map(|i| i as u8));
        }
        for step in 1..wire.len() {
            let mut framing = Framing::default();
            let mut messages = Vec::new();
            for piece in wire.chunks(step) {
                framing.feed(Bytes::copy_from_slice(piece), |unit| {
                    messages.push(unit.concat())
                });
            }
            assert_eq!(
                messages.iter().map(Vec::len).collect::<Vec<_>>(),
                [5, 6, 9, 305],
                "pieces of {step}"
            );
            assert_eq!(messages.concat(), wire);
        }
    }
}
