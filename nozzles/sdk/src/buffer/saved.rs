//! The cursors on disk: two files that are written in turn, so that there is always a whole one.
//!
//! A file is a line `loggregator-buffer-cursors VERSION LENGTH CRC32C` and so many bytes of JSON; what follows is left from
//! longer ones. It is overwritten in its place: that works on a full disk too. The checksum is of `VERSION LENGTH`, a line
//! feed and the JSON. It stays so in every version: that tells a newer program's file from a damaged one.

use std::io;

use serde::{Deserialize, Serialize};

use crate::account::Account;

use super::fs::Fs;
use super::identity::Opening;
use super::recover::Failed;
use super::segment::read_whole;

const MAGIC: &str = "loggregator-buffer-cursors";
const VERSION: u32 = 1;
/// Bytes that a file takes from the start, so that there is room when the disk is full.
const RESERVED: usize = 64 << 10;

/// All cursors of a buffer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    /// The buffer's id.
    pub(super) id: u64,
    /// Counts up with every file written.
    pub(super) generation: u64,
    /// The number that the next event would have got.
    pub(super) next: u64,
    /// The openings of the buffer, as far as they are remembered.
    pub(super) openings: Vec<Opening>,
    pub(super) cursors: Vec<SavedCursor>,
}

/// One destination's cursor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedCursor {
    pub(super) name: String,
    pub(super) birth: u64,
    pub(super) at: u64,
    pub(super) account: Account,
    pub(super) skips: Vec<SavedSkip>,
}

/// Events that a destination does not get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedSkip {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) sources: Vec<(String, u64)>,
}

/// Name of one of the two files.
pub(super) fn name(slot: usize) -> &'static str {
    if slot == 0 { "cursors.0" } else { "cursors.1" }
}

impl Saved {
    /// Writes it into one of the two files.
    pub(super) fn write(&self, fs: &dyn Fs, slot: usize) -> io::Result<()> {
        let json = serde_json::to_vec(self)?;
        let length = json.len().to_string();
        let crc = checksum(&VERSION.to_string(), &length, &json);
        let mut bytes = format!("{MAGIC} {VERSION} {length} {crc}\n").into_bytes();
        bytes.extend_from_slice(&json);
        bytes.push(b'\n');
        let file = match fs.open(name(slot)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = fs.create(name(slot))?;
                bytes.resize(bytes.len().max(RESERVED), b'\n');
                fs.sync_names()?;
                file
            }
            Err(error) => return Err(error),
        };
        file.write_all_at(&bytes, 0)?;
        file.sync()
    }

    /// Reads one of the two files. `None`: there is none, or it is not whole.
    ///
    /// One that cannot be opened or read, or is of a newer program, is not taken for none: everything would be delivered again, and
    /// the place be written over.
    pub(super) fn read(fs: &dyn Fs, slot: usize) -> Result<Option<Saved>, Failed> {
        let failed = |source| Failed::Open {
            name: name(slot).to_owned(),
            source,
        };
        let file = match fs.open(name(slot)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        match parse(&read_whole(&*file).map_err(failed)?) {
            Ok(saved) => Ok(Some(saved)),
            Err(Unusable::Version(version)) => Err(Failed::Version {
                name: name(slot).to_owned(),
                version,
            }),
            Err(Unusable::Damaged(error)) => {
                tracing::error!(file = name(slot), error, "buffer: cursors are damaged");
                Ok(None)
            }
        }
    }
}

/// Why a file is of no use.
#[derive(Debug)]
enum Unusable {
    Damaged(String),
    Version(u32),
}

impl<T: ToString> From<T> for Unusable {
    fn from(error: T) -> Self {
        Unusable::Damaged(error.to_string())
    }
}

/// What a file holds.
fn parse(bytes: &[u8]) -> Result<Saved, Unusable> {
    let line_end = bytes.iter().position(|byte| *byte == b'\n');
    let line_end = line_end.ok_or("it has no first line")?;
    let line = std::str::from_utf8(&bytes[..line_end])?;
    let words: Vec<&str> = line.split(' ').collect();
    let [MAGIC, version, length, crc] = words[..] else {
        return Err(format!("its first line is not `{MAGIC} …`").into());
    };
    let bytes_of_json: usize = length.parse().map_err(|_| "its length is no number")?;
    let behind = line_end.saturating_add(1).saturating_add(bytes_of_json);
    let json = bytes
        .get(line_end + 1..behind)
        .ok_or("it is shorter than it says")?;
    if checksum(version, length, json) != crc {
        return Err("its checksum is wrong".into());
    }
    match version.parse() {
        Ok(VERSION) => Ok(serde_json::from_slice(json)?),
        Ok(version) => Err(Unusable::Version(version)),
        Err(_) => Err(format!("it is of version {version}").into()),
    }
}

/// As it stands in the first line.
fn checksum(version: &str, length: &str, json: &[u8]) -> String {
    let crc = crc32c::crc32c(format!("{version} {length}\n").as_bytes());
    format!("{:08x}", crc32c::crc32c_append(crc, json))
}
