//! Dead letters on disk.
//!
//! One folder per destination. Its files are numbered; only the newest is written to. A lock file keeps a nozzle and a replay
//! apart: it is held for the time of one write, or of taking the files away.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::letter::Letter;

/// A file ends at this share of all bytes.
const FILES: u64 = 8;
const EXTENSION: &str = "ndjson";
/// Where a replay takes the files to.
const REPLAYING: &str = "replaying";

/// Dead letters cannot be kept or read.
#[derive(Debug, thiserror::Error)]
#[error("dead letters: cannot {what} {}", path.display())]
pub struct StoreError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError { what, path, source }
}

/// The folder of a destination's dead letters in the nozzle's folder.
pub(crate) fn folder(state: &Path, destination: &str) -> PathBuf {
    state.join("dead-letters").join(folder_name(destination))
}

/// A destination's name as that of a folder: letters, digits, `-`, `_`; whatever else there is in it is written as its bytes in
/// hexadecimal.
pub(crate) fn folder_name(destination: &str) -> String {
    let mut name = String::new();
    for byte in destination.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    name
}

/// The files of one destination.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    max_bytes: u64,
    bytes: u64,
}

impl Store {
    pub(super) fn open(folder: PathBuf, max_bytes: u64) -> Result<Store, StoreError> {
        std::fs::create_dir_all(&folder).map_err(failed("make", &folder))?;
        let mut store = Store {
            folder,
            max_bytes,
            bytes: 0,
        };
        store.bytes = store.files()?.iter().map(|(_, _, bytes)| bytes).sum();
        Ok(store)
    }

    /// Bytes of all files, as of the last write.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes letters, down to the disk. Returns how many older ones had to go.
    pub(super) fn append(&mut self, letters: &[Letter]) -> Result<u64, StoreError> {
        let _lock = self.lock()?;
        let mut files = self.files()?;
        let mut evicted = 0;
        let mut lines = Vec::new();
        for letter in letters {
            // A letter is numbers and texts: it can always be written.
            serde_json::to_writer(&mut lines, letter).ok();
            lines.push(b'\n');
            if lines.len() as u64 >= self.file_bytes() {
                self.write(&mut files, &lines)?;
                lines.clear();
            }
        }
        if !lines.is_empty() {
            self.write(&mut files, &lines)?;
        }
        let mut bytes: u64 = files.iter().map(|(_, _, bytes)| bytes).sum();
        while bytes > self.max_bytes && files.len() > 1 {
            let Some((_, path, size)) = files.pop_front() else {
                break;
            };
            evicted += count_lines(&path)?;
            std::fs::remove_file(&path).map_err(failed("remove", &path))?;
            bytes -= size;
        }
        self.bytes = bytes;
        Ok(evicted)
    }

    fn write(
        &self,
        files: &mut VecDeque<(u64, PathBuf, u64)>,
        lines: &[u8],
    ) -> Result<(), StoreError> {
        let full = files
            .back()
            .is_none_or(|(_, _, bytes)| *bytes >= self.file_bytes());
        if full {
            let number = files.back().map_or(0, |(number, _, _)| number + 1);
            let path = self.folder.join(format!("{number:016}.{EXTENSION}"));
            files.push_back((number, path, 0));
        }
        let Some((_, path, bytes)) = files.back_mut() else {
            return Ok(());
        };
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&*path)
            .map_err(failed("open", path))?;
        let before = end_of_lines(&mut file).map_err(failed("read", path))?;
        let written = file.write_all(lines).and_then(|()| file.sync_data());
        // The name of a new file must last as its bytes do.
        let written = match full {
            true => written.and_then(|()| File::open(&self.folder)?.sync_all()),
            false => written,
        };
        if let Err(error) = written {
            // Half a letter would be taken for the beginning of the next.
            file.set_len(before).ok();
            return Err(failed("write", path)(error));
        }
        *bytes = before + lines.len() as u64;
        Ok(())
    }

    fn file_bytes(&self) -> u64 {
        (self.max_bytes / FILES).max(1)
    }

    fn lock(&self) -> Result<File, StoreError> {
        let path = self.folder.join("lock");
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(failed("open", &path))?;
        file.lock().map_err(failed("lock", &path))?;
        Ok(file)
    }

    /// Number, path and size of each file, oldest first.
    fn files(&self) -> Result<VecDeque<(u64, PathBuf, u64)>, StoreError> {
        files(&self.folder)
    }

    /// All files, oldest first, those of an unfinished replay among them.
    pub(super) fn all(&self) -> Result<Vec<PathBuf>, StoreError> {
        let _lock = self.lock()?;
        let taken = self.folder.join(REPLAYING);
        let mut all = if taken.exists() {
            files(&taken)?
        } else {
            VecDeque::new()
        };
        all.extend(self.files()?);
        Ok(all.into_iter().map(|(_, path, _)| path).collect())
    }

    /// Takes all files away from the nozzle, behind those that an earlier replay did not finish, and lists them.
    pub(super) fn take_away(&self) -> Result<Vec<PathBuf>, StoreError> {
        let _lock = self.lock()?;
        let taken = self.folder.join(REPLAYING);
        std::fs::create_dir_all(&taken).map_err(failed("make", &taken))?;
        let next = files(&taken)?.back().map_or(0, |(number, _, _)| number + 1);
        for (number, (_, path, _)) in (next..).zip(self.files()?) {
            let to = taken.join(format!("{number:016}.{EXTENSION}"));
            std::fs::rename(&path, &to).map_err(failed("move", &path))?;
        }
        Ok(files(&taken)?
            .into_iter()
            .map(|(_, path, _)| path)
            .collect())
    }
}

