//! What the pool knows, under its one lock, which is taken per frame and per message, never per envelope.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use loggregator_envelope::Frame;
use tokio::sync::Notify;

use super::queue::{Item, Piece, Queue};
use super::report::{Counts, DropReason, LinkReport};
use super::route::{LinkId, Parts, Routing, SplitLimit, split};
use super::{MAX_FORMER, PoolSettings};
use crate::rendezvous::Ring;
use crate::set::Peer;

/// One stream to one doppler, or what waits for a doppler when there is none.
#[derive(Debug)]
pub(super) struct Link {
    /// None: the envelopes wait for the first doppler to come.
    pub peer: Option<Arc<Peer>>,
    pub lane: u64,
    pub queue: Queue,
    /// Bytes and envelopes of messages that are handed to the connection and not settled.
    pub in_flight: (usize, u64),
    pub counts: Counts,
    /// False from the first failed attempt to connect until one succeeds.
    pub up: bool,
    /// The doppler left the set.
    pub leaving: bool,
    /// The worker has ended; the link is kept until nothing is in flight.
    pub done: bool,
    /// Rung when something is to be sent or to be settled.
    pub wake: Arc<Notify>,
    /// The latest delivered messages of the stream that stands: envelopes and bytes.
    pub recent: VecDeque<(u32, usize)>,
    pub recent_bytes: usize,
    pub last_error: Option<String>,
}

impl Link {
    pub(super) fn new(peer: Option<Arc<Peer>>, lane: u64) -> Link {
        Link {
            peer,
            lane,
            queue: Queue::default(),
            in_flight: (0, 0),
            counts: Counts::default(),
            up: true,
            leaving: false,
            done: false,
            wake: Arc::new(Notify::new()),
            recent: VecDeque::new(),
            recent_bytes: 0,
            last_error: None,
        }
    }

    fn pending(&self) -> u64 {
        self.queue.envelopes() + self.in_flight.1
    }

    /// Where envelopes may go: a doppler that is there and answers.
    fn usable(&self) -> bool {
        self.peer.is_some() && self.up && !self.leaving
    }

    pub(super) fn report(&self) -> LinkReport {
        LinkReport {
            doppler: self
                .peer
                .as_ref()
                .map_or_else(|| "".into(), |peer| Arc::clone(peer.addr())),
            lane: self.lane,
            up: self.usable(),
            counts: self.counts.clone(),
            pending: self.pending(),
            pending_bytes: (self.queue.bytes() + self.in_flight.0) as u64,
            last_error: self.last_error.clone(),
        }
    }
}

#[derive(Debug)]
pub(super) struct State {
    pub settings: PoolSettings,
    pub links: BTreeMap<LinkId, Link>,
    /// Where envelopes wait while there is no doppler at all.
    pub homeless: Link,
    pub routing: Arc<Routing>,
    /// Bytes that wait or are in flight, over all links.
    pub bytes: usize,
    /// The links of dopplers that left, the latest last, and the sum of older ones.
    pub former: VecDeque<LinkReport>,
    pub forgotten: Counts,
    pub next_link: LinkId,
    pub phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Open,
    /// What waits is sent without delay; what comes is still taken.
    Flushing,
    /// What comes is dropped, what waits is sent.
    Closing,
    /// What waits is dropped too.
    Closed,
}

impl State {
    pub(super) fn new(settings: PoolSettings) -> State {
        State {
            settings,
            links: BTreeMap::new(),
            homeless: Link::new(None, 0),
            routing: Arc::default(),
            bytes: 0,
            former: VecDeque::new(),
            forgotten: Counts::default(),
            next_link: 0,
            phase: Phase::Open,
        }
    }

    pub(super) fn link(&mut self, id: Option<LinkId>) -> &mut Link {
        match id.and_then(|id| self.links.get_mut(&id)) {
            Some(link) => link,
            None => &mut self.homeless,
        }
    }

