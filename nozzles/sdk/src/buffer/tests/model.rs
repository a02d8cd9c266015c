//! The buffer against a model that only remembers: what was appended, what each destination was promised, told and
//! has settled. Faults are those of [`Faulty`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::faults::Faulty;
use crate::account::Account;
use crate::buffer::core::Core;
use crate::buffer::format::{Found, Records, SEGMENT_HEADER, Seed};
use crate::buffer::fs::Fs as _;
use crate::buffer::reading::{Block, Step};
use crate::buffer::recover::{self, Layout};
use crate::buffer::{Read, open_memory, segment};
use crate::config::{Backlog, DiskBuffer, Full, Size, Time};
use crate::event::Event;

#[derive(Debug, Clone)]
enum Op {
    Append(Vec<u8>),
    Read {
        who: usize,
        events: usize,
        bytes: usize,
    },
    Settle {
        who: usize,
        part: u8,
    },
    /// A new user of the cursor: what is not settled comes again.
    Again(usize),
    Sync,
    Save,
    Kill,
    Restart,
    Crash(u64),
    Flip {
        file: usize,
        bit: usize,
    },
    FlipCursors {
        bit: usize,
    },
    Space(Option<u16>),
    FailCut(bool),
    FailSync(bool),
}

/// What happens to a buffer of either kind.
fn harmless() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => prop::collection::vec(0..200u8, 1..12).prop_map(Op::Append),
        12 => (0..3usize, 1..20usize, 1..1500usize)
            .prop_map(|(who, events, bytes)| Op::Read { who, events, bytes }),
        10 => (0..3usize, any::<u8>()).prop_map(|(who, part)| Op::Settle { who, part }),
        1 => (0..3usize).prop_map(Op::Again),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        35 => harmless(),
        2 => Just(Op::Sync),
        4 => Just(Op::Save),
        1 => Just(Op::Kill),
        1 => Just(Op::Restart),
        1 => any::<u64>().prop_map(Op::Crash),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(file, bit)| Op::Flip { file, bit }),
        1 => any::<usize>().prop_map(|bit| Op::FlipCursors { bit }),
        1 => prop::option::of(0..3000u16).prop_map(Op::Space),
        1 => any::<bool>().prop_map(Op::FailCut),
        1 => any::<bool>().prop_map(Op::FailSync),
    ]
}

/// A place, and the opening under which it was reached.
#[derive(Debug)]
struct Kept {
    opening: String,
    next: u64,
    /// What of that is still true.
    resume: u64,
}

/// What the model knows of a destination.
#[derive(Debug, Default)]
struct Seen {
    full: Full,
    birth: u64,
    block: Option<Block>,
    /// Where it has read up to.
    read: u64,
    /// What was read and is not settled: the number behind it, and what it adds to the account.
    hand: Vec<(u64, Account)>,
    account: Account,
    at: u64,
    /// Every checkpoint since the last that is certain.
    checkpoints: Vec<(u64, Account)>,
    /// Numbers that were promised to it.
    promised: BTreeSet<u64>,
    /// What it would have kept with what it delivers.
    kept: Option<Kept>,
}

struct Model {
    fs: Faulty,
    max_bytes: u64,
    /// None: the buffer is in memory.
    disk: Option<DiskBuffer>,
    destinations: Vec<(String, Backlog)>,
    core: Core,
    /// Bodies by number; which of several is not known.
    bodies: BTreeMap<u64, Vec<Bytes>>,
    next: u64,
    ticket: u64,
    /// Everything before was synced.
    synced: u64,
    /// Numbers that faults may have destroyed.
    hurt: BTreeSet<u64>,
    /// Refused after a write that failed and left bytes that could not be cut off: a new process may find them whole.
    revenants: Vec<(u64, Vec<Bytes>)>,
    cannot_cut: bool,
    /// A cursor file was damaged since both were last written.
    cursors_hurt: usize,
    seen: Vec<Seen>,
    /// What was handed out, by opening and number.
    named: BTreeMap<(String, u64), Bytes>,
    /// Openings that could not be written down.
    unwritten: BTreeSet<String>,
    cannot_sync: bool,
}

