//! A file system in memory that fails as disks and machines do.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::buffer::fs::{Fs, FsFile};

/// A folder of which everybody with a clone sees the same files.
#[derive(Debug, Clone, Default)]
pub(super) struct Faulty {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug, Default)]
struct Disk {
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    files: Vec<Content>,
    /// Bytes that all files together may have.
    space: Option<usize>,
    fail_cut: bool,
    fail_sync: bool,
    locked: Option<String>,
    unreadable: Option<usize>,
    /// Bytes of all files that cannot be read.
    bad: Range<u64>,
    /// Reads that fail before one succeeds again.
    failing_reads: usize,
}

#[derive(Debug, Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Debug)]
struct Handle {
    disk: Arc<Mutex<Disk>>,
    at: usize,
}

impl Faulty {
    /// Writes fail when all files have so many bytes.
    pub(super) fn limit(&self, space: Option<usize>) {
        self.disk.lock().space = space;
    }

    /// Files cannot be cut.
    pub(super) fn fail_cut(&self, fail: bool) {
        self.disk.lock().fail_cut = fail;
    }

    /// This file cannot be opened.
    pub(super) fn lock(&self, name: Option<String>) {
        self.disk.lock().locked = name;
    }

    /// This file can be opened and not be read.
    pub(super) fn fail_reads(&self, name: Option<&str>) {
        let mut disk = self.disk.lock();
        disk.unreadable = name.map(|name| disk.names[name]);
    }

    /// These bytes of every file cannot be read.
    pub(super) fn fail_range(&self, bad: Range<u64>) {
        self.disk.lock().bad = bad;
    }

    /// The next reads fail.
    pub(super) fn fail_next_reads(&self, failing: usize) {
        self.disk.lock().failing_reads = failing;
    }

    /// Syncs fail.
    pub(super) fn fail_sync(&self, fail: bool) {
        self.disk.lock().fail_sync = fail;
    }

    /// The machine stops: of each file a part of what was not synced is lost, up to any byte; and perhaps names.
    pub(super) fn crash(&self, mut random: impl FnMut() -> usize) {
        let mut disk = self.disk.lock();
        if random().is_multiple_of(2) {
            disk.names = disk.synced_names.clone();
        }
        for file in &mut disk.files {
            let kept = random() % (file.bytes.len() + 1);
            let zeros = random().is_multiple_of(4);
            if file.bytes == file.synced {
                continue;
            }
            let old = file.synced.get(kept..).unwrap_or_default().to_vec();
            let length = file.bytes.len();
            file.bytes.truncate(kept);
            file.bytes.extend(old);
            if zeros && file.bytes.len() < length {
                file.bytes.resize(length, 0);
            }
            file.synced.clone_from(&file.bytes);
        }
        disk.synced_names = disk.names.clone();
    }

    /// Names and lengths of files.
    pub(super) fn lengths(&self) -> Vec<(String, usize)> {
        let disk = self.disk.lock();
        let length = |(name, at): (&String, &usize)| (name.clone(), disk.files[*at].bytes.len());
        disk.names.iter().map(length).collect()
    }

    /// What a file holds.
    pub(super) fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.disk.lock();
        let at = disk.names.get(name)?;
        Some(disk.files[*at].bytes.clone())
    }

    /// Changes one bit.
    pub(super) fn flip(&self, name: &str, bit: usize) {
        let mut disk = self.disk.lock();
        let at = disk.names[name];
        disk.files[at].bytes[bit / 8] ^= 1 << (bit % 8);
        let file = &mut disk.files[at];
        if let Some(byte) = file.synced.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
    }

    /// Puts a file there.
    pub(super) fn put(&self, name: &str, bytes: &[u8]) {
        let file = self.create(name).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file.sync().unwrap();
    }
}

impl Fs for Faulty {
    fn create(&self, name: &str) -> io::Result<Arc<dyn FsFile>> {
        let mut disk = self.disk.lock();
        disk.files.push(Content::default());
        let at = disk.files.len() - 1;
        disk.names.insert(name.to_owned(), at);
        drop(disk);
        self.open(name)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn FsFile>> {
        let disk = self.disk.lock();
        if disk.locked.as_deref() == Some(name) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        match disk.names.get(name) {
            Some(at) => Ok(Arc::new(Handle {
                disk: Arc::clone(&self.disk),
                at: *at,
            })),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let at = disk.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        disk.names.insert(to.to_owned(), at);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.disk.lock().names.keys().cloned().collect())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut disk = self.disk.lock();
        if disk.fail_sync {
            return Err(io::ErrorKind::Other.into());
        }
        disk.synced_names = disk.names.clone();
        Ok(())
    }
}

impl FsFile for Handle {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let mut disk = self.disk.lock();
        if disk.unreadable == Some(self.at) {
            return Err(io::ErrorKind::Other.into());
        }
        if disk.failing_reads > 0 {
            disk.failing_reads -= 1;
            return Err(io::ErrorKind::Other.into());
        }
        let behind = at + into.len().min(1000) as u64;
        if at < disk.bad.end && disk.bad.start < behind {
            return Err(io::ErrorKind::Other.into());
        }
        let bytes = disk.files[self.at].bytes.get(at as usize..);
        let bytes = bytes.unwrap_or_default();
        // Short reads happen.
        let n = bytes.len().min(into.len()).min(1000);
        into[..n].copy_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let used: usize = disk
            .names
            .values()
            .map(|at| disk.files[*at].bytes.len())
            .sum();
        let room = disk.space.map(|space| space.saturating_sub(used));
        let at = at as usize;
        let file = &mut disk.files[self.at].bytes;
        let grows = (at + bytes.len()).saturating_sub(file.len());
        let fits = bytes.len() - grows.saturating_sub(room.unwrap_or(grows)).min(bytes.len());
        if file.len() < at + fits {
            file.resize(at + fits, 0);
        }
        file[at..at + fits].copy_from_slice(&bytes[..fits]);
        if fits < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        if disk.fail_cut {
            return Err(io::ErrorKind::Other.into());
        }
        disk.files[self.at].bytes.truncate(length as usize);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.lock().files[self.at].bytes.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk.lock();
        if disk.fail_sync {
            return Err(io::ErrorKind::Other.into());
        }
        let file = &mut disk.files[self.at];
        file.synced = file.bytes.clone();
        Ok(())
    }
}
