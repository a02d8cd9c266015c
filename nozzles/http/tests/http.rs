//! Against a server under the control of the tests; first of all the compliance suite.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use loggregator_net::http::{self as server, Handler, Request, Response, Server, Settings, full};
use loggregator_nozzle::compliance::{self, Behaviour, Peer};
use loggregator_nozzle::config::Section;
use loggregator_nozzle::{
    Batch, BufferIdentity, Context, Delivery, DynDestination, Event, Kind as _, Kinds, Outcome,
    Reason, Rendered, answers,
};
use loggregator_nozzle_http::HttpKind;
use loggregator_service::Lifecycle;
use loggregator_service::metrics::Metrics;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// What came, and how the server behaves.
struct State {
    addr: SocketAddr,
    how: Mutex<Behaviour>,
    requests: Mutex<Vec<(String, HeaderMap, Bytes)>>,
    /// Statuses for paths, with `Retry-After: 7`; each is used once.
    answers: Mutex<Vec<(&'static str, u16)>>,
    /// How much later it is when an answer comes, on the test's clock.
    takes: Mutex<Duration>,
    taken: Mutex<Vec<Rendered>>,
}

struct Stub {
    state: Arc<State>,
    scratch: TempDir,
    stop: CancellationToken,
}

impl Stub {
    fn start() -> Stub {
        let server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let state = Arc::new(State {
            addr: server.local_addr(),
            how: Mutex::new(Behaviour::Healthy),
            requests: Mutex::default(),
            answers: Mutex::default(),
            takes: Mutex::default(),
            taken: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let handler = Arc::new(Answers(Arc::clone(&state)));
        tokio::spawn(server.serve(None, handler, Settings::default(), stop.clone()));
        Stub {
            state,
            scratch: tempfile::tempdir().unwrap(),
            stop,
        }
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Answers(Arc<State>);

impl Handler for Answers {
    fn handle(
        &self,
        request: Request,
        _: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        use http_body_util::BodyExt as _;
        let state = Arc::clone(&self.0);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let path = head.uri.to_string();
            state
                .requests
                .lock()
                .push((path.clone(), head.headers, body.clone()));
            let takes = *state.takes.lock();
            if !takes.is_zero() {
                tokio::time::pause();
                tokio::time::advance(takes).await;
                tokio::time::resume();
            }
            let own = {
                let mut answers = state.answers.lock();
                let at = answers.iter().position(|(of, _)| *of == path);
                at.map(|at| answers.remove(at).1)
            };
            let status = match own {
                Some(status) => StatusCode::from_u16(status).unwrap(),
                None => state.judge(&path, &body).await,
            };
            let mut response = server::Response::new(full(status.to_string()));
            *response.status_mut() = status;
            if own == Some(429) {
                let value = "7".parse().unwrap();
                response.headers_mut().insert("retry-after", value);
            }
            response
        })
    }
}

impl State {
    async fn judge(&self, path: &str, body: &[u8]) -> StatusCode {
        let text = String::from_utf8_lossy(body).into_owned();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let how = self.how.lock().clone();
        let (take, status) = match how {
            Behaviour::Healthy => (lines.len(), StatusCode::OK),
            Behaviour::Away => (0, StatusCode::SERVICE_UNAVAILABLE),
            Behaviour::Fail(0) | Behaviour::Partial(0) => (lines.len(), StatusCode::OK),
            Behaviour::Fail(n) => {
                *self.how.lock() = Behaviour::Fail(n - 1);
                (0, StatusCode::INTERNAL_SERVER_ERROR)
            }
            Behaviour::Partial(n) => {
                *self.how.lock() = Behaviour::Partial(n - 1);
                (lines.len() / 2, StatusCode::BAD_GATEWAY)
            }
            Behaviour::Slow(how_long) => {
                tokio::time::sleep(how_long).await;
                (lines.len(), StatusCode::OK)
            }
            Behaviour::Poison(poison) if text.contains(&poison) => (0, StatusCode::BAD_REQUEST),
            Behaviour::Poison(_) => (lines.len(), StatusCode::OK),
        };
        let url = format!("http://{}{path}", self.addr);
        let rendered = |line: &&str| Rendered {
            fields: vec![("url", url.clone())],
            body: (*line).to_owned().into(),
        };
        self.taken
            .lock()
            .extend(lines.iter().take(take).map(rendered));
        status
    }
}

impl Peer for Stub {
    fn config(&self) -> String {
        format!("url = \"http://{}/events\"", self.state.addr)
    }

    fn scratch(&self) -> PathBuf {
        self.scratch.path().to_owned()
    }

    async fn behave(&self, how: Behaviour) {
        *self.state.how.lock() = how;
    }

    async fn received(&self) -> Vec<Rendered> {
        self.state.taken.lock().clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_complies() {
    let kinds = Kinds::new().with(HttpKind);
    let left_out = compliance::run(&kinds, "http", || async { Stub::start() }).await;
    assert!(left_out.is_empty(), "{left_out:?}");
}

async fn start(section: &str) -> Arc<dyn DynDestination> {
    let plan = HttpKind
        .plan(&Section::from_text(section).unwrap())
        .unwrap();
    let context = Context {
        nozzle: "test".to_owned(),
        name: "collector".to_owned(),
        metrics: Metrics::empty(),
        lifecycle: Lifecycle::new(),
        buffer: BufferIdentity::new("test"),
        state_dir: None,
    };
    plan.start(context).await.unwrap()
}

/// A log of this source: an envelope of its source id and an empty log.
fn event(seq: u64, source_id: &str) -> Event {
    let mut body = vec![0x12, source_id.len() as u8];
    body.extend_from_slice(source_id.as_bytes());
    body.extend_from_slice(&[0x22, 0]);
    Event::new(seq, 0, body.into())
}

#[tokio::test]
async fn events_are_grouped_by_what_the_templates_make_of_them() {
    let stub = Stub::start();
    let section = format!(
        "url = \"http://{}/in/{{source_id}}\"\nuser = \"u\"\npassword = \"p\"\n[headers]\nX-Kind = \"{{kind}}\"",
        stub.state.addr
    );
    let destination = start(&section).await;
    let events = ["a b", "c", "a b", "bad\nheader"]
        .iter()
        .zip(0..)
        .map(|(s, n)| event(n, s));
    let delivery = destination.deliver(&Batch::new(events.collect(), 0)).await;
    assert_eq!(delivery, Delivery::Each(vec![Outcome::Delivered; 4]));
    let requests = stub.state.requests.lock();
    let seen: Vec<(&str, usize)> = requests
        .iter()
        .map(|(path, _, body)| (path.as_str(), body.split(|b| *b == b'\n').count() - 1))
        .collect();
    assert_eq!(
        seen,
        [("/in/a%20b", 2), ("/in/c", 1), ("/in/bad%0Aheader", 1)]
    );
    let headers = &requests[0].1;
    assert_eq!(headers["x-kind"], "log");
    assert_eq!(headers["authorization"], "Basic dTpw");
    assert_eq!(headers["content-type"], "application/x-ndjson");
}

#[tokio::test]
async fn what_makes_no_header_is_rejected_and_its_neighbours_go() {
    let stub = Stub::start();
    let section = format!(
        "url = \"http://{}/\"\n[headers]\nX-Source = \"{{source_id}}\"",
        stub.state.addr
    );
    let destination = start(&section).await;
    let events = vec![event(0, "a"), event(1, "b\n")];
    let Delivery::Each(each) = destination.deliver(&Batch::new(events, 0)).await else {
        panic!("one of them is bad")
    };
    assert_eq!(each[0], Outcome::Delivered);
    let Outcome::Rejected(why) = &each[1] else {
        panic!("{each:?}")
    };
    assert_eq!(why.code, "invalid_header");
}

#[tokio::test]
async fn bodies_have_their_forms() {
    for (settings, content_type, expected) in [
        ("body = \"json\"", "application/json", "[{…},{…}]"),
        ("body = \"json\"\nsingle = true", "application/json", "{…}"),
        ("body = \"ndjson\"", "application/x-ndjson", "{…}\n{…}\n"),
        (
            "body = \"protobuf\"",
            "application/x-protobuf",
            "\n\u{5}\u{12}\u{1}a\"\0\n\u{5}\u{12}\u{1}b\"\0",
        ),
    ] {
        let stub = Stub::start();
        let section = format!(
            "url = \"http://{}/\"\nbearer = \"t\"\n{settings}",
            stub.state.addr
        );
        let destination = start(&section).await;
        let batch = Batch::new(vec![event(0, "a"), event(1, "b")], 0);
        destination.deliver(&batch).await;
        let requests = stub.state.requests.lock();
        let (_, headers, body) = &requests[0];
        assert_eq!(headers["content-type"], content_type);
        assert_eq!(headers["authorization"], "Bearer t");
        assert_eq!(shape(body), expected, "{settings}");
    }
}

/// A body with the insides of its objects left out.
fn shape(body: &[u8]) -> String {
    let (mut shape, mut depth) = (String::new(), 0);
    for c in String::from_utf8_lossy(body).chars() {
        depth -= i32::from(c == '}');
        if depth == 0 {
            shape.push(c);
        }
        if c == '{' {
            shape.push_str(if depth == 0 { "…" } else { "" });
            depth += 1;
        }
    }
    shape
}

#[tokio::test]
async fn a_compressed_body_is_the_body() {
    use std::io::Read as _;
    let stub = Stub::start();
    let section = format!(
        "url = \"http://{}/\"\ncompression = \"gzip\"\nbody = \"text\"",
        stub.state.addr
    );
    let destination = start(&section).await;
    let batch = Batch::new(vec![event(0, "source-a")], 0);
    assert_eq!(destination.deliver(&batch).await, Delivery::All);
    let requests = stub.state.requests.lock();
    assert_eq!(requests[0].1["content-encoding"], "gzip");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&requests[0].2[..])
        .read_to_string(&mut text)
        .unwrap();
    assert!(text.contains("source-a") && text.ends_with('\n'), "{text}");
}

#[tokio::test]
async fn a_server_that_closed_an_idle_connection_is_asked_on_a_new_one() {
    let stub = Stub::start();
    let destination = start(&format!("url = \"http://{}/\"", stub.state.addr)).await;
    for n in 0..3 {
        let batch = Batch::new(vec![event(n, "a")], 0);
        assert_eq!(destination.deliver(&batch).await, Delivery::All);
    }
    // The stub's patience with an idle connection is two seconds.
    tokio::time::sleep(Duration::from_millis(2200)).await;
    let batch = Batch::new(vec![event(3, "a")], 0);
    assert_eq!(destination.deliver(&batch).await, Delivery::All);
    assert_eq!(stub.state.requests.lock().len(), 4);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_tried_again() {
    let addr = {
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        unused.local_addr().unwrap()
    };
    let destination = start(&format!("url = \"http://{addr}/\"")).await;
    let batch = Batch::new(vec![event(0, "a")], 0);
    let Delivery::Retry { why, after: None } = destination.deliver(&batch).await else {
        panic!("nobody was there")
    };
    assert_eq!(why.code, "connect");
}

#[test]
fn mistakes_are_told_together() {
    let section = "url = \"ftp://x/{nothing}\"\nmethod = \"GET\"\nbearer = \"t\"\nuser = \"u\"\ntimeout = \"0s\"";
    let errors = HttpKind
        .plan(&Section::from_text(section).unwrap())
        .unwrap_err();
    let keys: Vec<&str> = errors
        .errors
        .iter()
        .map(|error| error.key.as_str())
        .collect();
    assert_eq!(keys, ["url", "url", "method", "bearer", "timeout"]);
}

/// A batch of one event of each source, and what became of it.
async fn deliver(destination: &Arc<dyn DynDestination>, sources: &[&str]) -> Delivery {
    let events = sources.iter().zip(0..).map(|(s, n)| event(n, s));
    destination.deliver(&Batch::new(events.collect(), 0)).await
}

fn paths(stub: &Stub) -> Vec<String> {
    let requests = stub.state.requests.lock();
    requests.iter().map(|(path, ..)| path.clone()).collect()
}

fn said(status: u16) -> Reason {
    let text = StatusCode::from_u16(status).unwrap().to_string();
    Reason::new(format!("status_{status}"), text)
}

#[tokio::test]
async fn what_follows_a_failure_does_not_overtake_it() {
    let stub = Stub::start();
    let section = format!("url = \"http://{}/{{source_id}}\"", stub.state.addr);
    let destination = start(&section).await;
    *stub.state.answers.lock() = vec![("/b", 503)];
    let delivery = deliver(&destination, &["a", "b", "c", "b"]).await;
    let again = || Outcome::Retry(said(503));
    let later = || Outcome::Later(said(503));
    let expected = vec![Outcome::Delivered, again(), later(), again()];
    assert_eq!(delivery, Delivery::Each(expected));
    assert_eq!(paths(&stub), ["/a", "/b"]);

    // Nor within a group that was refused as a whole and goes event by event.
    stub.state.requests.lock().clear();
    *stub.state.answers.lock() = vec![("/a", 422), ("/a", 422), ("/a", 503)];
    let delivery = deliver(&destination, &["a", "a", "a", "b"]).await;
    let expected = vec![Outcome::Rejected(said(422)), again(), later(), later()];
    assert_eq!(delivery, Delivery::Each(expected));
    assert_eq!(paths(&stub), ["/a", "/a", "/a"]);
}

#[tokio::test]
async fn a_pause_that_was_asked_for_is_told_and_no_attempt() {
    for settings in ["", "single = true"] {
        let stub = Stub::start();
        let section = format!(
            "url = \"http://{}/{{source_id}}\"\n{settings}",
            stub.state.addr
        );
        let destination = start(&section).await;
        let later = || Outcome::Later(said(429));
        *stub.state.answers.lock() = vec![("/a", 429), ("/b", 429)];
        for (sources, first) in [(["a", "b"], later()), (["c", "b"], Outcome::Delivered)] {
            let expected = Delivery::Paused {
                each: vec![first, later()],
                after: Duration::from_secs(7),
            };
            assert_eq!(deliver(&destination, &sources).await, expected);
        }
        assert_eq!(paths(&stub), ["/a", "/c", "/b"]);
    }
}

#[tokio::test]
async fn a_slow_server_gets_what_there_is_time_for() {
    for settings in ["", "single = true"] {
        let stub = Stub::start();
        let section = format!(
            "url = \"http://{}/{{source_id}}\"\n{settings}",
            stub.state.addr
        );
        let destination = start(&section).await;
        *stub.state.takes.lock() = Duration::from_secs(12);
        let delivery = deliver(&destination, &["a", "b", "c", "d"]).await;
        let later = || Outcome::Later(answers::out_of_time());
        let expected = vec![Outcome::Delivered, Outcome::Delivered, later(), later()];
        assert_eq!(delivery, Delivery::Each(expected));
        assert_eq!(paths(&stub), ["/a", "/b"]);

        // One request that takes all the time is progress too.
        *stub.state.takes.lock() = Duration::from_secs(25);
        let delivery = deliver(&destination, &["a", "b"]).await;
        assert_eq!(delivery, Delivery::Each(vec![Outcome::Delivered, later()]));
    }
}

#[test]
fn a_request_per_event_has_small_batches() {
    let events = |settings: &str| {
        let section = Section::from_text(&format!("url = \"http://a/\"\n{settings}")).unwrap();
        HttpKind.plan(&section).unwrap().limits().batch_events
    };
    assert_eq!(events("single = true"), 100);
    assert_eq!(events(""), 1000);
}

#[test]
fn secrets_are_not_sent_in_the_clear() {
    let refused = |url: &str, auth: &str| {
        let section = Section::from_text(&format!("url = \"{url}\"\n{auth}")).unwrap();
        let errors = HttpKind.plan(&section).err()?.errors;
        let errors = errors
            .iter()
            .map(|error| (error.key.clone(), error.place.map(|(line, _)| line)));
        Some(errors.collect::<Vec<_>>())
    };
    for auth in ["bearer = \"t\"", "user = \"u\"\npassword = \"p\""] {
        for url in [
            "http://logs.example.com/",
            "http://logs.example.com",
            "http://127.0.0.1@logs.example.com/{org|none}",
            "http://localhost.example.com?a",
            "http://{org|none}/",
            "http://localhost{org|none}/",
            "http://localhost:{org|none}",
        ] {
            assert_eq!(
                refused(url, auth),
                Some(vec![("url".to_owned(), Some(1))]),
                "{url}"
            );
        }
        for url in [
            "https://logs.example.com/",
            "https://{org|none}/",
            "http://127.0.0.1:8088/{org|none}",
            "http://[::1]:8088",
            "http://localhost",
            "http://localhost/{org|none}",
            "http://localhost?{org|none}",
        ] {
            assert_eq!(refused(url, auth), None, "{url}");
        }
    }
    assert_eq!(refused("http://logs.example.com/", ""), None);
}