impl Model {
    fn new(
        max_bytes: u64,
        disk: Option<DiskBuffer>,
        destinations: Vec<(String, Backlog)>,
    ) -> Model {
        let fs = Faulty::default();
        fs.put("notes.txt", b"somebody else's");
        fs.sync_names().unwrap();
        let core = match &disk {
            Some(disk) => open(&fs, disk, &destinations),
            None => open_memory(max_bytes, &destinations),
        };
        let seen = |(_, backlog): &(String, Backlog)| Seen {
            full: backlog.full,
            checkpoints: vec![(0, Account::default())],
            ..Seen::default()
        };
        Model {
            seen: destinations.iter().map(seen).collect(),
            fs,
            max_bytes,
            disk,
            destinations,
            core,
            bodies: BTreeMap::new(),
            next: 0,
            ticket: 0,
            synced: 0,
            hurt: BTreeSet::new(),
            revenants: Vec::new(),
            cannot_cut: false,
            cursors_hurt: 0,
            named: BTreeMap::new(),
            unwritten: BTreeSet::new(),
            cannot_sync: false,
        }
    }

    fn run(&mut self, op: Op) {
        let all = self.seen.len();
        match op {
            Op::Append(sizes) => self.append(&sizes),
            Op::Read { who, events, bytes } => {
                self.read(who % all, events, bytes);
            }
            Op::Settle { who, part } => self.settle(who % all, part),
            Op::Again(who) => self.again(who % all),
            Op::Sync => self.sync(),
            Op::Save => self.save(),
            Op::Kill => self.reopen(),
            Op::Restart => {
                self.sync();
                self.save();
                self.reopen();
            }
            Op::Crash(seed) => self.crash(seed),
            Op::Flip { file, bit } => self.flip(file, bit),
            Op::FlipCursors { bit } => self.flip_cursors(bit),
            Op::Space(space) => {
                let used: usize = self.fs.lengths().iter().map(|(_, length)| length).sum();
                self.fs.limit(space.map(|space| used + space as usize));
            }
            Op::FailCut(fail) => {
                self.cannot_cut = fail;
                self.fs.fail_cut(fail);
            }
            Op::FailSync(fail) => {
                self.cannot_sync = fail;
                self.fs.fail_sync(fail);
            }
        }
        self.check();
    }

    fn append(&mut self, sizes: &[u8]) {
        let body = |(ticket, size): (u64, &u8)| {
            let mut body = ticket.to_le_bytes().to_vec();
            body.resize(8 + *size as usize, ticket as u8);
            Bytes::from(body)
        };
        let bodies: Vec<Bytes> = (self.ticket..).zip(sizes).map(body).collect();
        self.ticket += bodies.len() as u64;
        let events = bodies.iter().map(|body| Event::new(0, 7, body.clone()));
        let appended = self.core.append(events.collect());
        assert_eq!(appended.accepted + appended.refused, bodies.len() as u64);
        if appended.refused > 0 {
            assert!(["disk_full", "disk_error"].contains(&appended.why));
        }
        if self.cannot_cut {
            let refused = bodies[appended.accepted as usize..].to_vec();
            let first = self.next + appended.accepted;
            self.revenants.push((first, refused));
        }
        for body in bodies.into_iter().take(appended.accepted as usize) {
            self.bodies.insert(self.next, vec![body]);
            self.next += 1;
        }
        let state = self.core.state.lock();
        assert_eq!(state.end.seq, self.next);
        let first = self.next - appended.accepted;
        for (seen, place) in self.seen.iter_mut().zip(&state.places) {
            let skipped = |seq: &u64| {
                let mut skips = place.skips.iter();
                skips.any(|skip| (skip.from.seq..skip.to.seq).contains(seq))
            };
            let new = (first..self.next).filter(|seq| !skipped(seq));
            if seen.full == Full::DropNewest {
                seen.promised.extend(new);
            }
        }
    }

