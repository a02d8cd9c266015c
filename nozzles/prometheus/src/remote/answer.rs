//! What a receiver's answer means (remote write 1.0 and 2.0, "Retries and backoff", "Required written headers").

use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use crate::config::Protocol;

/// The longest wait that a receiver may ask for.
const MAX_WAIT: Duration = Duration::from_secs(600);

/// What to do after an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was written.
    Written,
    /// The receiver does not know 2.0: the same again in 1.0.
    FallBack,
    /// The same again later.
    Later(Option<Duration>),
    /// Never again. Some sample in it may be to blame, and the others be taken without it.
    Split,
    /// It is too large.
    TooLarge,
    /// Never again, whatever is in it.
    Never,
}

pub(super) fn verdict(status: StatusCode, headers: &HeaderMap, protocol: Protocol) -> Verdict {
    match status.as_u16() {
        200..=299 => {
            // A receiver of 1.0 may take a message of 2.0 for an empty one and be content.
            let told = headers.contains_key("x-prometheus-remote-write-samples-written");
            if protocol == Protocol::V2 && !told {
                Verdict::FallBack
            } else {
                Verdict::Written
            }
        }
        415 if protocol == Protocol::V2 => Verdict::FallBack,
        429 | 500..=599 => Verdict::Later(wait(headers, SystemTime::now())),
        413 => Verdict::TooLarge,
        400 | 422 => Verdict::Split,
        _ => Verdict::Never,
    }
}

/// `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date.
fn wait(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds).min(MAX_WAIT));
    }
    let format = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let date = PrimitiveDateTime::parse(text, format).ok()?.assume_utc();
    let wait = date - OffsetDateTime::from(now);
    Some(Duration::try_from(wait).unwrap_or_default().min(MAX_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn each_status_has_its_class() {
        let none = HeaderMap::new();
        let mut written = HeaderMap::new();
        written.insert(
            "x-prometheus-remote-write-samples-written",
            HeaderValue::from_static("1"),
        );
        for (status, v1, v2) in [
            (200, Verdict::Written, Verdict::FallBack),
            (204, Verdict::Written, Verdict::FallBack),
            (307, Verdict::Never, Verdict::Never),
            (400, Verdict::Split, Verdict::Split),
            (401, Verdict::Never, Verdict::Never),
            (404, Verdict::Never, Verdict::Never),
            (413, Verdict::TooLarge, Verdict::TooLarge),
            (415, Verdict::Never, Verdict::FallBack),
            (422, Verdict::Split, Verdict::Split),
            (429, Verdict::Later(None), Verdict::Later(None)),
            (500, Verdict::Later(None), Verdict::Later(None)),
            (503, Verdict::Later(None), Verdict::Later(None)),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(verdict(status, &none, Protocol::V1), v1, "{status}");
            assert_eq!(verdict(status, &none, Protocol::V2), v2, "{status}");
        }
        assert_eq!(
            verdict(StatusCode::OK, &written, Protocol::V2),
            Verdict::Written
        );
    }

    #[test]
    fn a_wait_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_755_600_000);
        for (text, expected) in [
            ("7", Some(7)),
            ("100000", Some(600)),
            ("Tue, 19 Aug 2025 10:40:30 GMT", Some(30)),
            ("Tue, 19 Aug 2025 10:39:30 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            assert_eq!(wait(&headers, now).map(|w| w.as_secs()), expected, "{text}");
        }
    }
}
