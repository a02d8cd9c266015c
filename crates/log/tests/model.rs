//! The log against a naive model: whatever is appended and read in whatever order, every reader gets each envelope
//! exactly once or is told that it missed it, and memory keeps its bound.
#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use loggregator_envelope::select::FrameBuilder;
use loggregator_envelope::{Index, KindSet};
use loggregator_log::{Cursor, Log, LogConfig, Position, Reader, Slot, Tally};
use loggregator_proto::v2;
use proptest::prelude::*;

const LIMIT: usize = 128 << 10;
const SEGMENT: usize = 8 << 10;

/// A reader as the doppler's groups are: a cursor behind a lock, told of evictions.
struct Consumer {
    cursor: parking_lot::Mutex<(Cursor, Tally)>,
    oldest: AtomicU64,
}

impl Reader for Consumer {
    fn oldest(&self) -> u64 {
        self.oldest.load(Ordering::Acquire)
    }

    fn evicted(&self, slots: &[Arc<Slot>]) {
        let (cursor, missed) = &mut *self.cursor.lock();
        cursor.evicted(slots, KindSet::ALL, missed);
        self.oldest
            .store(cursor.position().ordinal, Ordering::Release);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append {
        source: u8,
        envelopes: u8,
        payload: usize,
    },
    Read {
        reader: usize,
        budget: usize,
    },
    Join,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..5, 1u8..20, prop_oneof![1usize..300, 1usize..6000])
            .prop_map(|(source, envelopes, payload)| Step::Append { source, envelopes, payload }),
        4 => (0usize..4, prop_oneof![1usize..500, 1000usize..60_000])
            .prop_map(|(reader, budget)| Step::Read { reader, budget }),
        1 => Just(Step::Join),
    ]
}

fn frame(source: u8, first: u64, envelopes: u8, payload: usize) -> (Bytes, Index) {
    let mut builder = FrameBuilder::new();
    for i in 0..u64::from(envelopes) {
        builder
            .push_message(&v2::Envelope {
                timestamp: i64::try_from(first + i).unwrap(),
                source_id: format!("source-{source}"),
                message: Some(v2::envelope::Message::Log(v2::Log {
                    payload: Bytes::from(vec![b'x'; payload]),
                    r#type: 0,
                })),
                ..v2::Envelope::default()
            })
            .unwrap();
    }
    builder.finish()
}

/// What a reader saw, against what was appended since it joined.
#[derive(Default)]
struct Seen {
    first: u64,
    read: Vec<u64>,
    by_source: BTreeMap<String, u64>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_envelope_is_read_once_or_counted_as_missed(steps in proptest::collection::vec(step(), 1..300)) {
        let log = Log::new(LogConfig { bytes: LIMIT, segment_bytes: SEGMENT });
        let mut appended: Vec<u8> = Vec::new();
        let mut readers: Vec<(Arc<Consumer>, Seen)> = Vec::new();
        for step in steps {
            match step {
                Step::Append { source, envelopes, payload } => {
                    let (bytes, index) = frame(source, appended.len() as u64, envelopes, payload);
                    let slot = log.append(&bytes, index, None);
                    prop_assert_eq!(slot.frame().bytes(), &bytes);
                    appended.extend(std::iter::repeat_n(source, usize::from(envelopes)));
                    let fill = log.fill();
                    // One frame above the limit is the only thing that may exceed it.
                    prop_assert!(fill.bytes as usize <= LIMIT + SEGMENT + bytes.len(), "{fill:?}");
                }
                Step::Join if readers.len() < 4 => {
                    let at = Position::frame(log.head());
                    let consumer = Arc::new(Consumer {
                        cursor: parking_lot::Mutex::new((Cursor::new(at), Tally::default())),
                        oldest: AtomicU64::new(at.ordinal),
                    });
                    let weak = Arc::downgrade(&consumer);
                    log.register(weak as std::sync::Weak<dyn Reader>);
                    readers.push((consumer, Seen { first: appended.len() as u64, ..Seen::default() }));
                }
                Step::Join => {}
                Step::Read { reader, budget } => {
                    if let Some((consumer, seen)) = readers.get_mut(reader) {
                        read(&log, consumer, seen, budget);
                    }
                }
            }
        }
        for (consumer, seen) in &mut readers {
            while read(&log, consumer, seen, 10_000) > 0 {}
            prop_assert!(seen.read.windows(2).all(|pair| pair[0] < pair[1]), "in order, none twice");
            let missed = consumer.cursor.lock().1.clone();
            let expected = appended.len() as u64 - seen.first;
            prop_assert_eq!(seen.read.len() as u64 + missed.total(), expected, "read + missed = appended");
            for lost in missed.by_loss() {
                *seen.by_source.entry(lost.source_id.to_string()).or_default() += lost.count;
            }
            let mut expected: BTreeMap<String, u64> = BTreeMap::new();
            for source in &appended[seen.first as usize..] {
                *expected.entry(format!("source-{source}")).or_default() += 1;
            }
            prop_assert_eq!(&seen.by_source, &expected, "also by source");
        }
    }
}

fn read(log: &Log, consumer: &Consumer, seen: &mut Seen, budget: usize) -> usize {
    let pieces = {
        let view = log.view();
        let (cursor, _) = &mut *consumer.cursor.lock();
        let pieces = cursor.take(&view, budget, true);
        consumer
            .oldest
            .store(cursor.position().ordinal, Ordering::Release);
        pieces
    };
    let mut bytes = 0;
    for piece in &pieces {
        let frame = piece.slot.frame();
        for entry in &frame.entries()[piece.range.start as usize..piece.range.end as usize] {
            bytes += entry.len as usize;
            seen.read
                .push(u64::try_from(frame.envelope(entry).timestamp()).unwrap());
            *seen
                .by_source
                .entry(frame.source_id(entry).to_owned())
                .or_default() += 1;
        }
    }
    let envelopes: u32 = pieces
        .iter()
        .map(|piece| piece.range.end - piece.range.start)
        .sum();
    assert!(
        bytes <= budget || envelopes == 1,
        "{bytes} bytes for a budget of {budget}"
    );
    bytes
}

/// A connection that holds what it read does not stop the log, and its memory comes back afterwards.
#[test]
fn held_slices_are_counted_and_come_back() {
    let log = Log::new(LogConfig {
        bytes: LIMIT,
        segment_bytes: SEGMENT,
    });
    let mut held = Vec::new();
    for i in 0..200 {
        let (bytes, index) = frame(1, i, 10, 200);
        let slot = log.append(&bytes, index, None);
        if i % 4 == 0 {
            held.push(slot.frame().bytes().clone());
        }
    }
    let fill = log.fill();
    assert!(fill.frames > 10, "the ring goes on: {fill:?}");
    assert!(fill.held_bytes > 0, "{fill:?}");
    drop(held);
    for i in 0..100 {
        let (bytes, index) = frame(1, i, 10, 200);
        log.append(&bytes, index, None);
    }
    let fill = log.fill();
    assert!(fill.bytes as usize <= LIMIT, "{fill:?}");
    assert_eq!(fill.held_bytes, 0, "{fill:?}");
}
