//! A subscription: what an egress stream holds and reads from.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use loggregator_envelope::KindSet;
use loggregator_log::{ShedPlan, Slot, Survey, Ticket};
use loggregator_net::grpc::Receipt;
use smallvec::SmallVec;

use super::gather::{Gathered, Shedding};
use super::group::Group;
use super::member::{Member, Reason, Ref};
use super::selector::Api;
use super::{EVERY_KIND, Pieces, Router, notice};

/// Log bytes that one call looks through at most before it lets other streams of the connection have their turn. A
/// subscription that wants little of much needs a bound that is not the size of its message.
const LOOK_AT_MOST: usize = 4 << 20;

/// While a reader keeps losing, it is told at most this often.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// One consumer's subscription. Dropping it ends it: its share goes to the other members of its shard group, and an
/// id that nobody else uses keeps its place for the grace period.
pub struct Subscription {
    router: Arc<Router>,
    member: Arc<Member>,
    group: Option<Arc<Group>>,
    shed: Option<ShedPlan>,
    /// Up to here nothing need be left out: what is wanted of the stretch is little.
    fits_until: u64,
    ticket: Ticket,
}

/// What to send next.
pub struct Batch {
    /// Bytes of consecutive `0a len record` elements: an `EnvelopeBatch` (v2) or `BatchResponse` (v1) when put
    /// together. Shared slices of the log where they are long.
    pub chunks: SmallVec<[Bytes; 8]>,
    /// Envelopes in it, as the protocol of the subscription counts them.
    pub envelopes: u64,
    /// To be settled when the connection has taken the last byte, or lost it.
    pub receipt: Box<dyn Receipt>,
}

/// Pieces of the log, on their way into a batch.
struct Taken {
    pieces: Pieces,
    /// The kinds that are wanted of them.
    kinds: KindSet,
    /// Read from the log, not from the queue: not counted as received yet.
    direct: bool,
    /// Frame bytes that the reader is behind.
    lag: u64,
    /// Other members of the group that have something now.
    wake: SmallVec<[Waker; 4]>,
}

struct BatchReceipt {
    router: Arc<Router>,
    member: Arc<Member>,
    group: Option<Arc<Group>>,
    refs: SmallVec<[Ref; 8]>,
    envelopes: u64,
    sent: u64,
}

// === impl Subscription ===

impl Subscription {
    pub(crate) fn new(router: Arc<Router>, member: Arc<Member>, group: Option<Arc<Group>>) -> Self {
        Self {
            router,
            member,
            group,
            shed: None,
            fits_until: 0,
            ticket: Ticket::default(),
        }
    }

    /// The form it is served in.
    pub fn api(&self) -> Api {
        self.member.api
    }

