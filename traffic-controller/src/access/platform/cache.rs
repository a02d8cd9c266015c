//! Answers that hold for a while, and one question for all who ask the same at the same time.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::hmac;
use futures_util::FutureExt as _;
use futures_util::future::Shared;
use loggregator_service::Lifecycle;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What an answer is kept under: a keyed hash, so that no token is held longer than it is needed, and nobody can make
/// two questions look the same.
pub(super) type Key = [u8; 32];

/// Makes keys. The secret is this process's own.
pub(super) struct Keyer(hmac::Key);

impl Keyer {
    /// With a random secret; `None` when the system gives none.
    pub fn new() -> Option<Self> {
        hmac::Key::generate(hmac::HMAC_SHA256, &aws_lc_rs::rand::SystemRandom::new())
            .ok()
            .map(Self)
    }

    /// The key of a question made of these parts.
    pub fn key(&self, parts: &[&[u8]]) -> Key {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&part.len().to_le_bytes());
            context.update(part);
        }
        let mut key = Key::default();
        for (to, from) in key.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        key
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unasked {
    /// As many different questions are under way as may be.
    #[error("too many checks are waiting")]
    Crowded,
    /// The process is going down.
    #[error("shutting down")]
    Stopping,
}

/// Answers by key, bounded in number.
pub(super) struct Cache<A>(Arc<Inner<A>>);

struct Inner<A> {
    max: usize,
    lifecycle: Lifecycle,
    state: Mutex<State<A>>,
    counts: Counts,
}

struct State<A> {
    entries: HashMap<Key, Entry<A>>,
    /// The keys of kept answers in the order in which their time is up; a number tells those of one instant apart.
    order: BTreeMap<(Instant, u64), Key>,
    next: u64,
    flying: usize,
}

enum Entry<A> {
    Flying(Arc<Flight>, Receiver<A>),
    Known { answer: A, until: (Instant, u64) },
}

/// A check under way: who still wants its answer. One that nobody wants any more ends, unless it was [`sent`](Self::sent).
pub(super) struct Flight {
    state: Mutex<Wanted>,
    abandoned: CancellationToken,
}

#[derive(Clone, Copy)]
enum Wanted {
    /// By so many; nothing was sent yet.
    By(usize),
    /// The question is out, and its answer will be worth keeping.
    Sent,
    /// Nobody was left.
    Abandoned,
}

/// Somebody who waits for a flight's answer.
struct Waiter(Arc<Flight>);

impl Flight {
    /// One more wants the answer; `None` when it was given up.
    fn join(self: &Arc<Self>) -> Option<Waiter> {
        let mut state = self.state.lock();
        match &mut *state {
            Wanted::By(waiters) => *waiters += 1,
            Wanted::Sent => {}
            Wanted::Abandoned => return None,
        }
        Some(Waiter(Arc::clone(self)))
    }

    /// To be called right before the question goes out: from here on the check runs to its end, whoever leaves. False
    /// when nobody wants to know any more.
    pub fn sent(&self) -> bool {
        let mut state = self.state.lock();
        if matches!(*state, Wanted::Abandoned) {
            return false;
        }
        *state = Wanted::Sent;
        true
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        if let Wanted::By(waiters) = &mut *state {
            *waiters -= 1;
            if *waiters == 0 {
                *state = Wanted::Abandoned;
                drop(state);
                self.0.abandoned.cancel();
            }
        }
    }
}

/// How questions were answered.
#[derive(Default)]
pub(super) struct Counts {
    /// From the cache.
    pub hits: AtomicU64,
    /// By a check that was under way for somebody else.
    pub joined: AtomicU64,
    /// By a check of their own.
    pub misses: AtomicU64,
    /// Answers that had to go before their time.
    pub evicted: AtomicU64,
    /// Not at all: too many were under way.
    pub crowded: AtomicU64,
}

