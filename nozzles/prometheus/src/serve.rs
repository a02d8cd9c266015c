//! The server of the page.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, ALLOW, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName,
    HeaderValue, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use http::{HeaderMap, Method, StatusCode};
use loggregator_net::http::{Handler, Request, Response, full};
use loggregator_nozzle::config::Secret;
use parking_lot::Mutex;
use std::io::Write as _;
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::config::{Auth, Profile};
use crate::page;
use crate::page::accept::{Format, takes_gzip};
use crate::store::Store;

/// Answers scrapes.
#[derive(Debug)]
pub(crate) struct Page {
    pub store: Arc<Mutex<Store>>,
    pub clock: Clock,
    pub path: String,
    pub profile: Profile,
    pub auth: Option<Auth>,
    pub scrapes: Arc<Semaphore>,
    pub counts: Arc<ScrapeCounts>,
}

/// What the server counts.
#[derive(Debug, Default)]
pub(crate) struct ScrapeCounts {
    /// By format: text, OpenMetrics, protobuf.
    pub scrapes: [AtomicU64; 3],
    /// Refused for the password, and because too many were under way.
    pub unauthorized: AtomicU64,
    pub busy: AtomicU64,
    /// Microseconds that the rendering of all scrapes took.
    pub micros: AtomicU64,
    /// Bytes of the last page, before compression.
    pub bytes: AtomicU64,
}

/// The page as the server knows it.
#[derive(Debug)]
pub(crate) struct Served(pub Arc<Page>);

impl Handler for Served {
    fn handle(
        &self,
        request: Request,
        _: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        let page = Arc::clone(&self.0);
        let (head, _) = request.into_parts();
        Box::pin(async move {
            let get = head.method == Method::GET;
            if head.uri.path() != page.path {
                return page.elsewhere(head.uri.path());
            }
            if !get && head.method != Method::HEAD {
                let answer = text(StatusCode::METHOD_NOT_ALLOWED, "allowed: GET, HEAD\n");
                return with(answer, ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            if let Some(auth) = &page.auth
                && !authorized(auth, &head.headers)
            {
                page.counts.unauthorized.fetch_add(1, Ordering::Relaxed);
                let answer = text(
                    StatusCode::UNAUTHORIZED,
                    "a name and a password are needed\n",
                );
                let basic = HeaderValue::from_static("Basic realm=\"metrics\", charset=\"UTF-8\"");
                return with(answer, WWW_AUTHENTICATE, basic);
            }
            page.scrape(&head.headers, get).await
        })
    }
}

impl Page {
    fn elsewhere(&self, path: &str) -> Response {
        if path == "/" {
            return text(StatusCode::OK, format!("metrics are at {}\n", self.path));
        }
        text(
            StatusCode::NOT_FOUND,
            format!("not found; metrics are at {}\n", self.path),
        )
    }

    async fn scrape(self: Arc<Self>, headers: &HeaderMap, body: bool) -> Response {
        let Ok(permit) = Arc::clone(&self.scrapes).try_acquire_owned() else {
            self.counts.busy.fetch_add(1, Ordering::Relaxed);
            let answer = text(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many scrapes at a time\n",
            );
            return with(answer, RETRY_AFTER, HeaderValue::from_static("1"));
        };
        let format = Format::negotiate(&list(headers, &ACCEPT), self.profile);
        let gzip = takes_gzip(&list(headers, &ACCEPT_ENCODING));
        let rendered = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            self.render(format, gzip)
        });
        let rendered = match rendered.await {
            Ok(Ok(rendered)) => rendered,
            _ => {
                return text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the page cannot be made\n",
                );
            }
        };
        let rendered = if body { rendered } else { Bytes::new() };
        let mut answer = Response::new(full(rendered));
        let headers = answer.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static(format.content_type()),
        );
        headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
        if gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        answer
    }

    fn render(&self, format: Format, gzip: bool) -> std::io::Result<Bytes> {
        let started = Instant::now();
        let page = page::render(&self.store, format, self.clock.now());
        let counts = &self.counts;
        let index = match format {
            Format::Text => 0,
            Format::OpenMetrics(_) => 1,
            Format::Protobuf => 2,
        };
        counts.scrapes[index].fetch_add(1, Ordering::Relaxed);
        counts.bytes.store(page.len() as u64, Ordering::Relaxed);
        let page = if gzip {
            let mut encoder =
                GzEncoder::new(Vec::with_capacity(page.len() / 8), Compression::fast());
            encoder.write_all(&page)?;
            encoder.finish()?
        } else {
            page
        };
        let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        counts.micros.fetch_add(took, Ordering::Relaxed);
        Ok(page.into())
    }
}

/// All values of a header that is a list.
fn list(headers: &HeaderMap, name: &HeaderName) -> String {
    let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    values.collect::<Vec<_>>().join(",")
}

/// Whether the request has the name and password (RFC 7617). The password is read each time: its file may change.
fn authorized(auth: &Auth, headers: &HeaderMap) -> bool {
    let given = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
        let basic = scheme.eq_ignore_ascii_case("basic");
        basic.then(|| STANDARD.decode(rest.trim()).ok()).flatten()
    });
    let Some(given) = given else { return false };
    match auth.password.read() {
        Ok(password) => {
            let wanted = format!("{}:{password}", auth.username);
            verify_slices_are_equal(&given, wanted.as_bytes()).is_ok()
        }
        Err(error) => {
            tracing::warn!(%error, "the password of the metrics page cannot be read");
            false
        }
    }
}

/// Basic credentials, for a request of our own.
pub(crate) fn basic(username: &str, password: &Secret) -> Option<String> {
    let password = password.read().ok()?;
    Some(format!(
        "Basic {}",
        STANDARD.encode(format!("{username}:{password}"))
    ))
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response {
    let mut answer = Response::new(full(body));
    *answer.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    with(answer, CONTENT_TYPE, plain)
}

fn with(mut answer: Response, name: HeaderName, value: HeaderValue) -> Response {
    answer.headers_mut().insert(name, value);
    answer
}
