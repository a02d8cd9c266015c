//! Lines of a stream in batches, and the pace at which they go out.

use bytes::{Bytes, BytesMut};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::{Instant, sleep_until};

/// Lines of a batch; the size that agents send on.
pub const BATCH: usize = 100;
/// Bytes of a batch, so that long lines do not add up to a message that is refused.
const BATCH_BYTES: usize = 1024 * 1024;
/// A line is cut here: longer ones would not fit into a message.
const LONGEST: usize = 1024 * 1024;
/// Bytes read at once.
const READ: usize = 64 * 1024;

/// Splits a stream into lines.
#[derive(Debug)]
pub struct Lines<R> {
    from: R,
    buffer: BytesMut,
    /// Bytes at the start of the buffer that hold no line feed.
    searched: usize,
    ended: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Lines of this stream.
    pub fn new(from: R) -> Self {
        Self {
            from,
            buffer: BytesMut::new(),
            searched: 0,
            ended: false,
        }
    }

    /// The lines that are there, at most `most`, waiting for the first; empty at the end. Without line feeds; a last
    /// line needs none. May be cancelled.
    ///
    /// # Errors
    /// When the stream cannot be read.
    pub async fn next(&mut self, most: usize) -> std::io::Result<Vec<Bytes>> {
        let mut lines = Vec::new();
        let mut bytes = 0;
        loop {
            while lines.len() < most && bytes < BATCH_BYTES {
                let Some(line) = self.take() else { break };
                bytes += line.len();
                lines.push(line);
            }
            if !lines.is_empty() || self.ended {
                return Ok(lines);
            }
            self.buffer.reserve(READ);
            self.ended = self.from.read_buf(&mut self.buffer).await? == 0;
        }
    }

    fn take(&mut self) -> Option<Bytes> {
        let end = self.buffer[self.searched..]
            .iter()
            .position(|byte| *byte == b'\n')
            .map(|at| self.searched + at);
        match end {
            Some(end) if end <= LONGEST => {
                let mut line = self.buffer.split_to(end + 1);
                line.truncate(end);
                self.searched = 0;
                Some(line.freeze())
            }
            _ if self.buffer.len() > LONGEST => {
                self.searched = 0;
                Some(self.buffer.split_to(LONGEST).freeze())
            }
            _ if self.ended && !self.buffer.is_empty() => {
                self.searched = 0;
                Some(self.buffer.split().freeze())
            }
            _ => {
                self.searched = self.buffer.len();
                None
            }
        }
    }
}

/// When the next lines may go.
#[derive(Debug)]
pub struct Pace {
    rate: Option<f64>,
    next: Instant,
}

impl Pace {
    /// As fast as the agent takes them, or so many per second.
    pub fn new(rate: Option<f64>) -> Self {
        Self {
            rate,
            next: Instant::now(),
        }
    }

    /// How many lines to take at once: small enough that a slow replay looks like a stream and not like bursts.
    pub fn batch(&self) -> usize {
        match self.rate {
            None => BATCH,
            Some(rate) => ((rate / 50.0) as usize).clamp(1, BATCH),
        }
    }

    /// Waits until these lines may go.
    pub async fn wait(&mut self, lines: usize) {
        if let Some(at) = self.due(Instant::now(), lines) {
            sleep_until(at).await;
        }
    }

    /// When these lines may go, for somebody who asks at `now`.
    fn due(&mut self, now: Instant, lines: usize) -> Option<Instant> {
        let rate = self.rate?;
        // A pause of the source is not made up for by a burst.
        let at = self.next.max(now - Duration::from_millis(100));
        self.next = at + Duration::from_secs_f64(lines as f64 / rate);
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(text: &[u8], most: usize) -> Vec<Vec<Bytes>> {
        let mut lines = Lines::new(text);
        let mut batches = Vec::new();
        loop {
            let batch = lines.next(most).await.unwrap();
            if batch.is_empty() {
                return batches;
            }
            batches.push(batch);
        }
    }

    #[tokio::test]
    async fn every_line_once_the_last_one_too() {
        assert_eq!(
            all(b"one\n\nthree", 100).await.concat(),
            ["one", "", "three"]
        );
        assert_eq!(all(b"one\n", 100).await.concat(), ["one"]);
        assert_eq!(
            all(b"a\r\nb\xff\n", 100).await.concat(),
            [&b"a\r"[..], b"b\xff"]
        );
        assert!(all(b"", 100).await.is_empty());
    }

    #[tokio::test]
    async fn batches_have_a_limit() {
        let sizes: Vec<usize> = all(b"1\n2\n3\n4\n5\n", 2)
            .await
            .iter()
            .map(Vec::len)
            .collect();
        assert_eq!(sizes, [2, 2, 1]);
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut_and_nothing_of_it_is_lost() {
        let mut text = vec![b'x'; 2 * LONGEST + 10];
        text.push(b'\n');
        let lines = all(&text, 100).await.concat();
        assert_eq!(
            lines.iter().map(Bytes::len).collect::<Vec<_>>(),
            [LONGEST, LONGEST, 10]
        );
    }

    #[test]
    fn the_rate_is_kept_over_time() {
        let mut pace = Pace::new(Some(1000.0));
        assert_eq!(pace.batch(), 20);
        let started = pace.next;
        let mut now = started;
        for _ in 0..100 {
            now = pace.due(now, 20).unwrap().max(now);
        }
        assert_eq!(now - started, Duration::from_millis(1980));
        assert_eq!(Pace::new(None).due(now, 100), None);
    }

    #[test]
    fn a_pause_is_not_made_up_for() {
        let mut pace = Pace::new(Some(100.0));
        let later = pace.next + Duration::from_secs(60);
        let mut now = later;
        for _ in 0..50 {
            now = pace.due(now, 2).unwrap().max(now);
        }
        assert_eq!(now - later, Duration::from_millis(880));
    }
}