impl<A: Clone + Send + Sync + 'static> Cache<A> {
    /// Holds at most `max` answers; checks run as tasks of `lifecycle`.
    pub fn new(max: usize, lifecycle: &Lifecycle) -> Self {
        Self(Arc::new(Inner {
            max: max.max(1),
            lifecycle: lifecycle.clone(),
            state: Mutex::new(State {
                entries: HashMap::new(),
                order: BTreeMap::new(),
                next: 0,
                flying: 0,
            }),
            counts: Counts::default(),
        }))
    }

    /// The answer that is known, or that of `check`, which says for how long it may be kept, if at all. The check runs
    /// on when whoever asks goes away, as long as others wait, or once it said so by [`Flight::sent`].
    pub async fn get<F>(&self, key: Key, check: impl FnOnce(Arc<Flight>) -> F) -> Result<A, Unasked>
    where
        F: Future<Output = (A, Option<Duration>)> + Send + 'static,
    {
        let (_waiter, answer, start) = match self.find(key)? {
            Found::Known(answer) => return Ok(answer),
            Found::Flying(waiter, answer) => (waiter, answer, None),
            Found::Nothing(waiter, answer, start) => (waiter, answer, Some(start)),
        };
        // Not under the lock: a runtime that is going down drops a task where it is spawned, and with it the landing.
        if let Some((landing, result)) = start {
            let check = check(Arc::clone(&landing.flight));
            self.launch(landing, check, result);
        }
        answer.await.map_err(|_dropped| Unasked::Stopping)
    }

    /// What there is for this key; nothing means that a check is in the table now and has to be launched.
    fn find(&self, key: Key) -> Result<Found<A>, Unasked> {
        let counts = &self.0.counts;
        let mut state = self.0.state.lock();
        let mut over = None;
        match state.entries.get(&key) {
            Some(Entry::Known { answer, until }) if Instant::now() < until.0 => {
                counts.hits.fetch_add(1, Ordering::Relaxed);
                return Ok(Found::Known(answer.clone()));
            }
            Some(Entry::Known { until, .. }) => over = Some(*until),
            Some(Entry::Flying(flight, answer)) => {
                if let Some(waiter) = flight.join() {
                    counts.joined.fetch_add(1, Ordering::Relaxed);
                    return Ok(Found::Flying(waiter, answer.clone()));
                }
            }
            None => {}
        }
        if state.flying >= self.0.max {
            counts.crowded.fetch_add(1, Ordering::Relaxed);
            return Err(Unasked::Crowded);
        }
        counts.misses.fetch_add(1, Ordering::Relaxed);
        if let Some(over) = over {
            state.order.remove(&over);
        }
        let flight = Arc::new(Flight {
            state: Mutex::new(Wanted::By(1)),
            abandoned: self.0.lifecycle.token().child_token(),
        });
        let waiter = Waiter(Arc::clone(&flight));
        let (result, answer) = oneshot::channel();
        let answer = answer.shared();
        let entry = Entry::Flying(Arc::clone(&flight), answer.clone());
        state.entries.insert(key, entry);
        state.flying += 1;
        let landing = Landing {
            inner: Arc::clone(&self.0),
            flight,
            key,
            known: None,
        };
        Ok(Found::Nothing(waiter, answer, (landing, result)))
    }

    fn launch(
        &self,
        landing: Landing<A>,
        check: impl Future<Output = (A, Option<Duration>)> + Send + 'static,
        result: oneshot::Sender<A>,
    ) {
        // Cancelled by a stop as well.
        let abandoned = landing.flight.abandoned.clone();
        self.0.lifecycle.spawn("access check", async move {
            let mut landing = landing;
            if let Some((answer, keep)) = abandoned.run_until_cancelled(check).await {
                landing.known = keep.map(|keep| (answer.clone(), keep));
                // First in the cache, then told: nobody in between asks again.
                drop(landing);
                // Everybody may have gone.
                drop(result.send(answer));
            }
        });
    }

    /// Answers held and checks under way.
    pub fn len(&self) -> usize {
        self.0.state.lock().entries.len()
    }

    pub fn counts(&self) -> &Counts {
        &self.0.counts
    }
}

type Receiver<A> = Shared<oneshot::Receiver<A>>;

/// What the table has for a key.
enum Found<A> {
    Known(A),
    Flying(Waiter, Receiver<A>),
    Nothing(Waiter, Receiver<A>, (Landing<A>, oneshot::Sender<A>)),
}

