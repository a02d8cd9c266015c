//! What became of every envelope: the ledger of the traffic controller.
//!
//! An envelope counts as *received* when its batch was taken from a doppler's stream, as *delivered* when its last byte was
//! taken by the client's connection, and as *dropped*, with the reason for which the connection ended, when it was received
//! and never delivered. While a connection is open nothing is dropped here: a client that falls behind stops the reading
//! from the dopplers, and they count what they let go.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use loggregator_service::ledger::{Ingress, Report, Source, Subscription};
use parking_lot::Mutex;

use crate::relay::End;

/// The reason under which batches are refused that are not well-formed messages. Each counts as one envelope.
const MALFORMED: &str = "malformed_batch";

/// The `api` of every subscription here.
const API: &str = "websocket";

/// Which of the two kinds of stream a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `/firehose/{subscription-id}`.
    Firehose,
    /// `/apps/{app-id}/stream`.
    Stream,
}

impl Endpoint {
    pub(crate) const ALL: [Self; 2] = [Self::Firehose, Self::Stream];

    /// As in the labels and tags of metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Firehose => "firehose",
            Self::Stream => "stream",
        }
    }
}

/// Sums of one endpoint over the life of the process.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    pub(crate) egress: AtomicU64,
    pub(crate) egress_bytes: AtomicU64,
    pub(crate) dropped: [AtomicU64; End::ALL.len()],
    pub(crate) ended: [AtomicU64; End::ALL.len()],
    pub(crate) slow_consumers: AtomicU64,
    /// Clients that are connected now.
    pub(crate) clients: AtomicU64,
}

/// Sums over the life of the process.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) ingress: AtomicU64,
    pub(crate) malformed_batches: AtomicU64,
    endpoints: [Sums; 2],
}

impl Totals {
    pub(crate) fn of(&self, endpoint: Endpoint) -> &Sums {
        &self.endpoints[endpoint as usize]
    }
}

/// Who a subscription is, for the ledger.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// The subscription id, or the application's id.
    pub(crate) id: String,
    /// The client's address.
    pub(crate) peer: String,
    /// What it asked for.
    pub(crate) selector: String,
    /// Where it asked.
    pub(crate) endpoint: Endpoint,
}

/// The account of one open subscription. Written by its relay, once per batch; dropping it closes the account.
#[derive(Debug)]
pub(crate) struct Account {
    key: u64,
    identity: Identity,
    counts: Arc<Counts>,
    accounts: Arc<Accounts>,
    end: End,
}

#[derive(Debug, Default)]
struct Counts {
    received: AtomicU64,
    delivered: AtomicU64,
    /// Of `received`, what was taken from each doppler.
    from: Mutex<BTreeMap<Arc<str>, u64>>,
}

impl Account {
    /// Envelopes were taken from a doppler.
    pub(crate) fn received_from(&self, doppler: &Arc<str>, envelopes: u64) {
        self.received(envelopes);
        let mut from = self.counts.from.lock();
        match from.get_mut(doppler) {
            Some(count) => *count += envelopes,
            None => {
                from.insert(Arc::clone(doppler), envelopes);
            }
        }
    }

    /// Envelopes came from the dopplers.
    pub(crate) fn received(&self, envelopes: u64) {
        self.counts.received.fetch_add(envelopes, Ordering::Release);
        self.accounts
            .totals
            .ingress
            .fetch_add(envelopes, Ordering::Relaxed);
    }