/// Cuts off what a crash left of a line that was not finished; returns the length of what is left.
fn end_of_lines(file: &mut File) -> io::Result<u64> {
    let len = file.metadata()?.len();
    let mut end = len;
    let mut block = [0_u8; 4096];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let part = &mut block[..usize::try_from(end - start).unwrap_or(0)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end < len {
        file.set_len(end)?;
    }
    Ok(end)
}

fn files(folder: &Path) -> Result<VecDeque<(u64, PathBuf, u64)>, StoreError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed("read", folder))? {
        let path = entry.map_err(failed("read", folder))?.path();
        let number = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .and_then(|stem| stem.parse().ok());
        let ours = path
            .extension()
            .is_some_and(|extension| extension == EXTENSION);
        if let (Some(number), true) = (number, ours) {
            let bytes = path.metadata().map_err(failed("read", &path))?.len();
            found.push((number, path, bytes));
        }
    }
    found.sort();
    Ok(found.into())
}

fn count_lines(path: &Path) -> Result<u64, StoreError> {
    let mut file = File::open(path).map_err(failed("open", path))?;
    let mut block = vec![0_u8; 64 << 10];
    let mut lines = 0;
    loop {
        let n = file.read(&mut block).map_err(failed("read", path))?;
        if n == 0 {
            return Ok(lines);
        }
        lines += block[..n].iter().filter(|byte| **byte == b'\n').count() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letter::Dead;
    use crate::destination::Reason;
    use crate::event::Event;

    fn letter(seq: u64) -> Letter {
        let event = Event::new(seq, 5, bytes::Bytes::from_static(b"\x12\x03app"));
        let dead = Dead {
            event,
            why: Reason::new("bad", "\"x\"\n"),
            attempts: 1,
        };
        Letter::new("siem", &dead, 0)
    }

    fn read(paths: &[PathBuf]) -> Vec<u64> {
        let texts = paths
            .iter()
            .map(|path| std::fs::read_to_string(path).unwrap());
        let texts: Vec<String> = texts.collect();
        let lines = texts.iter().flat_map(|text| text.lines());
        lines
            .map(|line| serde_json::from_str::<Letter>(line).unwrap().seq)
            .collect()
    }

    #[test]
    fn a_letter_is_a_line() {
        let line = serde_json::to_string(&letter(3)).unwrap();
        assert_eq!(
            line,
            r#"{"time":"1970-01-01T00:00:00Z","destination":"siem","reason":"bad","detail":"\"x\"\n","attempts":1,"seq":3,"received":5,"source_id":"app","envelope":"EgNhcHA="}"#
        );
        let event = letter(3).event().unwrap();
        assert_eq!((event.seq, event.received), (3, 5));
        assert_eq!(event.envelope().source_id(), "app");
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_and_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path().join("siem"), 8000).unwrap();
        let mut evicted = 0;
        for seq in 0..200 {
            evicted += store.append(&[letter(seq)]).unwrap();
        }
        assert!(store.bytes() <= 8000, "{}", store.bytes());
        let seqs = read(&store.take_away().unwrap());
        assert_eq!(seqs, (evicted..200).collect::<Vec<_>>());
        assert!(evicted > 100, "{evicted}");
    }

    #[test]
    fn what_a_crash_left_of_a_line_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path().to_owned(), 1 << 20).unwrap();
        store.append(&[letter(0), letter(1)]).unwrap();
        let (_, path, _) = store.files().unwrap().pop_front().unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"time\":\"19").unwrap();
        let mut store = Store::open(folder.path().to_owned(), 1 << 20).unwrap();
        store.append(&[letter(2)]).unwrap();
        assert_eq!(read(&store.take_away().unwrap()), [0, 1, 2]);
    }

    #[test]
    fn what_was_taken_away_and_not_finished_comes_first_the_next_time() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path().to_owned(), 1 << 20).unwrap();
        store.append(&[letter(0)]).unwrap();
        assert_eq!(read(&store.take_away().unwrap()), [0]);
        store.append(&[letter(1)]).unwrap();
        assert_eq!(read(&store.take_away().unwrap()), [0, 1]);
    }

    #[test]
    fn names_of_folders_do_not_lead_elsewhere() {
        let folder = folder(Path::new("/s"), "../a b");
        assert_eq!(folder, Path::new("/s/dead-letters/%2E%2E%2Fa%20b"));
    }
}
