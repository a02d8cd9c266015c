//! The front door and its streams, with access control that does as the test says.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use loggregator_net::grpc::{Code, Status};
use loggregator_net::http::{Server, Settings};
use loggregator_proto::v2::EgressBatchRequest;
use loggregator_service::Lifecycle;
use loggregator_service::ledger::Source as _;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::access_log::AccessLog;
use super::front::{Door, Front, Requests};
use super::parked::{Parking, Place};
use super::stream::{Parts, Question, Stream, Times};
use super::{PROGRAM, READ};
use crate::access::{AccessControl, Allowed, Credentials, Denied, Open, Verdict};
use crate::accounts::{Accounts, Identity};
use crate::provider::{Envelopes, Opening, Provider};

type Answer = Result<Allowed, Denied>;

/// Gives these answers one after the other, then the last one for ever.
#[derive(Debug)]
struct Script {
    answers: Vec<Answer>,
    asked: AtomicUsize,
}

impl Script {
    fn of(answers: Vec<Answer>) -> Arc<Self> {
        Arc::new(Self {
            answers,
            asked: AtomicUsize::new(0),
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl AccessControl for Script {
    fn firehose<'a>(&'a self, _: &'a Credentials) -> Verdict<'a> {
        unreachable!("the gateway does not ask that")
    }

    fn app_stream<'a>(&'a self, _: &'a str, _: &'a Credentials) -> Verdict<'a> {
        unreachable!("the gateway does not ask that")
    }

    fn sources<'a>(&'a self, _: &'a [String], _: &'a Credentials) -> Verdict<'a> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        let answer = self.answers[asked.min(self.answers.len() - 1)].clone();
        Box::pin(std::future::ready(answer))
    }
}

fn allowed(recheck_after: u64) -> Answer {
    Ok(Allowed {
        recheck_after: Some(Duration::from_secs(recheck_after)),
    })
}

/// What a test feeds.
struct Items(mpsc::Receiver<Bytes>);

impl Envelopes for Items {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        self.0.poll_recv(cx).map(|batch| batch.map(Ok))
    }

    fn finish(&mut self, _: Duration) {
        self.0.close();
    }
}

/// Ends every stream at once.
struct Nothing;

impl Provider for Nothing {
    fn open(&self, _: EgressBatchRequest) -> Opening {
        let items = Items(mpsc::channel(1).1);
        Box::pin(std::future::ready(
            Ok(Box::new(items) as Box<dyn Envelopes>),
        ))
    }
}

fn accounts() -> Arc<Accounts> {
    Accounts::new(PROGRAM, "here".to_owned(), 10)
}

const TIMES: Times = Times {
    stream_timeout: Duration::from_secs(14 * 60),
    heartbeat: Duration::from_secs(15),
    recheck_patience: Duration::from_secs(10),
    farewell: Duration::from_secs(60),
    finish: Duration::from_secs(2),
};

/// A stream whose access is judged by the script, and the way to feed it.
fn stream(
    access: Arc<dyn AccessControl>,
    first: Answer,
) -> (Stream, mpsc::Sender<Bytes>, Arc<Accounts>) {
    let (feed, items) = mpsc::channel(10);
    let accounts = accounts();
    let stream = stream_of(Box::new(Items(items)), access, first, &accounts);
    (stream, feed, accounts)
}

fn stream_of(
    source: Box<dyn Envelopes>,
    access: Arc<dyn AccessControl>,
    first: Answer,
    accounts: &Arc<Accounts>,
) -> Stream {
    let identity = Identity {
        id: "s".to_owned(),
        peer: "peer".to_owned(),
        selector: "log".to_owned(),
        endpoint: READ,
    };
    let who = Arc::new(Credentials::from_authorization(&http::HeaderMap::new()));
    let request = EgressBatchRequest {
        shard_id: "s".to_owned(),
        ..EgressBatchRequest::default()
    };
    Stream::new(Parts {
        source,
        account: accounts.open(identity, false),
        times: TIMES,
        allowed: first.unwrap(),
        parking: Parking::new(
            Duration::ZERO,
            TIMES.finish,
            1,
            Arc::clone(accounts),
            Lifecycle::new(),
        ),
        place: Place::of(&request, &who, [127, 0, 0, 1].into()),
        question: Question {
            access,
            who,
            source_ids: Arc::new([]),
        },
        slot: Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap(),
        stop: CancellationToken::new(),
    })
}

