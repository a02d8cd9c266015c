//! `/set-cookie`: hands a browser back, as a cookie, what it sends as a form. Web consoles use it, because a browser's
//! WebSocket cannot carry an `Authorization` header.
//!
//! The answer is to the byte that of the Go traffic controller, whose cookies go through Go's `http.SetCookie`.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_ORIGIN,
    CONNECTION, CONTENT_TYPE, HeaderValue, ORIGIN, SET_COOKIE,
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Body;

use super::answers::Answer;
use super::form::{self, Form, In, Unusable, is_token};

/// The largest body, in bytes.
const MAX_BODY: usize = 4096;

/// How long a client may take to send its body. The Go traffic controller waits for ever.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// Cookies for one domain.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cookies {
    /// `; Domain=…`, or nothing.
    domain: String,
}

impl Cookies {
    /// Cookies for `doppler.<system domain>`; without a system domain for the host that was asked.
    ///
    /// A domain that cannot stand in a cookie is left out, as Go does it.
    pub(crate) fn for_system_domain(system_domain: Option<&str>) -> Self {
        let Some(system_domain) = system_domain else {
            return Self::default();
        };
        let domain = format!("doppler.{system_domain}");
        if !is_domain(&domain) {
            tracing::warn!("{domain:?} is no domain: cookies are for the host that is asked");
            return Self::default();
        }
        Self {
            domain: format!("; Domain={domain}"),
        }
    }

    /// Answers a request for a cookie.
    pub(crate) async fn answer<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let origin = request.headers().get(ORIGIN).cloned();
        let mut answer = Response::new(Bytes::new());
        let headers = answer.headers_mut();
        let origin = origin.unwrap_or(HeaderValue::from_static(""));
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            HeaderValue::from_static("true"),
        );
        headers.insert(
            ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("Content-Type"),
        );
        match fields(request).await {
            Ok((name, value)) => {
                if let Some(cookie) = self.cookie(&name, &value) {
                    headers.append(SET_COOKIE, cookie);
                }
            }
            Err(fault) => {
                if fault == Fault::Body {
                    headers.insert(CONNECTION, HeaderValue::from_static("close"));
                }
                *answer.status_mut() = StatusCode::BAD_REQUEST;
            }
        }
        answer
    }

    /// The text of `Set-Cookie`; `None` for what cannot be a cookie's name.
    fn cookie(&self, name: &[u8], value: &[u8]) -> Option<HeaderValue> {
        if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
            return None;
        }
        let mut text = name.to_vec();
        text.push(b'=');
        let clean = value
            .iter()
            .copied()
            .filter(|&byte| (0x20..0x7f).contains(&byte) && !matches!(byte, b'"' | b';' | b'\\'));
        let clean: Vec<u8> = clean.collect();
        let quoted = clean.iter().any(|byte| matches!(byte, b' ' | b','));
        let quote: &[u8] = if quoted { b"\"" } else { b"" };
        for part in [
            quote,
            &clean,
            quote,
            self.domain.as_bytes(),
            b"; HttpOnly; Secure; SameSite=Lax",
        ] {
            text.extend_from_slice(part);
        }
        HeaderValue::from_bytes(&text).ok()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// A field is missing, or the form cannot be used.
    Form,
    /// The body is too long, late, or broken: the connection cannot go on.
    Body,
}

impl From<Unusable> for Fault {
    fn from(_: Unusable) -> Self {
        Self::Form
    }
}

/// The name and the value that are asked for.
async fn fields<B>(request: Request<B>) -> Result<(Vec<u8>, Vec<u8>), Fault>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (parts, body) = request.into_parts();
    let content_type = parts.headers.get(CONTENT_TYPE);
    let place = form::place(&parts.method, content_type.map(HeaderValue::as_bytes))?;
    let mut form = Form::default();
    if place == In::Body {
        let body = Limited::new(body, MAX_BODY).collect();
        let body = tokio::time::timeout(BODY_WITHIN, body).await;
        let body = body.map_err(|_| Fault::Body)?.map_err(|_| Fault::Body)?;
        form.add(&body.to_bytes())?;
    }
    form.add(parts.uri.query().unwrap_or("").as_bytes())?;
    let (name, value) = (form.first("CookieName"), form.first("CookieValue"));
    if name.is_empty() || value.is_empty() {
        return Err(Fault::Form);
    }
    Ok((name.to_vec(), value.to_vec()))
}

