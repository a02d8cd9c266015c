//! The services that take envelopes in: `loggregator.v2.Ingress` and `plumbing.DopplerIngestor`.
//!
//! A message becomes a frame of the log, and nothing of it is decoded that the index does not need:
//!
//! | method | a message is | it becomes |
//! | --- | --- | --- |
//! | `Ingress/BatchSender` | an `EnvelopeBatch` | the frame itself |
//! | `Ingress/Send` | an `EnvelopeBatch` | the frame itself |
//! | `Ingress/Sender` | an `Envelope` | a frame of all that had already arrived |
//! | `DopplerIngestor/Pusher` | an `EnvelopeData` (dropsonde) | likewise, with its v1 form kept |
//!
//! When the process stops, emitters are answered UNAVAILABLE, and what they had sent by then is still taken: a batch
//! has no receipt, so an emitter counts as delivered what it wrote to the connection.
//!
//! Nothing here waits for a reader. What a connection may have in flight is bounded by its HTTP/2
//! windows, so a flood cannot take the processor from the readers.
//!
//! Bad input costs only itself: an envelope that does not decode is left out of its frame, a batch
//! whose outer framing is broken is refused whole; both are counted by reason, and the stream goes
//! on. (The Go router ends the stream, which costs the emitter's good envelopes too.)

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use loggregator_envelope::v1::V1Builder;
use loggregator_net::grpc::{Code, Request, Response, Status};
use loggregator_proto::plumbing;
use prost::Message as _;
use tokio_util::sync::CancellationToken;

use crate::refused::{Reason, Refused};
use crate::router::Router;

/// Bytes of single envelopes gathered into one frame at most: enough that the fixed costs of a frame
/// vanish, and few enough that the first envelope does not wait for the last.
const GATHER_BYTES: usize = 256 * 1024;

/// The longest header of a record: the tag `0a` and a length of 32 bits as a varint.
const RECORD_HEADER: usize = 6;

/// How much of what the router took came as dropsonde; the rest came as v2.
#[derive(Debug, Default)]
pub(crate) struct IngressCounts {
    pub(crate) v1_frames: AtomicU64,
    pub(crate) v1_envelopes: AtomicU64,
}

/// The ingress services over one router.
pub(crate) struct Ingress {
    router: Arc<Router>,
    refused: Arc<Refused>,
    counts: Arc<IngressCounts>,
    /// Ends streams of emitters that go on sending although the process stops and they were told. The others
    /// end theirs, and until then what they had under way is taken.
    cut: CancellationToken,
}

impl Ingress {
    pub(crate) fn new(
        router: Arc<Router>,
        refused: Arc<Refused>,
        counts: Arc<IngressCounts>,
        cut: CancellationToken,
    ) -> Self {
        Self {
            router,
            refused,
            counts,
            cut,
        }
    }

    /// `Ingress/BatchSender`: every message is a frame.
    pub(crate) async fn batch_sender(&self, request: Request) -> Response {
        let (mut messages, peer) = (request.messages, request.peer.addr.to_string());
        messages.read_on_after_stop();
        let mut cut = pin!(self.cut.cancelled());
        loop {
            let message = tokio::select! {
                biased;
                () = &mut cut => return stopping(),
                message = messages.next() => message,
            };
            match message {
                Some(Ok(batch)) => self.take(&batch, &peer),
                Some(Err(status)) => return self.broken(status, &peer),
                None => return empty_answer(),
            }
        }
    }

    /// `Ingress/Sender`: single envelopes. Whatever has already arrived goes into one frame; nothing
    /// is waited for.
    pub(crate) async fn sender(&self, request: Request) -> Response {
        let (mut messages, peer) = (request.messages, request.peer.addr.to_string());
        messages.read_on_after_stop();
        let mut cut = pin!(self.cut.cancelled());
        let mut frame = BytesMut::new();
        loop {
            let mut message = tokio::select! {
                biased;
                () = &mut cut => return stopping(),
                message = messages.next() => message,
            };
            loop {
                match message {
                    Some(Ok(envelope)) => put_record(&mut frame, &envelope),
                    Some(Err(status)) => {
                        self.take_gathered(&mut frame, &peer);
                        return self.broken(status, &peer);
                    }
                    None => {
                        self.take_gathered(&mut frame, &peer);
                        return empty_answer();
                    }
                }
                if frame.len() >= GATHER_BYTES {
                    break;
                }
                match messages.try_next_buffered() {
                    Some(next) => message = Some(next),
                    None => break,
                }
            }
            self.take_gathered(&mut frame, &peer);
        }
    }

    /// `Ingress/Send`: one batch, answered. The caller waits for the answer, so it hears what was
    /// refused. (The Go router answers UNIMPLEMENTED.)
    pub(crate) async fn send(&self, request: Request) -> Response {
        let (mut messages, peer) = (request.messages, request.peer.addr.to_string());
        let batch = match messages.next().await {
            Some(Ok(batch)) => batch,
            Some(Err(status)) => return self.broken(status, &peer),
            None => return Response::Status(no_request_message()),
        };
        match self.router.ingest(&batch) {
            Ok(taken) if taken.rejected == 0 => empty_answer(),
            Ok(taken) => {
                warn_left_out(&peer, taken.rejected);
                Response::Status(Status::invalid_argument(format!(
                    "{} of {} envelopes do not decode and were left out; the others were accepted",
                    taken.rejected,
                    u64::from(taken.rejected) + u64::from(taken.envelopes)
                )))
            }
            Err(error) => {
                warn_malformed(&peer, &error);
                Response::Status(Status::unmarshal(error))
            }
        }
    }

