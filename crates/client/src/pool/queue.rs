//! What waits to be sent to one doppler, in order, as records that concatenate.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Pieces smaller than this are copied together; bigger ones are kept as they are and shared.
const SMALL: usize = 4 * 1024;

/// Consecutive records of an `EnvelopeBatch`, at most a batch of them.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub bytes: Bytes,
    pub envelopes: u32,
}

/// A piece in the queue. Its number tells the order in which pieces came.
#[derive(Debug)]
pub(crate) struct Item {
    pub seq: i64,
    data: Data,
    pub envelopes: u32,
}

#[derive(Debug)]
enum Data {
    /// Small pieces that are being copied together. Only the last item may be open.
    Open(BytesMut),
    Sealed(Bytes),
}

impl Item {
    pub(crate) fn len(&self) -> usize {
        match &self.data {
            Data::Open(bytes) => bytes.len(),
            Data::Sealed(bytes) => bytes.len(),
        }
    }

    /// The item's records; nothing can be added any more.
    pub(crate) fn seal(&mut self) -> Bytes {
        let bytes = match &mut self.data {
            Data::Open(bytes) => std::mem::take(bytes).freeze(),
            Data::Sealed(bytes) => return bytes.clone(),
        };
        self.data = Data::Sealed(bytes.clone());
        bytes
    }
}

/// How much goes into one message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchLimit {
    pub envelopes: u32,
    pub bytes: usize,
}

/// The queue of one link. Bounded by its owner, who pops when the sum of all queues is too big.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    items: VecDeque<Item>,
    next: i64,
    bytes: usize,
    envelopes: u64,
}

impl Queue {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn envelopes(&self) -> u64 {
        self.envelopes
    }

    /// Adds a piece at the end.
    pub(crate) fn push(&mut self, piece: Piece, limit: BatchLimit) {
        if piece.bytes.len() < SMALL {
            self.append(piece.bytes.len(), piece.envelopes, limit, |out| {
                out.extend_from_slice(&piece.bytes)
            });
        } else {
            self.grow(piece.bytes.len(), piece.envelopes);
            let seq = self.number();
            self.items.push_back(Item {
                seq,
                data: Data::Sealed(piece.bytes),
                envelopes: piece.envelopes,
            });
        }
    }

    /// Adds records of together `len` bytes, which `write` appends to what it is given.
    pub(crate) fn append(
        &mut self,
        len: usize,
        envelopes: u32,
        limit: BatchLimit,
        write: impl FnOnce(&mut BytesMut),
    ) {
        self.grow(len, envelopes);
        if let Some(item) = self.items.back_mut()
            && let Data::Open(bytes) = &mut item.data
            && item.envelopes + envelopes <= limit.envelopes
            && bytes.len() + len <= limit.bytes
        {
            write(bytes);
            item.envelopes += envelopes;
            return;
        }
        let mut bytes = BytesMut::with_capacity(len.max(SMALL));
        write(&mut bytes);
        let seq = self.number();
        self.items.push_back(Item {
            seq,
            data: Data::Open(bytes),
            envelopes,
        });
    }

    /// Puts back what could not be sent: before everything that came later.
    pub(crate) fn put_back(&mut self, items: impl IntoIterator<Item = Item>) {
        for item in items {
            self.grow(item.len(), item.envelopes);
            let at = self.items.partition_point(|other| other.seq < item.seq);
            self.items.insert(at, item);
        }
    }

    /// Adds pieces that are older than everything here.
    pub(crate) fn push_front(&mut self, pieces: Vec<Piece>) {
        for piece in pieces.into_iter().rev() {
            self.grow(piece.bytes.len(), piece.envelopes);
            let seq = self.items.front().map_or(self.next, |item| item.seq) - 1;
            self.items.push_front(Item {
                seq,
                data: Data::Sealed(piece.bytes),
                envelopes: piece.envelopes,
            });
        }
    }

    /// The oldest item.
    pub(crate) fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.bytes -= item.len();
        self.envelopes -= u64::from(item.envelopes);
        Some(item)
    }

    /// The oldest items, as many as fit into a message; at least one if there is one.
    pub(crate) fn take(&mut self, limit: BatchLimit) -> Vec<Item> {
        let mut taken = Vec::new();
        let (mut envelopes, mut bytes) = (0, 0);
        while let Some(item) = self.items.front() {
            let (more, longer) = (envelopes + item.envelopes, bytes + item.len());
            if !taken.is_empty() && (more > limit.envelopes || longer > limit.bytes) {
                break;
            }
            (envelopes, bytes) = (more, longer);
            taken.extend(self.pop());
        }
        taken
    }

    /// Everything, oldest first.
    pub(crate) fn drain(&mut self) -> Vec<Item> {
        (self.bytes, self.envelopes) = (0, 0);
        self.items.drain(..).collect()
    }

    fn grow(&mut self, bytes: usize, envelopes: u32) {
        self.bytes += bytes;
        self.envelopes += u64::from(envelopes);
    }

    fn number(&mut self) -> i64 {
        self.next += 1;
        self.next - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: BatchLimit = BatchLimit {
        envelopes: 3,
        bytes: 10_000,
    };

    fn piece(text: &str, envelopes: u32) -> Piece {
        Piece {
            bytes: Bytes::copy_from_slice(text.as_bytes()),
            envelopes,
        }
    }

    fn texts(items: &mut [Item]) -> Vec<String> {
        items
            .iter_mut()
            .map(|i| String::from_utf8(i.seal().to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn small_pieces_are_joined_up_to_a_batch() {
        let mut queue = Queue::default();
        for text in ["a", "b", "c", "d"] {
            queue.push(piece(text, 1), LIMIT);
        }
        assert_eq!((queue.bytes(), queue.envelopes()), (4, 4));
        assert_eq!(texts(&mut queue.take(LIMIT)), ["abc"]);
        assert_eq!(texts(&mut queue.take(LIMIT)), ["d"]);
        assert_eq!((queue.bytes(), queue.envelopes()), (0, 0));
        assert!(queue.take(LIMIT).is_empty());
    }

    #[test]
    fn big_pieces_are_shared_and_sent_together_while_they_fit() {
        let big = "x".repeat(SMALL);
        let shared = piece(&big, 1);
        let mut queue = Queue::default();
        for _ in 0..3 {
            queue.push(shared.clone(), LIMIT);
        }
        let mut taken = queue.take(LIMIT);
        assert_eq!(
            taken.len(),
            2,
            "three would be more bytes than a batch may have"
        );
        assert_eq!(taken[0].seal().as_ptr(), shared.bytes.as_ptr());
        // One alone may be bigger than the limit.
        assert_eq!(
            queue
                .take(BatchLimit {
                    envelopes: 1,
                    bytes: 1
                })
                .len(),
            1
        );
    }

    #[test]
    fn what_comes_back_is_first_again() {
        let mut queue = Queue::default();
        let one = BatchLimit {
            envelopes: 1,
            bytes: 100,
        };
        for text in ["a", "b", "c", "d"] {
            queue.push(piece(text, 1), one);
        }
        let a = queue.take(one);
        let b = queue.take(one);
        queue.put_back(b);
        queue.put_back(a);
        queue.push_front(vec![piece("y", 1), piece("z", 1)]);
        assert_eq!(queue.envelopes(), 6);
        assert_eq!(texts(&mut queue.drain()), ["y", "z", "a", "b", "c", "d"]);
        assert_eq!((queue.bytes(), queue.envelopes()), (0, 0));
    }
}