/// The next piece of the body, as text.
async fn piece(stream: &mut Stream) -> Option<String> {
    let frame = stream.frame().await?.unwrap();
    Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
}

/// A batch of one envelope that says nothing.
const BATCH: &[u8] = &[0x0a, 0];
const EVENT: &str = "data: {\"batch\":[{\"timestamp\":\"0\",\"source_id\":\"\",\"instance_id\":\"\",\"deprecated_tags\":{},\"tags\":{}}]}\n\n";

fn is_heartbeat(piece: &str) -> bool {
    piece.starts_with("event: heartbeat\ndata: ") && piece.ends_with("\n\n")
}

#[tokio::test(start_paused = true)]
async fn heartbeats_come_15_s_after_the_last_event_and_the_end_after_14_min() {
    let (mut stream, feed, accounts) = stream(Arc::new(Open), Ok(Allowed::default()));
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    assert!(is_heartbeat(&piece(&mut stream).await.unwrap()));
    assert_eq!(Instant::now(), at(15));
    // The clock starts again with a data event.
    tokio::time::sleep_until(at(25)).await;
    feed.send(Bytes::from_static(BATCH)).await.unwrap();
    assert_eq!(piece(&mut stream).await.unwrap(), EVENT);
    for beat in 0.. {
        let next = piece(&mut stream).await.unwrap();
        if is_heartbeat(&next) {
            assert_eq!(Instant::now(), at(40 + beat * 15));
            continue;
        }
        assert_eq!(
            next,
            "event: closing\ndata: closing due to stream timeout\n\n"
        );
        assert_eq!(Instant::now(), at(14 * 60));
        break;
    }
    assert_eq!(piece(&mut stream).await, None);
    drop(stream);
    let line = &accounts.report().subscriptions[0];
    assert_eq!((line.received, line.delivered), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn access_is_asked_for_again_and_its_loss_ends_the_stream() {
    let script = Script::of(vec![allowed(7), Err(Denied::Refused)]);
    let (mut stream, feed, _accounts) = stream(script.clone(), allowed(5));
    let start = Instant::now();
    feed.send(Bytes::from_static(BATCH)).await.unwrap();
    assert_eq!(piece(&mut stream).await.unwrap(), EVENT);
    let closing = "event: closing\ndata: closing due to authorization\n\n";
    assert_eq!(piece(&mut stream).await.unwrap(), closing);
    assert_eq!(
        (start.elapsed(), script.asked()),
        (Duration::from_secs(12), 2)
    );
    assert_eq!(piece(&mut stream).await, None);
    assert!(feed.is_closed());
}

#[tokio::test(start_paused = true)]
async fn silence_about_access_is_borne_with_for_a_while_only() {
    let script = Script::of(vec![Err(Denied::Unavailable("away".to_owned()))]);
    let (mut stream, _feed, _accounts) = stream(script.clone(), allowed(5));
    let start = Instant::now();
    assert!(is_heartbeat(&piece(&mut stream).await.unwrap()));
    let closing = "event: closing\ndata: closing due to authorization\n\n";
    assert_eq!(piece(&mut stream).await.unwrap(), closing);
    // Asked after 5 s, then 1, 2, 4 and 8 s later, when the patience of 10 s is over.
    assert_eq!(
        (start.elapsed(), script.asked()),
        (Duration::from_secs(20), 5)
    );
}

#[tokio::test(start_paused = true)]
async fn one_piece_is_on_the_line_and_no_batch_is_taken_meanwhile() {
    let (mut stream, feed, accounts) = stream(Arc::new(Open), Ok(Allowed::default()));
    for _ in 0..2 {
        feed.send(Bytes::from_static(BATCH)).await.unwrap();
    }
    let on_the_line = stream.frame().await.unwrap().unwrap();
    let stuck = tokio::time::timeout(Duration::from_secs(60), stream.frame());
    assert!(stuck.await.is_err(), "not even a heartbeat");
    assert_eq!(feed.capacity(), 9, "the second batch waits where it is");
    let counts = || {
        let line = &accounts.report().subscriptions[0];
        (line.received, line.delivered, line.pending)
    };
    assert_eq!(counts(), (1, 0, 1));
    drop(on_the_line);
    assert_eq!(piece(&mut stream).await.unwrap(), EVENT);
    assert_eq!(counts(), (2, 1, 1));
}

/// Gives one thing, then ends.
struct Last(Option<Result<Bytes, Status>>);

impl Envelopes for Last {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        Poll::Ready(self.0.take())
    }

    fn finish(&mut self, _: Duration) {}
}

#[tokio::test]
async fn the_proxys_end_is_logged_in_the_words_of_the_go_gateway() {
    const REFUSED: &str = "unable to create stream, max egress streams reached: 500";
    for (last, expected) in [
        (
            Some(Err(Status::new(Code::ResourceExhausted, REFUSED))),
            format!(
                "error getting logs from provider: rpc error: code = ResourceExhausted desc = {REFUSED}\n"
            ),
        ),
        (Some(Err(Status::new(Code::Cancelled, ""))), String::new()),
        (None, "error getting logs from provider: EOF\n".to_owned()),
        (
            Some(Ok(Bytes::from_static(&[0x0a, 9]))),
            "error marshaling envelope batch to string: ".to_owned(),
        ),
    ] {
        let output = Output::default();
        let written = output.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_level(false)
            .with_target(false)
            .without_time()
            .with_ansi(false)
            .with_writer(move || written.clone())
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        let mut stream = stream_of(
            Box::new(Last(last)),
            Arc::new(Open),
            Ok(Allowed::default()),
            &accounts(),
        );
        assert_eq!(piece(&mut stream).await, None);
        drop(guard);
        let log = String::from_utf8(output.0.lock().clone()).unwrap();
        assert!(log.starts_with(&expected), "{expected}: {log}");
        assert_eq!(log.lines().count(), usize::from(!expected.is_empty()));
    }
}

/// What became of the only subscription: received, delivered, and the reasons of what was dropped.
fn outcome(accounts: &Accounts) -> (u64, u64, Vec<(String, u64)>) {
    let report = accounts.report();
    let line = &report.subscriptions[0];
    assert!(line.balanced());
    let dropped = line.dropped.clone().into_iter().collect();
    (line.received, line.delivered, dropped)
}

#[tokio::test(start_paused = true)]
async fn what_had_arrived_for_a_client_that_leaves_is_counted() {
    let (mut stream, feed, accounts) = stream(Arc::new(Open), Ok(Allowed::default()));
    for _ in 0..3 {
        feed.send(Bytes::from_static(BATCH)).await.unwrap();
    }
    assert_eq!(piece(&mut stream).await.unwrap(), EVENT);
    drop(stream);
    // The first one is on the line, or may have been read: it counts with the others, as lost.
    let lost = vec![("disconnected".to_owned(), 3)];
    assert_eq!(outcome(&accounts), (3, 0, lost));
}

#[tokio::test(start_paused = true)]
async fn what_had_arrived_for_a_client_that_may_not_read_it_is_counted() {
    let script = Script::of(vec![Err(Denied::Refused)]);
    let (mut stream, feed, accounts) = stream(script, allowed(5));
    for _ in 0..3 {
        feed.send(Bytes::from_static(BATCH)).await.unwrap();
    }
    let on_the_line = stream.frame().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    drop(on_the_line);
    let closing = "event: closing\ndata: closing due to authorization\n\n";
    assert_eq!(piece(&mut stream).await.unwrap(), closing);
    drop(stream);
    assert_eq!(outcome(&accounts), (3, 1, vec![("denied".to_owned(), 2)]));
}

#[tokio::test(start_paused = true)]
async fn what_had_arrived_behind_a_broken_batch_is_counted() {
    let (mut stream, feed, accounts) = stream(Arc::new(Open), Ok(Allowed::default()));
    for batch in [&[0x0a, 9][..], BATCH] {
        feed.send(Bytes::copy_from_slice(batch)).await.unwrap();
    }
    assert_eq!(piece(&mut stream).await, None);
    drop(stream);
    let lost = vec![("malformed_batch".to_owned(), 1)];
    assert_eq!(outcome(&accounts), (1, 0, lost));
    assert_eq!(accounts.report().ingress.received, 2);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_in_time_although_its_client_takes_nothing() {
    let script = Script::of(vec![Err(Denied::Refused)]);
    for (first, after, reason) in [
        (Ok(Allowed::default()), 14 * 60, "stream_timeout"),
        (allowed(5), 5, "denied"),
    ] {
        let (mut stream, feed, accounts) = stream(script.clone(), first);
        let start = Instant::now();
        for _ in 0..3 {
            feed.send(Bytes::from_static(BATCH)).await.unwrap();
        }
        let on_the_line = stream.frame().await.unwrap().unwrap();
        let end = stream.frame().await.unwrap();
        assert_eq!(
            end.unwrap_err().to_string(),
            "the client did not take the end of the stream in time"
        );
        assert_eq!(start.elapsed(), Duration::from_secs(after + 60), "{reason}");
        // Dropped with the body, as the connection does it.
        drop(stream);
        assert!(feed.is_closed());
        drop(on_the_line);
        assert_eq!(outcome(&accounts), (3, 0, vec![(reason.to_owned(), 3)]));
    }
}

/// Standard output, for the test to read.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A front door with nothing behind it.
fn front(access: Arc<dyn AccessControl>, access_log: AccessLog, stop: CancellationToken) -> Front {
    let accounts = accounts();
    Front {
        access,
        provider: Arc::new(Nothing),
        parking: Parking::new(
            Duration::ZERO,
            TIMES.finish,
            1,
            Arc::clone(&accounts),
            Lifecycle::new(),
        ),
        accounts,
        requests: Arc::new(Requests::default()),
        access_log,
        slots: Arc::new(Semaphore::new(10)),
        max_streams: 10,
        max_query: 1000,
        max_selectors: 10,
        times: TIMES,
        stop,
    }
}

/// Sends a request and reads until the server closes.
async fn ask(addr: SocketAddr, request: &str) -> String {
    let mut io = TcpStream::connect(addr).await.unwrap();
    let request = format!(
        "{request}\r\nhost: x\r\nauthorization: bearer s3cret\r\nconnection: close\r\n\r\n"
    );
    io.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn every_request_is_logged_with_the_bytes_of_its_body_and_without_its_token() {
    let output = Output::default();
    let (access_log, written) = AccessLog::to(output.clone()).unwrap();
    let unavailable = Err(Denied::Unavailable("away".to_owned()));
    let script = Script::of(vec![unavailable, Ok(Allowed::default())]);
    let stop = CancellationToken::new();
    let front = front(script.clone(), access_log, stop.clone());
    let requests = Arc::clone(&front.requests);
    let server = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = server.local_addr();
    let door = Arc::new(Door(Arc::new(front)));
    let served = tokio::spawn(server.serve(None, door, Settings::default(), stop.clone()));

    // Access that could not be checked is no access.
    let answer = ask(addr, "GET /v2/read?log HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.ends_with("\"not_found\"}\n\n"));
    ask(addr, "GET /v2/read?log HTTP/1.1").await;
    ask(addr, "HEAD /v2/read?log HTTP/1.1").await;
    ask(addr, "GET /%22 HTTP/1.1").await;
    stop.cancel();
    served.await.unwrap();
    assert!(written.await.is_err(), "the log's thread has ended");

    let text = String::from_utf8(output.0.lock().clone()).unwrap();
    assert!(!text.contains("s3cret"));
    let mut lines = Vec::new();
    for line in text.lines() {
        let (client, rest) = line.split_once(" - - [").unwrap();
        let (date, rest) = rest.split_once("] ").unwrap();
        assert_eq!((client, date.len()), ("127.0.0.1", 26), "{line}");
        lines.push(rest);
    }
    assert_eq!(
        lines,
        [
            "\"GET /v2/read?log HTTP/1.1\" 404 54",
            "\"GET /v2/read?log HTTP/1.1\" 200 0",
            "\"HEAD /v2/read?log HTTP/1.1\" 405 63",
            "\"GET /%22 HTTP/1.1\" 404 19",
        ]
    );
    assert_eq!(requests.counts(), [(200, 1), (404, 2), (405, 1)].into());
}

/// Never comes to a judgement.
#[derive(Debug)]
struct Undecided(mpsc::Sender<()>);

impl AccessControl for Undecided {
    fn firehose<'a>(&'a self, _: &'a Credentials) -> Verdict<'a> {
        unreachable!("the gateway does not ask that")
    }

    fn app_stream<'a>(&'a self, _: &'a str, _: &'a Credentials) -> Verdict<'a> {
        unreachable!("the gateway does not ask that")
    }

    fn sources<'a>(&'a self, _: &'a [String], _: &'a Credentials) -> Verdict<'a> {
        self.0.try_send(()).unwrap();
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_its_answer_is_logged_and_counted() {
    let output = Output::default();
    let (access_log, written) = AccessLog::to(output.clone()).unwrap();
    let (asked, mut asking) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let front = front(Arc::new(Undecided(asked)), access_log, stop.clone());
    let requests = Arc::clone(&front.requests);
    let server = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (addr, stats) = (server.local_addr(), server.stats());
    let door = Arc::new(Door(Arc::new(front)));
    let served = tokio::spawn(server.serve(None, door, Settings::default(), stop.clone()));

    let mut io = TcpStream::connect(addr).await.unwrap();
    io.write_all(b"GET /v2/read?log HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    asking.recv().await.unwrap();
    drop(io);
    stop.cancel();
    served.await.unwrap();
    assert_eq!(stats.cut_at_drain.load(Ordering::Relaxed), 0);
    assert!(written.await.is_err(), "the log's thread has ended");
    let text = String::from_utf8(output.0.lock().clone()).unwrap();
    let (_, line) = text.split_once("] ").unwrap();
    assert_eq!(line, "\"GET /v2/read?log HTTP/1.1\" 499 0\n");
    assert_eq!(requests.counts(), [(499, 1)].into());
}

/// Has a fault.
#[derive(Debug)]
struct Faulty;

impl AccessControl for Faulty {
    fn firehose<'a>(&'a self, _: &'a Credentials) -> Verdict<'a> {
        unreachable!("the gateway does not ask that")
    }

    fn app_stream<'a>(&'a self, _: &'a str, _: &'a Credentials) -> Verdict<'a> {
        unreachable!("the gateway does not ask that")
    }

    fn sources<'a>(&'a self, _: &'a [String], _: &'a Credentials) -> Verdict<'a> {
        Box::pin(async { panic!("a fault that a test makes") })
    }
}

#[tokio::test]
async fn a_panic_of_a_handler_is_a_500_and_costs_nobody_else_anything() {
    let stop = CancellationToken::new();
    let front = front(Arc::new(Faulty), AccessLog::off(), stop.clone());
    let requests = Arc::clone(&front.requests);
    let server = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = server.local_addr();
    let door = Arc::new(Door(Arc::new(front)));
    let serving = tokio::spawn(server.serve(None, door, Settings::default(), stop.clone()));
    for _ in 0..2 {
        let answer = ask(addr, "GET /v2/read?log HTTP/1.1").await;
        assert!(
            answer.starts_with("HTTP/1.1 500 Internal Server Error\r\n"),
            "{answer}"
        );
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
    let answer = ask(addr, "GET /other HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert_eq!(requests.counts(), [(404, 1), (500, 2)].into());
    stop.cancel();
    serving.await.unwrap();
}
