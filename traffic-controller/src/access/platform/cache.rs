//! Answers that hold for a while, and one question for all who ask the same at the same time.

use std::collections::{HashMap, VecDeque};
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
    /// Kept answers in the order in which they came, with their number; some are no longer in force.
    order: VecDeque<(Key, u64)>,
    next: u64,
    flying: usize,
}

enum Entry<A> {
    Flying(Shared<oneshot::Receiver<A>>),
    Known {
        answer: A,
        until: Instant,
        number: u64,
    },
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
                order: VecDeque::new(),
                next: 0,
                flying: 0,
            }),
            counts: Counts::default(),
        }))
    }

    /// The answer that is known, or that of `check`, which says for how long it may be kept, if at all. The check runs
    /// on when whoever asks goes away: others may be waiting.
    pub async fn get<F>(&self, key: Key, check: impl FnOnce() -> F) -> Result<A, Unasked>
    where
        F: Future<Output = (A, Option<Duration>)> + Send + 'static,
    {
        let counts = &self.0.counts;
        let flight = {
            let mut state = self.0.state.lock();
            match state.entries.get(&key) {
                Some(Entry::Known { answer, until, .. }) if Instant::now() < *until => {
                    counts.hits.fetch_add(1, Ordering::Relaxed);
                    return Ok(answer.clone());
                }
                Some(Entry::Flying(flight)) => {
                    counts.joined.fetch_add(1, Ordering::Relaxed);
                    flight.clone()
                }
                _ if state.flying >= self.0.max => {
                    counts.crowded.fetch_add(1, Ordering::Relaxed);
                    return Err(Unasked::Crowded);
                }
                _ => {
                    counts.misses.fetch_add(1, Ordering::Relaxed);
                    let (result, flight) = oneshot::channel();
                    let flight = flight.shared();
                    state.entries.insert(key, Entry::Flying(flight.clone()));
                    state.flying += 1;
                    self.launch(key, check(), result);
                    flight
                }
            }
        };
        flight.await.map_err(|_dropped| Unasked::Stopping)
    }

    fn launch(
        &self,
        key: Key,
        check: impl Future<Output = (A, Option<Duration>)> + Send + 'static,
        result: oneshot::Sender<A>,
    ) {
        let landing = Landing {
            inner: Arc::clone(&self.0),
            key,
            known: None,
        };
        let stop = self.0.lifecycle.token();
        self.0.lifecycle.spawn("access check", async move {
            let mut landing = landing;
            if let Some((answer, keep)) = stop.run_until_cancelled(check).await {
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

/// Takes a check out of the table, however it ended.
struct Landing<A> {
    inner: Arc<Inner<A>>,
    key: Key,
    known: Option<(A, Duration)>,
}

impl<A> Drop for Landing<A> {
    fn drop(&mut self) {
        let mut state = self.inner.state.lock();
        state.flying -= 1;
        state.entries.remove(&self.key);
        if let Some((answer, keep)) = self.known.take() {
            let number = state.next;
            state.next += 1;
            let until = Instant::now() + keep;
            let entry = Entry::Known {
                answer,
                until,
                number,
            };
            state.entries.insert(self.key, entry);
            state.order.push_back((self.key, number));
            let evicted = state.trim(self.inner.max);
            self.inner
                .counts
                .evicted
                .fetch_add(evicted, Ordering::Relaxed);
        }
    }
}

impl<A> State<A> {
    /// Forgets what is over, and the oldest until no more than `max` are left. Returns how many went before their time.
    fn trim(&mut self, max: usize) -> u64 {
        let (now, mut evicted) = (Instant::now(), 0);
        while let Some((key, number)) = self.order.front() {
            let until = match self.entries.get(key) {
                Some(Entry::Known {
                    until, number: has, ..
                }) if has == number => Some(*until),
                _ => None,
            };
            let over = until.is_none_or(|until| until <= now);
            if !over && self.order.len() <= max {
                break;
            }
            if until.is_some() {
                self.entries.remove(key);
            }
            evicted += u64::from(!over);
            self.order.pop_front();
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
                    .get(key(1), || async move {
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
        let ask = |keep| cache.get(key(1), move || async move { (Instant::now(), keep) });
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
    async fn the_oldest_answers_make_room() {
        let lifecycle = Lifecycle::new();
        let cache = Cache::new(3, &lifecycle);
        for byte in 0..5 {
            cache
                .get(key(byte), move || async move { (byte, KEEP) })
                .await
                .unwrap();
        }
        assert_eq!(cache.len(), 3);
        assert_eq!(cache.counts().evicted.load(Ordering::Relaxed), 2);
        let again = |byte| cache.get(key(byte), || async { (99, None) });
        assert_eq!(again(4).await, Ok(4));
        assert_eq!(again(0).await, Ok(99));
    }

    #[tokio::test]
    async fn questions_under_way_are_bounded_and_a_stop_ends_them() {
        let lifecycle = Lifecycle::new();
        let cache = Arc::new(Cache::<u8>::new(1, &lifecycle));
        let hanging = {
            let cache = Arc::clone(&cache);
            tokio::spawn(async move { cache.get(key(1), std::future::pending).await })
        };
        while cache.len() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(
            cache.get(key(2), || async { (2, KEEP) }).await,
            Err(Unasked::Crowded)
        );
        lifecycle.shutdown(Duration::from_secs(5)).await;
        assert_eq!(hanging.await.unwrap(), Err(Unasked::Stopping));
        assert_eq!(cache.len(), 0);
    }
}
