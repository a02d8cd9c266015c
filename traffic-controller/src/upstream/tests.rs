//! Shared subscriptions over dopplers that do what the test says.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use loggregator_client::Batch;
use loggregator_proto::plumbing::{Filter, SubscriptionRequest};
use loggregator_service::ledger::Source as _;
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::shared::{Shared, SharedLimits};
use super::{Batches, Unread, Upstream};
use crate::accounts::{Accounts, Program};

const PROGRAM: Program = Program {
    component: "program",
    api: "api",
    endpoints: &["one"],
};

/// The dopplers of a test: one stream per subscription, all with the same contents.
#[derive(Clone, Default)]
struct Dopplers(Arc<State>);

#[derive(Default)]
struct State {
    stream: Mutex<Stream>,
    /// How often they were subscribed to.
    opened: AtomicUsize,
    /// How many of the subscriptions are over.
    closed: AtomicUsize,
    /// How many were asked for their end.
    finished: AtomicUsize,
}

#[derive(Default)]
struct Stream {
    /// Whether a subscription does not stand until the test says so.
    shut: bool,
    arrived: VecDeque<Batch>,
    ended: bool,
    waker: Option<Waker>,
    /// Calls its waker whenever it has nothing, as one whose task has used up its turn.
    restless: bool,
}

impl Dopplers {
    /// From now on, subscriptions stand.
    fn open(&self) {
        let mut stream = self.0.stream.lock();
        stream.shut = false;
        let waker = stream.waker.take();
        drop(stream);
        waker.into_iter().for_each(Waker::wake);
    }

    fn send(&self, bytes: Bytes) {
        let mut stream = self.0.stream.lock();
        stream.arrived.push_back(Batch {
            bytes,
            doppler: "doppler:8082".into(),
        });
        let waker = stream.waker.take();
        drop(stream);
        waker.into_iter().for_each(Waker::wake);
    }

    fn left(&self) -> usize {
        self.0.stream.lock().arrived.len()
    }

    fn opened(&self) -> usize {
        self.0.opened.load(Ordering::SeqCst)
    }

    fn finished(&self) -> usize {
        self.0.finished.load(Ordering::SeqCst)
    }

    fn closed(&self) -> usize {
        self.0.closed.load(Ordering::SeqCst)
    }
}

impl<R: Send + 'static> Upstream<R> for Dopplers {
    fn subscribe(&self, _: R) -> Box<dyn Batches> {
        self.0.opened.fetch_add(1, Ordering::SeqCst);
        Box::new(Subscription(self.clone()))
    }
}

struct Subscription(Dopplers);

