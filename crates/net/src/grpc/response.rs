//! What a client makes of a server's headers, trailers and failures.

use std::error::Error;

use http::{HeaderMap, Response, StatusCode, header};
use hyper::body::Incoming;

use super::status::{Code, GRPC_STATUS, Status};

/// How a call was answered.
pub(super) enum Answer {
    /// With messages, or at least without a status yet.
    Stream(Incoming),
    /// With OK and nothing else.
    Nothing,
}

/// Reads the response's head.
///
/// # Errors
/// The status that the head carries, or that stands for what is no gRPC response.
pub(super) fn head(response: Response<Incoming>) -> Result<Answer, Status> {
    let headers = response.headers();
    if headers.contains_key(GRPC_STATUS) {
        return trailers(headers).map(|()| Answer::Nothing);
    }
    if response.status() != StatusCode::OK {
        return Err(from_http(response.status()));
    }
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match content_type {
        Some(value) if value.starts_with("application/grpc") => {
            Ok(Answer::Stream(response.into_body()))
        }
        other => Err(Status::new(
            Code::Unknown,
            format!("unexpected content-type {other:?} of the response"),
        )),
    }
}

/// Reads the trailers.
///
/// # Errors
/// The status, unless it is OK.
pub(super) fn trailers(headers: &HeaderMap) -> Result<(), Status> {
    match Status::read_from(headers) {
        Some(status) if status.code == Code::Ok => Ok(()),
        Some(status) => Err(status),
        None => Err(Status::internal("no grpc-status in the trailers")),
    }
}

/// The code that gRPC gives to an HTTP status without a gRPC status.
fn from_http(status: StatusCode) -> Status {
    let code = match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502..=504 => Code::Unavailable,
        _ => Code::Unknown,
    };
    Status::new(code, format!("unexpected HTTP status {status}"))
}

/// The status that stands for a stream or connection that broke.
pub(super) fn broken(error: &hyper::Error) -> Status {
    let Some(h2) = find::<h2::Error>(error) else {
        let lost = error.is_canceled() || error.is_closed() || error.is_timeout();
        let code = if lost || find::<std::io::Error>(error).is_some() {
            Code::Unavailable
        } else {
            Code::Internal
        };
        return Status::new(code, describe(error));
    };
    if h2.is_io() || h2.is_go_away() {
        return Status::unavailable(format!("connection lost: {h2}"));
    }
    let code = match h2.reason() {
        Some(h2::Reason::REFUSED_STREAM) => Code::Unavailable,
        Some(h2::Reason::CANCEL) => Code::Cancelled,
        Some(h2::Reason::ENHANCE_YOUR_CALM) => Code::ResourceExhausted,
        Some(h2::Reason::INADEQUATE_SECURITY) => Code::PermissionDenied,
        _ => Code::Internal,
    };
    Status::new(code, format!("stream terminated: {h2}"))
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// An error with its causes.
pub(super) fn describe(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