    /// `DopplerIngestor/Pusher`: dropsonde envelopes, gathered like [`Ingress::sender`]'s.
    pub(crate) async fn pusher(&self, request: Request) -> Response {
        let (mut messages, peer) = (request.messages, request.peer.addr.to_string());
        messages.read_on_after_stop();
        let mut cut = pin!(self.cut.cancelled());
        let mut frame = V1Frames::new(self, &peer);
        loop {
            let mut message = tokio::select! {
                biased;
                () = &mut cut => return stopping(),
                message = messages.next() => message,
            };
            loop {
                match message {
                    Some(Ok(data)) => frame.push(data),
                    Some(Err(status)) => {
                        frame.take();
                        return self.broken(status, &peer);
                    }
                    None => {
                        frame.take();
                        return empty_answer();
                    }
                }
                if frame.bytes >= GATHER_BYTES {
                    break;
                }
                match messages.try_next_buffered() {
                    Some(next) => message = Some(next),
                    None => break,
                }
            }
            frame.take();
        }
    }

    /// Gives one batch to the log, or says why not. The router counts what it refuses.
    fn take(&self, batch: &[u8], peer: &str) {
        match self.router.ingest(batch) {
            Ok(taken) if taken.rejected == 0 => {}
            Ok(taken) => warn_left_out(peer, taken.rejected),
            Err(error) => warn_malformed(peer, &error),
        }
    }

    /// Gives the gathered records to the log, which copies them; the buffer is used again.
    fn take_gathered(&self, frame: &mut BytesMut, peer: &str) {
        if !frame.is_empty() {
            self.take(frame, peer);
            frame.clear();
        }
    }

    /// The answer for a stream whose next message could not be received: too large, compressed, cut off.
    fn broken(&self, status: Status, peer: &str) -> Response {
        if status.code == Code::ResourceExhausted {
            self.refused.count(Reason::TooLarge);
            tracing::warn!(peer, "Refused a message: {}", status.message);
        }
        Response::Status(status)
    }
}

/// A frame of dropsonde envelopes in the making.
struct V1Frames<'a> {
    ingress: &'a Ingress,
    peer: &'a str,
    builder: V1Builder,
    bytes: usize,
}

impl<'a> V1Frames<'a> {
    fn new(ingress: &'a Ingress, peer: &'a str) -> Self {
        Self {
            ingress,
            peer,
            builder: V1Builder::new(),
            bytes: 0,
        }
    }

    fn push(&mut self, message: Bytes) {
        let refused = &self.ingress.refused;
        let payload = match plumbing::EnvelopeData::decode(message) {
            Ok(data) => data.payload,
            Err(error) => {
                refused.count(Reason::MalformedMessage);
                tracing::warn!(peer = self.peer, "Refused a malformed message: {error}");
                return;
            }
        };
        match self.builder.push(&payload) {
            Ok(()) => self.bytes += payload.len(),
            Err(error) => {
                refused.count(Reason::BadV1Envelope);
                // The Go router's text, which operators search for.
                tracing::warn!(peer = self.peer, "Received bad envelope: {error}");
            }
        }
    }

    fn take(&mut self) {
        if self.builder.is_empty() {
            return;
        }
        let envelopes = self.builder.len() as u64;
        self.ingress.router.ingest_frame(self.builder.finish());
        self.ingress
            .counts
            .v1_frames
            .fetch_add(1, Ordering::Relaxed);
        self.ingress
            .counts
            .v1_envelopes
            .fetch_add(envelopes, Ordering::Relaxed);
        self.bytes = 0;
    }
}

fn warn_left_out(peer: &str, envelopes: u32) {
    tracing::warn!(peer, envelopes, "Refused malformed envelopes of a batch");
}

fn warn_malformed(peer: &str, error: &dyn std::fmt::Display) {
    tracing::warn!(peer, "Refused a malformed batch: {error}");
}

/// Appends one envelope as a record of an `EnvelopeBatch`.
fn put_record(frame: &mut BytesMut, envelope: &[u8]) {
    frame.reserve(RECORD_HEADER + envelope.len());
    frame.put_u8(0x0a);
    prost::encoding::encode_varint(envelope.len() as u64, frame);
    frame.put_slice(envelope);
}

/// OK with an empty message: all the ingress responses have no fields.
///
/// The Go router answers a half-closed v2 stream with UNKNOWN `EOF`, and a `Pusher` with OK but without
/// the message that unary responses must have; both are errors to a client that looks, and no client
/// waits for either.
fn empty_answer() -> Response {
    Response::Unary(Ok(Bytes::new()))
}

/// The answer of a stream that has to end because the process stops.
fn stopping() -> Response {
    Response::Status(Status::unavailable("the doppler is stopping"))
}

/// The answer of a call that ended before it sent its one request message, in the words of grpc-go.
pub(crate) fn no_request_message() -> Status {
    Status::internal(
        "cardinality violation: received no request message from non-client-streaming RPC",
    )
}

#[cfg(test)]
mod tests {
    use loggregator_proto::v2;

    use super::*;

    #[test]
    fn records_written_one_after_the_other_are_a_batch() {
        let envelopes: Vec<v2::Envelope> = [0, 1, 127, 128, 20_000]
            .into_iter()
            .map(|length| v2::Envelope {
                source_id: "s".repeat(length),
                ..Default::default()
            })
            .collect();
        let mut frame = BytesMut::new();
        for envelope in &envelopes {
            put_record(&mut frame, &envelope.encode_to_vec());
        }
        let batch = v2::EnvelopeBatch::decode(frame.freeze()).unwrap();
        assert_eq!(batch.batch, envelopes);
    }
}
