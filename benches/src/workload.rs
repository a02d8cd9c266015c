//! What is sent: v2 log envelopes encoded once, of which only the stamp changes afterwards.
//!
//! Every envelope of a run has the same length, and its payload lies at the same offset, so a batch is stamped by
//! writing sixteen bytes per envelope at a fixed stride, and a subscriber finds the stamp again without decoding:
//! a doppler passes the bytes of an envelope on unchanged, and the v1 form keeps the payload's bytes.

use bytes::{Bytes, BytesMut};
use loggregator_proto::v2;
use prost::Message;

use crate::BenchError;

/// The first bytes of every payload. Chosen so that no text or length prefix resembles it.
pub const MARKER: [u8; 8] = *b"\xf5lgbench";

/// Bytes of the stamp: marker, stream (2), kind (2), source index (4), sequence (8), time (8).
pub const STAMP_LEN: usize = 32;

/// Bytes in front of each gRPC message: a compression flag and a length.
pub const GRPC_HEADER: usize = 5;

/// Whether an envelope belongs to the measured sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StampKind {
    /// Numbered and counted.
    Data,
    /// Sent before the run until every subscriber has seen one; never counted.
    Probe,
}

/// What an envelope says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Which emitting stream sent it.
    pub stream: u16,
    /// Measured or not.
    pub kind: StampKind,
    /// Index of its source, see [`source_id`].
    pub source: u32,
    /// Position in its stream, from 0, without gaps.
    pub sequence: u64,
    /// When it was handed to the connection, in nanoseconds since the run's epoch.
    pub time: u64,
}

impl Stamp {
    /// Reads a stamp that starts at the beginning of `bytes`; `None` when there is no marker.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let stamp: &[u8; STAMP_LEN] = bytes.first_chunk()?;
        if stamp[..8] != MARKER {
            return None;
        }
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| stamp[at + i]));
        Some(Self {
            stream: u16::from_le_bytes([stamp[8], stamp[9]]),
            kind: if stamp[10] == 0 {
                StampKind::Data
            } else {
                StampKind::Probe
            },
            source: u32::from_le_bytes([stamp[12], stamp[13], stamp[14], stamp[15]]),
            sequence: word(16),
            time: word(24),
        })
    }

    fn write(self, out: &mut [u8]) {
        out[..8].copy_from_slice(&MARKER);
        out[8..10].copy_from_slice(&self.stream.to_le_bytes());
        out[10..12].copy_from_slice(&u16::from(self.kind == StampKind::Probe).to_le_bytes());
        out[12..16].copy_from_slice(&self.source.to_le_bytes());
        out[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        out[24..32].copy_from_slice(&self.time.to_le_bytes());
    }
}

/// Sizes of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Shape {
    /// Bytes of one envelope inside a batch, its own record header included.
    pub record: usize,
    /// Bytes of the log line.
    pub payload: usize,
    /// Envelopes in one `EnvelopeBatch`.
    pub batch: usize,
    /// Distinct source ids, taken in turn. A multiple or a divisor of `batch`.
    pub sources: usize,
    /// Emitting streams, each on a connection of its own.
    pub streams: usize,
}

impl Default for Shape {
    /// The work that all recorded figures are about.
    fn default() -> Self {
        Self {
            record: 468,
            payload: 200,
            batch: 100,
            sources: 1000,
            streams: 2,
        }
    }
}

impl Shape {
    /// Bytes of one gRPC message, header included.
    #[must_use]
    pub fn message_len(&self) -> usize {
        GRPC_HEADER + self.record * self.batch
    }

    /// How many envelopes of the sequence numbers below `sent` are of source `source`.
    #[must_use]
    pub fn sent_of_source(&self, source: usize, sent: u64) -> u64 {
        let sources = self.sources as u64;
        sent / sources + u64::from(sent % sources > source as u64)
    }

    fn check(&self) -> Result<(), BenchError> {
        let fits = self.batch > 0
            && self.sources > 0
            && (self.sources.is_multiple_of(self.batch) || self.batch.is_multiple_of(self.sources));
        if !fits {
            return Err(BenchError::new(format!(
                "batch {} and sources {} must divide one another",
                self.batch, self.sources
            )));
        }
        if self.payload < STAMP_LEN {
            return Err(BenchError::new(format!(
                "payload {} is below {STAMP_LEN} bytes",
                self.payload
            )));
        }
        Ok(())
    }
}

