//! One call at a server: from the request's head to the trailers.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::finish::{FINISH, Finishable};
use super::message::{Gather, Line, Message, MessageSource};
use super::messages::{Goodbye, Messages};
use super::server::{Connection, Peer, Request, Response};
use super::status::{Code, Status};

type Deadline = Option<Pin<Box<Sleep>>>;
type Head = http::Response<CallBody>;

/// Counts a call as open while it lives.
pub(super) struct OpenCall(Arc<Connection>);

impl OpenCall {
    fn new(connection: &Arc<Connection>) -> Self {
        connection.stats.calls.fetch_add(1, Ordering::Relaxed);
        connection.stats.open_calls.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(connection))
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.stats.open_calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers one request.
pub(super) async fn answer(
    connection: Arc<Connection>,
    request: http::Request<Incoming>,
) -> Result<Head, Infallible> {
    let open = OpenCall::new(&connection);
    let (head, body) = request.into_parts();
    if let Some(refusal) = refuse(&head) {
        return Ok(refusal);
    }
    let timeout = head.headers.get("grpc-timeout").map(parse_timeout);
    let timeout = match timeout {
        None => None,
        Some(Some(timeout)) => Some(timeout),
        Some(None) => return Ok(only_status(&Status::internal("malformed grpc-timeout"))),
    };
    let mut deadline: Deadline = timeout.map(|timeout| Box::pin(tokio::time::sleep(timeout)));
    let goodbye = Arc::<Goodbye>::default();
    let mut messages = Messages::of_request(body, &connection, &goodbye);
    if head.uri.path() == FINISH {
        while let Some(Ok(_)) = messages.next().await {}
        return Ok(match connection.streams.finish(&head.headers) {
            Ok(()) => unary(Bytes::new(), open, deadline),
            Err(status) => only_status(&status),
        });
    }
    let finishable = Finishable::of(&connection, &head.headers);
    let request = Request {
        path: head.uri.path().to_owned(),
        messages,
        peer: Peer {
            addr: connection.peer,
        },
        timeout,
        metadata: head.headers,
    };
    let mut call = connection.service.call(request);
    let response = poll_fn(|cx| match call.as_mut().poll(cx) {
        Poll::Ready(response) => Poll::Ready(Some(response)),
        Poll::Pending if goodbye.poll(cx).is_ready() => Poll::Ready(None),
        Poll::Pending => {
            poll_deadline(&mut deadline, cx).map(|status| Some(Response::Status(status)))
        }
    })
    .await;
    let Some(response) = response else {
        connection.read_on(call, open);
        return Ok(only_status(&Status::draining()));
    };
    drop(call);
    Ok(match response {
        Response::Status(status) | Response::Unary(Err(status)) => only_status(&status),
        Response::Unary(Ok(bytes)) => unary(bytes, open, deadline),
        Response::Stream(source) => stream(source, open, deadline, finishable).await,
    })
}

/// One message and OK.
fn unary(message: Bytes, open: OpenCall, deadline: Deadline) -> Head {
    let mut body = CallBody::new(Stage::Ending(Some(Status::ok())), open, deadline);
    body.first = Some(message.into());
    head_with(body)
}

/// Starts the response of a stream: with its first message, unless the settings say at once.
async fn stream(
    source: Box<dyn MessageSource>,
    open: OpenCall,
    deadline: Deadline,
    finishable: Option<Finishable>,
) -> Head {
    let early = open.0.settings.early_headers;
    let mut body = CallBody::new(Stage::Streaming(source), open, deadline);
    body.finishable = finishable;
    if early {
        return head_with(body);
    }
    match poll_fn(|cx| body.poll_source(cx)).await {
        Ok(message) => {
            body.first = Some(message);
            head_with(body)
        }
        Err(status) => only_status(&status),
    }
}

fn head_with(body: CallBody) -> Head {
    let mut head = http::Response::new(body);
    head.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    head
}

/// A response that is nothing but a status.
fn only_status(status: &Status) -> Head {
    let mut head = head_with(CallBody::empty());
    status.write_to(head.headers_mut());
    head
}

/// What is no gRPC call, or one in a form that is not served.
fn refuse(head: &http::request::Parts) -> Option<Head> {
    let refusal = |http: StatusCode, status: Status| {
        let mut head = only_status(&status);
        *head.status_mut() = http;
        Some(head)
    };
    let text = |name: &str| {
        let value = head.headers.get(name).map(HeaderValue::as_bytes);
        String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
    };
    let content_type = text("content-type");
    let suffix = content_type.strip_prefix("application/grpc");
    if !suffix.is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';'])) {
        let reason = format!("invalid gRPC request content-type {content_type:?}");
        let status = Status::new(Code::InvalidArgument, reason);
        return refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, status);
    }
    if head.method != Method::POST {
        let reason = format!(
            "Received a HEADERS frame with :method {:?} which should be POST",
            head.method.as_str()
        );
        return refusal(StatusCode::METHOD_NOT_ALLOWED, Status::internal(reason));
    }
    let encoding = text("grpc-encoding");
    if !matches!(&*encoding, "" | "identity") {
        let reason = format!("grpc: Decompressor is not installed for grpc-encoding {encoding:?}");
        return refusal(StatusCode::OK, Status::unimplemented(reason));
    }
    None
}