    /// Reads once; says whether there was anything.
    fn read(&mut self, who: usize, events: usize, bytes: usize) -> bool {
        loop {
            let seen = &mut self.seen[who];
            let step = { self.core.state.lock() }.step(who, events, bytes, &mut seen.block);
            match step {
                Step::Ready(read) => {
                    assert!(read.events.len() <= events);
                    self.got(who, read);
                    return true;
                }
                Step::Load(load) => {
                    let loaded = load.run();
                    seen.block = self.core.state.lock().loaded(&load, who, loaded);
                }
                Step::Wait | Step::End => return false,
            }
        }
    }

    fn got(&mut self, who: usize, read: Read) {
        let seen = &mut self.seen[who];
        let mut parts: Vec<(Range<u64>, &str)> = Vec::new();
        for event in &read.events {
            let right = self.bodies[&event.seq].contains(event.body());
            assert!(right, "wrong bytes for {}", event.seq);
            assert_eq!(event.received, 7);
            parts.push((event.seq..event.seq + 1, ""));
            let name = (self.core.identity.opening(event.seq).to_owned(), event.seq);
            let named = { self.named.entry(name) }.or_insert_with(|| event.body().clone());
            assert_eq!(named, event.body(), "{}: one name, two events", event.seq);
        }
        for lost in &read.lost {
            assert!(!lost.range.is_empty());
            parts.push((lost.range.clone(), lost.reason));
        }
        parts.sort_by_key(|(range, _)| range.start);
        let mut adds = Account::default();
        for (range, reason) in parts {
            assert_eq!(range.start, seen.read, "no holes, nothing twice");
            seen.read = range.end;
            match reason {
                "" => adds.delivered += 1,
                "damaged" => {
                    for seq in range.clone() {
                        assert!(self.hurt.contains(&seq), "{seq} was not damaged");
                    }
                }
                _ => {
                    for seq in range.clone() {
                        assert!(!seen.promised.contains(&seq), "{seq} was promised");
                    }
                }
            }
            if !reason.is_empty() {
                *adds.dropped.entry(reason.to_owned()).or_default() += range.end - range.start;
            }
        }
        seen.hand.push((seen.read, adds));
        seen.kept = Some(Kept {
            opening: self.core.identity.current().to_owned(),
            next: seen.read,
            resume: seen.read,
        });
    }

    fn settle(&mut self, who: usize, part: u8) {
        let seen = &mut self.seen[who];
        let n = (seen.hand.len() * part as usize).div_ceil(255);
        for (next, adds) in seen.hand.drain(..n) {
            seen.account.add(&adds);
            seen.at = next;
        }
        if n > 0 {
            self.core.settle(who, seen.at, &seen.account);
            seen.checkpoints.push((seen.at, seen.account.clone()));
            seen.promised = seen.promised.split_off(&seen.at);
        }
    }

    fn again(&mut self, who: usize) {
        self.core.state.lock().rewind(who);
        let seen = &mut self.seen[who];
        seen.read = seen.at;
        seen.hand.clear();
        seen.block = None;
    }

    fn sync(&mut self) {
        self.core.sync();
        let mut state = self.core.state.lock();
        if std::mem::take(&mut state.counts.sync_errors) == 0 {
            self.synced = self.next;
        }
    }

    fn save(&mut self) {
        let Some(disk) = &self.core.disk else { return };
        if self.core.save(disk) && self.core.save(disk) {
            self.cursors_hurt = 0;
            self.unwritten.remove(self.core.identity.current());
            for seen in &mut self.seen {
                seen.checkpoints = vec![(seen.at, seen.account.clone())];
            }
        }
    }

