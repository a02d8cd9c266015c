//! What became of every envelope: the ledger of each of the programs here.
//!
//! An envelope counts as *received* when its batch was taken from a subscription, as *delivered* when its last byte was
//! taken by the client's connection (of a WebSocket: by the operating system; of a gRPC or HTTP stream: by the HTTP stack,
//! which may hold it encrypted for a moment), and as *dropped*, with the reason for which the connection ended, when it was received
//! and never delivered. While a connection that has its stream to itself is open nothing is dropped here: a client that falls
//! behind stops the reading from the dopplers, and they count what they let go. Where several share a stream, the one that
//! is left behind loses what the others have long had; see [`Account::lost`].

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use loggregator_service::ledger::{Ingress, Report, Source, Subscription};
use parking_lot::Mutex;

use crate::upstream::Unread;

/// The reason under which batches are refused that are not well-formed messages. Each counts as one envelope.
const MALFORMED: &str = "malformed_batch";

/// The reason of what was not delivered when nothing else is known: the process stopped.
const STOPPED: &str = "shutdown";

/// The reason of what a reader of a shared subscription was too slow for.
pub(crate) const SHARED_BEHIND: &str = "shared_behind";

/// What a program calls itself and what it serves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    /// The component's name in the ledger.
    pub(crate) component: &'static str,
    /// The `api` of its subscriptions.
    pub(crate) api: &'static str,
    /// Its endpoints, as in the labels and tags of metrics.
    pub(crate) endpoints: &'static [&'static str],
}

/// Which endpoint of a [`Program`]: the place in its list.
pub(crate) type Endpoint = usize;

/// Sums of one endpoint over the life of the process.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    pub(crate) egress: AtomicU64,
    pub(crate) egress_bytes: AtomicU64,
    pub(crate) slow_consumers: AtomicU64,
    /// Clients that are connected now.
    pub(crate) clients: AtomicU64,
    reasons: Mutex<BTreeMap<&'static str, Ended>>,
}

/// What one reason has cost so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Envelopes.
    pub(crate) dropped: u64,
    /// Subscriptions that ended for it.
    pub(crate) subscriptions: u64,
}

impl Sums {
    /// What this reason has cost so far.
    pub(crate) fn reason(&self, reason: &str) -> Ended {
        self.reasons.lock().get(reason).copied().unwrap_or_default()
    }

    /// What all reasons together have cost in envelopes.
    pub(crate) fn dropped(&self) -> u64 {
        self.reasons.lock().values().map(|one| one.dropped).sum()
    }

    fn add(&self, reason: &'static str, dropped: u64, subscriptions: u64) {
        let mut reasons = self.reasons.lock();
        let ended = reasons.entry(reason).or_default();
        ended.dropped += dropped;
        ended.subscriptions += subscriptions;
    }
}

/// Sums over the life of the process.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) ingress: AtomicU64,
    pub(crate) malformed_batches: AtomicU64,
    endpoints: Vec<Sums>,
}

impl Totals {
    pub(crate) fn of(&self, endpoint: Endpoint) -> &Sums {
        &self.endpoints[endpoint]
    }

    /// Those of every endpoint.
    pub(crate) fn each(&self) -> impl Iterator<Item = &Sums> {
        self.endpoints.iter()
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
    /// What it receives was counted as the program's ingress when it came from the dopplers.
    shared: bool,
    end: Mutex<&'static str>,
}

#[derive(Debug, Default)]
struct Counts {
    received: AtomicU64,
    delivered: AtomicU64,
    /// Of `received`, what was lost while the subscription was open.
    lost: Mutex<BTreeMap<&'static str, u64>>,
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
        if !self.shared {
            self.accounts.arrived(envelopes, false);
        }
    }

    /// Envelopes came from the dopplers that this reader of a shared subscription was too slow for.
    pub(crate) fn missed(&self, envelopes: u64) {
        self.received(envelopes);
        self.lost(SHARED_BEHIND, envelopes);
    }

