//! Opening a buffer: reading everything that an earlier process left, whatever state it is in.

use std::collections::BTreeMap;
use std::hash::BuildHasher as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::{Backlog, DiskBuffer};

use super::core::{Active, Core, Disk, Saver, Unsynced, Writer, segment_bytes, set_aside};
use super::format::{Found, Records, SEGMENT_HEADER, Seed, SegmentHeader, read_segment_header};
use super::fs::{Fs, FsFile};
use super::identity::BufferIdentity;
use super::place::{Place, Point, Skip};
use super::saved::{Saved, SavedCursor};
use super::segment::{self, SegmentFile, read_whole};
use super::sources::Sources;
use super::state::{Bounds, Damage, Data, Segment, State};

/// Damaged stretches of a segment that are told apart; with more, the rest of the segment counts as damaged.
const MAX_DAMAGE: usize = 1024;

/// A buffer on disk cannot be opened.
#[derive(Debug)]
pub(super) enum Failed {
    /// The folder cannot be listed.
    List(io::Error),
    /// A segment or the cursors are there and cannot be opened or read: rights, too many open files, a disk that fails. Events
    /// and places must not be given up for that.
    Open { name: String, source: io::Error },
    /// A segment is of a version that this program does not know.
    Version { name: String, version: u32 },
}

/// How a buffer on disk is dealt out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) segment_bytes: u64,
    pub(super) bounds: Bounds,
    /// What the shares of all destinations come out of.
    pub(super) usable: u64,
}

impl Layout {
    /// Of a buffer with so many destinations. Each may hold back two segments beyond its share when it is given something,
    /// and the last of its segments grows after that; two more are the one that is written to and one that is about to go.
    /// All these are set apart, and small enough to leave three quarters.
    pub(super) fn new(disk: &DiskBuffer, destinations: usize) -> Layout {
        let spare = 3 * destinations as u64 + 2;
        let max_bytes = disk.max_bytes.0;
        let most = (max_bytes / 4 / spare).max(1);
        let segment_bytes = disk.segment_bytes.0.clamp(1, most).min(MAX_SEGMENT);
        Layout {
            segment_bytes,
            bounds: Bounds {
                max_bytes,
                slack: 2 * segment_bytes,
                segment_header: SEGMENT_HEADER as u64,
                recent_bytes: disk.memory_bytes.0,
                mark_bytes: (max_bytes / 256).clamp(1, 64 << 10),
            },
            usable: max_bytes - spare * segment_bytes.min(max_bytes / spare),
        }
    }
}

/// Bytes of a segment at most: one is read as a whole when the buffer is opened.
const MAX_SEGMENT: u64 = 256 << 20;

