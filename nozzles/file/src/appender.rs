//! The file that is appended to. Everything here may take as long as the disk does.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The open file, and where it should be.
#[derive(Debug)]
pub(crate) struct Appender {
    path: PathBuf,
    sync: bool,
    file: File,
}

impl Appender {
    /// Opens the file, and makes it if there is none. `sync`: what is appended is on the disk when that returns.
    pub(crate) fn open(path: &Path, sync: bool) -> io::Result<Appender> {
        Ok(Appender {
            path: path.to_owned(),
            sync,
            file: open(path)?,
        })
    }

    /// Appends all of it, or nothing where it is a file.
    pub(crate) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if !self.is_in_place() {
            self.file = open(&self.path)?;
        }
        let before = self.file.metadata()?;
        if let Err(error) = self.file.write_all(lines) {
            // What went into a pipe or a device is not to be had back.
            if before.is_file() {
                self.file.set_len(before.len())?;
            }
            return Err(error);
        }
        if self.sync {
            self.file.sync_data()?;
        }
        Ok(())
    }

    /// Whether the open file is the one that stands at the path.
    fn is_in_place(&self) -> bool {
        match (self.file.metadata(), std::fs::metadata(&self.path)) {
            (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
            _ => false,
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}