    /// Takes envelopes in: the parts of a frame, split by the current routing.
    pub(super) fn accept(&mut self, parts: Parts) {
        let batch = self.settings.batch();
        if parts.too_large > 0 {
            let counts = &mut self.homeless.counts;
            counts.received += u64::from(parts.too_large);
            counts.drop(DropReason::TooLarge, u64::from(parts.too_large));
        }
        for (id, piece) in parts.pieces {
            let closing = self.phase >= Phase::Closing;
            let link = self.link(id);
            link.counts.received += u64::from(piece.envelopes);
            if closing {
                link.counts
                    .drop(DropReason::Closed, u64::from(piece.envelopes));
                continue;
            }
            let bytes = piece.bytes.len();
            let before = link.queue.envelopes();
            link.queue.push(piece, batch);
            ring_if_due(link, before, u64::from(batch.envelopes));
            self.bytes += bytes;
        }
        self.enforce();
    }

    /// Drops the oldest of the fullest queue until all together fit.
    pub(super) fn enforce(&mut self) {
        while self.bytes > self.settings.buffer_bytes {
            let fullest = self
                .links
                .values_mut()
                .chain([&mut self.homeless])
                .max_by_key(|link| link.queue.bytes());
            // What is in flight is not ours to drop; it is little, and settled soon.
            let Some((link, item)) =
                fullest.and_then(|link| link.queue.pop().map(|item| (link, item)))
            else {
                return;
            };
            link.counts
                .drop(DropReason::BufferFull, u64::from(item.envelopes));
            self.bytes -= item.len();
        }
    }

    /// What became of a message of this link.
    pub(super) fn settle(&mut self, id: LinkId, items: Vec<Item>, delivered: bool) {
        let bytes: usize = items.iter().map(Item::len).sum();
        let envelopes: u32 = items.iter().map(|item| item.envelopes).sum();
        let (in_doubt, closed) = (self.settings.in_doubt_bytes, self.phase == Phase::Closed);
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.in_flight.0 -= bytes;
        link.in_flight.1 -= u64::from(envelopes);
        link.wake.notify_one();
        if delivered {
            link.counts.delivered += u64::from(envelopes);
            link.counts.delivered_bytes += bytes as u64;
            link.recent.push_back((envelopes, bytes));
            link.recent_bytes += bytes;
            while link.recent_bytes > in_doubt && link.recent.len() > 1 {
                link.recent_bytes -= link.recent.pop_front().map_or(0, |(_, bytes)| bytes);
            }
            self.bytes -= bytes;
        } else if closed {
            link.counts
                .drop(DropReason::NotFlushed, u64::from(envelopes));
            self.bytes -= bytes;
        } else if link.usable() || !(link.leaving || self.routing_elsewhere(id)) {
            self.link(Some(id)).queue.put_back(items);
        } else {
            self.move_from(Some(id), items, true);
        }
        self.remove_if_done(id);
        self.enforce();
    }

    /// Whether new envelopes of this link's sources go to another doppler now.
    fn routing_elsewhere(&self, id: LinkId) -> bool {
        let lanes = self.routing.lanes.max(1);
        !self.routing.links.is_empty()
            && !self
                .routing
                .links
                .iter()
                .any(|first| (*first..first + lanes).contains(&id))
    }

    /// Chooses anew who gets what: the dopplers that answer, or all when none does. What waits for the others moves.
    pub(super) fn reroute(&mut self) {
        let lanes = self.settings.streams.max(1) as u64;
        let firsts = |usable: bool| -> Vec<(LinkId, Arc<str>)> {
            let wanted = |link: &Link| link.lane == 0 && !link.leaving && (link.up || !usable);
            let addr = |link: &Link| link.peer.as_ref().map(|peer| Arc::clone(peer.addr()));
            self.links
                .iter()
                .filter(|(_, link)| wanted(link))
                .filter_map(|(id, link)| addr(link).map(|addr| (*id, addr)))
                .collect()
        };
        let mut chosen = firsts(true);
        if chosen.is_empty() {
            chosen = firsts(false);
        }
        self.routing = Arc::new(Routing {
            generation: self.routing.generation + 1,
            ring: Ring::new(chosen.iter().map(|(_, addr)| addr.as_ref())),
            links: chosen.iter().map(|(id, _)| *id).collect(),
            lanes,
        });
        // Of those who left, everything moves, be it to where the first who comes finds it.
        let moving = |(id, link): (&LinkId, &Link)| {
            (link.leaving || self.routing_elsewhere(*id)).then_some(*id)
        };
        let elsewhere: Vec<LinkId> = self.links.iter().filter_map(moving).collect();
        for id in elsewhere {
            let items = self.link(Some(id)).queue.drain();
            self.move_from(Some(id), items, false);
        }
        if !self.routing.links.is_empty() {
            let items = self.homeless.queue.drain();
            self.move_from(None, items, false);
        }
    }