/// Opens a buffer.
pub(super) fn open(
    fs: Arc<dyn Fs>,
    layout: Layout,
    destinations: &[(String, Backlog)],
) -> Result<Core, Failed> {
    let mut firsts: Vec<u64> = fs
        .list()
        .map_err(Failed::List)?
        .iter()
        .filter_map(|name| segment::first_of(name))
        .collect();
    firsts.sort_unstable();
    let saved = [Saved::read(&*fs, 0)?, Saved::read(&*fs, 1)?];
    let generation = |slot: usize| saved[slot].as_ref().map(|saved| saved.generation);
    let newest = usize::from(generation(1) > generation(0));
    let best = saved[newest].as_ref();
    let files = open_files(&*fs, &firsts)?;
    let id = best.map(|saved| saved.id);
    let id = id.or_else(|| files.iter().find_map(|(_, _, id)| *id));
    let id = id.unwrap_or_else(|| foldhash::quality::RandomState::default().hash_one(0));

    let mut log = Recovered::new(State::new(layout.bounds, Vec::new()), best);
    for (at, (first, file, _)) in files.into_iter().enumerate() {
        let limit = firsts.get(at + 1).copied();
        log.take(&*fs, id, first, file, limit)?;
    }
    let active = log.finish(best.map_or(0, |saved| saved.next));
    log.places(layout.usable, destinations, best);
    let needed = |saved: &Option<Saved>| {
        let saved = saved.as_ref().or(best)?;
        let cursor = |(name, _): &(String, Backlog)| {
            let cursor = saved.cursors.iter().find(|cursor| cursor.name == *name)?;
            Some(super::place::Needed {
                at: cursor.at,
                skips: cursor.skips.iter().map(|skip| skip.from..skip.to).collect(),
            })
        };
        Some(destinations.iter().map(cursor).collect())
    };
    let saver = Saver {
        generation: best.map_or(0, |saved| saved.generation),
        slot: 1 - newest,
        needed: [needed(&saved[0]), needed(&saved[1])],
        failing: false,
    };
    let unsynced = Unsynced::of(&log.state);
    let openings = best.map(|saved| saved.openings.clone());
    let identity = BufferIdentity::again(
        format!("{id:016x}"),
        openings.unwrap_or_default(),
        log.state.end.seq,
    );
    let core = Core {
        id,
        identity,
        state: Mutex::new(log.state),
        arrived: Notify::new(),
        disk: Some(Disk {
            fs,
            id,
            segment_bytes: layout.segment_bytes,
            writer: Mutex::new(Writer {
                active,
                ..Writer::default()
            }),
            unsynced: Mutex::new(unsynced),
            syncing: Mutex::new(()),
            saver: Mutex::new(saver),
            seal: AtomicBool::new(false),
        }),
    };
    if let Some(disk) = &core.disk {
        // Where a destination and this opening began must not depend on what a crash leaves of the log. A full disk is no
        // reason to stop: a destination that keeps its place by an opening that nobody knows begins at its cursor.
        let _ = core.save(disk) && core.save(disk);
    }
    Ok(core)
}

type Opened = (u64, Arc<dyn FsFile>, Option<u64>);

/// Opens all segments and says which buffer each one is of, as far as its header tells.
fn open_files(fs: &dyn Fs, firsts: &[u64]) -> Result<Vec<Opened>, Failed> {
    let mut files = Vec::with_capacity(firsts.len());
    for first in firsts {
        let name = segment::name(*first);
        let mut header = [0; SEGMENT_HEADER];
        let file = match fs.open(&name) {
            Ok(file) => file,
            Err(source) => return Err(Failed::Open { name, source }),
        };
        let read = super::fs::read_full(&*file, &mut header, 0);
        let id = match read.map(|_| read_segment_header(&header)) {
            Ok(SegmentHeader::Version(version)) => return Err(Failed::Version { name, version }),
            Ok(SegmentHeader::Good { id, first: said }) if said == *first => Some(id),
            _ => None,
        };
        files.push((*first, file, id));
    }
    Ok(files)
}

/// The log as far as it was read.
struct Recovered {
    state: State,
    /// Positions of the numbers that the cursors speak of.
    wanted: BTreeMap<u64, u64>,
    /// Those that have no position yet begin here.
    unplaced: u64,
    /// Numbers that no destination had room for.
    gaps: Vec<(Point, Point)>,
    /// The last segment, if it can be written to.
    last: Option<Active>,
}

impl Recovered {
    fn new(state: State, saved: Option<&Saved>) -> Recovered {
        let mut wanted = BTreeMap::new();
        for cursor in saved.iter().flat_map(|saved| &saved.cursors) {
            wanted.insert(cursor.at, u64::MAX);
            for skip in &cursor.skips {
                wanted.insert(skip.from, u64::MAX);
                wanted.insert(skip.to, u64::MAX);
            }
        }
        Recovered {
            state,
            wanted,
            unplaced: 0,
            gaps: Vec::new(),
            last: None,
        }
    }

    /// Every number up to this one lies here at the latest.
    fn place_up_to(&mut self, point: Point) {
        if self.unplaced <= point.seq {
            for (_, pos) in self.wanted.range_mut(self.unplaced..=point.seq) {
                *pos = point.pos;
            }
            self.unplaced = point.seq + 1;
        }
    }

    fn pos(&self, seq: u64) -> u64 {
        let pos = self.wanted.get(&seq).copied().unwrap_or(u64::MAX);
        pos.min(self.state.end.pos)
    }

