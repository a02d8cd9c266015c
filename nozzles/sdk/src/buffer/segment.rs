//! Segment files: their names, and reading a block of events out of one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::event::Event;

use super::format::{Found, HEADER, Records, SEGMENT_HEADER, Seed};
use super::fs::{FsFile, read_full};

/// Bytes that are read at a time.
pub(super) const BLOCK: usize = 1 << 20;
/// Bytes that are given up when they cannot be read: what a disk gives up.
const PAGE: usize = 4096;
/// Pages of a segment that are given up one by one; with more, everything behind the place is.
const MAX_BAD_PAGES: usize = 256;
/// How long is waited before a read that failed is done again.
const AGAIN: [Duration; 3] = [
    Duration::from_millis(10),
    Duration::from_millis(100),
    Duration::from_millis(500),
];

/// A segment's file.
#[derive(Debug)]
pub(super) struct SegmentFile {
    pub(super) first: u64,
    pub(super) seed: Seed,
    pub(super) file: Arc<dyn FsFile>,
}

/// The name of the segment that starts with this number.
pub(super) fn name(first: u64) -> String {
    format!("{first:020}.log")
}

/// The number that stands in a segment's name. `None`: it is no segment.
pub(super) fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    let all_digits = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().ok())?
}

/// A read that has to be done.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) file: Arc<SegmentFile>,
    /// Where in the file.
    pub(super) offset: u64,
    /// The number of the event that stands there.
    pub(super) seq: u64,
    /// Where the file's records end.
    pub(super) end_offset: u64,
    /// The number behind its last record.
    pub(super) end_seq: u64,
    /// Reads that failed.
    pub(super) errors: AtomicU64,
}

/// What a read found.
#[derive(Debug)]
pub(super) enum Loaded {
    /// Events, the first with the number that was asked for.
    Events(Vec<Event>),
    /// That event and perhaps more are gone; the next thing in the file has this number and stands there.
    Damaged { seq: u64, offset: u64 },
}

impl Load {
    /// Reads. Takes as long as the disk does.
    pub(super) fn run(&self) -> Loaded {
        let rest = self.end_offset.saturating_sub(self.offset);
        let rest = usize::try_from(rest).unwrap_or(usize::MAX);
        let mut want = BLOCK.min(rest);
        while let Some(bytes) = self.read(want) {
            let bytes = Bytes::from(bytes);
            let mut records = Records::new(self.file.seed, &bytes, self.seq, self.end_seq);
            let mut found = Vec::new();
            let stopped = loop {
                match records.here() {
                    Ok(Found::Event {
                        seq,
                        received,
                        body,
                    }) => found.push(Event::new(seq, received, bytes.slice(body))),
                    Ok(_) => {}
                    Err(needed) => break needed,
                }
            };
            if !found.is_empty() {
                return Loaded::Events(found);
            }
            if records.offset() > 0 {
                // Only gaps: what follows them is asked for by its own number.
                break;
            }
            if want < rest && stopped > want {
                want = stopped.min(rest);
                continue;
            }
            return self.resync(rest);
        }
        self.lost()
    }

    /// Looks for the next good record behind a bad one.
    fn resync(&self, rest: usize) -> Loaded {
        let Some(bytes) = self.read(rest) else {
            return self.lost();
        };
        let mut records = Records::new(self.file.seed, &bytes, self.seq, self.end_seq);
        match records.next() {
            Some(Found::Damaged { seqs }) => Loaded::Damaged {
                seq: seqs.end,
                offset: self.offset + records.offset() as u64,
            },
            // It was good this time: a fault of the disk that went away.
            Some(_) => Loaded::Damaged {
                seq: self.seq,
                offset: self.offset,
            },
            None => self.lost(),
        }
    }

    /// Nothing more of the segment can be read.
    fn lost(&self) -> Loaded {
        Loaded::Damaged {
            seq: self.end_seq,
            offset: self.end_offset,
        }
    }

    /// Bytes from the place on. Those that cannot be read are zeros, which are no record; `None` when there are too many.
    fn read(&self, want: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; want];
        let mut waits = AGAIN.iter();
        loop {
            let error = match self.try_read(&mut bytes, 0) {
                Ok(n) => {
                    bytes.truncate(n);
                    return Some(bytes);
                }
                Err(error) => error,
            };
            let Some(wait) = waits.next() else {
                let (segment, offset) = (name(self.file.first), self.offset);
                tracing::error!(segment, offset, %error, "buffer: cannot be read, page by page now");
                return self.salvage(bytes);
            };
            std::thread::sleep(*wait);
        }
    }

    fn salvage(&self, mut bytes: Vec<u8>) -> Option<Vec<u8>> {
        let (mut at, mut bad, mut size) = (0, 0, BLOCK);
        while at < bytes.len() {
            let here = at..bytes.len().min(at + size);
            match self.try_read(&mut bytes[here.clone()], at) {
                Ok(n) if n < here.len() => {
                    bytes.truncate(at + n);
                    break;
                }
                Ok(_) => at = here.end,
                Err(_) if size > PAGE => {
                    // The rest of the block in pages.
                    size = PAGE;
                    continue;
                }
                Err(_) if bad == MAX_BAD_PAGES => return None,
                Err(_) => {
                    bad += 1;
                    bytes[here.clone()].fill(0);
                    at = here.end;
                }
            }
            if at.is_multiple_of(BLOCK) {
                size = BLOCK;
            }
        }
        Some(bytes)
    }

    /// So many bytes from `offset` on, or fewer at the file's end. `None`: they cannot be read now.
    pub(super) fn peek(&self, offset: u64, want: usize) -> Option<Bytes> {
        let mut bytes = vec![0; want];
        let n = read_full(&*self.file.file, &mut bytes, offset).ok()?;
        bytes.truncate(n);
        (n > 0).then(|| bytes.into())
    }

    fn try_read(&self, into: &mut [u8], behind: usize) -> io::Result<usize> {
        let read = read_full(&*self.file.file, into, self.offset + behind as u64);
        if read.is_err() {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        read
    }
}

/// Reads a whole file.
pub(super) fn read_whole(file: &dyn FsFile) -> io::Result<Vec<u8>> {
    let length = usize::try_from(file.length()?).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length];
    let n = read_full(file, &mut bytes, 0)?;
    bytes.truncate(n);
    Ok(bytes)
}

/// Where in a segment's file the record begins that lies so far behind the first one.
pub(super) fn offset(behind_first: u64) -> u64 {
    SEGMENT_HEADER as u64 + behind_first
}

/// Bytes of a gap's record.
pub(super) const GAP_BYTES: u64 = HEADER as u64;
