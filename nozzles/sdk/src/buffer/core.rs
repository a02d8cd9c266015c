//! A buffer without its threads: everything that they do, one call at a time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::account::Account;
use crate::event::Event;

use super::Appended;
use super::format::{HEADER, MAX_BODY, SEGMENT_HEADER, Seed, encode, encode_gap, segment_header};
use super::fs::{Fs, is_full};
use super::identity::BufferIdentity;
use super::place::Needed;
use super::saved::{Saved, SavedCursor, SavedSkip};
use super::segment::{self, GAP_BYTES, SegmentFile};
use super::state::{Data, Plan, Segment, State, weight};

/// Files that are kept for inspection after something in them was found damaged.
const KEPT_DAMAGED: usize = 4;
/// What the files kept for inspection end in.
const DAMAGED: &str = ".damaged";
/// A buffer for writes bigger than this is not kept.
const KEPT_WRITE: usize = 8 << 20;

/// A buffer: its log, and its files if it has any.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) id: u64,
    pub(super) identity: BufferIdentity,
    pub(super) state: Mutex<State>,
    pub(super) arrived: Notify,
    pub(super) disk: Option<Disk>,
}

/// The files of a buffer.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) id: u64,
    pub(super) segment_bytes: u64,
    pub(super) writer: Mutex<Writer>,
    pub(super) unsynced: Mutex<Unsynced>,
    /// Held while files are synced.
    pub(super) syncing: Mutex<()>,
    pub(super) saver: Mutex<Saver>,
    /// The segment that is written to must not be written to any more.
    pub(super) seal: AtomicBool,
}

/// Where the next record goes.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) active: Option<Active>,
    pub(super) bytes: Vec<u8>,
    /// A write failed, and no later one has succeeded.
    pub(super) failing: bool,
}

/// The segment that is written to.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) file: Arc<SegmentFile>,
    pub(super) length: u64,
}

/// What the system has and the disk may not have.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    files: Vec<Arc<SegmentFile>>,
    names: bool,
}

impl Unsynced {
    /// What an earlier process wrote and perhaps had not synced.
    pub(super) fn of(state: &State) -> Unsynced {
        let segments = state.segments.iter();
        let files = segments.filter_map(|segment| match &segment.data {
            Data::File(file) => Some(Arc::clone(file)),
            Data::Memory(_) => None,
        });
        Unsynced {
            files: files.collect(),
            names: true,
        }
    }
}

/// What stands in the two cursor files.
#[derive(Debug, Default)]
pub(super) struct Saver {
    pub(super) generation: u64,
    /// The file that is written next.
    pub(super) slot: usize,
    /// What each destination needed by each file.
    pub(super) needed: [Option<Vec<Option<Needed>>>; 2],
    pub(super) failing: bool,
}

impl Core {
    /// Puts events behind the log's end.
    pub(super) fn append(&self, mut events: Vec<Event>) -> Appended {
        let longest = self.longest();
        let all = events.len() as u64;
        events.retain(|event| weight(event) <= longest);
        let mut appended = Appended::default();
        let too_large = all - events.len() as u64;
        if too_large > 0 {
            appended.refuse("too_large", too_large);
            self.state.lock().counts.refuse("too_large", too_large);
        }
        match &self.disk {
            None => {
                appended.accepted = events.len() as u64;
                self.append_memory(events);
            }
            Some(disk) => {
                // A segment gives back its space as a whole, so none is bigger than it should be.
                while !events.is_empty() {
                    let mut room = longest;
                    let fits = events.iter().take_while(|event| {
                        let left = room.checked_sub(weight(event));
                        room = left.unwrap_or(0);
                        left.is_some()
                    });
                    let rest = events.split_off(fits.count().max(1));
                    let n = events.len() as u64;
                    match self.append_disk(disk, events) {
                        Ok(()) => appended.accepted += n,
                        Err(why) => {
                            let refused = n + rest.len() as u64;
                            appended.refuse(why, refused);
                            self.state.lock().counts.refuse(why, refused);
                            break;
                        }
                    }
                    events = rest;
                }
            }
        }
        self.arrived.notify_waiters();
        appended
    }

    /// Bytes of the longest record.
    fn longest(&self) -> u64 {
        let most = (HEADER + MAX_BODY) as u64;
        self.disk.as_ref().map_or(most, |disk| {
            let room = disk
                .segment_bytes
                .saturating_sub(SEGMENT_HEADER as u64 + GAP_BYTES);
            room.min(most)
        })
    }

    fn append_memory(&self, mut events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        let plan = state.plan(&events);
        number(&mut events, state.end.seq);
        state.commit(&plan, events, None);
        if state.bytes > state.bounds.max_bytes {
            state.release_memory(true);
        }
    }