/// Reads `grpc-timeout`: at most eight digits and a unit.
fn parse_timeout(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

fn poll_deadline(deadline: &mut Deadline, cx: &mut Context<'_>) -> Poll<Status> {
    match deadline {
        Some(sleep) => sleep
            .as_mut()
            .poll(cx)
            .map(|()| Status::deadline_exceeded()),
        None => Poll::Pending,
    }
}

/// The body of a response: messages, then the status as trailers.
pub(super) struct CallBody {
    /// A message that was made before the body was asked for one.
    first: Option<Message>,
    stage: Stage,
    line: Arc<Line>,
    deadline: Deadline,
    open: Option<OpenCall>,
    /// Gone when the client has asked for the end, or there is nothing to end.
    finishable: Option<Finishable>,
}

enum Stage {
    Streaming(Box<dyn MessageSource>),
    /// The status is still to be sent.
    Ending(Option<Status>),
}

impl CallBody {
    fn new(stage: Stage, open: OpenCall, deadline: Deadline) -> Self {
        Self {
            first: None,
            stage,
            line: Arc::default(),
            deadline,
            open: Some(open),
            finishable: None,
        }
    }

    fn empty() -> Self {
        Self {
            first: None,
            stage: Stage::Ending(None),
            line: Arc::default(),
            deadline: None,
            open: None,
            finishable: None,
        }
    }

    /// The next message of the source, or the status that ends the stream.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Status>> {
        let Stage::Streaming(source) = &mut self.stage else {
            return Poll::Ready(Err(Status::ok()));
        };
        let finishable = self.finishable.take_if(|stream| stream.is_asked(cx));
        if finishable.is_some() && !source.finish() {
            return Poll::Ready(Err(Status::ok()));
        }
        if self.line.poll_free(cx).is_ready() {
            match source.poll_message(cx) {
                Poll::Ready(Some(outcome)) => return Poll::Ready(outcome),
                Poll::Ready(None) => return Poll::Ready(Err(Status::ok())),
                // What was there is sent; a server that is shutting down waits for no more.
                Poll::Pending if !source.drains_itself() && self.is_draining() => {
                    return Poll::Ready(Err(Status::draining()));
                }
                Poll::Pending => {}
            }
        }
        poll_deadline(&mut self.deadline, cx).map(Err)
    }

    fn is_draining(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.0.is_draining())
    }

    fn end(&mut self, status: &Status) -> Frame<Gather> {
        // The source is let go now, not when the connection has sent the trailers.
        self.stage = Stage::Ending(None);
        self.deadline = None;
        self.finishable = None;
        let mut trailers = HeaderMap::with_capacity(2);
        status.write_to(&mut trailers);
        Frame::trailers(trailers)
    }
}

impl Body for CallBody {
    type Data = Gather;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Gather>, Infallible>>> {
        let this = self.get_mut();
        let message = match this.first.take() {
            Some(first) => Ok(first),
            None => match &mut this.stage {
                Stage::Ending(status) => match status.take() {
                    Some(status) => Err(status),
                    None => return Poll::Ready(None),
                },
                Stage::Streaming(_) => match this.poll_source(cx) {
                    Poll::Ready(outcome) => outcome,
                    Poll::Pending => return Poll::Pending,
                },
            },
        };
        let frame = match message.and_then(|message| Gather::new(message, &this.line)) {
            Ok(gather) => Frame::data(gather),
            Err(status) => this.end(&status),
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && matches!(self.stage, Stage::Ending(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_at_most_eight_digits_and_a_unit() {
        let parse = |text| parse_timeout(&HeaderValue::from_static(text));
        assert_eq!(parse("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(parse("2M"), Some(Duration::from_secs(120)));
        assert_eq!(parse("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(parse("15m"), Some(Duration::from_millis(15)));
        assert_eq!(parse("15u"), Some(Duration::from_micros(15)));
        assert_eq!(parse("15n"), Some(Duration::from_nanos(15)));
        for bad in ["", "S", "100", "-1S", "123456789S", "1x", "1.5S"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
