//! What a subscriber does with the bytes: find records, read stamps, count. No envelope is decoded but those that
//! are not ours, such as notices of loss.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use loggregator_proto::v2;
use prost::Message;

use crate::control::{Progress, Shared};
use crate::histogram::Histogram;
use crate::tracker::{Group, Order};
use crate::workload::{STAMP_LEN, Stamp, StampKind, find_marker};

/// Counts the records of one subscriber.
pub struct Receiver {
    control: Shared,
    progress: Arc<Progress>,
    group: Arc<Mutex<Group>>,
    order: Order,
    latency: Histogram,
    stamp_at: usize,
    measure_from: u64,
    records: u64,
    foreign: u64,
    damaged: u64,
    notices: u64,
    told_lost: u64,
}

/// What one subscriber saw.
pub struct ReceiverReport {
    /// Latency of the envelopes of the measured time.
    pub latency: Histogram,
    /// Envelopes that came after a later one of their stream.
    pub reordered: u64,
    /// Records of ours, duplicates included.
    pub records: u64,
    /// Envelopes that are not of this run, such as the server's own metrics.
    pub foreign: u64,
    /// Envelopes that could not be understood at all.
    pub damaged: u64,
    /// Notices of loss.
    pub notices: u64,
    /// Envelopes that those notices say were lost.
    pub told_lost: u64,
    /// Why it ended early.
    pub error: Option<String>,
}

impl Receiver {
    /// A receiver that counts for `group`.
    #[must_use]
    pub fn new(
        control: Shared,
        progress: Arc<Progress>,
        group: Arc<Mutex<Group>>,
        streams: usize,
    ) -> Self {
        Self {
            control,
            progress,
            group,
            order: Order::new(streams),
            latency: Histogram::default(),
            stamp_at: 0,
            measure_from: u64::MAX,
            records: 0,
            foreign: 0,
            damaged: 0,
            notices: 0,
            told_lost: 0,
        }
    }

    /// Begins a piece of received bytes: one clock read and one lock for all its records.
    pub fn piece(&mut self, each: impl FnOnce(&mut Piece<'_>)) {
        let group = self.group.clone();
        let mut group = group.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.control.now();
        self.measure_from = self.control.measure_from.load(Ordering::Relaxed);
        each(&mut Piece {
            receiver: self,
            group: &mut group,
            now,
        });
        self.progress.records.store(self.records, Ordering::Relaxed);
        self.progress.unique.store(group.unique, Ordering::Relaxed);
    }

    /// Envelopes of ours so far, duplicates included.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The end.
    #[must_use]
    pub fn finish(self, error: Option<String>) -> ReceiverReport {
        ReceiverReport {
            latency: self.latency,
            reordered: self.order.reordered,
            records: self.records,
            foreign: self.foreign,
            damaged: self.damaged,
            notices: self.notices,
            told_lost: self.told_lost,
            error,
        }
    }
}

/// Records that arrived together.
pub struct Piece<'a> {
    receiver: &'a mut Receiver,
    group: &'a mut Group,
    now: u64,
}

impl Piece<'_> {
    /// One envelope; `v1` says which form a foreign one has.
    pub fn envelope(&mut self, bytes: &[u8], v1: bool) {
        let this = &mut *self.receiver;
        let at = this.stamp_at;
        let stamp = match bytes.get(at..at + STAMP_LEN).and_then(Stamp::read) {
            Some(stamp) => stamp,
            None => match find_marker(bytes) {
                Some(at) => {
                    this.stamp_at = at;
                    match Stamp::read(&bytes[at..]) {
                        Some(stamp) => stamp,
                        None => {
                            this.damaged += 1;
                            return;
                        }
                    }
                }
                None => {
                    if v1 {
                        this.foreign_v1(bytes)
                    } else {
                        this.foreign_v2(bytes)
                    }
                    return;
                }
            },
        };
        if stamp.kind == StampKind::Probe {
            this.progress.ready.store(true, Ordering::Relaxed);
            return;
        }
        this.records += 1;
        if self
            .group
            .observe(stamp.stream, stamp.source, stamp.sequence)
        {
            this.order.observe(stamp.stream, stamp.sequence);
        }
        if stamp.time >= this.measure_from {
            this.latency.record(self.now.saturating_sub(stamp.time), 1);
        }
    }
}

impl Receiver {
    fn foreign_v2(&mut self, bytes: &[u8]) {
        let Ok(envelope) = v2::Envelope::decode(bytes) else {
            self.damaged += 1;
            return;
        };
        match envelope.message {
            Some(v2::envelope::Message::Counter(counter))
                if counter.name == "dropped"
                    && envelope
                        .tags
                        .get("direction")
                        .is_some_and(|d| d == "egress") =>
            {
                self.notices += 1;
                self.told_lost += counter.delta;
            }
            _ => self.foreign += 1,
        }
    }

    fn foreign_v1(&mut self, bytes: &[u8]) {
        let Ok(envelope) = loggregator_proto::events::Envelope::decode(bytes) else {
            self.damaged += 1;
            return;
        };
        match envelope.counter_event {
            Some(counter) if counter.name == "TruncatingBuffer.DroppedMessages" => {
                self.notices += 1;
                self.told_lost += counter.delta;
            }
            _ => self.foreign += 1,
        }
    }
}

