//! The answers that are not a stream, to the byte those of the Go gateway.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};

const NO_SNIFF: HeaderName = HeaderName::from_static("x-content-type-options");

/// Why a request gets no stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Whatever is wrong with the authorisation.
    NotFound,
    /// The method is not GET.
    MethodNotAllowed,
    /// There is no parameter.
    EmptyQuery,
    /// No kind of envelope is asked for.
    MissingEnvelopeType,
    /// The reverse log proxy cannot be reached, or as many streams are open as may be.
    StreamingUnavailable,
    /// The query has too many bytes. Not known to the Go gateway.
    QueryTooLong,
    /// Sources times selectors are too many. Not known to the Go gateway.
    TooManySelectors,
    /// A parameter is not UTF-8 and cannot be asked for. Not known to the Go gateway.
    NotUtf8,
}

impl Refusal {
    /// Status, and the body's `error` and `message`.
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found", "resource not found"),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "method not allowed",
            ),
            Self::EmptyQuery => (
                StatusCode::BAD_REQUEST,
                "empty_query",
                "query cannot be empty",
            ),
            Self::MissingEnvelopeType => (
                StatusCode::BAD_REQUEST,
                "missing_envelope_type",
                "query must provide at least one envelope type",
            ),
            Self::StreamingUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "streaming_unavailable",
                "streaming is temporarily unavailable",
            ),
            Self::QueryTooLong => (
                StatusCode::URI_TOO_LONG,
                "query_too_long",
                "query is too long",
            ),
            Self::TooManySelectors => (
                StatusCode::BAD_REQUEST,
                "too_many_selectors",
                "query asks for too many combinations of sources and envelope types",
            ),
            Self::NotUtf8 => (
                StatusCode::BAD_REQUEST,
                "invalid_query",
                "query must be valid UTF-8",
            ),
        }
    }

    /// The answer. The body is JSON that calls itself text, with two newlines at its end: clients know it so.
    pub(crate) fn answer(self) -> Response<Bytes> {
        let (status, error, message) = self.parts();
        let body = format!("{{\"message\":\"{message}\",\"error\":\"{error}\"}}\n\n");
        let mut answer = Response::new(Bytes::from(body));
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        headers.insert(NO_SNIFF, HeaderValue::from_static("nosniff"));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_bytes() {
        for (refusal, status, body) in [
            (
                Refusal::NotFound,
                404,
                r#"{"message":"resource not found","error":"not_found"}"#,
            ),
            (
                Refusal::MethodNotAllowed,
                405,
                r#"{"message":"method not allowed","error":"method_not_allowed"}"#,
            ),
            (
                Refusal::EmptyQuery,
                400,
                r#"{"message":"query cannot be empty","error":"empty_query"}"#,
            ),
            (
                Refusal::MissingEnvelopeType,
                400,
                r#"{"message":"query must provide at least one envelope type","error":"missing_envelope_type"}"#,
            ),
            (
                Refusal::StreamingUnavailable,
                503,
                r#"{"message":"streaming is temporarily unavailable","error":"streaming_unavailable"}"#,
            ),
            (
                Refusal::QueryTooLong,
                414,
                r#"{"message":"query is too long","error":"query_too_long"}"#,
            ),
            (
                Refusal::TooManySelectors,
                400,
                r#"{"message":"query asks for too many combinations of sources and envelope types","error":"too_many_selectors"}"#,
            ),
            (
                Refusal::NotUtf8,
                400,
                r#"{"message":"query must be valid UTF-8","error":"invalid_query"}"#,
            ),
        ] {
            let answer = refusal.answer();
            assert_eq!(answer.status().as_u16(), status);
            assert_eq!(answer.body(), format!("{body}\n\n").as_bytes());
            let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
            assert_eq!(header("content-type"), "text/plain; charset=utf-8");
            assert_eq!(header("x-content-type-options"), "nosniff");
            assert_eq!(answer.headers().len(), 2);
        }
        assert_eq!(Refusal::NotFound.answer().body().len(), 54);
    }
}
