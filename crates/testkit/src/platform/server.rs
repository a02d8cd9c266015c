//! The endpoints of UAA and Cloud Controller.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER};
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use loggregator_net::http::{BodyError, Handler, Request, Response, full};
use serde_json::{Value, json};

use super::fault::{Endpoint, Mode};
use super::state::{Grant, State};
use super::{CLIENT_ID, CLIENT_SECRET, PASSWORD, USER, apps};

/// Largest body of a request.
const MAX_BODY: usize = 1 << 20;

type Answering = Pin<Box<dyn Future<Output = Response> + Send>>;

pub(super) struct Uaa(pub Arc<State>);
pub(super) struct Capi(pub Arc<State>);

impl Handler for Uaa {
    fn handle(&self, request: Request, _: SocketAddr) -> Answering {
        let state = Arc::clone(&self.0);
        Box::pin(async move { uaa(&state, request).await })
    }
}

impl Handler for Capi {
    fn handle(&self, request: Request, _: SocketAddr) -> Answering {
        let state = Arc::clone(&self.0);
        Box::pin(async move { capi(&state, request).await })
    }
}

async fn uaa(state: &State, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let line = format!("{} {}", head.method, head.uri);
    let endpoint = match (&head.method, head.uri.path()) {
        (&Method::POST, "/check_token") => Endpoint::CheckToken,
        (&Method::GET, "/token_keys") => Endpoint::TokenKeys,
        (&Method::POST, "/oauth/token") => Endpoint::OauthToken,
        _ => Endpoint::Other,
    };
    let body = read(body).await;
    let token = (endpoint == Endpoint::CheckToken)
        .then(|| form_field(&body, "token"))
        .flatten()
        .unwrap_or_default();
    state.count(endpoint, &token, line);
    if let Some(wrong) = fault(state, endpoint).await {
        return wrong;
    }
    match endpoint {
        Endpoint::CheckToken => {
            let pair = STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}"));
            let given = head.headers.get(AUTHORIZATION);
            if given.is_none_or(|given| given.as_bytes() != format!("Basic {pair}").as_bytes()) {
                return complaint(401, "unauthorized", "Bad credentials");
            }
            let form = head.headers.get(CONTENT_TYPE);
            if form.is_none_or(|form| form != "application/x-www-form-urlencoded") {
                return complaint(415, "unsupported_media_type", "not a form");
            }
            check_token(state, &token)
        }
        Endpoint::TokenKeys => answer(200, &state.keys.lock().published()),
        Endpoint::OauthToken => oauth_token(state, head.headers.get(AUTHORIZATION), &body),
        _ => complaint(404, "not_found", "no such endpoint"),
    }
}

fn check_token(state: &State, token: &str) -> Response {
    match state.good(token) {
        Some((grant, expires)) => answer(
            200,
            &json!({
                "user_name": "somebody",
                "client_id": "cf",
                "scope": grant.scopes,
                "exp": expires,
            }),
        ),
        None => complaint(
            400,
            "invalid_token",
            "The token expired, was revoked, or the token ID is incorrect.",
        ),
    }
}

/// Tokens by the client-credentials and the password grant, for the one client and the one user.
fn oauth_token(state: &State, given: Option<&HeaderValue>, form: &[u8]) -> Response {
    let pair = STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}"));
    if given.is_none_or(|given| given.as_bytes() != format!("Basic {pair}").as_bytes()) {
        return complaint(401, "unauthorized", "Bad credentials");
    }
    let field = |name| form_field(form, name).unwrap_or_default();
    match field("grant_type").as_str() {
        "client_credentials" => {}
        "password" if field("username") == USER && field("password") == PASSWORD => {}
        "password" => return complaint(401, "unauthorized", "Bad credentials"),
        _ => return complaint(400, "unsupported_grant_type", "unknown"),
    }
    let life = *state.token_life.lock();
    let grant = Grant {
        lifetime_s: Some(life),
        apps: vec!["*".to_owned()],
        ..Grant::admin()
    };
    match state.issue(grant, &json!({})) {
        Ok(token) => answer(
            200,
            &json!({ "access_token": token, "token_type": "bearer", "expires_in": life }),
        ),
        Err(_) => page(500),
    }
}

