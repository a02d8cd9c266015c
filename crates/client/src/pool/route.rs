//! Splitting a frame by doppler, without decoding it.

use bytes::{Bytes, BytesMut};
use loggregator_envelope::{Entry, Frame};

use super::queue::{BatchLimit, Piece};
use crate::rendezvous::{self, Ring};

/// Identity of a link: one stream to one doppler.
pub(crate) type LinkId = u64;

/// Where envelopes go at one moment.
#[derive(Debug, Default)]
pub(crate) struct Routing {
    /// Which routing this is; a frame that was split by an older one is split again.
    pub generation: u64,
    pub ring: Ring,
    /// For each place of the ring, the first link to that doppler; the others follow it.
    pub links: Vec<LinkId>,
    /// Links per doppler.
    pub lanes: u64,
}

impl Routing {
    /// The link for a source; `None` without dopplers.
    pub(crate) fn pick(&self, source_id: &[u8]) -> Option<LinkId> {
        let first = self.links[self.ring.pick(source_id)?];
        // Another mix of the same hash, so that the lanes do not depend on the doppler.
        let lane = if self.lanes > 1 {
            rendezvous::hash(source_id).rotate_left(24) % self.lanes
        } else {
            0
        };
        Some(first + lane)
    }

    /// Whether all sources go to the same link.
    fn only(&self) -> Option<LinkId> {
        if self.links.len() == 1 && self.lanes <= 1 {
            self.links.first().copied()
        } else {
            None
        }
    }
}

/// What a frame becomes.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    /// Pieces for links; no link when there is no doppler at all.
    pub pieces: Vec<(Option<LinkId>, Piece)>,
    /// Envelopes left out because no doppler would take them.
    pub too_large: u32,
}

/// Limits of a piece and of an envelope in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SplitLimit {
    pub batch: BatchLimit,
    pub max_envelope: usize,
}

/// Splits a frame into pieces per link, in order. A frame for one link is cut, not copied; else each record is copied
/// once.
pub(crate) fn split(frame: &Frame, routing: &Routing, limit: SplitLimit) -> Parts {
    let entries = frame.entries();
    let fits = |entry: &Entry| entry.len as usize <= limit.max_envelope;
    let all_fit = entries.iter().all(fits);
    if all_fit && (routing.links.is_empty() || routing.only().is_some()) {
        return Parts {
            pieces: cut(frame, routing.only(), limit.batch),
            too_large: 0,
        };
    }
    let mut links = Vec::with_capacity(entries.len());
    let mut last = None;
    for entry in entries {
        let link = match last {
            Some((hash, link)) if hash == entry.source_hash => link,
            _ => routing.pick(frame.source_id(entry).as_bytes()),
        };
        last = Some((entry.source_hash, link));
        links.push(link);
    }
    if all_fit && links.windows(2).all(|w| w[0] == w[1]) {
        return Parts {
            pieces: cut(frame, links.first().copied().flatten(), limit.batch),
            too_large: 0,
        };
    }
    let mut sorter = Sorter {
        batch: limit.batch,
        open: Vec::new(),
        parts: Parts::default(),
    };
    for (entry, link) in entries.iter().zip(links) {
        if fits(entry) {
            sorter.add(link, &frame.bytes()[entry.record()], frame.bytes().len());
        } else {
            sorter.parts.too_large += 1;
        }
    }
    sorter.finish()
}

/// Cuts a frame into pieces of at most a batch each, sharing its bytes.
fn cut(frame: &Frame, link: Option<LinkId>, batch: BatchLimit) -> Vec<(Option<LinkId>, Piece)> {
    let entries = frame.entries();
    let mut pieces = Vec::with_capacity(1);
    let mut from = 0;
    while from < entries.len() {
        let mut bytes = entries[from].len as usize;
        let mut to = from + 1;
        while to < entries.len()
            && to - from < batch.envelopes as usize
            && bytes + entries[to].len as usize <= batch.bytes
        {
            bytes += entries[to].len as usize;
            to += 1;
        }
        let bytes = if to - from == entries.len() {
            frame.bytes().clone()
        } else {
            frame.run(from..to)
        };
        #[allow(clippy::cast_possible_truncation)] // at most `batch.envelopes`, a u32
        pieces.push((
            link,
            Piece {
                bytes,
                envelopes: (to - from) as u32,
            },
        ));
        from = to;
    }
    pieces
}

/// Copies records into one open piece per link.
struct Sorter {
    batch: BatchLimit,
    /// Few links: a search is faster than a map.
    open: Vec<(Option<LinkId>, BytesMut, u32)>,
    parts: Parts,
}

impl Sorter {
    fn add(&mut self, link: Option<LinkId>, record: &[u8], frame_len: usize) {
        let at = self
            .open
            .iter()
            .position(|(other, ..)| *other == link)
            .unwrap_or_else(|| {
                self.open.push((
                    link,
                    BytesMut::with_capacity(frame_len.min(self.batch.bytes)),
                    0,
                ));
                self.open.len() - 1
            });
        let (_, bytes, envelopes) = &mut self.open[at];
        let full =
            *envelopes == self.batch.envelopes || bytes.len() + record.len() > self.batch.bytes;
        if full && *envelopes > 0 {
            let piece = Piece {
                bytes: exact(bytes.split()),
                envelopes: std::mem::take(envelopes),
            };
            self.parts.pieces.push((link, piece));
        }
        bytes.extend_from_slice(record);
        *envelopes += 1;
    }