    /// Hands items to whom the routing says. They count as received there and no longer here.
    fn move_from(&mut self, from: Option<LinkId>, items: Vec<Item>, first: bool) {
        let (batch, limit) = (self.settings.batch(), self.settings.split());
        let mut moved: BTreeMap<Option<LinkId>, Vec<Piece>> = BTreeMap::new();
        for mut item in items {
            let bytes = item.seal();
            self.bytes -= bytes.len();
            let source = self.link(from);
            let Ok(parsed) = Frame::parse(bytes) else {
                // It was a frame when it came in; should it be none now, it is at least not lost unseen.
                source
                    .counts
                    .drop(DropReason::TooLarge, u64::from(item.envelopes));
                continue;
            };
            source.counts.received -= u64::from(item.envelopes);
            source.counts.moved += u64::from(item.envelopes);
            for (to, piece) in split(&parsed.frame, &self.routing, limit).pieces {
                moved.entry(to).or_default().push(piece);
            }
        }
        for (to, pieces) in moved {
            let (mut bytes, mut envelopes) = (0, 0);
            for piece in &pieces {
                bytes += piece.bytes.len();
                envelopes += u64::from(piece.envelopes);
            }
            self.bytes += bytes;
            let link = self.link(to);
            link.counts.received += envelopes;
            if first {
                link.queue.push_front(pieces);
            } else {
                pieces
                    .into_iter()
                    .for_each(|piece| link.queue.push(piece, batch));
            }
            link.wake.notify_one();
        }
    }

    /// A stream ended without the doppler having said that it took everything: how much of it may be lost.
    pub(super) fn broken(&mut self, id: LinkId, error: String) -> u64 {
        let Some(link) = self.links.get_mut(&id) else {
            return 0;
        };
        let in_doubt: u64 = link
            .recent
            .drain(..)
            .map(|(envelopes, _)| u64::from(envelopes))
            .sum();
        link.recent_bytes = 0;
        link.counts.in_doubt += in_doubt;
        link.counts.reconnects += 1;
        link.last_error = Some(error);
        in_doubt
    }

    /// The link's worker has ended for good, because the doppler left.
    pub(super) fn forget(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        (link.leaving, link.done) = (true, true);
        self.reroute();
        self.remove_if_done(id);
        self.enforce();
    }

    fn remove_if_done(&mut self, id: LinkId) {
        if self
            .links
            .get(&id)
            .is_some_and(|link| link.done && link.pending() == 0)
            && let Some(link) = self.links.remove(&id)
        {
            self.former.push_back(link.report());
            if self.former.len() > MAX_FORMER
                && let Some(oldest) = self.former.pop_front()
            {
                self.forgotten.add(&oldest.counts);
            }
        }
    }

    /// Envelopes that wait or are in flight.
    pub(super) fn pending(&self) -> u64 {
        self.links.values().map(Link::pending).sum::<u64>() + self.homeless.pending()
    }

    /// Gives up what still waits, and what will be handed back.
    pub(super) fn abandon(&mut self) {
        self.phase = Phase::Closed;
        for link in self.links.values_mut().chain([&mut self.homeless]) {
            for item in link.queue.drain() {
                link.counts
                    .drop(DropReason::NotFlushed, u64::from(item.envelopes));
                self.bytes -= item.len();
            }
        }
    }

    pub(super) fn split_limit(&self) -> SplitLimit {
        self.settings.split()
    }
}

/// Wakes a link's worker when the queue was empty, and when it has filled up to a batch.
pub(super) fn ring_if_due(link: &Link, before: u64, batch: u64) {
    let now = link.queue.envelopes();
    if before == 0 || (before < batch && now >= batch) {
        link.wake.notify_one();
    }
}
