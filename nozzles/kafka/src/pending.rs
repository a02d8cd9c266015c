//! Batches whose records are with the client.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use loggregator_nozzle::{Event, Outcome};
use rdkafka::error::RDKafkaErrorCode as Code;
use tokio::sync::Notify;

use crate::outcome;
use crate::topic::Topic;

/// A batch that is handed to the client, and then with it. Delivery reports fill it in.
#[derive(Debug)]
pub(crate) struct Pending {
    items: Vec<Item>,
    /// Events, from the first one on, that were handed over or decided.
    handed: AtomicUsize,
    /// Events that are not decided.
    left: AtomicUsize,
    done: Notify,
}

/// One event. It is decided when all its records are reported and it is handed over.
#[derive(Debug)]
struct Item {
    seq: u64,
    /// Records that are still to be reported, and one more until the event is handed over.
    left: AtomicU32,
    /// What it came to, if not to delivery: the first thing that went wrong.
    wrong: OnceLock<Outcome>,
}

/// What a record carries through the client, so that its report finds its event.
#[derive(Debug)]
pub(crate) struct Ticket {
    pending: Arc<Pending>,
    topic: Arc<Topic>,
    item: usize,
}

impl Pending {
    /// For these events.
    pub(crate) fn new(events: &[&Event]) -> Arc<Pending> {
        let item = |event: &&Event| Item {
            seq: event.seq,
            left: AtomicU32::new(1),
            wrong: OnceLock::new(),
        };
        Arc::new(Pending {
            items: events.iter().map(item).collect(),
            handed: AtomicUsize::new(0),
            left: AtomicUsize::new(events.len()),
            done: Notify::new(),
        })
    }

    /// A ticket for one more record of the event at this place.
    pub(crate) fn ticket(self: &Arc<Pending>, item: usize, topic: &Arc<Topic>) -> Box<Ticket> {
        if let Some(item) = self.items.get(item) {
            item.left.fetch_add(1, Ordering::Relaxed);
        }
        Box::new(Ticket {
            pending: Arc::clone(self),
            topic: Arc::clone(topic),
            item,
        })
    }

    /// The event at this place is handed over; the next one follows.
    pub(crate) fn handed_over(&self, item: usize) {
        self.handed.store(item + 1, Ordering::Release);
        self.settle_one(item);
    }

    /// The event at this place comes to this, whatever its records come to.
    pub(crate) fn decide(&self, item: usize, outcome: Outcome) {
        if let Some(item) = self.items.get(item) {
            // The first thing that went wrong stays.
            item.wrong.set(outcome).ok();
        }
    }

    /// Where the event of this number stands in it, if it was handed over.
    pub(crate) fn find(&self, seq: u64) -> Option<usize> {
        let handed = self.items.get(..self.handed.load(Ordering::Acquire))?;
        handed.binary_search_by_key(&seq, |item| item.seq).ok()
    }

    /// Number of the last event.
    pub(crate) fn last(&self) -> u64 {
        self.items.last().map_or(0, |item| item.seq)
    }

    /// What became of the event at this place; nothing while that is not known.
    pub(crate) fn outcome(&self, item: usize) -> Option<Outcome> {
        let item = self.items.get(item)?;
        if item.left.load(Ordering::Acquire) > 0 {
            return None;
        }
        Some(item.wrong.get().cloned().unwrap_or(Outcome::Delivered))
    }

    /// Waits until every event that was handed over is decided. All must have been handed over.
    pub(crate) async fn wait(&self) {
        loop {
            let done = self.done.notified();
            tokio::pin!(done);
            done.as_mut().enable();
            if self.left.load(Ordering::Acquire) == 0 {
                return;
            }
            done.await;
        }
    }

    fn settle_one(&self, item: usize) {
        let Some(item) = self.items.get(item) else {
            return;
        };
        if item.left.fetch_sub(1, Ordering::AcqRel) == 1
            && self.left.fetch_sub(1, Ordering::AcqRel) == 1
        {
            self.done.notify_waiters();
        }
    }
}

impl Ticket {
    /// The record's report.
    pub(crate) fn report(&self, code: Code) {
        match outcome::of_report(code, &self.topic.name) {
            Outcome::Delivered => {
                self.topic.delivered.fetch_add(1, Ordering::Relaxed);
            }
            other => self.pending.decide(self.item, other),
        }
        self.pending.settle_one(self.item);
    }

    /// The record is not with the client and will not be.
    pub(crate) fn withdraw(&self) {
        self.pending.settle_one(self.item);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use bytes::Bytes;
    use loggregator_nozzle::Reason;

    use super::*;

    fn topic() -> Arc<Topic> {
        Arc::new(Topic {
            name: "t".to_owned(),
            delivered: AtomicU64::new(0),
        })
    }

    fn pending(seqs: &[u64]) -> Arc<Pending> {
        let events: Vec<Event> = seqs
            .iter()
            .map(|seq| Event::new(*seq, 0, Bytes::new()))
            .collect();
        Pending::new(&events.iter().collect::<Vec<_>>())
    }

    #[tokio::test]
    async fn an_event_is_decided_with_its_last_record() {
        let (topic, pending) = (topic(), pending(&[5, 9]));
        let tickets = [pending.ticket(0, &topic), pending.ticket(0, &topic)];
        pending.handed_over(0);
        tickets[0].report(Code::NoError);
        assert_eq!(pending.outcome(0), None);
        tickets[1].report(Code::TopicAuthorizationFailed);
        assert!(matches!(pending.outcome(0), Some(Outcome::Rejected(_))));
        assert_eq!(topic.delivered.load(Ordering::Relaxed), 1);
        pending.decide(1, Outcome::Oversize(Reason::new("large", "")));
        pending.handed_over(1);
        pending.wait().await;
        assert!(matches!(pending.outcome(1), Some(Outcome::Oversize(_))));
    }

    #[test]
    fn only_what_was_handed_over_is_found() {
        let pending = pending(&[5, 9, 12]);
        assert_eq!(pending.find(5), None);
        pending.handed_over(0);
        pending.handed_over(1);
        assert_eq!((pending.find(5), pending.find(9)), (Some(0), Some(1)));
        assert_eq!((pending.find(7), pending.find(12)), (None, None));
        assert_eq!(pending.last(), 12);
    }
}
