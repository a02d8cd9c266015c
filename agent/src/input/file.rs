//! Following a file by its name.
//!
//! Log files are rotated in two ways. By rename: the name is given to a new file; the old one is read to its end, with a
//! moment for a writer that has not noticed, then the new one from its beginning. By truncation: the file is copied and
//! cut to nothing; reading starts again at the beginning. (A file that was cut and has grown past the old place between
//! two looks cannot be told from one that only grew.)
//!
//! Files are looked at in an interval; there is no notification that works on every file system.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, SeekFrom};
use tokio_util::sync::CancellationToken;

use super::LineReader;
use crate::config::From;

/// Bytes read at a time.
const READ: usize = 64 * 1024;
/// After a rename, looks at the old file that find nothing new before it is left.
const LAST_LOOKS: u32 = 2;

/// Follows the file until `stop`.
pub(crate) async fn follow(mut follower: Follower, mut lines: LineReader, stop: CancellationToken) {
    let mut from = follower.from;
    let mut empty_looks = 0;
    loop {
        match follower.look(from, &mut lines, &stop).await {
            Ok(Look::Read | Look::Nothing) => empty_looks = 0,
            Ok(Look::Renamed) => {
                empty_looks += 1;
                if empty_looks >= LAST_LOOKS {
                    lines.end().await;
                    follower.file = None;
                    (empty_looks, from) = (0, From::Start);
                    continue;
                }
            }
            // Whatever appears now is new.
            Ok(Look::Absent) => from = From::Start,
            Err(error) => follower.complain(&error),
        }
        if stop
            .run_until_cancelled(tokio::time::sleep(follower.every))
            .await
            .is_none()
        {
            break;
        }
    }
    if follower.at_end {
        // What was written since the last look belongs to it.
        if let Err(error) = follower.read(&mut lines, None).await {
            follower.complain(&error);
        }
    } else if let Some(open) = &follower.file {
        tracing::info!(path = %follower.path.display(), offset = open.offset, "the rest of the file is not read");
    }
    lines.end().await;
}

/// What a look at the file found.
enum Look {
    /// Something new, which is read.
    Read,
    /// Nothing new.
    Nothing,
    /// Nothing new, and the name belongs to another file now.
    Renamed,
    /// No such file.
    Absent,
}

/// A file's name, and the file that had it when we last looked.
pub(crate) struct Follower {
    path: PathBuf,
    from: From,
    every: Duration,
    file: Option<Open>,
    buffer: Vec<u8>,
    /// The last look read everything.
    at_end: bool,
    complained: bool,
}

struct Open {
    file: File,
    identity: (u64, u64),
    offset: u64,
}

impl Follower {
    /// Opens the file if it is there, so that "its end" is the end at this moment.
    pub(crate) async fn new(path: PathBuf, from: From, every: Duration) -> Follower {
        let mut follower = Follower {
            path,
            from,
            every,
            file: None,
            buffer: vec![0; READ],
            at_end: false,
            complained: false,
        };
        match follower.open(from).await {
            Ok(true) => {}
            Ok(false) => follower.from = From::Start,
            Err(error) => follower.complain(&error),
        }
        follower
    }

    async fn look(
        &mut self,
        from: From,
        lines: &mut LineReader,
        stop: &CancellationToken,
    ) -> io::Result<Look> {
        if self.file.is_none() && !self.open(from).await? {
            return Ok(Look::Absent);
        }
        if self.read(lines, Some(stop)).await? {
            return Ok(Look::Read);
        }
        let Some(open) = &mut self.file else {
            return Ok(Look::Absent);
        };
        match tokio::fs::metadata(&self.path).await {
            Ok(now) if identity(&now) != open.identity => Ok(Look::Renamed),
            Ok(now) if now.len() < open.offset => {
                tracing::info!(path = %self.path.display(), "the file was truncated; it is read from its beginning");
                lines.end().await;
                open.file.seek(SeekFrom::Start(0)).await?;
                open.offset = 0;
                Ok(Look::Read)
            }
            Ok(_) => Ok(Look::Nothing),
            // Renamed, and its successor is not there yet: the writer may still write to the old one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Look::Nothing),
            Err(error) => Err(error),
        }
    }

    /// False when there is no such file.
    async fn open(&mut self, from: From) -> io::Result<bool> {
        let mut file = match File::open(&self.path).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.complain(&error);
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let metadata = file.metadata().await?;
        if !metadata.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is not a regular file",
            ));
        }
        file.set_max_buf_size(READ);
        let offset = match from {
            From::Start => 0,
            From::End => file.seek(SeekFrom::End(0)).await?,
        };
        tracing::info!(path = %self.path.display(), offset, "following the file");
        self.file = Some(Open {
            file,
            identity: identity(&metadata),
            offset,
        });
        self.complained = false;
        Ok(true)
    }

    /// Reads to the present end, or until `stop`. True when there was something.
    async fn read(
        &mut self,
        lines: &mut LineReader,
        stop: Option<&CancellationToken>,
    ) -> io::Result<bool> {
        let Some(open) = &mut self.file else {
            return Ok(false);
        };
        let mut some = false;
        self.at_end = false;
        while !stop.is_some_and(CancellationToken::is_cancelled) {
            let len = open.file.read(&mut self.buffer).await?;
            if len == 0 {
                self.at_end = true;
                break;
            }
            open.offset += len as u64;
            some = true;
            lines.feed(&self.buffer[..len]).await;
        }
        Ok(some)
    }

    /// Once per trouble, not once per look.
    fn complain(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(path = %self.path.display(), %error, "the file cannot be read for now");
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}
