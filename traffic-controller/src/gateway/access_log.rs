//! The access log: a line on standard output for each request when it has ended, in Apache's common format.
//!
//! Lines wait for a thread of their own, so that a terminal that is not read holds nobody up; what does not fit is dropped
//! and counted. A token never stands in a line: it travels in a header.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Version};
use http_body::{Body, Frame, SizeHint};
use loggregator_net::http::{BodyError, Request, Response};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tokio::sync::oneshot;

/// Lines that may wait to be written.
const QUEUED_LINES: usize = 4096;

const DATE: &[BorrowedFormatItem<'_>] = format_description!(
    "[day]/[month repr:short]/[year]:[hour]:[minute]:[second] [offset_hour sign:mandatory][offset_minute]"
);

/// Where the lines go. Clones are the same log.
#[derive(Debug, Clone)]
pub(crate) struct AccessLog {
    lines: Option<SyncSender<String>>,
    dropped: Arc<AtomicU64>,
}

impl AccessLog {
    /// A log that nobody reads.
    pub(crate) fn off() -> Self {
        Self {
            lines: None,
            dropped: Arc::default(),
        }
    }

    /// Writes to `out` on a thread of its own. The receiver hears when all clones are gone and everything is written.
    pub(crate) fn to(
        out: impl Write + Send + 'static,
    ) -> io::Result<(Self, oneshot::Receiver<()>)> {
        let (lines, queued) = sync_channel(QUEUED_LINES);
        let (done, written) = oneshot::channel();
        std::thread::Builder::new()
            .name("access log".to_owned())
            .spawn(move || {
                write_lines(out, &queued);
                drop(done);
            })?;
        let log = Self {
            lines: Some(lines),
            dropped: Arc::default(),
        };
        Ok((log, written))
    }

