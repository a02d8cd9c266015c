//! Who waits for the next frame.

use std::task::Waker;

use crate::sync::{AtomicBool, Mutex, Ordering};

/// The readers that found nothing to read.
///
/// A reader that is not waiting costs the writer nothing, and sixteen that are cost one drained list. The order that
/// makes a lost wake-up impossible: the reader registers and **then looks again**; the writer publishes and **then
/// asks whether anybody registered**. Both sides use sequentially consistent operations, so at least one of them sees
/// the other. The published value must therefore be written and read with [`Ordering::SeqCst`] too.
#[derive(Debug)]
pub struct WaitList {
    any: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
}

impl Default for WaitList {
    fn default() -> Self {
        Self {
            any: AtomicBool::new(false),
            wakers: Mutex::new(Vec::new()),
        }
    }
}

#[cfg(loom)]
impl<T> std::fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mutex")
    }
}

impl WaitList {
    /// Asks to be woken at the next [`Self::wake_all`]. The caller must look for news once more afterwards.
    pub fn register(&self, waker: &Waker) {
        let mut wakers = self.wakers.lock();
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
        self.any.store(true, Ordering::SeqCst);
    }

    /// Wakes everybody who registered since the last call. To be called after the news was published.
    pub fn wake_all(&self) {
        if !self.any.load(Ordering::SeqCst) {
            return;
        }
        let woken = {
            let mut wakers = self.wakers.lock();
            self.any.store(false, Ordering::SeqCst);
            std::mem::take(&mut *wakers)
        };
        for waker in woken {
            waker.wake();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn wakes_each_registered_reader_once() {
        let list = WaitList::default();
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        list.wake_all();
        assert_eq!(count.0.load(Ordering::SeqCst), 0, "nobody had asked");
        list.register(&waker);
        list.register(&waker);
        list.wake_all();
        assert_eq!(
            count.0.load(Ordering::SeqCst),
            1,
            "registering twice is one wake-up"
        );
        list.wake_all();
        assert_eq!(count.0.load(Ordering::SeqCst), 1, "a wake-up is used up");
    }
}

/// Explored by `RUSTFLAGS="--cfg loom" cargo test -p loggregator-log --release`.
#[cfg(all(test, loom))]
mod model {
    use std::sync::Arc as StdArc;
    use std::task::Wake;

    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool as LoomBool, AtomicUsize};

    use super::*;

    struct Flag(LoomBool);

    impl Wake for Flag {
        fn wake(self: StdArc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_reader_never_sleeps_through_news() {
        loom::model(|| {
            let list = Arc::new(WaitList::default());
            let head = Arc::new(AtomicUsize::new(0));
            let flag = StdArc::new(Flag(LoomBool::new(false)));
            let writer = {
                let (list, head) = (list.clone(), head.clone());
                loom::thread::spawn(move || {
                    head.store(1, Ordering::SeqCst);
                    list.wake_all();
                })
            };
            let waker = Waker::from(flag.clone());
            let mut seen = head.load(Ordering::SeqCst);
            if seen == 0 {
                list.register(&waker);
                seen = head.load(Ordering::SeqCst);
            }
            writer.join().unwrap();
            assert!(
                seen == 1 || flag.0.load(Ordering::SeqCst),
                "neither saw the news nor was woken"
            );
        });
    }
}
