//! Delivery over HTTPS, as the platform's agents post to drains.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{log, start};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use loggregator_net::http::{Handler, Request, Response, Server, Settings, full};
use loggregator_net::{Profile, ServerTls};
use loggregator_nozzle::{Batch, Delivery, Outcome, Reason, answers};
use loggregator_testkit::Certs;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

#[derive(Default)]
struct State {
    requests: Mutex<Vec<(String, HeaderMap, Bytes)>>,
    /// Statuses of the next answers; then 200.
    answers: Mutex<Vec<u16>>,
    /// How much later it is when an answer comes, on the test's clock.
    takes: Mutex<Duration>,
}

struct Stub(Arc<State>);

impl Handler for Stub {
    fn handle(
        &self,
        request: Request,
        _: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        let state = Arc::clone(&self.0);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            state
                .requests
                .lock()
                .push((head.uri.to_string(), head.headers, body));
            let takes = *state.takes.lock();
            if !takes.is_zero() {
                tokio::time::pause();
                tokio::time::advance(takes).await;
                tokio::time::resume();
            }
            let status = state.answers.lock().pop().unwrap_or(200);
            let mut response = Response::new(full("said so"));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            if status == 503 {
                let value = "3".parse().unwrap();
                response.headers_mut().insert("retry-after", value);
            }
            response
        })
    }
}

struct Receiver {
    certs: Certs,
    addr: SocketAddr,
    state: Arc<State>,
    stop: CancellationToken,
}

impl Receiver {
    fn start() -> Receiver {
        let certs = Certs::generate().unwrap();
        let tls = ServerTls::mutual(&certs.tls("doppler"), Profile::Http).unwrap();
        let server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let (addr, state, stop) = (
            server.local_addr(),
            Arc::<State>::default(),
            CancellationToken::new(),
        );
        let stub = Arc::new(Stub(Arc::clone(&state)));
        tokio::spawn(server.serve(Some(tls), stub, Settings::default(), stop.clone()));
        Receiver {
            certs,
            addr,
            state,
            stop,
        }
    }