/// The source id with this index: a UUID in form, the same in every run.
#[must_use]
pub fn source_id(index: usize) -> String {
    let mix = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!(
        "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
        mix >> 32,
        (mix >> 16) & 0xffff,
        mix & 0xfff,
        (mix >> 12) & 0xfff,
        index
    )
}

/// One envelope of source `source`, not yet stamped, exactly `shape.record` bytes with its record header.
fn record(shape: &Shape, stream: usize, source: usize) -> Result<Vec<u8>, BenchError> {
    let mut payload = vec![0u8; shape.payload];
    let text = b"GET /v2/orders/48213?expand=lines HTTP/1.1 200 1532 \"-\" \"curl/8.5.0\" 10.0.16.4:61012 response_time:0.0123 ";
    for (out, byte) in payload.iter_mut().zip(text.iter().cycle()) {
        *out = *byte;
    }
    let stamp = Stamp {
        stream: stream as u16,
        kind: StampKind::Data,
        source: source as u32,
        sequence: 0,
        time: 0,
    };
    stamp.write(&mut payload);
    let tags = [
        ("deployment", "cf-prod-1"),
        ("job", "diego-cell"),
        ("index", "7c1f0e52"),
        ("ip", "10.0.16.4"),
        ("origin", "rep"),
        ("source_type", "APP/PROC/WEB"),
        ("process_type", "web"),
        ("app_name", ""),
    ];
    let mut envelope = v2::Envelope {
        timestamp: 1_700_000_000_000_000_000,
        source_id: source_id(source),
        instance_id: "0".into(),
        tags: tags
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        message: Some(v2::envelope::Message::Log(v2::Log {
            payload: payload.into(),
            ..Default::default()
        })),
        ..Default::default()
    };
    // The last tag fills what is missing; one more byte of it may cost a byte of length prefix too.
    let mut pad = 0;
    loop {
        envelope.tags.insert(
            "app_name".into(),
            "orders-api-".chars().cycle().take(pad).collect(),
        );
        let batch = v2::EnvelopeBatch {
            batch: vec![envelope.clone()],
        };
        let len = batch.encoded_len();
        if len == shape.record {
            return Ok(batch.encode_to_vec());
        }
        if len > shape.record {
            return Err(BenchError::new(format!(
                "an envelope of {} bytes cannot hold this payload (needs {len})",
                shape.record
            )));
        }
        pad += 1;
    }
}

/// The pre-encoded messages of one stream, handed out in turn, each stamped when it leaves.
///
/// Buffers come back to the ring as soon as the connection has dropped them, so a paced run allocates nothing and
/// copies nothing: it patches.
pub struct BatchRing {
    shape: Shape,
    payload_at: usize,
    templates: Vec<Bytes>,
    slots: Vec<Bytes>,
    at: usize,
    sequence: u64,
    /// Batches that had to be copied because the connection still held the buffer.
    pub copies: u64,
}

/// How many times over the ring holds each template, so that a buffer in flight need not be waited for.
const DEPTH: usize = 2;

impl BatchRing {
    /// Encodes all batches of stream `stream`, whose sources are numbered from `first_source` on.
    ///
    /// # Errors
    /// When the sizes of `shape` do not fit together.
    pub fn new(shape: Shape, stream: usize, first_source: usize) -> Result<Self, BenchError> {
        shape.check()?;
        let mut templates = Vec::new();
        let mut payload_at = 0;
        for first in (0..shape.sources.max(shape.batch)).step_by(shape.batch) {
            let mut bytes = Vec::with_capacity(shape.message_len());
            bytes.push(0);
            bytes.extend_from_slice(&((shape.record * shape.batch) as u32).to_be_bytes());
            for i in 0..shape.batch {
                let record = record(&shape, stream, first_source + (first + i) % shape.sources)?;
                payload_at = find_marker(&record)
                    .ok_or_else(|| BenchError::new("an envelope lost its marker".to_owned()))?;
                bytes.extend_from_slice(&record);
            }
            templates.push(Bytes::from(bytes));
        }
        let count = (templates.len() * DEPTH)
            .max(8)
            .next_multiple_of(templates.len());
        let slots = (0..count)
            .map(|i| Bytes::copy_from_slice(&templates[i % templates.len()]))
            .collect();
        Ok(Self {
            shape,
            payload_at,
            templates,
            slots,
            at: 0,
            sequence: 0,
            copies: 0,
        })
    }

