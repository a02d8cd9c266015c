//! A nozzle around the destination under test.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use loggregator_net::grpc::Status;
use loggregator_proto::v2;
use loggregator_service::Lifecycle;
use loggregator_service::ledger::{Report, Subscription};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::time::Instant;

use super::{Peer, Subject};
use crate::config::{NozzleConfig, Section};
use crate::event::Event;
use crate::intake::{Envelopes, Opening, Upstream};
use crate::kind::{Kind, Kinds, Rendered};
use crate::run::{Running, start};

/// How long a condition may take to come true. Long, since it only costs time when a test fails.
const PATIENCE: Duration = Duration::from_secs(60);
/// Sources of the envelopes, in turn.
const SOURCES: [&str; 3] = ["app-a", "app-b", "app-c"];

/// The `n`-th line.
pub(super) fn line(n: u64, source_id: &str) -> v2::Envelope {
    let text = format!("event {n:06} of {source_id}");
    v2::Envelope {
        timestamp: 1_700_000_000_000_000_000 + i64::try_from(n).unwrap_or(0) * 1_000_000,
        source_id: source_id.to_owned(),
        instance_id: "0".to_owned(),
        message: Some(v2::envelope::Message::Log(v2::Log {
            payload: text.into_bytes().into(),
            r#type: 0,
        })),
        ..v2::Envelope::default()
    }
}

/// The number in it.
pub(super) fn number(body: &[u8]) -> Option<u64> {
    const BEFORE: &[u8] = b"event ";
    let at = body
        .windows(BEFORE.len() + 6)
        .position(|w| w.starts_with(BEFORE) && w[BEFORE.len()..].iter().all(u8::is_ascii_digit))?;
    let digits = &body[at + BEFORE.len()..at + BEFORE.len() + 6];
    std::str::from_utf8(digits).ok()?.parse().ok()
}

pub(super) fn source(n: u64) -> &'static str {
    SOURCES[usize::try_from(n).unwrap_or(0) % SOURCES.len()]
}

/// A running nozzle with one destination, `subject`, and what is fed to it.
pub(super) struct Rig<P> {
    pub peer: Arc<P>,
    case: &'static str,
    text: String,
    kinds: Kinds,
    kind: Arc<dyn Kind>,
    feed: Arc<Feed>,
    lifecycle: Lifecycle,
    running: Option<Running>,
    fed: u64,
}

impl<P: Peer> Rig<P> {
    /// Starts it. `extra` is put into the file before the destination, `more` into the destination.
    pub(super) async fn start(
        case: &'static str,
        subject: &Subject,
        peer: P,
        extra: &str,
        more: &str,
    ) -> Rig<P> {
        let text = format!(
            "[nozzle]\nname = \"compliance\"\ndrain_timeout = \"2s\"\n{extra}\n\
             [[destination]]\nname = \"subject\"\n\
             batch.linger = \"5ms\"\n{more}\n\
             [destination.retry]\nmin = \"10ms\"\nmax = \"100ms\"\ntimeout = \"10s\"\n\
             [destination.{}]\n{}\n",
            subject.kind.name(),
            peer.config(),
        );
        let mut rig = Rig {
            peer: Arc::new(peer),
            case,
            text,
            kinds: subject.kinds.clone(),
            kind: Arc::clone(&subject.kind),
            feed: Arc::new(Feed::default()),
            lifecycle: Lifecycle::new(),
            running: None,
            fed: 0,
        };
        rig.run().await;
        rig
    }

    /// Starts the nozzle (again).
    pub(super) async fn run(&mut self) {
        let config = match NozzleConfig::parse(Path::new("compliance.toml"), &self.text) {
            Ok(config) => config,
            Err(errors) => panic!("{}: {errors}\n{}", self.case, self.text),
        };
        self.lifecycle = Lifecycle::new();
        let upstream: Arc<dyn Upstream> = self.feed.clone();
        match start(config, &self.kinds, Some(upstream), &self.lifecycle).await {
            Ok(running) => self.running = Some(running),
            Err(error) => panic!("{}: the nozzle does not start: {error}", self.case),
        }
    }

    /// Stops the nozzle.
    pub(super) async fn stop(&mut self) {
        self.lifecycle.shutdown(Duration::from_secs(2)).await;
        self.running = None;
    }

    /// Feeds so many more envelopes, ten per batch.
    pub(super) fn feed(&mut self, n: u64) {
        let numbers: Vec<u64> = (self.fed..self.fed + n).collect();
        for batch in numbers.chunks(10) {
            let batch: Vec<_> = batch.iter().map(|n| self.envelope(*n)).collect();
            self.feed.push(&batch);
        }
        self.fed += n;
    }