    fn append_disk(&self, disk: &Disk, mut events: Vec<Event>) -> Result<(), &'static str> {
        let mut writer = disk.writer.lock();
        let (plan, first, full) = {
            let mut state = self.state.lock();
            let plan = state.plan(&events);
            let stored: u64 = events[..plan.stored].iter().map(weight).sum();
            let most = stored + GAP_BYTES + SEGMENT_HEADER as u64;
            let full = state.bytes + most > state.bounds.max_bytes;
            (plan, state.end.seq, full)
        };
        // What nobody needs any more goes once both cursor files say so.
        if full && !(self.save(disk) && self.save(disk)) {
            return Err("disk_error");
        }
        number(&mut events, first);
        match write(disk, &mut writer, &plan, &events) {
            Ok(bytes) => {
                let mut unnamed = Vec::new();
                if let Some(active) = &writer.active {
                    let mut state = self.state.lock();
                    state.commit(&plan, events, Some((&active.file, bytes)));
                    unnamed = std::mem::take(&mut state.unnamed);
                }
                self.name(unnamed);
                if std::mem::take(&mut writer.failing) {
                    tracing::info!("buffer: can be written to again");
                }
                Ok(())
            }
            Err(error) => {
                let why = if is_full(&error) {
                    "disk_full"
                } else {
                    "disk_error"
                };
                if !std::mem::replace(&mut writer.failing, true) {
                    tracing::error!(why, %error, "buffer: cannot be written to, events are refused");
                }
                Err(why)
            }
        }
    }

    /// Everything before `next` is settled for this destination.
    pub(super) fn settle(&self, index: usize, next: u64, account: &Account) {
        let mut state = self.state.lock();
        state.places[index].settle(next, account);
        state.changed = true;
        if self.disk.is_none() {
            state.release_memory(false);
        }
        if state.relieve(index) {
            drop(state);
            self.arrived.notify_waiters();
        }
    }

    /// Makes what was written last.
    pub(super) fn sync(&self) {
        let Some(disk) = &self.disk else { return };
        // Whoever finds nothing to do waits for the one who has it in hand.
        let _syncing = disk.syncing.lock();
        let unsynced = std::mem::take(&mut *disk.unsynced.lock());
        if unsynced.files.is_empty() && !unsynced.names {
            return;
        }
        let started = Instant::now();
        let mut failed = None;
        let mut left = Unsynced::default();
        if unsynced.names
            && let Err(error) = disk.fs.sync_names()
        {
            left.names = true;
            failed = Some(error);
        }
        for file in unsynced.files {
            if let Err(error) = file.file.sync() {
                left.files.push(file);
                failed = Some(error);
            }
        }
        let mut state = self.state.lock();
        state.counts.syncs += 1;
        state.counts.sync_time += started.elapsed();
        let Some(error) = failed else {
            if state.counts.sync_failing {
                tracing::info!("buffer: can be synced again");
            }
            state.counts.sync_failing = false;
            return;
        };
        state.counts.sync_errors += 1;
        if !std::mem::replace(&mut state.counts.sync_failing, true) {
            tracing::error!(%error, "buffer: what was written may not be on the disk");
        }
        drop(state);
        // The system may have thrown away what it could not write: nothing good comes of going on in that file.
        disk.seal.store(true, Ordering::Relaxed);
        let mut unsynced = disk.unsynced.lock();
        unsynced.names |= left.names;
        unsynced.files.extend(left.files);
    }

    /// Whether anything was written that was not synced.
    pub(super) fn is_unsynced(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| {
            let unsynced = disk.unsynced.lock();
            unsynced.names || !unsynced.files.is_empty()
        })
    }

    /// Writes the cursors down and gives back the segments that nobody needs by both cursor files. `false`: not written.
    pub(super) fn save(&self, disk: &Disk) -> bool {
        let mut saver = disk.saver.lock();
        let generation = saver.generation + 1;
        let (saved, needed) = {
            let mut state = self.state.lock();
            state.changed = false;
            let needed: Vec<_> = state
                .places
                .iter()
                .map(|place| Some(place.needed()))
                .collect();
            (self.saved(&state, generation), needed)
        };
        if let Err(error) = saved.write(&*disk.fs, saver.slot) {
            self.state.lock().changed = true;
            if !std::mem::replace(&mut saver.failing, true) {
                tracing::error!(%error, "buffer: cursors cannot be written down");
            }
            return false;
        }
        saver.failing = false;
        saver.generation = generation;
        let slot = saver.slot;
        saver.needed[slot] = Some(needed);
        saver.slot = 1 - slot;
        self.release(disk, &saver);
        true
    }

    /// Whether the older cursor file holds back what the newer one does not need.
    pub(super) fn is_behind(&self, disk: &Disk) -> bool {
        let saver = disk.saver.lock();
        self.state.lock().changed || saver.needed[0] != saver.needed[1]
    }

    fn saved(&self, state: &State, generation: u64) -> Saved {
        let cursor = |place: &super::place::Place| SavedCursor {
            name: place.name.clone(),
            birth: place.birth,
            at: place.at.seq,
            account: place.account.clone(),
            skips: place
                .skips
                .iter()
                .map(|skip| SavedSkip {
                    from: skip.from.seq,
                    to: skip.to.seq,
                    sources: skip.sources.top(),
                })
                .collect(),
        };
        Saved {
            id: self.id,
            generation,
            next: state.end.seq,
            openings: self.identity.openings().to_vec(),
            cursors: state.places.iter().map(cursor).collect(),
        }
    }

    fn release(&self, disk: &Disk, saver: &Saver) {
        let [Some(a), Some(b)] = &saver.needed else {
            return;
        };
        let needed = |segment: &Segment| {
            let seqs = segment.first.seq..segment.end.seq;
            a.iter()
                .chain(b)
                .flatten()
                .any(|needed| needed.needs(&seqs))
        };
        let mut gone = Vec::new();
        {
            let mut state = self.state.lock();
            // The last one is written to.
            let last = state.segments.len().saturating_sub(1);
            let mut kept = std::collections::VecDeque::with_capacity(last + 1);
            for (at, segment) in std::mem::take(&mut state.segments).into_iter().enumerate() {
                if at == last || needed(&segment) {
                    kept.push_back(segment);
                } else {
                    state.bytes -= segment_bytes(&segment);
                    gone.push(segment);
                }
            }
            state.segments = kept;
            state.trim_lists();
        }
        for segment in gone {
            let Data::File(file) = segment.data else {
                continue;
            };
            let name = segment::name(file.first);
            if segment.damaged {
                set_aside(&*disk.fs, &name);
            } else if let Err(error) = disk.fs.remove(&name) {
                tracing::error!(name, %error, "buffer: a segment cannot be removed");
            }
        }
    }
}