impl Batches for Subscription {
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut stream = self.0.0.stream.lock();
        if stream.shut {
            stream.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Batch>> {
        let mut stream = self.0.0.stream.lock();
        if let Some(batch) = stream.arrived.pop_front() {
            return Poll::Ready(Some(batch));
        }
        if stream.ended {
            return Poll::Ready(None);
        }
        if stream.restless {
            cx.waker().wake_by_ref();
        }
        stream.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn finish(&mut self, _: Duration) {
        self.0.0.finished.fetch_add(1, Ordering::SeqCst);
        self.0.0.stream.lock().ended = true;
    }

    fn close(self: Box<Self>) -> Unread {
        let mut stream = self.0.0.stream.lock();
        let arrived = stream.arrived.drain(..);
        Unread::of(arrived.map(|batch| envelopes(&batch.bytes)).sum())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.0.0.closed.fetch_add(1, Ordering::SeqCst);
    }
}

/// Batch number `id` of `count` envelopes, each with its number.
fn batch(id: u32, count: u64) -> Bytes {
    let mut bytes = Vec::new();
    for _ in 0..count {
        bytes.extend([0x0a, 4]);
        bytes.extend(id.to_be_bytes());
    }
    bytes.into()
}

fn id(batch: &Batch) -> u32 {
    u32::from_be_bytes(batch.bytes[2..6].try_into().unwrap())
}

fn envelopes(bytes: &Bytes) -> u64 {
    bytes.len() as u64 / 6
}

fn app(id: &str) -> SubscriptionRequest {
    SubscriptionRequest {
        shard_id: String::new(),
        filter: Some(Filter {
            app_id: id.to_owned(),
            message: None,
        }),
    }
}

struct Rig {
    dopplers: Dopplers,
    shared: Shared<SubscriptionRequest>,
    accounts: Arc<Accounts>,
    stop: CancellationToken,
}

impl Rig {
    fn new(limits: SharedLimits) -> Self {
        Self::over(Dopplers::default(), limits)
    }

    fn over(dopplers: Dopplers, limits: SharedLimits) -> Self {
        let accounts = Accounts::new(PROGRAM, "test".to_owned(), 10);
        let stop = CancellationToken::new();
        let shared = Shared::new(
            Arc::new(dopplers.clone()),
            limits,
            Arc::clone(&accounts),
            stop.clone(),
        );
        Self {
            dopplers,
            shared,
            accounts,
            stop,
        }
    }

    /// A reader of what can be subscribed to without waiting.
    fn join(&self, request: SubscriptionRequest) -> Box<dyn Batches> {
        let mut reader = self.shared.subscribe(request);
        let mut cx = Context::from_waker(Waker::noop());
        let joined = reader.poll_open(&mut cx);
        assert!(joined.is_ready(), "an open subscription is joined at once");
        reader
    }

    fn ingress(&self) -> u64 {
        self.accounts.report().ingress.accepted
    }
}

fn ended(reader: &mut Box<dyn Batches>) -> bool {
    let polled = reader.poll_batch(&mut Context::from_waker(Waker::noop()));
    matches!(polled, Poll::Ready(None))
}

fn poll(reader: &mut Box<dyn Batches>) -> Option<u32> {
    match reader.poll_batch(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(batch) => Some(id(&batch.unwrap())),
        Poll::Pending => None,
    }
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn equal_requests_share_one_subscription_and_shard_groups_do_not() {
    let rig = Rig::new(SharedLimits::default());
    let mut readers: Vec<_> = (0..200).map(|_| rig.join(app("a"))).collect();
    assert_eq!(rig.dopplers.opened(), 1);
    let hub = rig.shared.hub();
    assert_eq!((hub.subscriptions(), hub.readers()), (1, 200));

    rig.dopplers.send(batch(7, 3));
    assert!(readers.iter_mut().all(|reader| poll(reader) == Some(7)));
    assert!(readers.iter_mut().all(|reader| poll(reader).is_none()));
    assert_eq!((hub.bytes(), hub.missed()), (0, 0));
    assert_eq!(rig.ingress(), 3, "once, not 200 times");

    drop(rig.join(app("b")));
    assert_eq!((rig.dopplers.opened(), rig.dopplers.closed()), (2, 1));
    let firehose = SubscriptionRequest {
        shard_id: "s".to_owned(),
        filter: None,
    };
    let members = [rig.join(firehose.clone()), rig.join(firehose)];
    assert_eq!(rig.dopplers.opened(), 4);
    assert!(members.iter().all(|member| !member.is_shared()));

    let last = readers.pop().unwrap();
    drop(readers);
    assert_eq!(rig.dopplers.closed(), 1, "somebody still reads");
    rig.dopplers.send(batch(8, 2));
    let unread = last.close();
    assert_eq!(unread, Unread::of(2), "what had arrived for the last one");
    assert_eq!(rig.dopplers.closed(), 2);
    assert_eq!(
        (hub.subscriptions(), hub.readers(), rig.ingress()),
        (0, 0, 5)
    );
}

#[test]
fn a_reader_that_is_alone_leaves_everything_where_it_is() {
    let rig = Rig::new(SharedLimits {
        request: 0,
        total: 0,
    });
    let mut reader = rig.join(app("a"));
    for i in 0..100 {
        rig.dopplers.send(batch(i, 1));
    }
    assert_eq!(poll(&mut reader), Some(0));
    assert_eq!(rig.dopplers.left(), 99, "nothing is read ahead");
    for i in 1..100 {
        assert_eq!(poll(&mut reader), Some(i));
    }
    assert_eq!((reader.take_missed(), rig.shared.hub().missed()), (0, 0));
}

#[test]
fn a_new_reader_starts_at_the_newest() {
    let rig = Rig::new(SharedLimits::default());
    let (mut first, _behind) = (rig.join(app("a")), rig.join(app("a")));
    rig.dopplers.send(batch(1, 1));
    assert_eq!(poll(&mut first), Some(1));
    let mut late = rig.join(app("a"));
    assert_eq!(poll(&mut late), None);
    rig.dopplers.send(batch(2, 1));
    assert_eq!((poll(&mut late), poll(&mut first)), (Some(2), Some(2)));
    assert_eq!(late.close(), Unread::default());
}

#[test]
fn one_that_falls_behind_misses_exactly_what_did_not_fit() {
    let limits = SharedLimits {
        request: 1000,
        total: 1 << 20,
    };
    let rig = Rig::new(limits);
    let (mut fast, mut slow) = (rig.join(app("a")), rig.join(app("a")));
    for i in 0..10 {
        rig.dopplers.send(batch(i, 50));
        assert_eq!(poll(&mut fast), Some(i));
    }
    let hub = rig.shared.hub();
    assert!(hub.bytes() <= 1000, "{}", hub.bytes());
    let first = poll(&mut slow).unwrap();
    assert!(first > 0);
    assert_eq!(slow.take_missed(), u64::from(first) * 50);
    assert_eq!(slow.take_missed(), 0, "told once");
    assert_eq!(hub.missed(), u64::from(first) * 50);
    for i in first + 1..10 {
        assert_eq!(poll(&mut slow), Some(i));
    }
    assert_eq!((poll(&mut slow), slow.take_missed()), (None, 0));

    for i in 10..20 {
        rig.dopplers.send(batch(i, 50));
        assert_eq!(poll(&mut fast), Some(i));
    }
    // Of ten batches as many are gone as before, and those it could have taken are no loss of the sharing.
    let missed = u64::from(first) * 50;
    let envelopes = 500 - missed;
    assert_eq!(slow.close(), Unread { envelopes, missed });
    assert_eq!(hub.missed(), 2 * missed);
    assert_eq!(hub.bytes(), 0);
}

#[test]
fn the_request_that_holds_most_makes_room_for_the_others() {
    let limits = SharedLimits {
        request: 1 << 20,
        total: 10_000,
    };
    let rig = Rig::new(limits);
    let (mut fast, mut slow) = (rig.join(app("noisy")), rig.join(app("noisy")));
    for i in 0..10 {
        rig.dopplers.send(batch(i, 100));
        assert_eq!(poll(&mut fast), Some(i));
    }
    let (mut quick, mut late) = (rig.join(app("quiet")), rig.join(app("quiet")));
    for i in 10..18 {
        rig.dopplers.send(batch(i, 100));
        assert_eq!(poll(&mut quick), Some(i));
        assert!(rig.shared.hub().bytes() <= 10_000);
    }
    assert_eq!(poll(&mut late), Some(10), "the quiet one lost nothing");
    poll(&mut slow);
    assert!(slow.take_missed() > 0);
}

#[test]
fn whoever_waits_is_woken_also_when_the_last_to_ask_does_not_come_back() {
    let rig = Rig::new(SharedLimits::default());
    let mut readers = [rig.join(app("a")), rig.join(app("a")), rig.join(app("a"))];
    let woken: [_; 3] = std::array::from_fn(|_| Arc::new(Woken::default()));
    let times = |i: usize| woken[i].0.load(Ordering::SeqCst);
    for (reader, woken) in readers.iter_mut().zip(&woken) {
        let waker = Waker::from(Arc::clone(woken));
        assert!(
            reader
                .poll_batch(&mut Context::from_waker(&waker))
                .is_pending()
        );
    }
    rig.dopplers.send(batch(1, 1));
    assert_eq!((times(0), times(1), times(2)), (1, 1, 1));
    // Only the first comes, and goes away with its batch; the third has it nevertheless, and the one after that.
    assert_eq!(poll(&mut readers[0]), Some(1));
    assert_eq!(poll(&mut readers[2]), Some(1));
    let waker = Waker::from(Arc::clone(&woken[2]));
    assert!(
        readers[2]
            .poll_batch(&mut Context::from_waker(&waker))
            .is_pending()
    );
    rig.dopplers.send(batch(2, 1));
    assert_eq!(times(2), 2);
    assert_eq!(poll(&mut readers[2]), Some(2));
}

#[test]
fn a_stream_that_calls_at_every_look_gives_others_their_turn() {
    let rig = Rig::new(SharedLimits::default());
    rig.dopplers.0.stream.lock().restless = true;
    let mut reader = rig.join(app("a"));
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    assert!(
        reader
            .poll_batch(&mut Context::from_waker(&waker))
            .is_pending()
    );
    assert!(woken.0.load(Ordering::SeqCst) > 0);
}

#[test]
fn the_end_reaches_all_and_the_next_one_starts_anew() {
    let rig = Rig::new(SharedLimits::default());
    let mut readers = [rig.join(app("a")), rig.join(app("a"))];
    rig.dopplers.send(batch(1, 1));
    assert_eq!(poll(&mut readers[0]), Some(1));
    rig.dopplers.0.stream.lock().ended = true;
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(readers[0].poll_batch(&mut cx), Poll::Ready(None)));
    assert_eq!(poll(&mut readers[1]), Some(1), "what is left comes first");
    assert!(matches!(readers[1].poll_batch(&mut cx), Poll::Ready(None)));
    let _next = rig.join(app("a"));
    assert_eq!((rig.dopplers.opened(), rig.dopplers.closed()), (2, 1));
    drop(readers);
    assert_eq!(rig.shared.hub().subscriptions(), 1);
}

#[test]
fn a_subscription_in_the_making_survives_whoever_began_it() {
    let rig = Rig::new(SharedLimits::default());
    rig.dopplers.0.stream.lock().shut = true;
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    let mut first = rig.shared.subscribe(app("a"));
    let mut second = rig.shared.subscribe(app("a"));
    assert!(first.poll_open(&mut cx).is_pending());
    assert!(second.poll_open(&mut cx).is_pending());
    assert_eq!(rig.dopplers.opened(), 1);
    drop(first);
    assert_eq!(rig.dopplers.closed(), 0);
    // Who stays is called when one leaves, and looks again.
    assert!(second.poll_open(&mut cx).is_pending());
    let before = woken.0.load(Ordering::SeqCst);
    rig.dopplers.open();
    assert!(woken.0.load(Ordering::SeqCst) > before);
    assert!(second.poll_open(&mut cx).is_ready());
    assert_eq!((rig.dopplers.opened(), rig.shared.hub().readers()), (1, 1));
    drop(rig.join(app("a")));
    drop(second);
    assert_eq!((rig.dopplers.opened(), rig.dopplers.closed()), (1, 1));
}

#[test]
fn what_arrives_while_a_subscription_is_made_is_there_or_counted() {
    let rig = Rig::new(SharedLimits::default());
    rig.dopplers.0.stream.lock().shut = true;
    let mut cx = Context::from_waker(Waker::noop());
    let mut gone = rig.shared.subscribe(app("a"));
    assert!(gone.poll_open(&mut cx).is_pending());
    rig.dopplers.send(batch(1, 5));
    assert_eq!(gone.close(), Unread::of(5));
    assert_eq!(rig.ingress(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_wake_up_is_lost_between_many_readers() {
    const BATCHES: u32 = 2000;
    let rig = Rig::new(SharedLimits::default());
    let blocked = Arc::new(Semaphore::new(0));
    let mut readers = Vec::new();
    let mut stuck = Vec::new();
    for n in 0..8 {
        let mut reader = rig.join(app("a"));
        let blocked = Arc::clone(&blocked);
        let reading = tokio::spawn(async move {
            for expected in 0..BATCHES {
                // Some stop reading on the way, each elsewhere, while the others need what they were woken for.
                if n % 2 == 1 && expected == 100 * n {
                    blocked.acquire().await.unwrap().forget();
                }
                let batch = std::future::poll_fn(|cx| reader.poll_batch(cx))
                    .await
                    .unwrap();
                assert_eq!(id(&batch), expected);
            }
            assert_eq!(reader.take_missed(), 0);
        });
        if n % 2 == 1 { &mut stuck } else { &mut readers }.push(reading);
    }
    let dopplers = rig.dopplers.clone();
    let sender = tokio::spawn(async move {
        for i in 0..BATCHES {
            dopplers.send(batch(i, 1));
            if i % 7 == 0 {
                tokio::task::yield_now().await;
            }
        }
    });
    let all = async {
        sender.await.unwrap();
        for reader in readers {
            reader.await.unwrap();
        }
        blocked.add_permits(stuck.len());
        for reader in stuck {
            reader.await.unwrap();
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), all)
        .await
        .expect("everybody gets everything");
    assert_eq!(rig.shared.hub().bytes(), 0);
}

const LONG: Duration = Duration::from_secs(20);

/// Others read on: it gets what they have taken by now.
#[test]
fn a_reader_that_finishes_leaves_what_comes_to_the_others() {
    let rig = Rig::new(SharedLimits::default());
    let (mut leaving, mut staying) = (rig.join(app("a")), rig.join(app("a")));
    rig.dopplers.send(batch(1, 2));
    assert_eq!(poll(&mut staying), Some(1));
    leaving.finish(LONG);
    rig.dopplers.send(batch(2, 2));
    assert_eq!(poll(&mut leaving), Some(1));
    assert!(ended(&mut leaving) && ended(&mut leaving));
    assert_eq!(leaving.close(), Unread::of(0));
    assert_eq!(poll(&mut staying), Some(2));
    assert_eq!((rig.dopplers.finished(), rig.ingress()), (0, 4));
    // The last one ends the subscription.
    rig.dopplers.send(batch(3, 2));
    staying.finish(LONG);
    assert_eq!(rig.dopplers.finished(), 1);
    let anew = rig.join(app("a"));
    assert_eq!(rig.dopplers.opened(), 2, "who comes now has a new one");
    assert_eq!(poll(&mut staying), Some(3));
    assert!(ended(&mut staying));
    drop((staying, anew));
    assert_eq!(rig.dopplers.closed(), 2);
    assert_eq!((rig.shared.hub().readers(), rig.ingress()), (0, 6));
}

/// All readers end, and all of them get all that the dopplers had sent.
#[test]
fn when_the_process_stops_every_reader_gets_what_is_under_way() {
    let rig = Rig::new(SharedLimits::default());
    let mut readers: Vec<_> = (0..3).map(|_| rig.join(app("a"))).collect();
    rig.dopplers.send(batch(1, 1));
    assert_eq!(poll(&mut readers[0]), Some(1));
    rig.dopplers.send(batch(2, 1));
    rig.stop.cancel();
    for reader in &mut readers {
        reader.finish(LONG);
    }
    assert_eq!(rig.dopplers.finished(), 1);
    assert_eq!(poll(&mut readers[2]), Some(1));
    assert_eq!(poll(&mut readers[2]), Some(2));
    assert!(ended(&mut readers[2]));
    assert_eq!(poll(&mut readers[0]), Some(2));
    assert!(ended(&mut readers[0]));
    assert_eq!(poll(&mut readers[1]), Some(1));
    assert_eq!(poll(&mut readers[1]), Some(2));
    assert!(ended(&mut readers[1]));
    for reader in readers {
        assert_eq!(reader.close(), Unread::default());
    }
    let hub = rig.shared.hub();
    assert_eq!(
        (hub.subscriptions(), hub.readers(), rig.ingress()),
        (0, 0, 2)
    );
}

#[derive(Debug, Clone)]
enum Step {
    Arrive(u64),
    Join,
    Poll(usize),
    Leave(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1u64..40).prop_map(Step::Arrive),
        1 => Just(Step::Join),
        6 => (0usize..8).prop_map(Step::Poll),
        1 => (0usize..8).prop_map(Step::Leave),
    ];
    proptest::collection::vec(step, 1..200)
}

/// What a reader must have seen, told by the plain list of all batches that were taken from the dopplers.
struct Watched {
    reader: Box<dyn Batches>,
    /// The place in the list of the batch that it takes next.
    next: usize,
    told: u64,
}

fn sum(taken: &[u64]) -> u64 {
    taken.iter().sum()
}

proptest! {
    #[test]
    fn what_a_reader_gets_and_misses_is_what_came_since_it_joined(
        steps in steps(),
        request in 0usize..2000,
        total in 0usize..4000,
    ) {
        let rig = Rig::new(SharedLimits { request, total });
        let hub = rig.shared.hub();
        // The sizes of the batches, by number: those that the readers have taken from the dopplers, and those on the way.
        let mut sizes: Vec<u64> = Vec::new();
        let mut readers: Vec<Watched> = Vec::new();
        let mut told = 0;
        for step in steps {
            let taken = sizes.len() - rig.dopplers.left();
            match step {
                Step::Arrive(envelopes) if !readers.is_empty() => {
                    rig.dopplers.send(batch(sizes.len() as u32, envelopes));
                    sizes.push(envelopes);
                }
                Step::Join if readers.len() < 8 => {
                    let reader = rig.join(app("a"));
                    readers.push(Watched { reader, next: taken, told: 0 });
                }
                Step::Poll(i) if !readers.is_empty() => {
                    let i = i % readers.len();
                    let watched = &mut readers[i];
                    match poll(&mut watched.reader) {
                        Some(number) => {
                            let number = number as usize;
                            prop_assert!(number >= watched.next, "in order, none twice");
                            let missed = watched.reader.take_missed();
                            prop_assert_eq!(missed, sum(&sizes[watched.next..number]));
                            watched.told += missed;
                            watched.next = number + 1;
                        }
                        None => {
                            prop_assert_eq!(rig.dopplers.left(), 0);
                            let missed = watched.reader.take_missed();
                            prop_assert_eq!(missed, sum(&sizes[watched.next..]));
                            watched.told += missed;
                            watched.next = sizes.len();
                        }
                    }
                }
                Step::Leave(i) if !readers.is_empty() => {
                    let watched = readers.swap_remove(i % readers.len());
                    let due = if readers.is_empty() { sizes.len() } else { taken };
                    let left = watched.reader.close();
                    prop_assert_eq!(left.envelopes + left.missed, sum(&sizes[watched.next..due]));
                    told += watched.told + left.missed;
                }
                _ => {}
            }
            prop_assert!(hub.bytes() as usize <= total);
            prop_assert_eq!(hub.readers() as usize, readers.len());
            prop_assert_eq!(hub.subscriptions() as usize, usize::from(!readers.is_empty()));
            let taken = sizes.len() - rig.dopplers.left();
            prop_assert_eq!(rig.ingress(), sum(&sizes[..taken]));
        }
        let told = told + readers.iter().map(|watched| watched.told).sum::<u64>();
        prop_assert!(told <= hub.missed());
        if readers.is_empty() {
            prop_assert_eq!(hub.missed(), told);
            prop_assert_eq!(hub.bytes(), 0);
        }
    }
}
