//! Whose turn it is: batches go out in the order of their events, also when some of them have to go again.
//!
//! Several batches are on their way at a time. When a connection breaks, those that were not confirmed go again: the oldest is
//! handed back to the framework, which waits and tries again, and the others wait here until it is back. So what is sent
//! for the first time is always sent in order.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// How long a batch that was handed back is waited for. It may never come: its events may have been given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A batch, as far as its turn is concerned.
pub(crate) trait Turn {
    /// Numbers of its first and its last event.
    fn events(&self) -> (u64, u64);
    /// Nobody waits for it any more.
    fn abandoned(&self) -> bool;
}

/// Batches that wait, and those that are waited for.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    waiting: BTreeMap<u64, T>,
    /// Handed back: first event, last event, since when.
    away: BTreeMap<u64, (u64, Instant)>,
}

impl<T: Turn> Queue<T> {
    pub fn new() -> Queue<T> {
        Queue {
            waiting: BTreeMap::new(),
            away: BTreeMap::new(),
        }
    }

    /// Takes a batch in.
    pub fn add(&mut self, batch: T) {
        let (first, last) = batch.events();
        self.away
            .retain(|from, (to, _)| *from > last || *to < first);
        self.waiting.insert(first, batch);
    }

    /// Takes batches of a broken connection back in; the first of them is returned, to be handed back.
    pub fn take_back(&mut self, batches: VecDeque<T>, now: Instant) -> Option<T> {
        let mut batches = batches.into_iter();
        let first = batches.next();
        if let Some(first) = &first {
            self.handed_back(first, now);
        }
        self.waiting
            .extend(batches.map(|batch| (batch.events().0, batch)));
        first
    }

    /// Notes that a batch was handed back and will come again.
    pub fn handed_back(&mut self, batch: &T, now: Instant) {
        let (first, last) = batch.events();
        self.away.insert(first, (last, now));
    }

    /// The next batch, if it may go.
    pub fn next(&mut self, now: Instant) -> Option<T> {
        while let Some(entry) = self.waiting.first_entry() {
            if !entry.get().abandoned() {
                break;
            }
            let batch = entry.remove();
            self.handed_back(&batch, now);
        }
        self.away
            .retain(|_, (_, since)| now.duration_since(*since) < PATIENCE);
        let (first, _) = self.waiting.first_key_value()?;
        if self.away.range(..first).next().is_some() {
            return None;
        }
        self.waiting.pop_first().map(|(_, batch)| batch)
    }

    /// When [`next`](Queue::next) may answer differently although nothing was added.
    pub fn look_again(&self) -> Option<Instant> {
        if self.waiting.is_empty() {
            return None;
        }
        self.away.values().map(|(_, since)| *since + PATIENCE).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Batch(u64, u64, bool);

    impl Turn for Batch {
        fn events(&self) -> (u64, u64) {
            (self.0, self.1)
        }
        fn abandoned(&self) -> bool {
            self.2
        }
    }

    fn batch(first: u64, last: u64) -> Batch {
        Batch(first, last, false)
    }

    fn next(queue: &mut Queue<Batch>, now: Instant) -> Option<u64> {
        queue.next(now).map(|batch| batch.0)
    }

    #[test]
    fn after_a_break_the_oldest_goes_first() {
        let (mut queue, now) = (Queue::new(), Instant::now());
        let sent = VecDeque::from([batch(0, 9), batch(10, 19), batch(20, 29)]);
        assert_eq!(queue.take_back(sent, now).map(|b| b.0), Some(0));
        queue.add(batch(30, 39));
        assert_eq!(next(&mut queue, now), None);
        // It may come back in pieces, and cut in another way.
        queue.add(batch(3, 6));
        let order: Vec<_> = std::iter::from_fn(|| next(&mut queue, now)).collect();
        assert_eq!(order, [3, 10, 20, 30]);
    }

    #[test]
    fn a_batch_nobody_waits_for_comes_again() {
        let (mut queue, now) = (Queue::new(), Instant::now());
        queue.add(Batch(0, 9, true));
        queue.add(batch(10, 19));
        assert_eq!(next(&mut queue, now), None);
        queue.add(batch(0, 9));
        assert_eq!(next(&mut queue, now), Some(0));
        assert_eq!(next(&mut queue, now), Some(10));
    }

    #[test]
    fn a_batch_that_never_comes_is_not_waited_for_for_ever() {
        let (mut queue, now) = (Queue::new(), Instant::now());
        queue.handed_back(&batch(0, 9), now);
        assert_eq!(queue.look_again(), None);
        queue.add(batch(10, 19));
        let later = queue.look_again().unwrap();
        assert_eq!(later, now + PATIENCE);
        assert_eq!(next(&mut queue, later - Duration::from_nanos(1)), None);
        assert_eq!(next(&mut queue, later), Some(10));
    }
}