    /// The reader left its stream while these were unread.
    pub(crate) fn unread(&self, unread: Unread) {
        self.received(unread.envelopes);
        if unread.missed > 0 {
            self.missed(unread.missed);
        }
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

    /// Of the envelopes received, these will not go to the client although its subscription goes on.
    pub(crate) fn lost(&self, reason: &'static str, envelopes: u64) {
        *self.counts.lost.lock().entry(reason).or_default() += envelopes;
        self.sums().add(reason, envelopes, 0);
    }

    /// A batch was not a well-formed message.
    pub(crate) fn malformed_batch(&self) {
        if !self.shared {
            self.accounts.arrived(0, true);
        }
    }

    /// The client was found not to read.
    pub(crate) fn slow_consumer(&self) {
        self.sums().slow_consumers.fetch_add(1, Ordering::Relaxed);
    }

    /// How the connection ended: the reason for what is not delivered. Without it the process ended.
    pub(crate) fn ended(&self, end: &'static str) {
        *self.end.lock() = end;
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
        let mut line = self.accounts.line(&self.identity, &self.counts, false);
        let end = *self.end.get_mut();
        let sums = self.accounts.totals.of(self.identity.endpoint);
        sums.add(end, line.pending, 1);
        if line.pending > 0 {
            *line.dropped.entry(end.to_owned()).or_default() += line.pending;
            line.pending = 0;
        }
        sums.clients.fetch_sub(1, Ordering::Relaxed);
        self.accounts
            .book
            .lock()
            .close(self.key, line, self.accounts.program.api);
    }
}

/// All accounts of the process.
#[derive(Debug)]
pub(crate) struct Accounts {
    program: Program,
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
    fn close(&mut self, key: u64, line: Subscription, api: &str) {
        self.open.remove(&key);
        self.closed.push_back(line);
        while self.closed.len() > self.closed_kept {
            let Some(line) = self.closed.pop_front() else {
                break;
            };
            let sum = self.older.get_or_insert_with(|| Subscription {
                id: "(earlier)".to_owned(),
                api: api.to_owned(),
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
    /// Accounts of the program that listens at `instance`; of the closed ones, the last `closed_kept` stay listed one by
    /// one and the others as their sum.
    pub(crate) fn new(program: Program, instance: String, closed_kept: usize) -> Arc<Self> {
        let book = Mutex::new(Book {
            closed_kept,
            ..Book::default()
        });
        let endpoints = program.endpoints.iter().map(|_| Sums::default()).collect();
        Arc::new(Self {
            program,
            instance,
            totals: Totals {
                endpoints,
                ..Totals::default()
            },
            book,
        })
    }

    /// So many envelopes came from the dopplers, in a batch whose rest may have been malformed.
    pub(crate) fn arrived(&self, envelopes: u64, malformed: bool) {
        let totals = &self.totals;
        totals.ingress.fetch_add(envelopes, Ordering::Relaxed);
        if malformed {
            totals.malformed_batches.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Opens an account. `shared`: whether its stream is one that others may read too, see [`Batches::is_shared`].
    ///
    /// [`Batches::is_shared`]: crate::upstream::Batches::is_shared
    pub(crate) fn open(self: &Arc<Self>, identity: Identity, shared: bool) -> Account {
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
            shared,
            end: Mutex::new(STOPPED),
        }
    }

    fn line(&self, identity: &Identity, counts: &Counts, open: bool) -> Subscription {
        // Read in this order an envelope that moves meanwhile shows as pending, never as lost.
        let dropped = counts.lost.lock().clone();
        let delivered = counts.delivered.load(Ordering::Acquire);
        let received = counts.received.load(Ordering::Acquire);
        Subscription {
            id: identity.id.clone(),
            peer: identity.peer.clone(),
            selector: identity.selector.clone(),
            api: self.program.api.to_owned(),
            open,
            received,
            delivered,
            pending: received.saturating_sub(delivered + dropped.values().sum::<u64>()),
            dropped: dropped
                .into_iter()
                .map(|(reason, count)| (reason.to_owned(), count))
                .collect(),
            from: counts
                .from
                .lock()
                .iter()
                .map(|(doppler, count)| (doppler.to_string(), *count))
                .collect(),
            ..Subscription::default()
        }
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
                .map(|(key, (identity, counts))| (*key, self.line(identity, counts, true)))
                .collect();
            (closed, open)
        };
        subscriptions.extend(open.into_values());
        let accepted = self.totals.ingress.load(Ordering::Relaxed);
        let malformed = self.totals.malformed_batches.load(Ordering::Relaxed);
        let rejected = (malformed > 0)
            .then(|| (MALFORMED.to_owned(), malformed))
            .into_iter()
            .collect();
        Report {
            component: self.program.component.to_owned(),
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

    const PROGRAM: Program = Program {
        component: "program",
        api: "api",
        endpoints: &["one", "two"],
    };

    fn identity(id: &str) -> Identity {
        Identity {
            id: id.to_owned(),
            peer: "peer".to_owned(),
            selector: "firehose".to_owned(),
            endpoint: 0,
        }
    }

    #[test]
    fn what_is_open_is_pending_and_what_is_closed_was_dropped() {
        let accounts = Accounts::new(PROGRAM, "addr".to_owned(), 10);
        let account = accounts.open(identity("s"), false);
        let clients = || accounts.totals.of(0).clients.load(Ordering::Relaxed);
        account.received(10);
        account.delivered(7, 700);
        account.malformed_batch();
        let report = accounts.report();
        let line = &report.subscriptions[0];
        assert!(line.open && report.balanced());
        assert_eq!((line.received, line.delivered, line.pending), (10, 7, 3));
        assert_eq!((report.ingress.received, report.ingress.accepted), (11, 10));
        assert_eq!(clients(), 1);

        account.ended("slow_consumer");
        drop(account);
        let line = &accounts.report().subscriptions[0];
        assert!(!line.open && line.balanced());
        assert_eq!(
            (line.pending, line.dropped.get("slow_consumer")),
            (0, Some(&3))
        );
        assert_eq!(clients(), 0);
        let ended = Ended {
            dropped: 3,
            subscriptions: 1,
        };
        assert_eq!(accounts.totals.of(0).reason("slow_consumer"), ended);
    }

    #[test]
    fn what_an_open_subscription_lost_is_not_pending() {
        let accounts = Accounts::new(PROGRAM, "addr".to_owned(), 10);
        let account = accounts.open(identity("s"), false);
        account.received(10);
        account.delivered(7, 700);
        account.lost("behind", 2);
        let line = &accounts.report().subscriptions[0];
        assert!(line.balanced());
        assert_eq!((line.pending, line.dropped.get("behind")), (1, Some(&2)));
        drop(account);
        let line = &accounts.report().subscriptions[0];
        assert!(line.balanced());
        assert_eq!(line.dropped.get("shutdown"), Some(&1));
    }

    #[test]
    fn old_accounts_become_a_sum_and_nothing_is_forgotten() {
        let accounts = Accounts::new(PROGRAM, "addr".to_owned(), 2);
        for i in 0..5 {
            let account = accounts.open(identity(&i.to_string()), false);
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