async fn capi(state: &State, request: Request) -> Response {
    const LOG_ACCESS: &str = "/internal/v4/log_access/";
    const SERVICE_INSTANCES: &str = "/v3/service_instances/";
    let path = request.uri().path();
    let (endpoint, id) = if let Some(id) = path.strip_prefix(LOG_ACCESS) {
        (Endpoint::LogAccess, id)
    } else if let Some(id) = path.strip_prefix(SERVICE_INSTANCES) {
        (Endpoint::ServiceInstances, id)
    } else if path == "/v3/apps" {
        (Endpoint::Apps, "")
    } else {
        (Endpoint::Other, "")
    };
    let text = request.headers().get(AUTHORIZATION);
    let text = text.map_or("".into(), |text| String::from_utf8_lossy(text.as_bytes()));
    let token = match text.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer ") => token,
        _ => &*text,
    };
    let line = format!("{} {}", request.method(), request.uri());
    state.count(endpoint, token, line);
    if let Some(wrong) = fault(state, endpoint).await {
        return wrong;
    }
    if endpoint == Endpoint::Other || request.method() != Method::GET {
        return complaint(404, "CF-NotFound", "Unknown request");
    }
    match state.good(token) {
        None => complaint(401, "CF-InvalidAuthToken", "Invalid Auth Token"),
        Some(_) if endpoint == Endpoint::Apps => {
            let base = "https://api.example.com";
            let query = request.uri().query().unwrap_or_default();
            answer(200, &apps::page(&state.apps.lock(), query, base))
        }
        Some((grant, _)) if State::sees(&grant, endpoint, id) => answer(200, &json!({})),
        Some(_) => complaint(404, "CF-ResourceNotFound", "Resource not found"),
    }
}

/// The answer of an endpoint with which something is wrong, after the time that it takes.
async fn fault(state: &State, endpoint: Endpoint) -> Option<Response> {
    let fault = state.faults.lock().get(&endpoint).cloned()?;
    if fault.latency_ms > 0 {
        tokio::time::sleep(Duration::from_millis(fault.latency_ms)).await;
    }
    match fault.mode {
        Mode::None => None,
        Mode::Status(status) => Some(page(status)),
        Mode::Limited(seconds) => {
            let mut answer = complaint(429, "CF-RateLimitExceeded", "Rate Limit Exceeded");
            answer.headers_mut().insert(RETRY_AFTER, seconds.into());
            Some(answer)
        }
        Mode::WrongJson => Some(page(200)),
        Mode::Hang => std::future::pending().await,
        Mode::Close => Some(Response::new(Breaks::default().boxed_unsync())),
        Mode::Redirect(to) => {
            let mut answer = page(302);
            if let Ok(to) = HeaderValue::from_str(&to) {
                answer.headers_mut().insert(LOCATION, to);
            }
            Some(answer)
        }
    }
}

/// A page as proxies and application servers make them when something is wrong.
fn page(status: u16) -> Response {
    let mut answer = Response::new(full("<html><body>out of order</body></html>"));
    *answer.status_mut() = code(status);
    let html = HeaderValue::from_static("text/html");
    answer.headers_mut().insert(CONTENT_TYPE, html);
    answer
}

pub(super) fn answer(status: u16, body: &Value) -> Response {
    let mut answer = Response::new(full(body.to_string()));
    *answer.status_mut() = code(status);
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    answer
}

pub(super) fn complaint(status: u16, error: &str, description: &str) -> Response {
    let body = json!({ "error": error, "error_description": description });
    answer(status, &body)
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The request's body; empty when it is too long or breaks off.
pub(super) async fn read(
    body: impl http_body::Body<Data = Bytes, Error: Into<BodyError>>,
) -> Bytes {
    let body = Limited::new(body, MAX_BODY);
    body.collect()
        .await
        .map_or(Bytes::new(), |body| body.to_bytes())
}

/// A field of an urlencoded form.
fn form_field(body: &[u8], name: &str) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let mut fields = text.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = fields.find(|(field, _)| *field == name)?;
    let mut plain = Vec::new();
    let mut rest = value.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        plain.push(match byte {
            b'+' => b' ',
            b'%' => {
                let (digits, tail) = tail.split_first_chunk::<2>()?;
                rest = tail;
                u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    Some(String::from_utf8_lossy(&plain).into_owned())
}

/// A body that promises more than comes.
#[derive(Default)]
struct Breaks {
    begun: bool,
}

impl http_body::Body for Breaks {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        if std::mem::replace(&mut self.begun, true) {
            return Poll::Ready(Some(Err("broken off on purpose".into())));
        }
        let half = Bytes::from_static(br#"{"scope":["doppler.firehose""#);
        Poll::Ready(Some(Ok(http_body::Frame::data(half))))
    }
}