    fn section(&self, scheme: &str) -> String {
        let tls = common::tls(&self.certs);
        format!(
            "url = \"{scheme}://u:p%40ss@{}/drain?a=b\"\n{tls}",
            self.addr
        )
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn batch(texts: &[&str]) -> Batch {
    let events = texts
        .iter()
        .zip(0..)
        .map(|(text, seq)| log(seq, "app", text));
    Batch::new(events.collect(), 0)
}

const HEAD: &str = "<14>1 2023-11-14T22:13:20+00:00 - app [/0] - - ";

#[tokio::test]
async fn each_message_is_a_request_of_its_own() {
    let receiver = Receiver::start();
    let running = start(&receiver.section("https")).await;
    let delivery = running.destination.deliver(&batch(&["one", "two"])).await;
    assert_eq!(delivery, Delivery::Each(vec![Outcome::Delivered; 2]));
    let requests = receiver.state.requests.lock();
    let bodies: Vec<_> = requests
        .iter()
        .map(|(_, _, body)| String::from_utf8_lossy(body))
        .collect();
    assert_eq!(bodies, [format!("{HEAD}one\n"), format!("{HEAD}two\n")]);
    let (path, headers, _) = &requests[0];
    assert_eq!(path, "/drain?a=b");
    assert_eq!(headers["content-type"], "text/plain");
    assert_eq!(headers["authorization"], "Basic dTpwJTQwc3M=");
}

#[tokio::test]
async fn a_batch_is_one_request() {
    let receiver = Receiver::start();
    let running = start(&receiver.section("https-batch")).await;
    let delivery = running.destination.deliver(&batch(&["one", "two"])).await;
    assert_eq!(delivery, Delivery::All);
    let requests = receiver.state.requests.lock();
    let bodies: Vec<_> = requests
        .iter()
        .map(|(_, _, body)| String::from_utf8_lossy(body))
        .collect();
    assert_eq!(bodies, [format!("{HEAD}one\n{HEAD}two\n")]);
}

#[tokio::test]
async fn answers_mean_what_they_say() {
    let receiver = Receiver::start();
    let running = start(&receiver.section("https-batch")).await;
    let why = |status: u16| Reason::new(format!("status_{status}"), "said so");
    for (status, expected) in [
        (413, Delivery::TooLarge(why(413))),
        (400, Delivery::Refused(why(400))),
        (410, Delivery::Each(vec![Outcome::Rejected(why(410)); 2])),
        (
            503,
            Delivery::Retry {
                why: why(503),
                after: Some(Duration::from_secs(3)),
            },
        ),
    ] {
        receiver.state.answers.lock().push(status);
        let delivery = running.destination.deliver(&batch(&["one", "two"])).await;
        assert_eq!(delivery, expected);
    }
}

#[tokio::test]
async fn what_follows_a_failure_does_not_overtake_it() {
    let receiver = Receiver::start();
    let running = start(&receiver.section("https")).await;
    *receiver.state.answers.lock() = vec![500, 422, 200];
    let delivery = running
        .destination
        .deliver(&batch(&["one", "two", "three", "four"]))
        .await;
    let why = |status: u16| Reason::new(format!("status_{status}"), "said so");
    let expected = vec![
        Outcome::Delivered,
        Outcome::Rejected(why(422)),
        Outcome::Retry(why(500)),
        Outcome::Later(why(500)),
    ];
    assert_eq!(delivery, Delivery::Each(expected));
    assert_eq!(receiver.state.requests.lock().len(), 3);

    // The first one neither: what was not posted is not tried.
    receiver.state.answers.lock().push(500);
    let delivery = running.destination.deliver(&batch(&["one", "two"])).await;
    let expected = vec![Outcome::Retry(why(500)), Outcome::Later(why(500))];
    assert_eq!(delivery, Delivery::Each(expected));

    // And to wait as the server asks is no attempt at all.
    *receiver.state.answers.lock() = vec![503, 200];
    let delivery = running.destination.deliver(&batch(&["one", "two"])).await;
    let expected = Delivery::Paused {
        each: vec![Outcome::Delivered, Outcome::Later(why(503))],
        after: Duration::from_secs(3),
    };
    assert_eq!(delivery, expected);
}

#[tokio::test]
async fn that_nobody_is_there_concerns_all_of_a_batch() {
    let addr = {
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        unused.local_addr().unwrap()
    };
    let running = start(&format!("url = \"https://{addr}/\"")).await;
    let delivery = running.destination.deliver(&batch(&["one", "two"])).await;
    let Delivery::Retry { why, after: None } = delivery else {
        panic!("{delivery:?}");
    };
    assert_eq!(why.code, "connect");
}

#[tokio::test]
async fn a_slow_receiver_gets_what_there_is_time_for() {
    let receiver = Receiver::start();
    let running = start(&receiver.section("https")).await;
    *receiver.state.takes.lock() = Duration::from_secs(12);
    let texts = ["one", "two", "three", "four"];
    let delivery = running.destination.deliver(&batch(&texts)).await;
    let later = || Outcome::Later(answers::out_of_time());
    let expected = vec![Outcome::Delivered, Outcome::Delivered, later(), later()];
    assert_eq!(delivery, Delivery::Each(expected));
    assert_eq!(receiver.state.requests.lock().len(), 2);
}

#[test]
fn a_request_per_message_has_small_batches() {
    let events = |scheme: &str| {
        let plan = common::plan(&format!("url = \"{scheme}://a\""));
        plan.limits().batch_events
    };
    assert_eq!(events("https"), 100);
    assert_eq!(events("https-batch"), 4000);
    assert_eq!(events("syslog"), 4000);
}

#[tokio::test]
async fn a_probe_tells_the_status() {
    let receiver = Receiver::start();
    let found = common::plan(&receiver.section("https"))
        .probe()
        .await
        .unwrap();
    assert_eq!(
        found,
        format!("{}: answers with status 200 OK", receiver.addr)
    );
}
