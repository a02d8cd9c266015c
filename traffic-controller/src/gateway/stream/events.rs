//! The events of a stream, byte for byte.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use loggregator_envelope::{Frame, Parsed, ScanError, json};

/// About how many bytes are made of a batch at once. One envelope more than that is never held.
const CHUNK: usize = 64 * 1024;

/// Sent when there was nothing to send for a while.
pub(crate) fn heartbeat(now: SystemTime) -> Vec<u8> {
    let seconds = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    format!("event: heartbeat\ndata: {seconds}\n\n").into_bytes()
}

/// The last event of a stream that the gateway ends.
pub(crate) fn closing(why: &str) -> Vec<u8> {
    format!("event: closing\ndata: {why}\n\n").into_bytes()
}

/// One batch on its way to the client: a data event, made piece by piece.
#[derive(Debug)]
pub(crate) struct DataEvent {
    frame: Frame,
    /// Envelopes that are written.
    written: usize,
    begun: bool,
}

impl DataEvent {
    /// The event of an encoded `EnvelopeBatch`, and how many malformed envelopes it leaves out. No event when nothing is
    /// left.
    ///
    /// # Errors
    /// Nobody can tell where the batch's envelopes begin.
    pub(crate) fn of(batch: Bytes) -> Result<(Option<Self>, u32), ScanError> {
        let Parsed { frame, rejected } = Frame::parse(batch)?;
        let event = Self {
            frame,
            written: 0,
            begun: false,
        };
        let nothing_left = rejected > 0 && event.frame.is_empty();
        Ok(((!nothing_left).then_some(event), rejected))
    }

    /// How many envelopes it brings.
    pub(crate) fn envelopes(&self) -> u64 {
        self.frame.len() as u64
    }

    /// Its next piece, and whether that is the last.
    pub(crate) fn next_piece(&mut self) -> (Vec<u8>, bool) {
        let left = &self.frame.entries()[self.written..];
        // JSON is about four times as long as the bytes.
        let bytes = self.frame.bytes().len() / self.frame.len().max(1) * left.len();
        let mut out = Vec::with_capacity((bytes * 4 + 64).min(CHUNK + CHUNK / 8));
        if !self.begun {
            self.begun = true;
            out.extend_from_slice(b"data: {\"batch\":[");
        }
        for entry in left {
            if out.len() >= CHUNK {
                return (out, false);
            }
            if self.written > 0 {
                out.push(b',');
            }
            json::write_envelope(&mut out, self.frame.envelope(entry));
            self.written += 1;
        }
        out.extend_from_slice(b"]}\n\n");
        (out, true)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use loggregator_proto::v2::{Envelope, EnvelopeBatch, Log, envelope::Message};
    use prost::Message as _;

    use super::*;

    fn log(n: usize, payload: usize) -> Envelope {
        Envelope {
            timestamp: n as i64,
            source_id: "s".to_owned(),
            message: Some(Message::Log(Log {
                payload: vec![b'x'; payload].into(),
                r#type: 0,
            })),
            ..Envelope::default()
        }
    }

    fn batch(envelopes: usize, payload: usize) -> Bytes {
        let batch = (0..envelopes).map(|n| log(n, payload)).collect();
        EnvelopeBatch { batch }.encode_to_vec().into()
    }

    fn all(mut event: DataEvent) -> (Vec<u8>, usize) {
        let (mut text, mut pieces) = (Vec::new(), 0);
        loop {
            let (piece, last) = event.next_piece();
            assert!(piece.len() < 2 * CHUNK, "{}", piece.len());
            text.extend(piece);
            pieces += 1;
            if last {
                return (text, pieces);
            }
        }
    }

    #[test]
    fn a_big_batch_is_one_event_in_several_pieces() {
        for (envelopes, payload, pieces) in [(0, 0, 1), (1, 0, 1), (3, 10, 1), (300, 1000, 7)] {
            let bytes = batch(envelopes, payload);
            let mut expected = b"data: ".to_vec();
            let frame = Frame::parse(bytes.clone()).unwrap().frame;
            json::write_batch(&mut expected, &frame);
            expected.extend_from_slice(b"\n\n");
            let (event, rejected) = DataEvent::of(bytes).unwrap();
            let event = event.unwrap();
            assert_eq!((event.envelopes(), rejected), (envelopes as u64, 0));
            let (text, made) = all(event);
            assert!(text == expected, "{envelopes} of {payload}");
            assert_eq!(made, pieces, "{envelopes} of {payload}");
        }
    }

    #[test]
    fn a_malformed_envelope_is_left_out_alone_and_a_malformed_batch_is_refused() {
        let bad = [0x0a, 3, 0x12, 1, 0xff];
        let mixed = [&batch(1, 0)[..], &bad, &batch(1, 0)].concat();
        let (event, rejected) = DataEvent::of(mixed.into()).unwrap();
        assert_eq!((event.unwrap().envelopes(), rejected), (2, 1));
        let (event, rejected) = DataEvent::of(bad.to_vec().into()).unwrap();
        assert!(event.is_none());
        assert_eq!(rejected, 1);
        assert!(DataEvent::of(Bytes::from_static(&[0x0a, 9])).is_err());
    }

    #[test]
    fn the_other_events() {
        let now = UNIX_EPOCH + Duration::from_millis(1_795_293_671_306);
        assert_eq!(heartbeat(now), b"event: heartbeat\ndata: 1795293671\n\n");
        assert_eq!(closing("so"), b"event: closing\ndata: so\n\n");
    }
}
