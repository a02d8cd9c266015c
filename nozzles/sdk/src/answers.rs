//! What an answer over HTTP means for a batch. The same rules for every destination that posts batches.

use std::time::Duration;

use loggregator_net::http::client::{Answer, ClientError};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::destination::{Delivery, Outcome, Reason};

/// A server may ask for at most so long a pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// A destination that posts one request after the other for a batch begins no more of them after so long, says what became of
/// the events so far, and leaves the rest as [`out_of_time`]. The framework gives a delivery up after `retry.timeout`, a
/// minute unless set, and knows nothing of it then: what was taken would go again, each time. What remains of the minute is
/// for the request under way.
pub const LONGEST_POSTING: Duration = Duration::from_secs(20);

/// How much of an answer's body stands in a reason.
const SHOWN: usize = 200;

/// What became of a batch of `events` events that was posted in one request.
///
/// | status | means |
/// |---|---|
/// | 2xx | taken |
/// | 413 | too large: it is halved |
/// | 400, 422 | refused: it is halved until the event to blame is alone |
/// | 401, 403, 404, 407, 408, 425, 429, 3xx | it may be taken later, some of it once somebody has put the settings right |
/// | 5xx except 501, no answer | it may be taken later |
/// | 501, other 4xx | never taken: dead letters |
///
/// `Retry-After` is heeded, up to five minutes.
pub fn judge(answer: &Result<Answer, ClientError>, events: usize) -> Delivery {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            return Delivery::Retry {
                why: Reason::new(code(error), error.to_string()),
                after: None,
            };
        }
    };
    let status = answer.status.as_u16();
    let text = String::from_utf8_lossy(&answer.body[..answer.body.len().min(SHOWN)]);
    let why = Reason::new(format!("status_{status}"), text.trim().to_owned());
    match status {
        200..=299 => Delivery::All,
        413 => Delivery::TooLarge(why),
        400 | 422 => Delivery::Refused(why),
        501 | 402 | 405..=406 | 409..=412 | 414..=421 | 423..=424 | 426..=428 | 430..=499 => {
            Delivery::Each(vec![Outcome::Rejected(why); events])
        }
        _ => Delivery::Retry {
            why,
            after: pause(answer),
        },
    }
}

/// Why events were left for the next time after [`LONGEST_POSTING`]: `time`.
#[must_use]
pub fn out_of_time() -> Reason {
    let seconds = LONGEST_POSTING.as_secs();
    Reason::new("time", format!("not sent within {seconds} s"))
}

/// Whether the other side was not reached at all: then it is a failure for every event of a batch, not only for those of the
/// request that met it.
#[must_use]
pub fn unreachable(why: &Reason) -> bool {
    matches!(&*why.code, CONNECT | TLS)
}

const CONNECT: &str = "connect";
const TLS: &str = "tls";

/// Codes of requests without an answer: `connect`, `tls`, `timeout`, `exchange`, `answer`.
fn code(error: &ClientError) -> &'static str {
    match error {
        ClientError::Connect { .. } => CONNECT,
        ClientError::Handshake { .. } | ClientError::NoTls { .. } => TLS,
        ClientError::Timeout { .. } => "timeout",
        ClientError::Exchange { .. } | ClientError::Address => "exchange",
        _ => "answer",
    }
}

/// What `Retry-After` asks for: seconds, or a date (RFC 9110 §10.2.3).
fn pause(answer: &Answer) -> Option<Duration> {
    let text = answer
        .headers
        .get(http::header::RETRY_AFTER)?
        .to_str()
        .ok()?;
    let asked = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = OffsetDateTime::parse(text, &Rfc2822).ok()?;
            Duration::try_from(at - OffsetDateTime::now_utc()).unwrap_or_default()
        }
    };
    Some(asked.min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::*;

    fn judged(status: u16, retry_after: Option<&str>) -> Delivery {
        let mut headers = HeaderMap::new();
        if let Some(text) = retry_after {
            headers.insert("retry-after", HeaderValue::from_str(text).unwrap());
        }
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: "no\n".into(),
        };
        judge(&Ok(answer), 2)
    }

    #[test]
    fn statuses_have_their_classes() {
        let why = |status: u16| Reason::new(format!("status_{status}"), "no");
        for status in [200, 201, 202, 204] {
            assert_eq!(judged(status, None), Delivery::All);
        }
        assert_eq!(judged(413, None), Delivery::TooLarge(why(413)));
        for status in [400, 422] {
            assert_eq!(judged(status, None), Delivery::Refused(why(status)));
        }
        for status in [
            301, 308, 401, 403, 404, 407, 408, 425, 429, 500, 502, 503, 504, 599,
        ] {
            let after = None;
            let why = why(status);
            assert_eq!(judged(status, None), Delivery::Retry { why, after });
        }
        for status in [402, 405, 409, 410, 415, 431, 451, 501] {
            let each = vec![Outcome::Rejected(why(status)); 2];
            assert_eq!(judged(status, None), Delivery::Each(each));
        }
    }

    #[test]
    fn a_pause_is_seconds_or_a_date_and_has_a_bound() {
        let after = |text| match judged(503, Some(text)) {
            Delivery::Retry { after, .. } => after,
            other => panic!("{other:?}"),
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("100000"), Some(LONGEST_PAUSE));
        assert_eq!(after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(after("Wed, 21 Oct 2099 07:28:00 GMT"), Some(LONGEST_PAUSE));
        assert_eq!(after("soon"), None);
    }
}