    /// The process ends without a word, another one starts.
    fn reopen(&mut self) {
        let disk = self.disk.as_ref().unwrap();
        self.core = open(&self.fs, disk, &self.destinations);
        let next = self.core.state.lock().end.seq;
        for (first, bodies) in std::mem::take(&mut self.revenants) {
            // Nobody was told that they came in, so they have no name, or that of what came in after them.
            self.named.retain(|(_, seq), _| *seq < first);
            for (seq, body) in (first..next).zip(bodies) {
                self.bodies.entry(seq).or_default().push(body);
                self.next = self.next.max(seq + 1);
            }
        }
        assert!(next <= self.next, "{next} is not known");
        for seq in next..self.next {
            assert!(self.hurt.contains(&seq), "{seq} is gone");
            self.bodies.remove(&seq);
            self.hurt.remove(&seq);
        }
        self.next = next;
        self.synced = self.synced.min(next);
        let identity = &self.core.identity;
        if { self.unwritten.iter() }.any(|opening| identity.resume(opening, 0).is_none()) {
            // Its events count to the opening before: more than one thing must fail for that.
            self.named.clear();
        }
        if self.cannot_sync {
            let opening = self.core.identity.current().to_owned();
            self.unwritten.insert(opening);
        }
        for (who, seen) in self.seen.iter_mut().enumerate() {
            if let Some(kept) = &mut seen.kept {
                // What comes in from now on counts as delivered to nobody.
                kept.resume = kept.resume.min(next);
                match self.core.identity.resume(&kept.opening, kept.next) {
                    Some(resume) => assert_eq!(resume, kept.resume),
                    None => assert!(self.unwritten.contains(&kept.opening), "{kept:?}"),
                }
            }
            let state = self.core.state.lock();
            let place = &state.places[who];
            let start = (place.at.seq, place.account.clone());
            assert!(
                seen.checkpoints.contains(&start),
                "{start:?} is none of {:?}",
                seen.checkpoints
            );
            assert_eq!(place.birth, seen.birth);
            assert_eq!(start.0, seen.birth + start.1.total());
            (seen.at, seen.account) = start;
            seen.checkpoints.retain(|(at, _)| *at <= seen.at);
            seen.read = seen.at;
            seen.hand.clear();
            seen.block = None;
            // A promise was the last process's where a crash took the event itself.
            seen.promised.retain(|seq| *seq < next);
        }
    }

    fn crash(&mut self, seed: u64) {
        let mut random = fastrand(seed);
        self.fs.limit(None);
        if self.cursors_hurt > 0 {
            // One is damaged and the other one may be torn: that is more than the buffer promises to survive.
            return;
        }
        self.fs.crash(&mut random);
        self.hurt.extend(self.synced..self.next);
        self.reopen();
    }

    fn flip(&mut self, file: usize, bit: usize) {
        let mut files = self.fs.lengths();
        files.retain(|(name, length)| segment::first_of(name).is_some() && *length > 0);
        if files.is_empty() {
            return;
        }
        let (name, length) = &files[file % files.len()];
        let bit = bit % (length * 8);
        let bytes = self.fs.bytes(name).unwrap();
        let first = segment::first_of(name).unwrap();
        let seed = Seed::new(self.core.id, first);
        let mut records = Records::new(
            seed,
            &bytes[SEGMENT_HEADER.min(bytes.len())..],
            first,
            u64::MAX,
        );
        loop {
            let from = (records.seq(), records.offset());
            let Some(found) = records.next() else { break };
            let range = SEGMENT_HEADER + from.1..SEGMENT_HEADER + records.offset();
            if range.contains(&(bit / 8)) {
                self.hurt.extend(from.0..records.seq());
            }
            assert!(!matches!(found, Found::Damaged { .. }) || !self.hurt.is_empty());
        }
        self.fs.flip(name, bit);
    }