    /// Reads the next segment. `limit`: the number at which the one after it starts.
    fn take(
        &mut self,
        fs: &dyn Fs,
        id: u64,
        first: u64,
        file: Arc<dyn FsFile>,
        limit: Option<u64>,
    ) -> Result<(), Failed> {
        self.last = None;
        let name = segment::name(first);
        let bytes = match read_whole(&*file) {
            Ok(bytes) => bytes,
            Err(source) => return Err(Failed::Open { name, source }),
        };
        let header = bytes.get(..SEGMENT_HEADER).unwrap_or_default();
        let sound = read_segment_header(header) == SegmentHeader::Good { id, first };
        let records = bytes.get(SEGMENT_HEADER..).unwrap_or_default();
        let seed = Seed::new(id, first);
        let scanned = self.scan(seed, records, first, limit);
        if scanned.seq == first {
            // Nothing in it can be used.
            if sound && records.is_empty() && limit.is_none() {
                self.last = Some(active(file, first, seed, bytes.len()));
            } else if records.is_empty() {
                if let Err(error) = fs.remove(&name) {
                    tracing::warn!(name, %error, "buffer: an empty segment cannot be removed");
                }
            } else {
                self.state.counts.damaged += limit.map_or(0, |limit| limit - first);
                set_aside(fs, &name);
            }
            return Ok(());
        }
        let start = Point {
            seq: first,
            pos: self.state.end.pos,
        };
        let good = scanned.offset;
        let end = Point {
            seq: scanned.seq,
            pos: start.pos + good as u64,
        };
        let torn = records.len() - good;
        let mut damaged = scanned.damaged || !sound;
        let active = active(file, first, seed, SEGMENT_HEADER + good);
        let segment_file = Arc::clone(&active.file);
        if torn > 0 {
            tracing::warn!(
                name,
                bytes = torn,
                "buffer: a segment ends in bytes that are no record"
            );
            match limit {
                Some(limit) => {
                    damaged = true;
                    self.state.counts.damaged += limit - scanned.seq;
                }
                None if active.file.file.cut(active.length).is_ok() => self.last = Some(active),
                None => {}
            }
        } else if limit.is_none() && sound {
            self.last = Some(active);
        }
        let segment = Segment {
            first: start,
            end,
            data: Data::File(segment_file),
            damaged,
        };
        self.state.bytes += segment_bytes(&segment);
        self.state.segments.push_back(segment);
        self.state.end = end;
        Ok(())
    }

    fn scan(&mut self, seed: Seed, bytes: &[u8], first: u64, limit: Option<u64>) -> Scanned {
        let base = self.state.end.pos;
        // Numbers further away than this do not follow on those before.
        let limit = limit.unwrap_or(first.saturating_add(1 << 40));
        let mut records = Records::new(seed, bytes, first, limit);
        let mut scanned = Scanned {
            seq: first,
            offset: 0,
            damaged: false,
        };
        let mut stretches = 0;
        loop {
            let from = Point {
                seq: scanned.seq,
                pos: base + scanned.offset as u64,
            };
            let Some(found) = records.next() else {
                return scanned;
            };
            let to = Point {
                seq: records.seq(),
                pos: base + records.offset() as u64,
            };
            match found {
                Found::Event { received, .. } => {
                    self.place_up_to(from);
                    self.state.mark(from, received);
                }
                Found::Gap { .. } => {
                    self.place_up_to(from);
                    match self.gaps.last_mut() {
                        Some(last) if last.1.seq == from.seq => last.1 = to,
                        _ => self.gaps.push((from, to)),
                    }
                }
                Found::Damaged { .. } => {
                    stretches += 1;
                    if stretches > MAX_DAMAGE {
                        return scanned;
                    }
                    self.state.add_damage(Damage { from, to }, "opened");
                    scanned.damaged = true;
                }
            }
            scanned.seq = to.seq;
            scanned.offset = records.offset();
        }
    }

