//! Destinations and receivers for tests.
#![allow(dead_code)] // each test takes what it needs

#[path = "../../src/tests/events.rs"]
pub mod events;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt as _;
use loggregator_net::http::client::{Answer, Client, Limits, Question};
use loggregator_net::http::{Handler, Request, Response, Server, Settings, full};
use loggregator_nozzle::config::Section;
use loggregator_nozzle::{
    Batch, BufferIdentity, Context, Delivery, DynDestination, Event, Kind as _,
};
use loggregator_nozzle_prometheus::{Pages, PrometheusKind};
use loggregator_service::Lifecycle;
use loggregator_service::metrics::Metrics;
use parking_lot::Mutex;
use prost::Message;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A destination that runs.
pub struct Running {
    pub destination: Arc<dyn DynDestination>,
    pub pages: Pages,
    pub metrics: Metrics,
    pub lifecycle: Lifecycle,
    next: AtomicU32,
}

impl Running {
    pub async fn start(section: &str) -> Running {
        let kind = PrometheusKind::new();
        let plan = kind.plan(&Section::from_text(section).unwrap()).unwrap();
        let (lifecycle, metrics) = (Lifecycle::new(), Metrics::empty());
        let context = Context {
            nozzle: "test".to_owned(),
            name: "subject".to_owned(),
            metrics: metrics.clone(),
            lifecycle: lifecycle.clone(),
            buffer: BufferIdentity::new("b"),
            state_dir: None,
        };
        Running {
            destination: plan.start(context).await.unwrap(),
            pages: kind.pages(),
            metrics,
            lifecycle,
            next: AtomicU32::new(0),
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.pages.addr("subject").unwrap()
    }

    /// Numbers the events and delivers them.
    pub async fn deliver(&self, events: Vec<Event>) -> Delivery {
        let batch = self.batch(events);
        self.destination.deliver(&batch).await
    }

    pub fn batch(&self, events: Vec<Event>) -> Batch {
        let number = |event: Event| {
            let seq = u64::from(self.next.fetch_add(1, Ordering::Relaxed));
            let numbered = Event::new(seq, event.received, event.body().clone());
            let names = event.names().cloned().map(Arc::new);
            numbered.with_names(names)
        };
        Batch::new(events.into_iter().map(number).collect(), 0)
    }
}

/// Asks a server on loopback.
pub async fn get(addr: SocketAddr, path: &str, headers: &[(&'static str, &str)]) -> Answer {
    let client = Client {
        tls: None,
        server_name: None,
        limits: Limits {
            max_body: 64 << 20,
            ..Limits::default()
        },
    };
    let mut question = Question::new(Bytes::new());
    *question.uri_mut() = format!("http://{addr}{path}").parse().unwrap();
    for (name, value) in headers {
        question.headers_mut().insert(*name, value.parse().unwrap());
    }
    client
        .send(question, Instant::now() + Duration::from_secs(20))
        .await
        .unwrap()
}

/// What a receiver of remote write got in one request.
#[derive(Debug, Clone)]
pub struct Got {
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Answers requests of remote write.
pub trait Answers: Send + Sync + 'static {
    fn answer(&self, got: Got) -> impl Future<Output = http::Response<Bytes>> + Send;
}

struct Handled<A>(Arc<A>);

impl<A: Answers> Handler for Handled<A> {
    fn handle(
        &self,
        request: Request,
        _: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        let answers = Arc::clone(&self.0);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            assert_eq!(head.method, Method::POST);
            assert_eq!(head.headers["content-encoding"], "snappy");
            let body = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
            let got = Got {
                headers: head.headers,
                body: body.into(),
            };
            answers.answer(got).await.map(full)
        })
    }
}

/// Serves until the token is cancelled.
pub fn serve<A: Answers>(addr: SocketAddr, answers: Arc<A>) -> (SocketAddr, CancellationToken) {
    let server = Server::bind(addr).unwrap();
    let (addr, stop) = (server.local_addr(), CancellationToken::new());
    let settings = Settings {
        drain_timeout: Duration::ZERO,
        ..Settings::default()
    };
    tokio::spawn(server.serve(None, Arc::new(Handled(answers)), settings, stop.clone()));
    (addr, stop)
}

pub fn status(status: u16) -> http::Response<Bytes> {
    let mut answer = http::Response::new(Bytes::from_static(b"scripted"));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
}

/// A sample as it came: the line that a page would show, and its timestamp.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub value: f64,
    pub at: i64,
}

impl Sample {
    pub fn line(&self) -> String {
        let labels: Vec<String> = self
            .labels
            .iter()
            .map(|(n, v)| format!("{n}=\"{v}\""))
            .collect();
        format!("{}{{{}}} {}", self.name, labels.join(","), self.value)
    }
}

/// The samples of a `prometheus.WriteRequest`; fails unless labels are sorted, unique and not empty.
pub fn samples(body: &[u8]) -> Vec<Sample> {
    let request = WriteRequest::decode(body).unwrap();
    let series = request.timeseries.iter().flat_map(|series| {
        let names: Vec<&str> = series.labels.iter().map(|l| l.name.as_str()).collect();
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
        assert!(
            series.labels.iter().all(|l| !l.value.is_empty()),
            "{series:?}"
        );
        let name = series.labels.iter().find(|l| l.name == "__name__").unwrap();
        let labels = series.labels.iter().filter(|l| l.name != "__name__");
        let labels: Vec<_> = labels.map(|l| (l.name.clone(), l.value.clone())).collect();
        series.samples.iter().map(move |sample| Sample {
            name: name.value.clone(),
            labels: labels.clone(),
            value: sample.value,
            at: sample.timestamp,
        })
    });
    series.collect()
}

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}
#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Point>,
}
#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}
#[derive(Clone, PartialEq, Message)]
struct Point {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

/// A list that a test waits on.
pub type Shared<T> = Arc<Mutex<Vec<T>>>;

/// Waits until there is something.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            since.elapsed() < Duration::from_secs(90),
            "not {what} in time"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
