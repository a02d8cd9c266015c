//! Who waits for the next frame.

use std::task::Waker;

use crate::sync::Mutex;

/// The readers that found nothing to read.
///
/// A reader that is not waiting costs the writer nothing, and sixteen that are cost one drained list. The order that
/// makes a lost wake-up impossible: the reader registers and **then looks again**; the writer publishes and **then
/// drains the list**. Both pass through the same lock, so either the writer finds the reader there, or the reader's
/// second look comes after what the writer published.
#[derive(Default)]
pub struct WaitList {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// How often the list was drained.
    drained: u64,
    wakers: Vec<Waker>,
}

/// A reader's own note of having registered, so that asking again costs no search.
#[derive(Debug, Default)]
pub struct Ticket {
    registered: Option<(u64, Waker)>,
}

impl WaitList {
    /// Asks to be woken at the next [`Self::wake_all`]. The caller must look for news once more afterwards.
    pub fn register(&self, waker: &Waker, ticket: &mut Ticket) {
        let mut waiting = self.waiting.lock();
        match &mut ticket.registered {
            Some((drained, known)) if known.will_wake(waker) => {
                if *drained == waiting.drained {
                    return;
                }
                *drained = waiting.drained;
            }
            registered => *registered = Some((waiting.drained, waker.clone())),
        }
        waiting.wakers.push(waker.clone());
    }

    /// Wakes everybody who registered since the last call. To be called after the news was published.
    pub fn wake_all(&self) {
        let woken = {
            let mut waiting = self.waiting.lock();
            if waiting.wakers.is_empty() {
                return;
            }
            waiting.drained += 1;
            std::mem::take(&mut waiting.wakers)
        };
        for waker in woken {
            waker.wake();
        }
    }
}

impl std::fmt::Debug for WaitList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WaitList")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn wakes_each_registered_reader_once() {
        let list = WaitList::default();
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        list.wake_all();
        assert_eq!(count.0.load(Ordering::Acquire), 0, "nobody had asked");
        let mut ticket = Ticket::default();
        list.register(&waker, &mut ticket);
        list.register(&waker, &mut ticket);
        list.wake_all();
        assert_eq!(
            count.0.load(Ordering::Acquire),
            1,
            "registering twice is one wake-up"
        );
        list.wake_all();
        assert_eq!(count.0.load(Ordering::Acquire), 1, "a wake-up is used up");
        list.register(&waker, &mut ticket);
        list.wake_all();
        assert_eq!(
            count.0.load(Ordering::Acquire),
            2,
            "it can be asked for again"
        );
    }
}

/// Explored by `RUSTFLAGS="--cfg loom" cargo test -p loggregator-log --release`.
#[cfg(all(test, loom))]
mod model {
    use std::sync::Arc as StdArc;
    use std::task::Wake;

    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: StdArc<Self>) {
            self.0.store(true, Ordering::Release);
        }
    }

    #[test]
    fn a_reader_never_sleeps_through_news() {
        loom::model(|| {
            let list = Arc::new(WaitList::default());
            let head = Arc::new(AtomicUsize::new(0));
            let flag = StdArc::new(Flag(AtomicBool::new(false)));
            let writer = {
                let (list, head) = (list.clone(), head.clone());
                loom::thread::spawn(move || {
                    head.store(1, Ordering::Release);
                    list.wake_all();
                })
            };
            let waker = Waker::from(flag.clone());
            let mut seen = head.load(Ordering::Acquire);
            if seen == 0 {
                list.register(&waker, &mut Ticket::default());
                seen = head.load(Ordering::Acquire);
            }
            writer.join().unwrap();
            assert!(
                seen == 1 || flag.0.load(Ordering::Acquire),
                "neither saw the news nor was woken"
            );
        });
    }
}