    /// Everything was read. `next`: what the cursors say would be the next number.
    fn finish(&mut self, next: u64) -> Option<Active> {
        let last_wanted = self.wanted.keys().next_back().copied().unwrap_or(0);
        let next = next.max(last_wanted);
        let empty_next = self.last.as_ref().map_or(0, |last| last.file.first);
        let end = self.state.end;
        if next.max(empty_next) > end.seq {
            if next > empty_next.max(end.seq) {
                // Events were written that are gone. Their numbers are not given again.
                self.last = None;
            }
            if end.seq > 0 || !self.state.segments.is_empty() {
                tracing::warn!(
                    first = end.seq,
                    behind = next,
                    "buffer: events are gone that were not synced before a crash"
                );
            }
            self.state.end.seq = next.max(empty_next);
        }
        self.place_up_to(self.state.end);
        self.last.take()
    }

    /// Makes the destinations' places from what was written down.
    fn places(&mut self, usable: u64, destinations: &[(String, Backlog)], saved: Option<&Saved>) {
        let next = saved.map_or(0, |saved| saved.next);
        for cursor in saved.iter().flat_map(|saved| &saved.cursors) {
            if !destinations.iter().any(|(name, _)| *name == cursor.name) {
                tracing::warn!(
                    destination = cursor.name,
                    at = cursor.at,
                    events = next.saturating_sub(cursor.at),
                    "buffer: a destination is no longer configured, what waited for it is given up"
                );
            }
        }
        let shares = super::shares(usable, destinations);
        for ((name, backlog), share) in destinations.iter().zip(shares) {
            let cursors = saved.iter().flat_map(|saved| &saved.cursors);
            let cursor = { cursors }.find(|cursor| cursor.name == *name);
            let place = match cursor {
                Some(cursor) => self.place(cursor, share, backlog),
                None => {
                    let birth = self.oldest();
                    Place::new(name.clone(), share, backlog.full, birth.seq, birth)
                }
            };
            self.state.places.push(place);
        }
        for (from, to) in std::mem::take(&mut self.gaps) {
            for place in &mut self.state.places {
                place.skip_gap(from, to);
            }
        }
    }

    fn place(&self, cursor: &SavedCursor, share: u64, backlog: &Backlog) -> Place {
        let point = |seq: u64| Point {
            seq,
            pos: self.pos(seq),
        };
        let at = point(cursor.at);
        let mut place = Place::new(cursor.name.clone(), share, backlog.full, cursor.birth, at);
        place.account.clone_from(&cursor.account);
        place.skips = cursor
            .skips
            .iter()
            .map(|skip| Skip {
                from: point(skip.from),
                to: point(skip.to),
                sources: Sources::of(skip.sources.clone()),
            })
            .collect();
        place
    }

    /// The oldest event from which on nothing was given back.
    fn oldest(&self) -> Point {
        let mut oldest = self.state.end;
        for segment in self.state.segments.iter().rev() {
            if segment.end.seq != oldest.seq {
                break;
            }
            oldest = segment.first;
        }
        oldest
    }
}

struct Scanned {
    /// The number behind the last good record.
    seq: u64,
    /// Where it ends.
    offset: usize,
    damaged: bool,
}

fn active(file: Arc<dyn FsFile>, first: u64, seed: Seed, length: usize) -> Active {
    Active {
        file: Arc::new(SegmentFile { first, seed, file }),
        length: length as u64,
    }
}

impl Place {
    /// Nobody had room for the events between.
    fn skip_gap(&mut self, from: Point, to: Point) {
        let from = if from.seq < self.at.seq {
            self.at
        } else {
            from
        };
        if to.seq <= from.seq {
            return;
        }
        let at = { self.skips.iter() }.position(|skip| skip.to.seq >= from.seq);
        let at = at.unwrap_or(self.skips.len());
        let mut skip = Skip {
            from,
            to,
            sources: Sources::default(),
        };
        while let Some(next) = self.skips.get(at).filter(|next| next.from.seq <= to.seq) {
            if next.from.seq < skip.from.seq {
                skip.from = next.from;
            }
            if next.to.seq > skip.to.seq {
                skip.to = next.to;
            }
            if let Some(next) = self.skips.remove(at) {
                skip.sources.merge(next.sources);
            }
        }
        self.skips.insert(at, skip);
    }
}
