use std::future::poll_fn;

use loggregator_envelope::{Frame, KindSet};
use loggregator_service::metrics::Metrics;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::config::SelectConfig;
use crate::intake::Intake as _;
use crate::intake::watch::Watched;

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
const CLOSING: &str = "event: closing\ndata: closing due to stream timeout\n\n";

fn asked(select: &SelectConfig, kinds: KindSet) -> EgressBatchRequest {
    crate::intake::request(select, "my-nozzle", kinds, None).unwrap()
}

#[test]
fn queries_are_those_of_the_gateway() {
    let mut select = SelectConfig::default();
    assert_eq!(
        query(&asked(&select, KindSet::ALL)),
        "shard_id=my-nozzle&log&counter&gauge&timer&event"
    );
    select.deterministic_name = Some("nozzle 0".to_owned());
    select.source_ids = vec!["b&c".to_owned(), "a".to_owned()];
    assert_eq!(
        query(&asked(&select, KindSet::of(Kind::Log))),
        "shard_id=my-nozzle&deterministic_name=nozzle%200&source_id=a&source_id=b%26c&log"
    );
}

/// A server of which a test plays the part.
struct Server(TcpListener);

impl Server {
    async fn new() -> (Server, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        (Server(listener), url)
    }

    /// The next request, and where its answer goes.
    async fn request(&self) -> (String, TcpStream) {
        let next = async {
            let (mut io, _) = self.0.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                io.read_buf(&mut request).await.unwrap();
            }
            (String::from_utf8(request).unwrap(), io)
        };
        soon(next).await
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what)
        .await
        .expect("it happens")
}

fn batch(source: &str) -> String {
    format!("data: {{\"batch\":[{{\"source_id\":\"{source}\",\"event\":{{}}}}]}}\n\n")
}

struct Rig {
    intake: Watched,
    monitor: Arc<Monitor>,
    lifecycle: Lifecycle,
}

impl Rig {
    fn new(config: &str, tune: impl FnOnce(&mut Gateway)) -> Rig {
        let config: GatewayIntake = toml::from_str(config).unwrap();
        let (monitor, lifecycle) = (Arc::<Monitor>::default(), Lifecycle::new());
        let request = asked(&SelectConfig::default(), KindSet::of(Kind::Log));
        let mut gateway = Gateway::open(&config, &request, &monitor, &lifecycle).unwrap();
        tune(&mut gateway);
        let intake = Watched::new(Box::new(gateway), Arc::clone(&monitor), Duration::ZERO);
        Rig {
            intake,
            monitor,
            lifecycle,
        }
    }

    /// Source of the envelope in the next batch.
    async fn next(&mut self) -> String {
        let batch = soon(poll_fn(|cx| self.intake.poll_next(cx))).await.unwrap();
        let frame = Frame::parse(batch).unwrap().frame;
        frame.source_id(&frame.entries()[0]).to_owned()
    }
}

