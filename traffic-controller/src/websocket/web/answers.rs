//! The answers that are not a stream, to the byte those of the Go traffic controller.

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, UPGRADE, WWW_AUTHENTICATE,
};
use http::{Response, StatusCode};

use super::handshake::Refusal;
use super::routes::Route;
use crate::access::Denied;

/// Every answer's body is at hand as a whole.
pub(crate) type Answer = Response<Bytes>;

const NO_SNIFF: HeaderName = HeaderName::from_static("x-content-type-options");
const WS_VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");
const WS_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = status;
    answer
}

fn text(status: StatusCode, body: &'static str) -> Answer {
    let mut answer = Response::new(Bytes::from_static(body.as_bytes()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    answer
}

fn plain_error(status: StatusCode, body: &'static str) -> Answer {
    let mut answer = text(status, body);
    answer
        .headers_mut()
        .insert(NO_SNIFF, HeaderValue::from_static("nosniff"));
    answer
}

/// No such path.
pub(crate) fn not_found() -> Answer {
    plain_error(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// The clean form of the path.
pub(crate) fn moved(location: &str) -> Answer {
    let mut answer = empty(StatusCode::MOVED_PERMANENTLY);
    match HeaderValue::from_str(location) {
        Ok(location) => {
            answer.headers_mut().insert(LOCATION, location);
            answer
        }
        Err(_) => malformed(),
    }
}

/// The path is not valid percent encoding.
pub(crate) fn malformed() -> Answer {
    let mut answer = text(StatusCode::BAD_REQUEST, "400 Bad Request");
    answer
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// As many streams are open as may be, or the process is going down.
pub(crate) fn full() -> Answer {
    empty(StatusCode::SERVICE_UNAVAILABLE)
}

/// Access was denied. The firehose explains itself, the application stream does not.
pub(crate) fn denied(route: &Route, why: &Denied) -> Answer {
    if matches!(route, Route::Firehose { .. }) {
        let body = match why {
            Denied::NoToken => "You are not authorized. authorization not provided",
            _ => "You are not authorized. invalid authorization",
        };
        let mut answer = text(StatusCode::UNAUTHORIZED, body);
        answer
            .headers_mut()
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
        return answer;
    }
    match why {
        Denied::NoToken | Denied::Refused => {
            let mut answer = empty(StatusCode::UNAUTHORIZED);
            answer
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
            answer
        }
        Denied::NotAnAppId => empty(StatusCode::UNAUTHORIZED),
        Denied::NotFound => empty(StatusCode::NOT_FOUND),
        Denied::Unavailable(_) => empty(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// The request is not a WebSocket handshake that can be granted.
pub(crate) fn refused(refusal: Refusal) -> Answer {
    let mut answer = match refusal {
        Refusal::NotAHandshake => plain_error(StatusCode::BAD_REQUEST, "Bad Request\n"),
        Refusal::Method => plain_error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n"),
    };
    answer
        .headers_mut()
        .insert(WS_VERSION, HeaderValue::from_static("13"));
    answer
}

/// The handshake is granted.
pub(crate) fn switching(accept: &str) -> Answer {
    let mut answer = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = answer.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(accept) {
        headers.insert(WS_ACCEPT, accept);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_be_denied_has_its_status() {
        let firehose = Route::Firehose {
            id: "s".to_owned(),
            keep: super::super::routes::Keep::All,
        };
        let app = Route::App { id: "a".to_owned() };
        let unavailable = Denied::Unavailable("refused".to_owned());
        for (route, why, status, basic) in [
            (&firehose, &Denied::NoToken, 401, true),
            (&firehose, &Denied::Refused, 401, true),
            (&firehose, &unavailable, 401, true),
            (&app, &Denied::NotAnAppId, 401, false),
            (&app, &Denied::NoToken, 401, true),
            (&app, &Denied::Refused, 401, true),
            (&app, &Denied::NotFound, 404, false),
            (&app, &unavailable, 500, false),
        ] {
            let answer = denied(route, why);
            assert_eq!(answer.status().as_u16(), status, "{route:?} {why:?}");
            assert_eq!(
                answer.headers().contains_key(WWW_AUTHENTICATE),
                basic,
                "{route:?} {why:?}"
            );
        }
    }
}