/// Takes a check out of the table, however it ended.
struct Landing<A> {
    inner: Arc<Inner<A>>,
    flight: Arc<Flight>,
    key: Key,
    known: Option<(A, Duration)>,
}

impl<A> Drop for Landing<A> {
    fn drop(&mut self) {
        let mut state = self.inner.state.lock();
        state.flying -= 1;
        match state.entries.get(&self.key) {
            Some(Entry::Flying(flight, _)) if Arc::ptr_eq(flight, &self.flight) => {
                state.entries.remove(&self.key);
            }
            // It was abandoned, and somebody who came later has another.
            _ => return,
        }
        if let Some((answer, keep)) = self.known.take() {
            let until = (Instant::now() + keep, state.next);
            state.next += 1;
            let entry = Entry::Known { answer, until };
            state.entries.insert(self.key, entry);
            state.order.insert(until, self.key);
            let evicted = state.trim(self.inner.max);
            self.inner
                .counts
                .evicted
                .fetch_add(evicted, Ordering::Relaxed);
        }
    }
}

impl<A> State<A> {
    /// Forgets what is over, and what will be first until no more than `max` are left. Returns how many went before their
    /// time.
    fn trim(&mut self, max: usize) -> u64 {
        let (now, mut evicted) = (Instant::now(), 0);
        while let Some((&(until, number), key)) = self.order.first_key_value() {
            let over = until <= now;
            if !over && self.order.len() <= max {
                break;
            }
            self.entries.remove(key);
            evicted += u64::from(!over);
            self.order.remove(&(until, number));
        }
        evicted
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    const KEEP: Option<Duration> = Some(Duration::from_secs(30));

    fn key(byte: u8) -> Key {
        [byte; 32]
    }

    #[test]
    fn keys_differ_by_part_and_by_process() {
        let (one, other) = (Keyer::new().unwrap(), Keyer::new().unwrap());
        assert_eq!(one.key(&[b"ab", b"c"]), one.key(&[b"ab", b"c"]));
        assert_ne!(one.key(&[b"ab", b"c"]), one.key(&[b"a", b"bc"]));
        assert_ne!(one.key(&[b"a"]), other.key(&[b"a"]));
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_at_once_cause_one_check_that_outlives_the_first_of_them() {
        let lifecycle = Lifecycle::new();
        let cache = Arc::new(Cache::new(10, &lifecycle));
        let checks = Arc::new(AtomicUsize::new(0));
        let ask = || {
            let (cache, checks) = (Arc::clone(&cache), Arc::clone(&checks));
            tokio::spawn(async move {
                cache
                    .get(key(1), |_| async move {
                        checks.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_secs(2)).await;
                        ("yes", KEEP)
                    })
                    .await
            })
        };
        let first = ask();
        tokio::task::yield_now().await;
        let others: Vec<_> = (0..50).map(|_| ask()).collect();
        tokio::task::yield_now().await;
        first.abort();
        for other in others {
            assert_eq!(other.await.unwrap(), Ok("yes"));
        }
        assert_eq!(ask().await.unwrap(), Ok("yes"));
        assert_eq!(checks.load(Ordering::Relaxed), 1);
        let counts = cache.counts();
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        assert_eq!(
            (
                read(&counts.misses),
                read(&counts.joined),
                read(&counts.hits)
            ),
            (1, 50, 1)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn answers_expire_and_those_without_a_time_are_not_kept() {
        let lifecycle = Lifecycle::new();
        let cache = Cache::new(10, &lifecycle);
        let ask = |keep| cache.get(key(1), move |_| async move { (Instant::now(), keep) });
        let first = ask(KEEP).await.unwrap();
        tokio::time::advance(Duration::from_secs(29)).await;
        assert_eq!(ask(None).await, Ok(first));
        tokio::time::advance(Duration::from_secs(1)).await;
        let second = ask(None).await.unwrap();
        assert_ne!(second, first);
        assert_eq!(cache.len(), 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_ne!(ask(None).await, Ok(second));
    }

    #[tokio::test]
    async fn a_check_that_nobody_wants_ends_unless_the_question_is_out() {
        let lifecycle = Lifecycle::new();
        let cache = Arc::new(Cache::new(10, &lifecycle));
        let (started, mut starts) = tokio::sync::mpsc::channel(10);
        let ask = |sent: bool| {
            let (cache, started) = (Arc::clone(&cache), started.clone());
            tokio::spawn(async move {
                let check = |flight: Arc<Flight>| async move {
                    assert!(!sent || flight.sent());
                    let (answer, answered) = oneshot::channel();
                    started.send(answer).await.unwrap();
                    (answered.await.unwrap(), KEEP)
                };
                cache.get(key(1), check).await
            })
        };
        // Two wait and one leaves: it goes on. Then the other leaves, too.
        let first = ask(false);
        let mut answer = starts.recv().await.unwrap();
        let second = ask(false);
        while cache.counts().joined.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        tokio::task::yield_now().await;
        assert!(!answer.is_closed());
        second.abort();
        tokio::time::timeout(Duration::from_secs(10), answer.closed())
            .await
            .unwrap();
        // Whoever comes now has a check of their own, and so it is kept when it was sent.
        let third = ask(true);
        let answer = starts.recv().await.unwrap();
        third.abort();
        assert!(third.await.unwrap_err().is_cancelled());
        answer.send(3).unwrap();
        while !matches!(
            cache.0.state.lock().entries.get(&key(1)),
            Some(Entry::Known { answer: 3, .. })
        ) {
            tokio::task::yield_now().await;
        }
        assert_eq!(ask(true).await.unwrap(), Ok(3));
        assert_eq!(cache.0.state.lock().flying, 0);
    }

    #[test]
    fn a_runtime_that_has_gone_is_no_answer_and_no_deadlock() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let handle = runtime.handle().clone();
        // Waits: until its workers have ended, a runtime may still take a task.
        runtime.shutdown_timeout(Duration::from_secs(10));
        let (told, answer) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let _entered = handle.enter();
            let lifecycle = Lifecycle::new();
            let cache = Cache::<u8>::new(10, &lifecycle);
            let asked = cache.get(key(1), |_| std::future::pending());
            told.send((asked.now_or_never(), cache.len())).unwrap();
        });
        let answer = answer.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(answer, (Some(Err(Unasked::Stopping)), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn denials_that_are_over_do_not_push_out_what_is_in_force() {
        let lifecycle = Lifecycle::new();
        let cache = Cache::new(3, &lifecycle);
        cache.get(key(0), |_| async { (0, KEEP) }).await.unwrap();
        let short = Some(Duration::from_secs(5));
        for byte in 1..20 {
            cache
                .get(key(byte), move |_| async move { (byte, short) })
                .await
                .unwrap();
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let again = cache.get(key(0), |_| async { (99, None) });
        assert_eq!(again.await, Ok(0));
        assert_eq!(cache.len(), 3);
    }

    #[tokio::test]
    async fn the_oldest_answers_make_room() {
        let lifecycle = Lifecycle::new();
        let cache = Cache::new(3, &lifecycle);
        for byte in 0..5 {
            cache
                .get(key(byte), move |_| async move { (byte, KEEP) })
                .await
                .unwrap();
        }
        assert_eq!(cache.len(), 3);
        assert_eq!(cache.counts().evicted.load(Ordering::Relaxed), 2);
        let again = |byte| cache.get(key(byte), |_| async { (99, None) });
        assert_eq!(again(4).await, Ok(4));
        assert_eq!(again(0).await, Ok(99));
    }

    #[tokio::test]
    async fn questions_under_way_are_bounded_and_a_stop_ends_them() {
        let lifecycle = Lifecycle::new();
        let cache = Arc::new(Cache::<u8>::new(1, &lifecycle));
        let hanging = {
            let cache = Arc::clone(&cache);
            tokio::spawn(async move { cache.get(key(1), |_| std::future::pending()).await })
        };
        while cache.len() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(
            cache.get(key(2), |_| async { (2, KEEP) }).await,
            Err(Unasked::Crowded)
        );
        lifecycle.shutdown(Duration::from_secs(5)).await;
        assert_eq!(hanging.await.unwrap(), Err(Unasked::Stopping));
        assert_eq!(cache.len(), 0);
    }
}