    fn envelope(&self, n: u64) -> v2::Envelope {
        self.peer.envelope(n, source(n))
    }

    /// What the destination's line of the ledger says; checked to add up.
    pub(super) fn line(&self) -> Subscription {
        let report = self.running.as_ref().map(Running::report);
        let report: Report = report.unwrap_or_default();
        assert!(report.balanced(), "{}: {report:?}", self.case);
        report.subscriptions.into_iter().next().unwrap_or_default()
    }

    pub(super) fn metrics(&self) -> String {
        let running = self.running.as_ref();
        running.map_or_else(String::new, |running| running.metrics().encode())
    }

    /// Waits until the ledger says so.
    pub(super) async fn until(&self, what: &str, met: impl Fn(&Subscription) -> bool) {
        let since = Instant::now();
        loop {
            let line = self.line();
            if met(&line) {
                return;
            }
            assert!(
                since.elapsed() < PATIENCE,
                "{}: not {what} within {PATIENCE:?}: {line:?}",
                self.case
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until everything that was fed is settled.
    pub(super) async fn settled(&self) {
        let fed = self.fed;
        self.until("settled", |line| line.received >= fed && line.pending == 0)
            .await;
    }

    /// Numbers of what the peer has taken, in order, repetitions included.
    pub(super) async fn numbers(&self) -> Vec<u64> {
        let received = self.peer.received().await;
        let number = |one: &Rendered| match self.peer.number(one) {
            Some(number) => number,
            None => panic!("{}: the peer got what was not fed: {one:?}", self.case),
        };
        received.iter().map(number).collect()
    }

    /// Fails unless the peer has taken these, each at least once, and each source's in order (if that is promised): the first
    /// time that it took each is after the first time that it took those before.
    pub(super) async fn took(&self, wanted: impl Iterator<Item = u64>) {
        let numbers = self.numbers().await;
        let mut first: BTreeMap<u64, usize> = BTreeMap::new();
        for (at, number) in numbers.iter().enumerate() {
            first.entry(*number).or_insert(at);
        }
        let wanted: Vec<u64> = wanted.collect();
        let taken: Vec<u64> = first.keys().copied().collect();
        assert_eq!(taken, wanted, "{}: what the peer has taken", self.case);
        for source in SOURCES {
            let of_source = first.iter().filter(|(n, _)| self::source(**n) == source);
            let places: Vec<usize> = of_source.map(|(_, at)| *at).collect();
            assert!(
                places.is_sorted() || !self.peer.ordered(),
                "{}: order of {source}: {numbers:?}",
                self.case
            );
        }
    }

    /// What the destination should send for the first `n` envelopes, in order.
    pub(super) fn rendered(&self, n: u64) -> Vec<Rendered> {
        let section = match Section::from_text(&self.peer.config()) {
            Ok(section) => section,
            Err(errors) => panic!("{}: {errors}", self.case),
        };
        let plan = match self.kind.plan(&section) {
            Ok(plan) => plan,
            Err(errors) => panic!("{}: {errors}", self.case),
        };
        let render = |n: u64| {
            let event = Event::new(n, 0, self.envelope(n).encode_to_vec().into());
            match plan.render(&event) {
                Ok(rendered) => rendered,
                Err(why) => panic!("{}: event {n} is not rendered: {why}", self.case),
            }
        };
        (0..n).flat_map(render).collect()
    }

    pub(super) fn fed(&self) -> u64 {
        self.fed
    }
}

/// An upstream for tests: it yields the envelopes that it is fed. There is one reader at a time.
#[derive(Default)]
pub struct Feed {
    state: Arc<Mutex<FeedState>>,
}

#[derive(Default)]
struct FeedState {
    batches: VecDeque<Bytes>,
    reader: Option<Waker>,
}

impl Feed {
    /// Feeds a batch.
    pub fn push(&self, envelopes: &[v2::Envelope]) {
        let batch = v2::EnvelopeBatch {
            batch: envelopes.to_vec(),
        };
        let mut state = self.state.lock();
        state.batches.push_back(batch.encode_to_vec().into());
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }
}

impl Upstream for Feed {
    fn open(&self, _request: v2::EgressBatchRequest) -> Opening {
        let envelopes: Box<dyn Envelopes> = Box::new(Reader(Arc::clone(&self.state)));
        Box::pin(async move { Ok(envelopes) })
    }
}

struct Reader(Arc<Mutex<FeedState>>);

impl Envelopes for Reader {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        let mut state = self.0.lock();
        match state.batches.pop_front() {
            Some(batch) => Poll::Ready(Some(Ok(batch))),
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