    /// The next batch, of about `budget` bytes at most (one envelope may be bigger). To be polled when the stream can
    /// take data: what arrives meanwhile is joined. `None` once the router is closed and everything was read.
    pub fn poll_batch(&mut self, cx: &mut Context<'_>, budget: usize) -> Poll<Option<Batch>> {
        let mut looked = 0;
        let mut gathered = Gathered::default();
        while gathered.bytes < budget && looked < LOOK_AT_MOST {
            let room = budget - gathered.bytes;
            let seen = self.read_on(room, &mut gathered);
            if seen > 0 {
                looked += seen;
                continue;
            }
            if gathered.bytes > 0 || self.has_untold() {
                break;
            }
            if !self.wait(cx.waker()) {
                continue;
            }
            return if self.router.is_closed() {
                Poll::Ready(None)
            } else {
                Poll::Pending
            };
        }
        let exhausted = looked < LOOK_AT_MOST && gathered.bytes < budget;
        let batch = self.finish(gathered, exhausted);
        if batch.chunks.is_empty() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(batch))
    }

    /// Reads on and adds what is wanted. Returns the log bytes that were looked at, 0 if there is nothing to read.
    fn read_on(&mut self, room: usize, gathered: &mut Gathered) -> usize {
        let Taken {
            pieces,
            kinds,
            direct,
            lag,
            wake,
        } = self.take(room, gathered.bytes == 0);
        super::wake_all(wake);
        if let Some(first) = pieces.first() {
            self.plan_shedding(first.slot.ordinal(), lag);
        }
        let (mut seen, mut queued) = (0, 0);
        let before = gathered.matched;
        let mut losses = self.shed.is_some().then(|| self.member.losses.lock());
        let lost_before = losses.as_ref().map_or(0, |losses| losses.tally.total());
        for piece in &pieces {
            let entries = piece.slot.frame().entries();
            if let (Some(first), Some(last)) = (
                entries.get(piece.range.start as usize),
                entries.get(piece.range.end as usize - 1),
            ) {
                seen += (last.start + last.len - first.start) as usize;
            }
            queued += u64::from(piece.range.end - piece.range.start);
            let shedding = match (&mut self.shed, &mut losses) {
                (Some(plan), Some(losses)) => Some(Shedding {
                    plan,
                    tally: &mut losses.tally,
                }),
                _ => None,
            };
            gathered.add(&self.member, piece, kinds, shedding);
        }
        if let Some(losses) = losses {
            let shed = losses.tally.total() - lost_before;
            self.member.counts.drop(Reason::Shed, shed);
        }
        let matched = gathered.matched - before;
        if direct {
            self.member
                .counts
                .received
                .fetch_add(matched, Ordering::Relaxed);
        } else {
            // Counted when they were queued; the converted form shows that some are not wanted after all.
            self.member
                .counts
                .received
                .fetch_sub(queued - matched, Ordering::Relaxed);
        }
        // What has no dropsonde form is not a loss that the reader could have avoided: counted, not told.
        let formless = std::mem::take(&mut gathered.formless);
        self.member.counts.drop(Reason::NoV1Form, formless);
        seen
    }

    /// The next pieces.
    fn take(&mut self, room: usize, at_least_one: bool) -> Taken {
        let view = self.router.log().view();
        match &self.group {
            Some(group) => {
                let turn = group.take(&self.member, &view, room, at_least_one);
                drop(view);
                self.member.lost_unseen(turn.gone, Reason::Lapped);
                let kinds = if turn.dealt {
                    EVERY_KIND
                } else {
                    self.member.wanted.kinds
                };
                Taken {
                    pieces: turn.pieces,
                    kinds,
                    direct: !turn.dealt,
                    lag: turn.lag,
                    wake: turn.wake,
                }
            }
            None => {
                let mut pieces = Pieces::new();
                let (gone, lag) = {
                    let mut queue = self.member.queue.lock();
                    let lag = queue
                        .selected
                        .front()
                        .map_or(0, |r| view.bytes_from(r.ordinal));
                    let gone = super::member::take_queued(
                        &mut queue,
                        &view,
                        room,
                        at_least_one,
                        &mut pieces,
                    );
                    self.member.note_oldest(&queue);
                    (gone, lag)
                };
                drop(view);
                self.member.lost_unseen(gone, Reason::Lapped);
                Taken {
                    pieces,
                    kinds: EVERY_KIND,
                    direct: false,
                    lag,
                    wake: SmallVec::new(),
                }
            }
        }
    }

    /// When the log is full and the reader so far behind that it would soon be lapped: plans what to leave out so that
    /// it is three quarters behind. A reader that is fast enough never gets there again and loses no more than it must.
    ///
    /// A plan looks at every envelope that is still to be read, so it is kept for as long as the reader at `at` is in
    /// the stretch of the log that it is about: a reader that is behind has no time to plan at every message.
    fn plan_shedding(&mut self, at: u64, lag: u64) {
        if self.shed.as_ref().is_some_and(|plan| plan.is_over(at)) {
            self.shed = None;
        }
        let log = self.router.log();
        if self.shed.is_some() || at < self.fits_until || !log.is_nearly_full() {
            return;
        }
        let (retained, head) = {
            let view = log.view();
            (view.retained(), view.head())
        };
        if lag <= retained / 8 * 7 {
            return;
        }
        let kinds = if self.member.wanted.selections.is_empty() {
            self.member.wanted.kinds
        } else {
            EVERY_KIND
        };
        let survey = || {
            let backlog = self.backlog();
            Survey::new(
                backlog
                    .iter()
                    .map(|(slot, start, end)| (&**slot, *start..*end)),
                kinds,
            )
        };
        let survey = if self.reads_directly() {
            self.router.surveys.of(kinds, at..head, survey)
        } else {
            Arc::new(survey())
        };
        self.shed = ShedPlan::new(&survey, (retained / 4 * 3, lag), retained / 8);
        if self.shed.is_none() {
            self.fits_until = head;
        }
    }

    /// True if its backlog is the log itself, not a list of places.
    fn reads_directly(&self) -> bool {
        let queue = self.member.queue.lock();
        self.group.is_some() && queue.dealt.is_empty() && queue.selected.is_empty()
    }

    /// What the reader has still to read, for planning. Slots are shared for that moment; no bytes are copied.
    fn backlog(&self) -> Vec<(Arc<Slot>, u32, u32)> {
        let view = self.router.log().view();
        let queued: Vec<_> = {
            let queue = self.member.queue.lock();
            let refs = queue.dealt.iter().chain(&queue.selected);
            refs.filter_map(|r| {
                view.get(r.ordinal)
                    .map(|slot| (slot.clone(), r.start, r.end))
            })
            .collect()
        };
        if !queued.is_empty() {
            return queued;
        }
        let Some(group) = &self.group else {
            return Vec::new();
        };
        let (at, slots) = group.backlog(&view);
        slots
            .into_iter()
            .map(|slot| {
                let start = if slot.ordinal() == at.ordinal {
                    at.envelope
                } else {
                    0
                };
                let end = slot.frame().len() as u32;
                (slot, start, end)
            })
            .collect()
    }

    /// Leaves the waker wherever news may come from. False if there is news already.
    fn wait(&mut self, waker: &Waker) -> bool {
        let head = self.router.log().head();
        {
            let mut queue = self.member.queue.lock();
            if !queue.dealt.is_empty() || !queue.selected.is_empty() {
                return false;
            }
            match &mut queue.waker {
                Some(known) if known.will_wake(waker) => {}
                known => *known = Some(waker.clone()),
            }
        }
        let Some(group) = &self.group else {
            return true;
        };
        self.router.log().wait(waker, &mut self.ticket);
        let at_head = group.at_head(&self.router.log().view());
        at_head && self.router.log().head() == head
    }

    /// True if there is nothing to read now.
    #[cfg(test)]
    pub(crate) fn wait_for_test(&mut self) -> bool {
        self.wait(Waker::noop())
    }

    fn has_untold(&self) -> bool {
        let losses = self.member.losses.lock();
        losses.tally.untold() > 0
    }

    fn finish(&mut self, gathered: Gathered, exhausted: bool) -> Batch {
        let notice = self.notice(exhausted);
        let gathered = gathered.finish();
        let mut chunks = gathered.chunks;
        if let Some(notice) = notice {
            chunks.insert(0, notice);
        }
        let counts = &self.member.counts;
        counts
            .in_flight
            .fetch_add(gathered.envelopes, Ordering::Relaxed);
        Batch {
            chunks,
            envelopes: gathered.sent,
            receipt: Box::new(BatchReceipt {
                router: self.router.clone(),
                member: self.member.clone(),
                group: self.group.clone(),
                refs: gathered.refs,
                envelopes: gathered.envelopes,
                sent: gathered.sent,
            }),
        }
    }

    /// The in-band notice, if there is something to tell and it is time.
    fn notice(&self, caught_up: bool) -> Option<Bytes> {
        let mut losses = self.member.losses.lock();
        let due = caught_up || losses.told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY);
        if losses.tally.untold() == 0 || !due {
            return None;
        }
        let (by_loss, unnamed) = losses.tally.take_untold();
        losses.told_at = Some(Instant::now());
        drop(losses);
        Some(notice::encode(&self.member, &by_loss, unnamed))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.router.unsubscribe(&self.member, self.group.as_ref());
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("id", &self.member.shard_id)
            .field("peer", &self.member.peer)
            .finish_non_exhaustive()
    }
}

// === impl BatchReceipt ===

impl Receipt for BatchReceipt {
    fn settle(self: Box<Self>, delivered: bool) {
        let counts = &self.member.counts;
        counts
            .in_flight
            .fetch_sub(self.envelopes, Ordering::Relaxed);
        if delivered {
            counts
                .delivered
                .fetch_add(self.envelopes, Ordering::Relaxed);
            self.router.count_egress(self.member.api, self.sent);
            return;
        }
        if self.member.shard_id.is_empty() || self.router.is_closed() {
            let mut tally = loggregator_log::Tally::default();
            let view = self.router.log().view();
            for r in &self.refs {
                match view.get(r.ordinal) {
                    Some(slot) => {
                        tally.add_range(slot, r.start..r.end, EVERY_KIND);
                    }
                    None => tally.add_unnamed(r.len()),
                }
            }
            drop(view);
            self.member.lost(&tally, Reason::Disconnected);
            return;
        }
        counts.received.fetch_sub(self.envelopes, Ordering::Relaxed);
        self.router
            .give_back(&self.member, self.group.as_ref(), &self.refs);
    }
}
