//! A reader of the gateway's server-sent events, as a nozzle is one: connected again when a response ends.

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::Request;
use http::header::{AUTHORIZATION, HOST};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use loggregator_client::message::{self, EnvelopeBuilder};
use loggregator_envelope::Frame;
use loggregator_net::{ClientTls, tls_connect};
use loggregator_proto::v2::EnvelopeBatch;
use prost::Message as _;
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Between attempts to connect.
const PAUSE: Duration = Duration::from_millis(50);
/// For a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

type Sender = http1::SendRequest<Empty<Bytes>>;

/// What happened on the stream.
#[derive(Debug)]
pub enum SseEvent {
    /// The gateway answered.
    Connected,
    /// A batch.
    Envelopes(Frame),
    /// The response ended, or broke; it is asked for again.
    Disconnected,
}

/// A stream of the gateway that is asked for again whenever it ends.
pub struct SseStream {
    gateway: SocketAddr,
    query: String,
    token: String,
    tls: Option<Arc<ClientTls>>,
    body: Option<Incoming>,
    received: Vec<u8>,
}

impl SseStream {
    /// `GET /v2/read?{query}` with this token, at the next call of [`SseStream::next`].
    pub fn new(gateway: SocketAddr, query: &str, token: &str) -> Self {
        Self {
            gateway,
            query: query.to_owned(),
            token: token.to_owned(),
            tls: None,
            body: None,
            received: Vec::new(),
        }
    }

    /// The same over TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: Arc<ClientTls>) -> Self {
        self.tls = Some(tls);
        self
    }

    /// What happens next. Heartbeats and closing events are not told: the end of the response is. May be cancelled.
    ///
    /// # Errors
    /// When the gateway refuses, or sends what is no event.
    pub async fn next(&mut self) -> Result<SseEvent> {
        loop {
            if let Some(frame) = self.event()? {
                return Ok(SseEvent::Envelopes(frame));
            }
            let Some(body) = &mut self.body else {
                match self.connect().await {
                    Ok(Some(body)) => {
                        self.body = Some(body);
                        return Ok(SseEvent::Connected);
                    }
                    Ok(None) => tokio::time::sleep(PAUSE).await,
                    Err(error) => return Err(error),
                }
                continue;
            };
            match body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.received.extend_from_slice(&data);
                    }
                }
                Some(Err(_)) | None => {
                    self.body = None;
                    self.received.clear();
                    return Ok(SseEvent::Disconnected);
                }
            }
        }
    }

    /// `None` when there is nobody, or nobody who can serve just now.
    async fn connect(&self) -> Result<Option<Incoming>> {
        let Ok(stream) = TcpStream::connect(self.gateway).await else {
            return Ok(None);
        };
        let Some(mut sender) = (match &self.tls {
            None => speak(stream).await,
            Some(tls) => {
                let name = self.gateway.ip().to_string();
                match tls_connect(stream, tls, &name, HANDSHAKE).await {
                    Ok(stream) => speak(stream).await,
                    Err(_) => None,
                }
            }
        }) else {
            return Ok(None);
        };
        let request = Request::get(format!("/v2/read?{}", self.query))
            .header(HOST, self.gateway.to_string())
            .header(AUTHORIZATION, &self.token)
            .body(Empty::<Bytes>::new())?;
        match sender.send_request(request).await {
            Ok(response) if response.status() == 503 => Ok(None),
            Ok(response) => {
                ensure!(
                    response.status() == 200,
                    "the gateway answered {}",
                    response.status()
                );
                Ok(Some(response.into_body()))
            }
            Err(_) => Ok(None),
        }
    }

    /// The envelopes of the first complete event with some; others are skipped.
    fn event(&mut self) -> Result<Option<Frame>> {
        while let Some(end) = self.received.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = self.received.drain(..end + 2).collect();
            let text = String::from_utf8(event).context("an event that is not UTF-8")?;
            if text.starts_with("event: ") {
                continue;
            }
            let Some(json) = text.trim_end().strip_prefix("data: ") else {
                bail!("no event: {text:?}");
            };
            let batch: Value = serde_json::from_str(json).context("an event's data")?;
            return Ok(Some(frame(&batch)?));
        }
        Ok(None)
    }
}

/// Starts HTTP/1.1.
async fn speak(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Option<Sender> {
    let (sender, connection) = http1::handshake(TokioIo::new(io)).await.ok()?;
    tokio::spawn(connection);
    Some(sender)
}

/// The logs and counters of a batch as JSON, as far as the checks look at them.
fn frame(batch: &Value) -> Result<Frame> {
    let envelopes = batch["batch"]
        .as_array()
        .context("a batch without envelopes")?;
    let mut made = EnvelopeBatch::default();
    for envelope in envelopes {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let builder = if envelope["log"].is_object() {
            message::log(BASE64.decode(text(&envelope["log"]["payload"]))?)
        } else if envelope["counter"].is_object() {
            let delta = text(&envelope["counter"]["delta"])
                .parse()
                .context("a counter's delta")?;
            message::counter(&text(&envelope["counter"]["name"]), delta)
        } else {
            message::event("other", "")
        };
        let source = text(&envelope["source_id"]);
        let tags = envelope["tags"]
            .as_object()
            .context("an envelope without tags")?;
        let builder = tags.iter().fold(
            builder.source(&source, "0"),
            |builder: EnvelopeBuilder, (name, value)| builder.tag(name, &text(value)),
        );
        made.batch.push(builder.build());
    }
    Ok(Frame::parse(Bytes::from(made.encode_to_vec()))?.frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_as_the_gateway_writes_it_becomes_a_frame() {
        let text = r#"{"batch":[
            {"timestamp":"1","source_id":"web","instance_id":"","deprecated_tags":{},"tags":{},
             "log":{"payload":"c2VxPTA=","type":"OUT"}},
            {"timestamp":"1","source_id":"web","instance_id":"","deprecated_tags":{},"tags":{"reason":"lapped"},
             "counter":{"name":"dropped","delta":"7","total":"0"}}]}"#;
        let frame = frame(&serde_json::from_str(text).unwrap()).unwrap();
        let mut checker = crate::Checker::default();
        checker.frame(&frame);
        assert_eq!(
            (checker.lines(), checker.of("web").lines, checker.told_lost),
            (1, 1, 7)
        );
    }
}
