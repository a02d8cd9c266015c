//! Segment files: their names, and reading a block of events out of one.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::event::Event;

use super::format::{Found, HEADER, Records, SEGMENT_HEADER, Seed};
use super::fs::{FsFile, read_full};

/// Bytes that are read at a time.
pub(super) const BLOCK: usize = 1 << 20;

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

    fn read(&self, want: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; want];
        match read_full(&*self.file.file, &mut bytes, self.offset) {
            Ok(n) => {
                bytes.truncate(n);
                Some(bytes)
            }
            Err(error) => {
                tracing::error!(segment = name(self.file.first), offset = self.offset, %error, "cannot be read");
                None
            }
        }
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
