//! Server-sent events, taken apart as they come.

use std::borrow::Cow;

use memchr::memchr;

/// What an event says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    /// Envelopes, as JSON.
    Data(Cow<'a, [u8]>),
    /// The other side is there and has nothing.
    Heartbeat,
    /// The other side is about to end the response.
    Closing,
    /// An event that this version does not know.
    Unknown,
}

/// An event is longer than it may be.
#[derive(Debug, thiserror::Error)]
#[error("an event has more than {0} bytes")]
pub(super) struct TooLong(usize);

/// What has arrived and was not taken.
#[derive(Debug)]
pub(super) struct Events {
    buffer: Vec<u8>,
    /// Where the next event begins.
    start: usize,
    /// Where its last line begins that has not ended.
    line: usize,
    /// Up to where an end of that line was looked for.
    scanned: usize,
    limit: usize,
}

impl Events {
    pub(super) fn new(limit: usize) -> Events {
        Events {
            buffer: Vec::new(),
            start: 0,
            line: 0,
            scanned: 0,
            limit,
        }
    }

    /// Takes in what came. All events must have been taken before.
    pub(super) fn push(&mut self, data: &[u8]) -> Result<(), TooLong> {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.line -= self.start;
            self.scanned -= self.start;
            self.start = 0;
        }
        if self.buffer.len() > self.limit {
            return Err(TooLong(self.limit));
        }
        self.buffer.extend_from_slice(data);
        Ok(())
    }

    /// The next event that is complete.
    pub(super) fn next(&mut self) -> Option<Event<'_>> {
        loop {
            let Some(end) = memchr(b'\n', &self.buffer[self.scanned..]) else {
                self.scanned = self.buffer.len();
                return None;
            };
            let end = self.scanned + end;
            let (start, line) = (self.start, self.line);
            self.line = end + 1;
            self.scanned = end + 1;
            if without_return(&self.buffer[line..end]).is_empty() {
                self.start = end + 1;
                if line > start {
                    return Some(event(&self.buffer[start..line]));
                }
            }
        }
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The event of these lines, each with its end.
fn event(lines: &[u8]) -> Event<'_> {
    let mut name: &[u8] = b"";
    let mut data: Option<Cow<'_, [u8]>> = None;
    for line in lines.split(|byte| *byte == b'\n') {
        let line = without_return(line);
        let (field, value) = match memchr(b':', line) {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => name = value,
            b"data" => match &mut data {
                None => data = Some(Cow::Borrowed(value)),
                Some(data) => {
                    let data = data.to_mut();
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
            },
            // A comment, an id, a time to wait before connecting again.
            _ => {}
        }
    }
    match (name, data) {
        (b"" | b"message", Some(data)) => Event::Data(data),
        (b"heartbeat", _) => Event::Heartbeat,
        (b"closing", _) => Event::Closing,
        _ => Event::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"data: {\"a\":1}\n\nevent: heartbeat\ndata: 1700000000\n\n: comment\n\r\n\
        data:x\r\ndata: y\r\nid: 7\r\n\r\nevent: new\ndata: z\n\n\nevent: closing\ndata: closing due to stream timeout\n\n";

    fn read(pieces: impl Iterator<Item = Vec<u8>>) -> Vec<String> {
        let mut events = Events::new(64);
        let mut seen = Vec::new();
        for piece in pieces {
            events.push(&piece).unwrap();
            while let Some(event) = events.next() {
                seen.push(match event {
                    Event::Data(data) => String::from_utf8(data.to_vec()).unwrap(),
                    other => format!("{other:?}"),
                });
            }
        }
        seen
    }

    #[test]
    fn events_come_whole_however_they_are_cut() {
        let expected = [
            "{\"a\":1}",
            "Heartbeat",
            "Unknown",
            "x\ny",
            "Unknown",
            "Closing",
        ];
        assert_eq!(read(std::iter::once(STREAM.to_vec())), expected);
        for size in 1..40 {
            assert_eq!(
                read(STREAM.chunks(size).map(<[u8]>::to_vec)),
                expected,
                "pieces of {size}"
            );
        }
        // What is not complete is not told.
        assert_eq!(
            read(std::iter::once(STREAM[..STREAM.len() - 1].to_vec())),
            expected[..5]
        );
    }

    #[test]
    fn an_event_without_an_end_is_not_waited_for() {
        let mut events = Events::new(10);
        for _ in 0..2 {
            assert!(events.push(b"data:\n").is_ok());
            assert_eq!(events.next(), None);
        }
        assert!(events.push(b"\n").is_err());
        let mut events = Events::new(10);
        assert!(
            events
                .push(b"data: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4\n\n")
                .is_ok()
        );
        assert_eq!(std::iter::from_fn(|| events.next().map(drop)).count(), 4);
        assert!(events.push(&[b'x'; 10]).is_ok());
    }
}