/// Whether a text is a domain by the rules of Go's cookies: labels of letters, digits and inner hyphens.
fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text.len() <= 255 && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;

    const FORM: &str = "application/x-www-form-urlencoded";

    async fn ask(method: &str, query: &str, content_type: &str, body: &str) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/set-cookie?{query}"));
        if !content_type.is_empty() {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes())));
        let cookies = Cookies::for_system_domain(Some("vcap.me"));
        cookies.answer(request.unwrap()).await
    }

    /// Status, cookie and whether the connection is to be closed.
    fn outcome(answer: &Answer) -> (u16, Option<&str>, bool) {
        assert!(answer.body().is_empty());
        let cookie = answer.headers().get(SET_COOKIE);
        (
            answer.status().as_u16(),
            cookie.map(|cookie| cookie.to_str().unwrap()),
            answer.headers().contains_key(CONNECTION),
        )
    }

    const REST: &str = "; Domain=doppler.vcap.me; HttpOnly; Secure; SameSite=Lax";

    #[tokio::test]
    async fn the_fields_may_be_in_the_body_or_in_the_query() {
        let expected = format!("authorization=bearer+iAmAnAdmin{REST}");
        let expected = (200, Some(expected.as_str()), false);
        let fields = "CookieName=authorization&CookieValue=bearer%2BiAmAnAdmin";
        for (method, query, content_type, body) in [
            ("POST", "", FORM, fields),
            ("PUT", "", FORM, fields),
            ("PATCH", "CookieValue=no", FORM, fields),
            ("GET", fields, "", ""),
            ("DELETE", fields, FORM, "CookieName=x"),
            ("OPTIONS", fields, "", ""),
            ("POST", fields, "text/plain", "whatever %zz"),
            (
                "POST",
                "CookieValue=bearer%2BiAmAnAdmin",
                FORM,
                "CookieName=authorization",
            ),
        ] {
            let answer = ask(method, query, content_type, body).await;
            assert_eq!(outcome(&answer), expected, "{method} {query} {body}");
        }
    }

    #[tokio::test]
    async fn what_is_no_form_or_lacks_a_field_is_a_bad_request() {
        let fields = "CookieName=a&CookieValue=b";
        for (method, query, content_type, body) in [
            ("GET", "", "", ""),
            ("OPTIONS", "", "", ""),
            ("GET", "CookieName=a", "", ""),
            ("GET", "CookieName=a&CookieValue=", "", ""),
            ("GET", "CookieName=&CookieName=a&CookieValue=b", "", ""),
            ("GET", "cookiename=a&cookievalue=b", "", ""),
            ("GET", "CookieName=a&CookieValue=b&c=%zz", "", ""),
            ("GET", "CookieName=a;CookieValue=b", "", ""),
            ("GET", "", FORM, fields),
            ("POST", "", "", fields),
            ("POST", "", "multipart/form-data; boundary=x", fields),
            ("POST", fields, "/", ""),
            ("POST", "x=%zz", FORM, fields),
            ("POST", fields, FORM, "CookieName="),
        ] {
            let answer = ask(method, query, content_type, body).await;
            let context = format!("{method} {query} {content_type} {body}");
            assert_eq!(outcome(&answer), (400, None, false), "{context}");
        }
    }

    #[tokio::test]
    async fn a_body_may_have_4096_bytes() {
        let body = |len: usize| format!("{:c$}", "CookieName=a&CookieValue=b&c=", c = len);
        let body = |len| body(len).replace(' ', "x");
        let fits = ask("POST", "", FORM, &body(4096)).await;
        let cookie = format!("a=b{REST}");
        assert_eq!(outcome(&fits), (200, Some(cookie.as_str()), false));
        let long = ask("POST", "", FORM, &body(4097)).await;
        assert_eq!(outcome(&long), (400, None, true));
    }

    #[test]
    fn values_are_quoted_or_cleaned_and_names_are_tokens() {
        let cookies = Cookies::for_system_domain(Some("vcap.me"));
        for (name, value, expected) in [
            ("a", "b c", Some("a=\"b c\"")),
            ("a", "b,c", Some("a=\"b,c\"")),
            ("a", "b\"c;d\\e\u{1}\r\nf\u{e9}g\u{7f}", Some("a=bcdefg")),
            ("a", ";", Some("a=")),
            ("a", "=/?&%", Some("a==/?&%")),
            ("a!#$%&'*+-.^_`|~", "b", Some("a!#$%&'*+-.^_`|~=b")),
            ("a b", "c", None),
            ("a=b", "c", None),
            ("a\r\nx", "c", None),
            ("\u{e9}", "c", None),
        ] {
            let cookie = cookies.cookie(name.as_bytes(), value.as_bytes());
            let expected = expected.map(|start| format!("{start}{REST}"));
            let cookie = cookie.map(|cookie| cookie.to_str().unwrap().to_owned());
            assert_eq!(cookie, expected, "{name} {value:?}");
        }
    }

    #[tokio::test]
    async fn every_answer_allows_the_origin_that_asked() {
        for (origin, expected) in [
            (Some("https://console.example"), "https://console.example"),
            (None, ""),
        ] {
            for method in ["GET", "OPTIONS", "POST"] {
                let mut request = Request::builder().method(method).uri("/set-cookie");
                if let Some(origin) = origin {
                    request = request.header(ORIGIN, origin);
                }
                let request = request.body(Full::new(Bytes::new())).unwrap();
                let answer = Cookies::default().answer(request).await;
                assert_eq!(answer.status(), 400);
                let mut headers: Vec<_> = answer
                    .headers()
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
                    .collect();
                headers.sort_unstable();
                assert_eq!(
                    headers,
                    [
                        ("access-control-allow-credentials", "true"),
                        ("access-control-allow-headers", "Content-Type"),
                        ("access-control-allow-origin", expected),
                    ]
                );
            }
        }
    }

    #[test]
    fn a_domain_that_cannot_stand_in_a_cookie_is_left_out() {
        let domain = |system: Option<&str>| Cookies::for_system_domain(system).domain;
        assert_eq!(domain(Some("sys.example")), "; Domain=doppler.sys.example");
        for bad in ["a b", "a..b", "-a", "a-", "a;b", "a\r\nb"] {
            assert_eq!(domain(Some(bad)), "", "{bad:?}");
        }
        assert_eq!(domain(None), "");
    }
}