    /// The next batch as one gRPC message, stamped with `time`. Probes do not use up sequence numbers.
    pub fn next(&mut self, kind: StampKind, time: u64) -> Bytes {
        let slot = self.at;
        self.at = (self.at + 1) % self.slots.len();
        let mut buffer = match std::mem::take(&mut self.slots[slot]).try_into_mut() {
            Ok(buffer) => buffer,
            Err(_still_in_flight) => {
                self.copies += 1;
                BytesMut::from(&self.templates[slot % self.templates.len()][..])
            }
        };
        let mut sequence = self.sequence;
        let kind_bytes = u16::from(kind == StampKind::Probe).to_le_bytes();
        for record in buffer[GRPC_HEADER..].chunks_exact_mut(self.shape.record) {
            let stamp = &mut record[self.payload_at..self.payload_at + STAMP_LEN];
            stamp[10..12].copy_from_slice(&kind_bytes);
            stamp[16..24].copy_from_slice(&sequence.to_le_bytes());
            stamp[24..32].copy_from_slice(&time.to_le_bytes());
            sequence += 1;
        }
        if kind == StampKind::Data {
            self.sequence = sequence;
        }
        let message = buffer.freeze();
        self.slots[slot] = message.clone();
        message
    }

    /// Starts over at the first template, so that sequence number and source agree again after probing.
    pub fn rewind(&mut self) {
        self.at = 0;
        self.sequence = 0;
    }
}

/// Where the stamp of an envelope begins, by search.
#[must_use]
pub fn find_marker(record: &[u8]) -> Option<usize> {
    record
        .windows(MARKER.len())
        .position(|window| window == MARKER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_the_promised_size_and_decode() {
        let shape = Shape::default();
        let mut ring = BatchRing::new(shape, 1, 0).unwrap();
        let message = ring.next(StampKind::Data, 77);
        assert_eq!(message.len(), shape.message_len());
        let batch = v2::EnvelopeBatch::decode(&message[GRPC_HEADER..]).unwrap();
        assert_eq!(batch.batch.len(), 100);
        let envelope = &batch.batch[42];
        assert_eq!(envelope.tags.len(), 8);
        assert_eq!(envelope.source_id, source_id(42));
        let Some(v2::envelope::Message::Log(log)) = &envelope.message else {
            panic!("a log")
        };
        assert_eq!(log.payload.len(), 200);
        let stamp = Stamp::read(&log.payload).unwrap();
        assert_eq!(
            stamp,
            Stamp {
                stream: 1,
                kind: StampKind::Data,
                source: 42,
                sequence: 42,
                time: 77
            }
        );
    }

    #[test]
    fn sequence_and_source_stay_in_step_over_many_batches_and_probes() {
        let shape = Shape {
            batch: 10,
            sources: 100,
            ..Shape::default()
        };
        let mut ring = BatchRing::new(shape, 0, 0).unwrap();
        for _ in 0..3 {
            ring.next(StampKind::Probe, 1);
        }
        ring.rewind();
        let mut held = Vec::new();
        for round in 0..50u64 {
            let message = ring.next(StampKind::Data, round);
            for (i, record) in message[GRPC_HEADER..]
                .chunks_exact(shape.record)
                .enumerate()
            {
                let stamp = Stamp::read(&record[find_marker(record).unwrap()..]).unwrap();
                assert_eq!(stamp.sequence, round * 10 + i as u64);
                assert_eq!(u64::from(stamp.source), stamp.sequence % 100);
                assert_eq!(stamp.kind, StampKind::Data);
                assert_eq!(stamp.time, round);
            }
            held.push(message);
        }
        assert!(ring.copies > 0, "held buffers must not be patched");
        let first =
            Stamp::read(&held[0][GRPC_HEADER + find_marker(&held[0][GRPC_HEADER..]).unwrap()..]);
        assert_eq!(first.unwrap().time, 0, "a message in flight is left alone");
    }

    #[test]
    fn expected_counts_per_source_add_up() {
        let shape = Shape {
            batch: 10,
            sources: 100,
            ..Shape::default()
        };
        for sent in [0, 1, 99, 100, 101, 12_345] {
            let sum: u64 = (0..100).map(|s| shape.sent_of_source(s, sent)).sum();
            assert_eq!(sum, sent);
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        assert!(
            BatchRing::new(
                Shape {
                    sources: 7,
                    ..Shape::default()
                },
                0,
                0
            )
            .is_err()
        );
        assert!(
            BatchRing::new(
                Shape {
                    record: 100,
                    ..Shape::default()
                },
                0,
                0
            )
            .is_err()
        );
        assert!(
            BatchRing::new(
                Shape {
                    payload: 8,
                    ..Shape::default()
                },
                0,
                0
            )
            .is_err()
        );
    }
}