    fn finish(mut self) -> Parts {
        for (link, bytes, envelopes) in self.open {
            self.parts.pieces.push((
                link,
                Piece {
                    bytes: exact(bytes),
                    envelopes,
                },
            ));
        }
        self.parts
    }
}

/// Gives back memory that would lie idle behind the piece.
fn exact(bytes: BytesMut) -> Bytes {
    if bytes.len() < bytes.capacity() / 2 {
        Bytes::copy_from_slice(&bytes)
    } else {
        bytes.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message;
    use loggregator_proto::v2::EnvelopeBatch;
    use prost::Message as _;

    const LIMIT: SplitLimit = SplitLimit {
        batch: BatchLimit {
            envelopes: 100,
            bytes: 100_000,
        },
        max_envelope: 10_000,
    };

    fn frame(sources: &[&str]) -> Frame {
        let batch = sources
            .iter()
            .enumerate()
            .map(|(i, source)| {
                message::log(format!("line {i}"))
                    .source(source, "0")
                    .build()
            })
            .collect();
        Frame::parse(EnvelopeBatch { batch }.encode_to_vec().into())
            .unwrap()
            .frame
    }

    fn routing(dopplers: &[&str], lanes: u64) -> Routing {
        let links = (0..dopplers.len() as u64).map(|i| i * lanes).collect();
        Routing {
            generation: 1,
            ring: Ring::new(dopplers.iter().copied()),
            links,
            lanes,
        }
    }

    fn payloads(piece: &Piece) -> Vec<(String, String)> {
        let batch = EnvelopeBatch::decode(piece.bytes.clone()).unwrap().batch;
        assert_eq!(batch.len(), piece.envelopes as usize);
        batch
            .into_iter()
            .map(|e| match e.message {
                Some(loggregator_proto::v2::envelope::Message::Log(log)) => (
                    e.source_id,
                    String::from_utf8(log.payload.to_vec()).unwrap(),
                ),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn one_doppler_gets_the_very_bytes() {
        let frame = frame(&["a", "b", "c"]);
        let parts = split(&frame, &routing(&["d:1"], 1), LIMIT);
        assert_eq!(parts.pieces.len(), 1);
        assert_eq!(parts.pieces[0].1.bytes.as_ptr(), frame.bytes().as_ptr());
        let nobody = split(&frame, &Routing::default(), LIMIT);
        assert_eq!((nobody.pieces.len(), nobody.pieces[0].0), (1, None));
    }

    #[test]
    fn each_source_goes_to_its_doppler_whole_and_in_order() {
        let names: Vec<String> = (0..50).map(|i| format!("app-{}", i % 10)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let routing = routing(&["d:1", "d:2", "d:3"], 2);
        let parts = split(&frame(&names), &routing, LIMIT);
        let mut lines = 0;
        for (link, piece) in &parts.pieces {
            let found = payloads(piece);
            assert!(
                found
                    .iter()
                    .all(|(source, _)| routing.pick(source.as_bytes()) == *link)
            );
            let numbers: Vec<u32> = found
                .iter()
                .map(|(_, text)| text[5..].parse().unwrap())
                .collect();
            assert!(numbers.is_sorted(), "{numbers:?}");
            lines += numbers.len();
        }
        assert_eq!(lines, 50);
        assert!(parts.pieces.len() > 1);
    }

    #[test]
    fn pieces_are_at_most_a_batch() {
        let limit = SplitLimit {
            batch: BatchLimit {
                envelopes: 4,
                bytes: 60,
            },
            ..LIMIT
        };
        for dopplers in [["d:1"].as_ref(), ["d:1", "d:2"].as_ref()] {
            let parts = split(&frame(&["a"; 10]), &routing(dopplers, 1), limit);
            let sizes: Vec<u32> = parts
                .pieces
                .iter()
                .map(|(_, piece)| piece.envelopes)
                .collect();
            assert_eq!(sizes.iter().sum::<u32>(), 10);
            assert!(
                parts
                    .pieces
                    .iter()
                    .all(|(_, p)| p.envelopes <= 4 && p.bytes.len() <= 60),
                "{sizes:?}"
            );
        }
    }

    #[test]
    fn an_envelope_that_nobody_would_take_is_left_out_and_counted() {
        let big = "x".repeat(20_000);
        let frame = frame(&["a", &big, "b"]);
        for dopplers in [["d:1"].as_ref(), ["d:1", "d:2"].as_ref()] {
            let parts = split(&frame, &routing(dopplers, 1), LIMIT);
            let mut found: Vec<_> = parts
                .pieces
                .iter()
                .flat_map(|(_, p)| payloads(p))
                .map(|(s, _)| s)
                .collect();
            found.sort();
            assert_eq!(
                (found, parts.too_large),
                (vec!["a".to_owned(), "b".to_owned()], 1)
            );
        }
    }
}
