//! The v2 ingress services.
//!
//! Frames keep their bytes. What is malformed is counted and refused alone: neither the stream nor its neighbours notice.
//! Nothing here waits for a doppler, so an emitter is never held up by one.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use loggregator_envelope::{Frame, FrameBuilder};
use loggregator_net::grpc::{Messages, Request, Response, Service, Status};
use loggregator_proto::rpc;
use tokio_util::sync::CancellationToken;

use crate::intake::Intake;
use crate::stats::Port;

/// Envelopes of a `Sender` stream that are handed on together, if they have arrived together.
const JOIN: usize = 100;
/// And their bytes.
const JOIN_BYTES: usize = 256 * 1024;

/// Serves `Sender`, `BatchSender` and `Send`.
pub(crate) struct IngressService {
    pub intake: Arc<Intake>,
    /// Ends the streams: emitters never do.
    pub stop: CancellationToken,
}

impl Service for IngressService {
    fn call(&self, request: Request) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        let (intake, stop) = (Arc::clone(&self.intake), self.stop.clone());
        Box::pin(async move {
            match request.path.as_str() {
                rpc::INGRESS_BATCH_SENDER => batches(&intake, request.messages, &stop).await,
                rpc::INGRESS_SENDER => singles(&intake, request.messages, &stop).await,
                rpc::INGRESS_SEND => unary(&intake, request.messages).await,
                path => Response::Status(Status::unknown_method(path, &["loggregator.v2.Ingress"])),
            }
        })
    }
}

/// The next message, or how the stream ends: its own end, an error, or ours when nothing more has arrived.
async fn next(messages: &mut Messages, stop: &CancellationToken) -> Result<Bytes, Response> {
    let message = tokio::select! {
        biased;
        message = messages.next() => message,
        () = stop.cancelled() => None,
    };
    match message {
        Some(Ok(message)) => Ok(message),
        Some(Err(status)) => Err(Response::Status(status)),
        // An empty message is the whole answer of these calls.
        None => Err(Response::Unary(Ok(Bytes::new()))),
    }
}

async fn batches(intake: &Intake, mut messages: Messages, stop: &CancellationToken) -> Response {
    loop {
        match next(&mut messages, stop).await {
            // A broken one is counted; there is nobody to tell.
            Ok(message) => drop(accept(intake, message)),
            Err(end) => return end,
        }
    }
}

async fn unary(intake: &Intake, mut messages: Messages) -> Response {
    match messages.next().await {
        Some(Ok(message)) => Response::Unary(accept(intake, message).map(|()| Bytes::new())),
        Some(Err(status)) => Response::Status(status),
        None => Response::Status(Status::internal(
            "cardinality violation: a request without a message",
        )),
    }
}

fn accept(intake: &Intake, batch: Bytes) -> Result<(), Status> {
    let stats = intake.stats.port(Port::Grpc);
    match Frame::parse(batch) {
        Ok(parsed) => {
            stats.reject("malformed_envelope", u64::from(parsed.rejected));
            intake.accept(Port::Grpc, parsed.frame);
            Ok(())
        }
        Err(error) => {
            stats.reject("malformed_batch", 1);
            Err(Status::unmarshal(error))
        }
    }
}

async fn singles(intake: &Intake, mut messages: Messages, stop: &CancellationToken) -> Response {
    let stats = intake.stats.port(Port::Grpc);
    let mut builder = FrameBuilder::new();
    loop {
        let mut message = match next(&mut messages, stop).await {
            Ok(message) => message,
            Err(end) => return end,
        };
        let end = loop {
            if builder.push_envelope(&message).is_err() {
                stats.reject("malformed_envelope", 1);
            }
            if builder.len() >= JOIN || builder.bytes() >= JOIN_BYTES {
                break None;
            }
            match messages.try_next_buffered() {
                Some(Ok(next)) => message = next,
                Some(Err(status)) => break Some(Response::Status(status)),
                None => break None,
            }
        };
        let (bytes, index) = builder.finish();
        intake.accept(Port::Grpc, Frame::from_parts(bytes, index));
        if let Some(end) = end {
            return end;
        }
    }
}