/// A Go gateway's subscription ends with its response: the next one stands before the old one ends, and nothing that came
/// on either is missed.
#[tokio::test]
async fn the_next_response_is_asked_for_before_the_old_one_ends() {
    let (server, url) = Server::new().await;
    let mut rig = Rig::new(&format!("url = \"{url}\""), |gateway| {
        gateway.lifetime = Duration::from_millis(50);
        gateway.overlap = Duration::from_millis(10);
    });
    let script = async {
        let (request, mut first) = server.request().await;
        assert!(
            request.starts_with("GET /v2/read?shard_id=my-nozzle&log HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(!request.contains("authorization"), "{request}");
        first
            .write_all(format!("{HEAD}{}", batch("a")).as_bytes())
            .await
            .unwrap();
        // It comes though the first has not ended.
        let (again, mut second) = server.request().await;
        assert_eq!(again, request);
        second
            .write_all(format!("{HEAD}{}", batch("b")).as_bytes())
            .await
            .unwrap();
        first
            .write_all(format!("{}{CLOSING}", batch("c")).as_bytes())
            .await
            .unwrap();
        second
    };
    let read = async {
        let mut seen = vec![rig.next().await, rig.next().await, rig.next().await];
        seen.sort();
        assert_eq!(seen, ["a", "b", "c"]);
        rig
    };
    let (second, rig) = tokio::join!(script, read);
    let status = rig.monitor.status();
    assert_eq!((status.malformed, status.silences), (0, 0));
    drop(second);
    rig.lifecycle.shutdown(Duration::from_secs(5)).await;
}

/// Our own gateway says that the subscription outlives the response: the next one is asked for after the end.
#[tokio::test]
async fn a_gateway_that_keeps_subscriptions_needs_no_second_response() {
    let (server, url) = Server::new().await;
    let mut rig = Rig::new(&format!("url = \"{url}\""), |gateway| {
        gateway.lifetime = Duration::ZERO;
        gateway.well = Duration::ZERO;
    });
    let script = async {
        let keeps = HEAD.replace("\r\n\r\n", "\r\nloggregator-resume-grace: 10\r\n\r\n");
        for source in ["a", "b", "c"] {
            let (_, mut io) = server.request().await;
            io.write_all(format!("{keeps}{}{CLOSING}", batch(source)).as_bytes())
                .await
                .unwrap();
        }
        let (_, io) = server.request().await;
        io
    };
    let read = async {
        for source in ["a", "b", "c"] {
            assert_eq!(rig.next().await, source);
        }
        // The fourth request is made by who waits for a fourth batch.
        let waiting = poll_fn(|cx| rig.intake.poll_next(cx));
        waiting.await
    };
    tokio::select! {
        io = script => drop(io),
        more = read => panic!("nothing more was sent: {more:?}"),
    }
    let status = rig.monitor.status();
    assert_eq!(status.reconnects, 3);
    rig.lifecycle.shutdown(Duration::from_secs(5)).await;
}

/// Whatever is wrong with a token, a gateway answers 404. Then there must be another one.
#[tokio::test]
async fn a_refused_token_is_replaced() {
    let (server, url) = Server::new().await;
    let (uaa, uaa_url) = Server::new().await;
    let config = format!(
        "url = \"{url}\"\n[oauth]\nurl = \"{uaa_url}\"\nclient = \"nozzle\"\nsecret = \"s3cret\"\nskip_verify = true"
    );
    let mut rig = Rig::new(&config, |_| {});
    let tokens = async {
        for n in 1..=2 {
            let (request, mut io) = uaa.request().await;
            let expected = "authorization: Basic bm96emxlOnMzY3JldA==\r\n";
            assert!(
                request.starts_with("POST /oauth/token HTTP/1.1\r\n") && request.contains(expected),
                "{request}"
            );
            let body = format!(
                "{{\"access_token\":\"token-{n}\",\"token_type\":\"bearer\",\"expires_in\":3600}}"
            );
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            io.write_all(answer.as_bytes()).await.unwrap();
        }
    };
    let script = async {
        let (request, mut io) = server.request().await;
        assert!(
            request.contains("authorization: bearer token-1\r\n"),
            "{request}"
        );
        let body = "{\"message\":\"resource not found\",\"error\":\"not_found\"}\n\n";
        let answer = format!(
            "HTTP/1.1 404 Not Found\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        io.write_all(answer.as_bytes()).await.unwrap();
        let (request, mut io) = server.request().await;
        assert!(
            request.contains("authorization: bearer token-2\r\n"),
            "{request}"
        );
        io.write_all(format!("{HEAD}{}data: no json\n\n{}", batch("a"), batch("b")).as_bytes())
            .await
            .unwrap();
        io
    };
    let read = async { [rig.next().await, rig.next().await] };
    let (_, io, seen) = tokio::join!(tokens, script, read);
    assert_eq!(seen, ["a", "b"]);
    let status = rig.monitor.status();
    let error =
        "the gateway answered 404: {\"message\":\"resource not found\",\"error\":\"not_found\"}";
    assert_eq!(status.last_error.as_deref(), Some(error));
    assert_eq!(
        (status.open, status.reconnects, status.malformed),
        (1, 1, 1)
    );
    let metrics = Metrics::new();
    Monitor::publish(&rig.monitor, &metrics);
    let text = metrics.encode();
    assert!(
        text.contains("loggregator_nozzle_intake_reconnects_total{reason=\"unauthorized\"} 1\n")
    );
    assert!(
        text.contains("loggregator_nozzle_token_requests_total{for=\"intake\",outcome=\"ok\"} 2\n")
    );
    assert!(!text.contains("token-") && !text.contains("s3cret"));
    drop(io);
    rig.lifecycle.shutdown(Duration::from_secs(5)).await;
}