/// Cuts a gRPC stream of `EnvelopeBatch` messages into envelopes, whatever pieces it comes in.
#[derive(Default)]
pub struct Cutter {
    header: Vec<u8>,
    message_left: usize,
    carry: Vec<u8>,
}

impl Cutter {
    /// Takes the next bytes of the stream and hands every envelope that is complete to `each`.
    ///
    /// # Errors
    /// A text, when the bytes are not what the protocol says.
    pub fn feed(&mut self, mut data: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), String> {
        while !data.is_empty() {
            if self.message_left == 0 {
                let missing = 5 - self.header.len();
                let (head, rest) = data.split_at(missing.min(data.len()));
                self.header.extend_from_slice(head);
                data = rest;
                if let [flag, length @ ..] = &self.header[..]
                    && let Ok(length) = <[u8; 4]>::try_from(length)
                {
                    if *flag != 0 {
                        return Err(format!("a message with compression flag {flag}"));
                    }
                    self.message_left = u32::from_be_bytes(length) as usize;
                    self.header.clear();
                }
                continue;
            }
            let (body, rest) = data.split_at(self.message_left.min(data.len()));
            self.message_left -= body.len();
            data = rest;
            self.records(body, &mut each)?;
            if self.message_left == 0 && !self.carry.is_empty() {
                return Err("a message ended inside an envelope".into());
            }
        }
        Ok(())
    }

    fn records(&mut self, mut body: &[u8], each: &mut impl FnMut(&[u8])) -> Result<(), String> {
        while !self.carry.is_empty() && !body.is_empty() {
            // What is missing is known only once the length is there: a byte at a time until then.
            let wanted = match record_len(&self.carry)? {
                Some((head, len)) => head + len,
                None => self.carry.len() + 1,
            };
            let (part, rest) = body.split_at((wanted - self.carry.len()).min(body.len()));
            self.carry.extend_from_slice(part);
            body = rest;
            if let Some((head, len)) = record_len(&self.carry)?
                && self.carry.len() == head + len
            {
                each(&self.carry[head..]);
                self.carry.clear();
            }
        }
        while let Some((head, len)) = record_len(body)? {
            if body.len() < head + len {
                break;
            }
            each(&body[head..head + len]);
            body = &body[head + len..];
        }
        self.carry.extend_from_slice(body);
        Ok(())
    }
}

/// Header length and body length of the record `0a len …` at the start of `bytes`; `None` when too short to tell.
fn record_len(bytes: &[u8]) -> Result<Option<(usize, usize)>, String> {
    match bytes.first() {
        None => return Ok(None),
        Some(0x0a) => {}
        Some(other) => return Err(format!("a batch holds field byte {other:#04x}")),
    }
    let mut len = 0usize;
    for (i, byte) in bytes[1..].iter().take(5).enumerate() {
        len |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(Some((i + 2, len)));
        }
    }
    if bytes.len() > 5 {
        Err("an envelope's length does not end".into())
    } else {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Control;
    use crate::workload::{BatchRing, Shape};

    #[test]
    fn any_split_gives_the_same_envelopes() {
        let shape = Shape {
            batch: 3,
            sources: 3,
            ..Shape::default()
        };
        let mut ring = BatchRing::new(shape, 0, 0).unwrap();
        let mut stream = Vec::new();
        for time in 0..4 {
            stream.extend_from_slice(&ring.next(StampKind::Data, time));
        }
        stream.extend_from_slice(&[0, 0, 0, 0, 0]);
        for step in [1, 2, 3, 5, 7, 467, 468, 469, 1409, 10_000] {
            let mut cutter = Cutter::default();
            let mut seen = Vec::new();
            for piece in stream.chunks(step) {
                cutter
                    .feed(piece, |envelope| {
                        let at = find_marker(envelope).unwrap();
                        seen.push(Stamp::read(&envelope[at..]).unwrap().sequence);
                    })
                    .unwrap();
            }
            assert_eq!(seen, (0..12).collect::<Vec<_>>(), "pieces of {step}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        for (bytes, word) in [
            (&[1u8, 0, 0, 0, 1, 0][..], "compression"),
            (&[0, 0, 0, 0, 2, 0x12, 0], "field byte"),
            (&[0, 0, 0, 0, 2, 0x0a, 5], "inside an envelope"),
            (
                &[0, 0, 0, 0, 8, 0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1],
                "does not end",
            ),
        ] {
            let error = Cutter::default().feed(bytes, |_| {}).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn notices_of_loss_are_added_up() {
        let control = Shared::new(Control::default());
        let group = Arc::new(Mutex::new(Group::of_all(1)));
        let mut receiver = Receiver::new(control, Arc::default(), group, 1);
        let notice = |delta, direction: &str| {
            let mut envelope = v2::Envelope {
                message: Some(v2::envelope::Message::Counter(v2::Counter {
                    name: "dropped".into(),
                    delta,
                    ..Default::default()
                })),
                ..Default::default()
            };
            envelope.tags.insert("direction".into(), direction.into());
            envelope.encode_to_vec()
        };
        receiver.piece(|piece| {
            piece.envelope(&notice(3, "egress"), false);
            piece.envelope(&notice(4, "egress"), false);
            piece.envelope(&notice(9, "ingress"), false);
            piece.envelope(&[0xff], false);
        });
        let report = receiver.finish(None);
        assert_eq!(
            (
                report.notices,
                report.told_lost,
                report.foreign,
                report.damaged
            ),
            (2, 7, 1, 1)
        );
    }
}