/// Gives events their numbers.
fn number(events: &mut [Event], first: u64) {
    for (seq, event) in (first..).zip(events) {
        event.seq = seq;
    }
}

/// Bytes of a segment's file.
pub(super) fn segment_bytes(segment: &Segment) -> u64 {
    segment.end.pos - segment.first.pos + SEGMENT_HEADER as u64
}

/// Writes what of these events is stored, and a gap for the rest. Returns how many bytes that took.
fn write(disk: &Disk, writer: &mut Writer, plan: &Plan, events: &[Event]) -> io::Result<u64> {
    let (stored, rest) = events.split_at(plan.stored);
    let gap = if rest.is_empty() { 0 } else { GAP_BYTES };
    let bytes = stored.iter().map(weight).sum::<u64>() + gap;
    let first = events.first().map_or(0, |event| event.seq);
    let sealed = disk.seal.swap(false, Ordering::Relaxed);
    let active = writer.active.as_ref();
    let fits = active.is_some_and(|active| !sealed && active.length + bytes <= disk.segment_bytes);
    if !fits {
        writer.active = None;
    }
    let active = match &mut writer.active {
        Some(active) => active,
        empty => empty.insert(create(disk, first)?),
    };
    let out = &mut writer.bytes;
    out.clear();
    if out.capacity() > KEPT_WRITE {
        out.shrink_to(KEPT_WRITE);
    }
    out.reserve(usize::try_from(bytes).unwrap_or(HEADER));
    let seed = active.file.seed;
    for event in stored {
        encode(seed, event.seq, event.received, event.body(), out);
    }
    if let Some(skipped) = rest.first() {
        encode_gap(seed, skipped.seq, rest.len() as u64, out);
    }
    if let Err(error) = active.file.file.write_all_at(out, active.length) {
        // Whole records may be among what was written of these events, which are refused.
        if active.file.file.cut(active.length).is_err() {
            writer.active = None;
        }
        return Err(error);
    }
    active.length += bytes;
    let mut unsynced = disk.unsynced.lock();
    if !unsynced
        .files
        .iter()
        .any(|file| Arc::ptr_eq(file, &active.file))
    {
        unsynced.files.push(Arc::clone(&active.file));
    }
    Ok(bytes)
}

/// Begins a segment.
fn create(disk: &Disk, first: u64) -> io::Result<Active> {
    let fs = &disk.fs;
    let name = segment::name(first);
    let file = fs.create(&name)?;
    let header = segment_header(disk.id, first);
    if let Err(error) = file.write_all_at(&header, 0) {
        if let Err(error) = fs.remove(&name) {
            tracing::warn!(name, %error, "buffer: an empty segment cannot be removed");
        }
        return Err(error);
    }
    disk.unsynced.lock().names = true;
    Ok(Active {
        file: Arc::new(SegmentFile {
            first,
            seed: Seed::new(disk.id, first),
            file,
        }),
        length: SEGMENT_HEADER as u64,
    })
}

/// Keeps a damaged file for inspection, and no more than a few of them.
pub(super) fn set_aside(fs: &dyn Fs, name: &str) {
    let aside = format!("{name}{DAMAGED}");
    if let Err(error) = fs.rename(name, &aside) {
        tracing::error!(name, %error, "buffer: a damaged file cannot be set aside");
        return;
    }
    tracing::warn!(file = aside, "buffer: a damaged file was set aside");
    let mut kept: Vec<String> = fs.list().unwrap_or_default();
    kept.retain(|name| {
        let segment = name.strip_suffix(DAMAGED);
        segment.is_some_and(|name| segment::first_of(name).is_some())
    });
    kept.sort_unstable();
    for name in kept.iter().rev().skip(KEPT_DAMAGED) {
        if let Err(error) = fs.remove(name) {
            tracing::warn!(name, %error, "buffer: an old damaged file cannot be removed");
        }
    }
}