    /// Envelopes went to the client.
    pub(crate) fn delivered(&self, envelopes: u64, bytes: u64) {
        self.counts
            .delivered
            .fetch_add(envelopes, Ordering::Release);
        let sums = self.sums();
        sums.egress.fetch_add(envelopes, Ordering::Relaxed);
        sums.egress_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A batch was not a well-formed message.
    pub(crate) fn malformed_batch(&self) {
        self.accounts
            .totals
            .malformed_batches
            .fetch_add(1, Ordering::Relaxed);
    }

    /// The client was found not to read.
    pub(crate) fn slow_consumer(&self) {
        self.sums().slow_consumers.fetch_add(1, Ordering::Relaxed);
    }

    /// How the connection ended: the reason for what is not delivered.
    pub(crate) fn ended(&mut self, end: End) {
        self.end = end;
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    fn sums(&self) -> &Sums {
        self.accounts.totals.of(self.identity.endpoint)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let mut line = line(&self.identity, &self.counts, false);
        let sums = self.sums();
        if line.pending > 0 {
            sums.dropped[self.end as usize].fetch_add(line.pending, Ordering::Relaxed);
            line.dropped
                .insert(self.end.name().to_owned(), line.pending);
            line.pending = 0;
        }
        sums.ended[self.end as usize].fetch_add(1, Ordering::Relaxed);
        sums.clients.fetch_sub(1, Ordering::Relaxed);
        self.accounts.book.lock().close(self.key, line);
    }
}

/// All accounts of the process.
#[derive(Debug)]
pub(crate) struct Accounts {
    instance: String,
    pub(crate) totals: Totals,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    next: u64,
    open: HashMap<u64, (Identity, Arc<Counts>)>,
    /// The latest that were closed, newest last.
    closed: VecDeque<Subscription>,
    closed_kept: usize,
    /// The sum of those that are not kept one by one any more.
    older: Option<Subscription>,
}

impl Book {
    fn close(&mut self, key: u64, line: Subscription) {
        self.open.remove(&key);
        self.closed.push_back(line);
        while self.closed.len() > self.closed_kept {
            let Some(line) = self.closed.pop_front() else {
                break;
            };
            let sum = self.older.get_or_insert_with(|| Subscription {
                id: "(earlier)".to_owned(),
                api: API.to_owned(),
                ..Subscription::default()
            });
            sum.received += line.received;
            sum.delivered += line.delivered;
            for (reason, envelopes) in line.dropped {
                *sum.dropped.entry(reason).or_default() += envelopes;
            }
        }
    }
}

impl Accounts {
    /// Accounts of the process that listens at `instance`; of the closed ones, the last `closed_kept` stay listed one by
    /// one and the others as their sum.
    pub(crate) fn new(instance: String, closed_kept: usize) -> Arc<Self> {
        let book = Mutex::new(Book {
            closed_kept,
            ..Book::default()
        });
        Arc::new(Self {
            instance,
            totals: Totals::default(),
            book,
        })
    }

    /// Opens an account.
    pub(crate) fn open(self: &Arc<Self>, identity: Identity) -> Account {
        let counts = Arc::new(Counts::default());
        let mut book = self.book.lock();
        let key = book.next;
        book.next += 1;
        book.open
            .insert(key, (identity.clone(), Arc::clone(&counts)));
        self.totals
            .of(identity.endpoint)
            .clients
            .fetch_add(1, Ordering::Relaxed);
        Account {
            key,
            identity,
            counts,
            accounts: Arc::clone(self),
            end: End::Stopped,
        }
    }
}

fn line(identity: &Identity, counts: &Counts, open: bool) -> Subscription {
    // Read in this order an envelope that moves meanwhile shows as pending, never as lost.
    let delivered = counts.delivered.load(Ordering::Acquire);
    let received = counts.received.load(Ordering::Acquire);
    Subscription {
        id: identity.id.clone(),
        peer: identity.peer.clone(),
        selector: identity.selector.clone(),
        api: API.to_owned(),
        open,
        received,
        delivered,
        pending: received.saturating_sub(delivered),
        from: counts
            .from
            .lock()
            .iter()
            .map(|(doppler, count)| (doppler.to_string(), *count))
            .collect(),
        ..Subscription::default()
    }
}

impl Source for Accounts {
    fn report(&self) -> Report {
        let (mut subscriptions, open) = {
            let book = self.book.lock();
            let closed: Vec<_> = book.older.iter().chain(&book.closed).cloned().collect();
            let open: BTreeMap<_, _> = book
                .open
                .iter()
                .map(|(key, (identity, counts))| (*key, line(identity, counts, true)))
                .collect();
            (closed, open)
        };
        subscriptions.extend(open.into_values());
        let accepted = subscriptions.iter().map(|line| line.received).sum::<u64>();
        let malformed = self.totals.malformed_batches.load(Ordering::Relaxed);
        let rejected = (malformed > 0)
            .then(|| (MALFORMED.to_owned(), malformed))
            .into_iter()
            .collect();
        Report {
            component: "traffic-controller".to_owned(),
            instance: self.instance.clone(),
            ingress: Ingress {
                received: accepted + malformed,
                accepted,
                rejected,
                ..Ingress::default()
            },
            subscriptions,
            ..Report::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(id: &str) -> Identity {
        Identity {
            id: id.to_owned(),
            peer: "peer".to_owned(),
            selector: "firehose".to_owned(),
            endpoint: Endpoint::Firehose,
        }
    }

    #[test]
    fn what_is_open_is_pending_and_what_is_closed_was_dropped() {
        let accounts = Accounts::new("addr".to_owned(), 10);
        let mut account = accounts.open(identity("s"));
        let clients = || {
            accounts
                .totals
                .of(Endpoint::Firehose)
                .clients
                .load(Ordering::Relaxed)
        };
        account.received(10);
        account.delivered(7, 700);
        account.malformed_batch();
        let report = accounts.report();
        let line = &report.subscriptions[0];
        assert!(line.open && report.balanced());
        assert_eq!((line.received, line.delivered, line.pending), (10, 7, 3));
        assert_eq!((report.ingress.received, report.ingress.accepted), (11, 10));
        assert_eq!(clients(), 1);

        account.ended(End::SlowConsumer);
        drop(account);
        let line = &accounts.report().subscriptions[0];
        assert!(!line.open && line.balanced());
        assert_eq!(
            (line.pending, line.dropped.get("slow_consumer")),
            (0, Some(&3))
        );
        assert_eq!(clients(), 0);
        let sums = accounts.totals.of(Endpoint::Firehose);
        assert_eq!(
            sums.dropped[End::SlowConsumer as usize].load(Ordering::Relaxed),
            3
        );
    }

    #[test]
    fn old_accounts_become_a_sum_and_nothing_is_forgotten() {
        let accounts = Accounts::new("addr".to_owned(), 2);
        for i in 0..5 {
            let account = accounts.open(identity(&i.to_string()));
            account.received(10);
            account.delivered(i, 0);
        }
        let report = accounts.report();
        let ids: Vec<_> = report
            .subscriptions
            .iter()
            .map(|line| line.id.as_str())
            .collect();
        assert_eq!(ids, ["(earlier)", "3", "4"]);
        assert!(report.balanced());
        assert_eq!(report.ingress.received, 50);
        assert_eq!(
            report
                .subscriptions
                .iter()
                .map(|line| line.delivered)
                .sum::<u64>(),
            10
        );
    }
}