    /// Lines that were lost because nobody took them in time. Whoever holds the count does not keep the log open.
    pub(crate) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }

    /// A request has come; it is logged when its answer has ended.
    pub(crate) fn begin(&self, request: &Request, peer: SocketAddr) -> Entry {
        Entry {
            log: self.clone(),
            peer,
            began: OffsetDateTime::now_utc(),
            method: request.method().clone(),
            target: target(request),
            version: request.version(),
        }
    }

    fn write(&self, line: String) {
        if let Some(lines) = &self.lines
            && lines.try_send(line).is_err()
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write_lines(mut out: impl Write, queued: &Receiver<String>) {
    while let Ok(line) = queued.recv() {
        // Standard output that cannot be written to has nowhere to report to.
        out.write_all(line.as_bytes()).ok();
        out.flush().ok();
    }
}

/// Bytes of a target that a line shows.
const TARGET_BYTES: usize = 8 * 1024;

/// Ends a target that is longer.
const CUT: &str = "...";

/// The request target as it stood on the wire.
fn target(request: &Request) -> String {
    let target = match (request.version(), request.uri().path_and_query()) {
        (Version::HTTP_2, Some(path)) => path.to_string(),
        _ => request.uri().to_string(),
    };
    shortened(target)
}

fn shortened(mut target: String) -> String {
    if target.len() > TARGET_BYTES {
        let starts = target.char_indices().map(|(start, _)| start);
        let end = starts.take_while(|&start| start <= TARGET_BYTES).last();
        target.truncate(end.unwrap_or_default());
        target.push_str(CUT);
        target.shrink_to_fit();
    }
    target
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Entry {
    log: AccessLog,
    peer: SocketAddr,
    began: OffsetDateTime,
    method: Method,
    target: String,
    version: Version,
}

impl Entry {
    /// The answer, which is logged when its body has ended or its client has left.
    pub(crate) fn follow(self, answer: Response) -> Response {
        let status = answer.status().as_u16();
        answer.map(|body| {
            // The body of an answer to HEAD is made and never sent; its size counts all the same, as in Go.
            let bytes = match self.method {
                Method::HEAD => body.size_hint().exact().unwrap_or_default(),
                _ => 0,
            };
            let followed = Followed {
                body,
                bytes,
                status,
                entry: self,
            };
            http_body_util::BodyExt::boxed_unsync(followed)
        })
    }

    /// The client has left before there was an answer.
    pub(crate) fn unanswered(&self, status: u16) {
        self.log_with(status, 0);
    }

    fn log_with(&self, status: u16, bytes: u64) {
        if self.log.lines.is_some() {
            self.log.write(self.line(status, bytes));
        }
    }

    fn line(&self, status: u16, bytes: u64) -> String {
        let client = self.peer.ip().to_canonical();
        let date = self.began.format(DATE).unwrap_or_default();
        let (method, version) = (&self.method, version(self.version));
        let target = quoted(&self.target);
        format!("{client} - - [{date}] \"{method} {target} {version}\" {status} {bytes}\n")
    }
}

/// The protocol as Go names it.
fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

/// Nothing in a target ends the quotes or the line.
fn quoted(target: &str) -> String {
    let mut text = String::with_capacity(target.len());
    for character in target.chars() {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            character if character.is_control() => {
                write!(text, "\\x{:02x}", u32::from(character)).ok();
            }
            character => text.push(character),
        }
    }
    text
}

/// A body that counts what is taken of it.
struct Followed {
    body: loggregator_net::http::Body,
    bytes: u64,
    status: u16,
    entry: Entry,
}

impl Body for Followed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.bytes += data.len() as u64;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.entry.log_with(self.status, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn entry(peer: &str, method: Method, target: &str, version: Version) -> Entry {
        Entry {
            log: AccessLog::off(),
            peer: peer.parse().unwrap(),
            began: datetime!(2006-01-02 15:04:05 UTC),
            method,
            target: target.to_owned(),
            version,
        }
    }

    #[test]
    fn a_line_is_apaches_common_format() {
        let plain = entry(
            "10.0.0.1:5000",
            Method::GET,
            "/v2/read?log",
            Version::HTTP_11,
        );
        assert_eq!(
            plain.line(200, 1234),
            "10.0.0.1 - - [02/Jan/2006:15:04:05 +0000] \"GET /v2/read?log HTTP/1.1\" 200 1234\n"
        );
        let odd = entry(
            "[::ffff:10.0.0.1]:1",
            Method::POST,
            "/\"\\\u{7f}é",
            Version::HTTP_2,
        );
        assert_eq!(
            odd.line(404, 54),
            "10.0.0.1 - - [02/Jan/2006:15:04:05 +0000] \"POST /\\\"\\\\\\x7fé HTTP/2.0\" 404 54\n"
        );
        let six = entry("[::1]:1", Method::GET, "/", Version::HTTP_10);
        assert!(six.line(404, 19).starts_with("::1 - - ["));
    }

    #[test]
    fn a_long_target_is_cut_between_two_characters() {
        let fits = "a".repeat(TARGET_BYTES);
        assert_eq!(shortened(fits.clone()), fits);
        assert_eq!(shortened(fits.clone() + "b"), fits + "...");
        let odd = format!("a{}", "é".repeat(TARGET_BYTES / 2));
        let cut = format!("a{}...", "é".repeat(TARGET_BYTES / 2 - 1));
        assert_eq!(shortened(odd), cut);
    }

    #[test]
    fn what_nobody_takes_is_dropped_and_counted() {
        /// Takes nothing until it is told to.
        struct Stuck(std::sync::mpsc::Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.recv().ok();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (go, wait) = std::sync::mpsc::channel();
        let (log, written) = AccessLog::to(Stuck(wait)).unwrap();
        // One may be with the thread.
        for _ in 0..QUEUED_LINES + 2 {
            log.write("line\n".to_owned());
        }
        let dropped = log.dropped().load(Ordering::Relaxed);
        assert!((1..=2).contains(&dropped), "{dropped}");
        drop((go, log));
        assert!(written.blocking_recv().is_err(), "the thread has ended");
    }
}
