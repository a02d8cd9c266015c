//! Requests and answers of the admin server.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde_json::json;

use super::page::Body;
use super::{Page, Pages, Readiness};
use crate::Lifecycle;
use crate::ledger::Source;
use crate::logging;
use crate::metrics::{self, Metrics};

/// Largest request body.
const MAX_BODY: usize = 4096;
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

const LINES: &str = "application/x-ndjson";

type Answer = Response<Body>;

/// What the answers are made from.
pub(super) struct Routes {
    pub metrics: Metrics,
    pub ledger: Arc<dyn Source>,
    pub readiness: Readiness,
    pub lifecycle: Lifecycle,
    pub pages: Arc<dyn Pages>,
    /// Whether the listener is on loopback; elsewhere nothing may be changed.
    pub loopback: bool,
}

impl Routes {
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Answer {
        let head = request.method() == Method::HEAD;
        let get = head || request.method() == Method::GET;
        let answer = match request.uri().path() {
            "/log-level" if request.method() == Method::POST => self.set_log_level(request).await,
            "/log-level" if get => log_level(),
            "/log-level" => not_allowed("GET, HEAD, POST"),
            path => match (self.page(path), get) {
                (Some(page), true) => page(self),
                (Some(_), false) => not_allowed("GET, HEAD"),
                (None, _) => self.own_page(&request, get),
            },
        };
        if head {
            answer.map(|_| Body::default())
        } else {
            answer
        }
    }

    fn page(&self, path: &str) -> Option<fn(&Self) -> Answer> {
        Some(match path {
            "/metrics" => |routes| {
                respond(
                    StatusCode::OK,
                    metrics::CONTENT_TYPE,
                    whole(routes.metrics.encode()),
                )
            },
            "/healthz" => |_| text(StatusCode::OK, "ok\n"),
            "/readyz" => Self::readiness,
            "/ledger" => Self::ledger,
            "/version" => Self::version,
            "/tasks" => |routes| {
                json_answer(
                    StatusCode::OK,
                    &json!({ "tasks": routes.lifecycle.tasks() }),
                )
            },
            _ => return None,
        })
    }

    /// A page of the component's own.
    fn own_page(&self, request: &Request<Incoming>, get: bool) -> Answer {
        let uri = request.uri();
        match self.pages.page(uri.path(), uri.query().unwrap_or_default()) {
            None => text(StatusCode::NOT_FOUND, "not found\n"),
            Some(_) if !get => not_allowed("GET, HEAD"),
            Some(Page::Json(value)) => json_answer(StatusCode::OK, &value),
            Some(Page::BadRequest(why)) => text(StatusCode::BAD_REQUEST, format!("{why}\n")),
            Some(Page::Lines(_)) if !self.private(request) => text(
                StatusCode::FORBIDDEN,
                "what people log is shown over loopback, and not to a browser\n",
            ),
            Some(Page::Lines(lines)) => respond(StatusCode::OK, LINES, Body::Lines(lines)),
        }
    }

    /// Whether the request comes from this machine, and not from a page in a browser: such a request tells its origin, says
    /// that it is not typed by a person, or asks for a host by a name, which may be anybody's that leads here.
    fn private(&self, request: &Request<Incoming>) -> bool {
        let headers = request.headers();
        let of_page = headers
            .get("sec-fetch-site")
            .is_some_and(|site| site != "none");
        self.loopback && !headers.contains_key(ORIGIN) && !of_page && names_this_machine(headers)
    }

    fn readiness(&self) -> Answer {
        let mut reasons = self.readiness.reasons();
        if self.lifecycle.token().is_cancelled() {
            reasons.insert(0, "draining".to_owned());
        }
        let status = if reasons.is_empty() {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        json_answer(
            status,
            &json!({ "ready": reasons.is_empty(), "reasons": reasons }),
        )
    }

    fn ledger(&self) -> Answer {
        match serde_json::to_vec(&self.ledger.report()) {
            Ok(body) => respond(StatusCode::OK, JSON, whole(body)),
            Err(error) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("the ledger cannot be shown: {error}\n"),
            ),
        }
    }

    fn version(&self) -> Answer {
        let version = json!({
            "program": "loggregator",
            "version": env!("CARGO_PKG_VERSION"),
            "component": self.ledger.report().component,
        });
        json_answer(StatusCode::OK, &version)
    }

    async fn set_log_level(&self, request: Request<Incoming>) -> Answer {
        if !self.private(&request) {
            return text(
                StatusCode::FORBIDDEN,
                "the log level is set over loopback, and not from a browser\n",
            );
        }
        let Some(control) = logging::control() else {
            return text(
                StatusCode::NOT_IMPLEMENTED,
                "this process has no log filter to set\n",
            );
        };
        let Ok(body) = Limited::new(request.into_body(), MAX_BODY).collect().await else {
            return text(
                StatusCode::PAYLOAD_TOO_LARGE,
                "a filter has at most 4096 bytes\n",
            );
        };
        match std::str::from_utf8(&body.to_bytes())
            .map_err(|e| e.to_string())
            .and_then(|filter| {
                control
                    .set_filter(filter.trim())
                    .map_err(|e| crate::lifecycle::chain(&e))
            }) {
            Ok(()) => log_level(),
            Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        }
    }
}

fn log_level() -> Answer {
    match logging::control() {
        Some(control) => text(StatusCode::OK, format!("{}\n", control.filter())),
        None => text(
            StatusCode::NOT_IMPLEMENTED,
            "this process has no log filter\n",
        ),
    }
}

fn not_allowed(allow: &'static str) -> Answer {
    let mut answer = text(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("allowed: {allow}\n"),
    );
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allow));
    answer
}

fn json_answer(status: StatusCode, value: &serde_json::Value) -> Answer {
    respond(status, JSON, whole(format!("{value}\n")))
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    respond(status, TEXT, whole(body))
}

fn whole(body: impl Into<Bytes>) -> Body {
    Body::Whole(Full::new(body.into()))
}

fn respond(status: StatusCode, content_type: &'static str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Whether the host that is asked for is an address or `localhost`.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST) else {
        return true;
    };
    let host = host.to_str().unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|digit| digit.is_ascii_digit()) {
            name
        } else {
            host
        }
    });
    let name = name.trim_matches(['[', ']']);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}
