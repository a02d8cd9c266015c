use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::ledger::{Ingress, Report, Subscription};

struct Fixed;

impl Source for Fixed {
    fn report(&self) -> Report {
        Report {
            component: "doppler".into(),
            instance: "127.0.0.1:8082".into(),
            ingress: Ingress {
                received: 3,
                accepted: 3,
                ..Ingress::default()
            },
            subscriptions: vec![Subscription {
                id: "nozzle".into(),
                ..Subscription::default()
            }],
            log: None,
            ..Report::default()
        }
    }
}

/// Pages of a component's own.
struct Own;

impl Pages for Own {
    fn page(&self, path: &str, query: &str) -> Option<Page> {
        match path {
            "/own" => Some(Page::Json(serde_json::json!({ "query": query }))),
            "/lines" => Some(Page::Lines(Box::new(Two(vec!["b", "a"])))),
            "/bad" => Some(Page::BadRequest("what?".to_owned())),
            _ => None,
        }
    }
}

struct Two(Vec<&'static str>);

impl Lines for Two {
    fn poll_line(&mut self, _cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<String>> {
        std::task::Poll::Ready(self.0.pop().map(str::to_owned))
    }
}

struct Started {
    addr: SocketAddr,
    readiness: Readiness,
    lifecycle: Lifecycle,
}

fn start() -> Started {
    start_with(LIMITS)
}

fn start_with(limits: Limits) -> Started {
    let (readiness, lifecycle) = (Readiness::new(), Lifecycle::new());
    let (addr, ledger) = (([127, 0, 0, 1], 0).into(), Arc::new(Fixed));
    let addr = Admin::start_with(
        limits,
        addr,
        Metrics::new(),
        ledger,
        readiness.clone(),
        &lifecycle,
        Arc::new(Own),
    )
    .unwrap();
    Started {
        addr,
        readiness,
        lifecycle,
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

/// Sends `request` and reads until the server closes.
async fn raw(addr: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // A server that refuses a connection may reset it.
    stream.read_to_string(&mut answer).await.ok();
    answer
}

async fn ask(addr: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let length = body.len();
    let answer = raw(
        addr,
        &format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
        ),
    )
    .await;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let mut lines = head.lines();
    let status = lines
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let headers = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Answer {
        status,
        headers,
        body: body.to_owned(),
    }
}

async fn get(addr: SocketAddr, path: &str) -> Answer {
    ask(addr, "GET", path, "", "").await
}

#[tokio::test]
async fn pages_have_their_content_types() {
    let admin = start();
    for (path, content_type) in [
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/healthz", "text/plain; charset=utf-8"),
        ("/readyz", "application/json"),
        ("/ledger", "application/json"),
        ("/version", "application/json"),
        ("/tasks", "application/json"),
    ] {
        let answer = get(admin.addr, path).await;
        assert_eq!(
            (answer.status, answer.headers["content-type"].as_str()),
            (200, content_type),
            "{path}"
        );
        assert_eq!(answer.headers["cache-control"], "no-store");
        assert!(!answer.body.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn the_ledger_is_the_report_as_json() {
    let answer = get(start().addr, "/ledger").await;
    assert_eq!(
        serde_json::from_str::<Report>(&answer.body).unwrap(),
        Fixed.report()
    );
}

#[tokio::test]
async fn metrics_show_process_and_readiness() {
    let admin = start();
    let condition = admin.readiness.condition("grpc listener");
    assert!(
        get(admin.addr, "/metrics")
            .await
            .body
            .contains("\nloggregator_ready 0\n")
    );
    condition.ready();
    let body = get(admin.addr, "/metrics").await.body;
    assert!(
        body.contains("\nloggregator_ready 1\n") && body.contains("\nprocess_threads "),
        "{body}"
    );
}

#[tokio::test]
async fn readiness_tells_the_reasons() {
    let admin = start();
    let condition = admin.readiness.condition("dopplers");
    condition.not_ready("none of 2 is connected");
    let answer = get(admin.addr, "/readyz").await;
    assert_eq!(answer.status, 503);
    assert_eq!(
        answer.body,
        "{\"ready\":false,\"reasons\":[\"dopplers: none of 2 is connected\"]}\n"
    );
    condition.ready();
    assert_eq!(get(admin.addr, "/readyz").await.status, 200);
}

/// Guarantee: during the drain the server still answers, and says that it is not ready; after it, it is gone.
#[tokio::test]
async fn the_server_lives_as_long_as_the_drain() {
    let admin = start();
    let (hold, held) = tokio::sync::oneshot::channel::<()>();
    admin.lifecycle.spawn("flush", async move {
        held.await.ok();
    });
    let drain = tokio::spawn({
        let lifecycle = admin.lifecycle.clone();
        async move { lifecycle.shutdown(Duration::from_secs(60)).await }
    });
    admin.lifecycle.token().cancelled().await;
    let answer = get(admin.addr, "/readyz").await;
    assert_eq!(
        (answer.status, answer.body.contains("draining")),
        (503, true),
        "{answer:?}"
    );
    assert_eq!(
        get(admin.addr, "/tasks").await.body,
        "{\"tasks\":[\"flush\"]}\n"
    );
    drop(hold);
    assert!(drain.await.unwrap().finished());
    while TcpStream::connect(admin.addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_answered() {
    let admin = start();
    assert_eq!(get(admin.addr, "/").await.status, 404);
    assert_eq!(get(admin.addr, "/metrics/x").await.status, 404);
    let answer = ask(admin.addr, "POST", "/metrics", "", "").await;
    assert_eq!(
        (answer.status, answer.headers["allow"].as_str()),
        (405, "GET, HEAD")
    );
    let answer = ask(admin.addr, "DELETE", "/log-level", "", "").await;
    assert_eq!(
        (answer.status, answer.headers["allow"].as_str()),
        (405, "GET, HEAD, POST")
    );
    let answer = ask(admin.addr, "HEAD", "/healthz", "", "").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
}

#[tokio::test]
async fn browsers_may_not_change_the_log_level() {
    let answer = ask(
        start().addr,
        "POST",
        "/log-level",
        "origin: http://evil.example\r\n",
        "trace",
    )
    .await;
    assert_eq!(answer.status, 403, "{answer:?}");
}

/// A page that is served under a name which leads here asks without an origin: the name gives it away. Who is let through is
/// told that there is no log to set here.
#[tokio::test]
async fn names_that_lead_here_are_not_this_machine() {
    let admin = start();
    for (host, status) in [
        ("evil.example:14840", 403),
        ("localhost.evil.example", 403),
        ("LOCALHOST:14840", 501),
        ("127.0.0.1", 501),
        ("[::1]:14840", 501),
    ] {
        let request = format!(
            "POST /log-level HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: 4\r\n\r\ninfo"
        );
        let answer = raw(admin.addr, &request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{host}: {answer}"
        );
    }
    let answer = ask(
        admin.addr,
        "POST",
        "/log-level",
        "sec-fetch-site: cross-site\r\n",
        "info",
    )
    .await;
    assert_eq!(answer.status, 403, "{answer:?}");
}

#[tokio::test]
async fn bad_input_is_answered_and_does_not_end_the_server() {
    let admin = start();
    let answer = raw(admin.addr, "\u{0}\u{1}garbage\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer:?}");
    let huge = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(MAX_HEAD * 2));
    let answer = raw(admin.addr, &huge).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer:?}"
    );
    assert_eq!(get(admin.addr, "/healthz").await.status, 200);
}

/// Guarantee: more connections than allowed are closed and counted; when one goes, another gets in.
#[tokio::test]
async fn connections_are_limited_and_refusals_counted() {
    let admin = start();
    let mut open = Vec::new();
    for _ in 0..LIMITS.connections {
        let mut stream = TcpStream::connect(admin.addr).await.unwrap();
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        // An answer proves that it holds one of the places.
        assert!(stream.read(&mut [0; 256]).await.unwrap() > 0);
        open.push(stream);
    }
    assert_eq!(
        raw(admin.addr, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await,
        ""
    );
    open.clear();
    let answer = loop {
        let answer = raw(
            admin.addr,
            "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
        .await;
        if !answer.is_empty() {
            break answer;
        }
    };
    let refused = answer
        .lines()
        .find_map(|l| l.strip_prefix("loggregator_admin_refused_connections_total "));
    assert!(refused.unwrap().parse::<u64>().unwrap() >= 1, "{answer}");
}

/// Guarantee: clients that send half a head, nothing after their answer, or nothing at all are closed.
#[tokio::test]
async fn clients_that_do_not_go_on_are_closed() {
    let admin = start_with(Limits {
        head: Duration::from_millis(50),
        ..LIMITS
    });
    for beginning in [
        "",
        "GET /healthz HT",
        "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
    ] {
        // `raw` returns when the server closes; without the limit it would wait for ever.
        let closed =
            tokio::time::timeout(Duration::from_secs(20), raw(admin.addr, beginning)).await;
        assert_eq!(
            closed.unwrap().contains(" 200 OK"),
            beginning.ends_with('\n'),
            "{beginning:?}"
        );
    }
}

/// Guarantee: a client that keeps its connection busy for ever does not keep its place for ever.
#[tokio::test]
async fn a_connection_has_an_end() {
    let admin = start_with(Limits {
        connection: Duration::from_millis(50),
        ..LIMITS
    });
    let closed = tokio::time::timeout(Duration::from_secs(20), raw(admin.addr, "GET /")).await;
    assert_eq!(closed.unwrap(), "");
}

/// Guarantee: it answers although every thread of the data plane's runtime is busy.
#[test]
fn it_answers_while_the_data_plane_is_busy() {
    let data_plane = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let client = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    data_plane.block_on(async {
        let admin = start();
        // This thread is the whole data plane and does not return to its runtime until the answer is there.
        let answer = std::thread::spawn(move || client.block_on(get(admin.addr, "/healthz")))
            .join()
            .unwrap();
        assert_eq!(answer.status, 200);
    });
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let admin = start();
    let error = Admin::start(
        admin.addr,
        Metrics::new(),
        Arc::new(Fixed),
        Readiness::new(),
        &Lifecycle::new(),
    )
    .unwrap_err();
    assert_eq!(error.to_string(), format!("admin server on {}", admin.addr));
}

#[tokio::test]
async fn a_component_has_pages_of_its_own() {
    let started = start();
    let answer = ask(started.addr, "GET", "/own?a=b", "", "").await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, "{\"query\":\"a=b\"}\n")
    );
    let answer = ask(started.addr, "GET", "/bad", "", "").await;
    assert_eq!((answer.status, answer.body.as_str()), (400, "what?\n"));
    let answer = ask(started.addr, "POST", "/own", "", "").await;
    assert_eq!(answer.status, 405);
    let answer = ask(started.addr, "GET", "/none", "", "").await;
    assert_eq!(answer.status, 404);
}

#[tokio::test]
async fn lines_come_as_they_are_and_not_to_a_browser() {
    let started = start();
    let answer = ask(started.addr, "GET", "/lines", "", "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/x-ndjson");
    assert_eq!(answer.body, "2\r\na\n\r\n2\r\nb\n\r\n0\r\n\r\n");
    let answer = ask(started.addr, "GET", "/lines", "Origin: http://evil\r\n", "").await;
    assert_eq!(answer.status, 403);
}