    fn flip_cursors(&mut self, bit: usize) {
        // One of the two at a time is what the buffer promises to survive.
        let Some(bytes) = self.fs.bytes("cursors.0") else {
            return;
        };
        if self.fs.bytes("cursors.1").is_none() || self.cursors_hurt > 0 {
            return;
        }
        let used = bytes.iter().rposition(|byte| *byte != b'\n').unwrap_or(0) + 1;
        self.fs.flip("cursors.0", bit % (used * 8));
        self.cursors_hurt += 1;
    }

    fn check(&self) {
        let state = self.core.state.lock();
        assert!(
            state.bytes <= self.max_bytes,
            "{} bytes of {}",
            state.bytes,
            self.max_bytes
        );
        for (seen, place) in self.seen.iter().zip(&state.places) {
            assert_eq!(place.at.seq, seen.at);
            assert_eq!(place.read.seq, seen.read);
            assert_eq!(place.at.seq, place.birth + place.account.total());
            assert!(place.skips.len() <= 24, "{} skips", place.skips.len());
        }
        assert_eq!(self.fs.bytes("notes.txt").unwrap(), b"somebody else's");
    }

    /// Everything works again: everybody gets what is left, and nothing is held any more.
    fn finish(&mut self) {
        self.fs.limit(None);
        self.fs.fail_cut(false);
        self.fs.fail_sync(false);
        self.core.state.lock().closed = true;
        for who in 0..self.seen.len() {
            while self.read(who, 7, 1000) {}
            assert_eq!(self.seen[who].read, self.next);
            self.settle(who, 255);
            assert_eq!(self.seen[who].at, self.next);
        }
        self.save();
        let state = self.core.state.lock();
        assert!(state.segments.len() <= 1, "{:?}", state.segments);
        for place in &state.places {
            assert_eq!(place.waiting(state.end), (0, 0));
        }
    }
}

fn open(fs: &Faulty, disk: &DiskBuffer, destinations: &[(String, Backlog)]) -> Core {
    let layout = Layout::new(disk, destinations.len());
    recover::open(Arc::new(fs.clone()), layout, destinations).unwrap()
}

/// Numbers that look random.
fn fastrand(mut seed: u64) -> impl FnMut() -> usize {
    move || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = seed;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((x ^ (x >> 31)) >> 8).unwrap()
    }
}

fn destinations() -> impl Strategy<Value = Vec<(String, Backlog)>> {
    let backlog = (any::<bool>(), prop::option::of(500..6000u64)).prop_map(|(newest, bytes)| {
        let full = if newest {
            Full::DropNewest
        } else {
            Full::DropOldest
        };
        Backlog {
            max_bytes: bytes.map(Size),
            full,
        }
    });
    prop::collection::vec(backlog, 1..=3).prop_map(|backlogs| {
        let named = backlogs.into_iter().enumerate();
        named
            .map(|(i, backlog)| (format!("d{i}"), backlog))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn the_buffer_keeps_its_promises(
        max_bytes in 16_000..60_000u64,
        segment_bytes in 400..4_000u64,
        memory_bytes in prop_oneof![Just(0u64), 0..5_000u64],
        destinations in destinations(),
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let disk = DiskBuffer {
            path: "unused".into(),
            max_bytes: Size(max_bytes),
            segment_bytes: Size(segment_bytes),
            sync_interval: Time::default(),
            memory_bytes: Size(memory_bytes),
        };
        let mut model = Model::new(max_bytes, Some(disk), destinations);
        for op in ops {
            model.run(op);
        }
        model.finish();
    }

    #[test]
    fn in_memory_it_keeps_them_too(
        max_bytes in 500..40_000u64,
        destinations in destinations(),
        ops in prop::collection::vec(harmless(), 1..120),
    ) {
        let mut model = Model::new(max_bytes, None, destinations);
        for op in ops {
            model.run(op);
        }
        model.finish();
        assert_eq!(model.core.state.lock().bytes, 0);
    }
}
