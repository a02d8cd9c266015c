//! Finding the messages in a TCP stream of syslog (RFC 6587): octet counting, or one message per line.
//!
//! Senders do not say which they use, and some change in mid-stream; so each message is looked at: one that begins with
//! a digit is counted, since a message itself begins with `<`.

/// Digits of the longest count that is read.
const COUNT_DIGITS: usize = 7;

/// A stream that cannot be read on: nobody knows where its next message begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error(
        "a message length that is no decimal number of at most {COUNT_DIGITS} digits and a blank"
    )]
    Count,
}

/// Cuts what it is fed into messages. Holds at most one unfinished message of the limit's length.
#[derive(Debug)]
pub(crate) struct Framer {
    limit: usize,
    state: State,
    held: Vec<u8>,
    truncated: u64,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Before a message.
    Between,
    /// In the number before a counted message.
    Count { value: usize, digits: usize },
    /// In a counted message of which so many bytes are to come.
    Counted { left: usize },
    /// In a message that ends with a line feed.
    Line,
}

impl Framer {
    /// Messages longer than `limit` bytes lose their end and count as truncated.
    pub(crate) fn new(limit: usize) -> Framer {
        Framer {
            limit: limit.max(1),
            state: State::Between,
            held: Vec::new(),
            truncated: 0,
        }
    }

    /// Takes the next bytes of the stream and hands over every message that is complete.
    pub(crate) fn feed(
        &mut self,
        mut data: &[u8],
        mut message: impl FnMut(&[u8]),
    ) -> Result<(), FrameError> {
        while let Some(&first) = data.first() {
            match self.state {
                State::Between => match first {
                    b'1'..=b'9' => {
                        self.state = State::Count {
                            value: 0,
                            digits: 0,
                        }
                    }
                    // Line ends between messages, and the NUL that some put at a message's end.
                    b'\n' | b'\r' | 0 => data = &data[1..],
                    _ => self.state = State::Line,
                },
                State::Count { value, digits } => {
                    data = &data[1..];
                    self.state = match first {
                        b'0'..=b'9' if digits < COUNT_DIGITS => State::Count {
                            value: value * 10 + usize::from(first - b'0'),
                            digits: digits + 1,
                        },
                        b' ' if digits > 0 => State::Counted { left: value },
                        _ => return Err(FrameError::Count),
                    };
                }
                State::Counted { left } => {
                    let (part, rest) = data.split_at(left.min(data.len()));
                    data = rest;
                    self.hold(part);
                    if part.len() == left {
                        self.complete(&mut message);
                    } else {
                        self.state = State::Counted {
                            left: left - part.len(),
                        };
                    }
                }
                State::Line => match memchr::memchr(b'\n', data) {
                    Some(at) => {
                        self.hold(&data[..at]);
                        data = &data[at + 1..];
                        self.complete(&mut message);
                    }
                    None => {
                        self.hold(data);
                        data = &[];
                    }
                },
            }
        }
        Ok(())
    }

    /// The stream has ended: hands over an unfinished line. An unfinished counted message is incomplete by its own
    /// word; it is handed over too, since its text is better than nothing.
    pub(crate) fn end(&mut self, mut message: impl FnMut(&[u8])) {
        if !self.held.is_empty() {
            self.complete(&mut message);
        }
    }

    /// Messages that lost their end since the last call.
    pub(crate) fn take_truncated(&mut self) -> u64 {
        std::mem::take(&mut self.truncated)
    }

    fn hold(&mut self, part: &[u8]) {
        let room = self.limit + 1 - self.held.len();
        // One byte more than the limit is kept, as the sign that there was more.
        self.held.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn complete(&mut self, message: &mut impl FnMut(&[u8])) {
        if self.held.len() > self.limit {
            self.truncated += 1;
            self.held.truncate(self.limit);
        }
        message(&self.held);
        self.held.clear();
        self.state = State::Between;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn feed(framer: &mut Framer, data: &[u8]) -> Result<Vec<String>, FrameError> {
        let mut messages = Vec::new();
        framer.feed(data, |m| {
            messages.push(String::from_utf8_lossy(m).into_owned())
        })?;
        Ok(messages)
    }

    #[test]
    fn counted_messages_keep_their_line_feeds() {
        let mut framer = Framer::new(100);
        assert_eq!(
            feed(&mut framer, b"8 <14>a\nb\n5 <14>c").unwrap(),
            ["<14>a\nb\n", "<14>c"]
        );
    }

    #[test]
    fn lines_and_counted_messages_may_alternate() {
        let mut framer = Framer::new(100);
        assert_eq!(
            feed(&mut framer, b"<14>a\r\n\n5 <14>b<14>c\n\0<14>").unwrap(),
            ["<14>a\r", "<14>b", "<14>c"]
        );
        let mut rest = Vec::new();
        framer.end(|m| rest.extend_from_slice(m));
        assert_eq!(rest, b"<14>");
    }

    #[test]
    fn too_long_messages_lose_their_end_and_nobody_elses() {
        let mut framer = Framer::new(6);
        assert_eq!(
            feed(&mut framer, b"9 <14>abcde<14>abcd\n<14>ab\n").unwrap(),
            ["<14>ab", "<14>ab", "<14>ab"]
        );
        assert_eq!((framer.take_truncated(), framer.take_truncated()), (2, 0));
    }

    #[test]
    fn a_broken_count_ends_the_stream() {
        for text in ["12345678 x", "12x", "1\n"] {
            assert_eq!(
                feed(&mut Framer::new(100), text.as_bytes()),
                Err(FrameError::Count),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn messages_survive_any_cut(
            messages in prop::collection::vec("<[a-z 0-9\n]{0,20}", 0..10),
            counted in prop::collection::vec(any::<bool>(), 10),
            step in 1usize..30,
        ) {
            let mut stream = Vec::new();
            let mut expected = Vec::new();
            for (message, counted) in messages.iter().zip(counted) {
                if counted {
                    stream.extend(format!("{} {message}", message.len()).into_bytes());
                    expected.push(message.clone());
                } else {
                    let line = message.replace('\n', " ");
                    stream.extend(format!("{line}\n").into_bytes());
                    expected.push(line);
                }
            }
            let mut framer = Framer::new(1000);
            let mut found = Vec::new();
            for part in stream.chunks(step) {
                found.extend(feed(&mut framer, part).unwrap());
            }
            prop_assert_eq!(found, expected);
        }
    }
}
