//! The walk over a `plumbing.BatchResponse`: where its payloads lie, without decoding one of them.
//!
//! A doppler answers `BatchSubscribe` with messages that are nothing but repeated `payload` fields (field 1, bytes), each
//! one v1 envelope. The walk notes the ranges, so that a payload is copied from where it lies.

use bytes::Bytes;
use thiserror::Error;

/// A message of a doppler that is not a well-formed `BatchResponse`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    /// A tag or a length is not a varint of at most ten bytes.
    #[error("bad varint at byte {offset} of a batch")]
    Varint {
        /// Where the varint starts.
        offset: usize,
    },
    /// A field says that it is longer than what is left.
    #[error("field at byte {offset} of a batch claims {claimed} bytes, {left} are left")]
    Truncated {
        /// Where the field's content starts.
        offset: usize,
        /// The length that the field claims.
        claimed: u64,
        /// How many bytes are left.
        left: usize,
    },
    /// A wire type that protobuf does not have, or a group.
    #[error("field at byte {offset} of a batch has the unusable wire type {wire_type}")]
    WireType {
        /// Where the tag starts.
        offset: usize,
        /// The offending wire type, 0 to 7.
        wire_type: u8,
    },
}

/// The payloads of one batch, in order, as ranges into its bytes.
///
/// Reused from batch to batch, so that a batch costs no allocation once the largest was seen.
#[derive(Debug, Default)]
pub struct Records {
    bytes: Bytes,
    ranges: Vec<(u32, u32)>,
    next: usize,
}

impl Records {
    /// Replaces the contents by the payloads of `batch` and returns their number.
    ///
    /// # Errors
    ///
    /// When the framing is broken; the payloads before the fault are kept and can be taken, what follows is not known.
    pub fn load(&mut self, batch: Bytes) -> Result<usize, RecordError> {
        self.ranges.clear();
        self.next = 0;
        self.bytes = batch;
        self.walk()
    }

    fn walk(&mut self) -> Result<usize, RecordError> {
        let bytes = &self.bytes[..];
        let mut at = 0;
        while at < bytes.len() {
            let tag_at = at;
            let tag = if bytes[at] < 0x80 {
                at += 1;
                u64::from(bytes[tag_at])
            } else {
                varint(bytes, &mut at)?
            };
            let skip = match tag & 7 {
                0 => {
                    varint(bytes, &mut at)?;
                    0
                }
                1 => 8,
                2 => varint(bytes, &mut at)?,
                5 => 4,
                wire_type => {
                    return Err(RecordError::WireType {
                        offset: tag_at,
                        wire_type: wire_type as u8,
                    });
                }
            };
            let left = bytes.len() - at;
            if skip > left as u64 {
                return Err(RecordError::Truncated {
                    offset: at,
                    claimed: skip,
                    left,
                });
            }
            // A message is limited to 10 MiB by the transport, so its offsets fit in 32 bits.
            if tag == 0x0a {
                self.ranges.push((at as u32, skip as u32));
            }
            at += skip as usize;
        }
        Ok(self.ranges.len())
    }

    /// The next payload.
    #[inline]
    pub fn take(&mut self) -> Option<&[u8]> {
        let &(start, len) = self.ranges.get(self.next)?;
        self.next += 1;
        let start = start as usize;
        self.bytes.get(start..start + len as usize)
    }

    /// How many payloads were not taken yet.
    pub fn remaining(&self) -> usize {
        self.ranges.len() - self.next
    }

    /// Lets go of the batch's memory, keeping the room for ranges.
    pub fn clear(&mut self) {
        self.bytes = Bytes::new();
        self.ranges.clear();
        self.next = 0;
    }
}

fn varint(bytes: &[u8], at: &mut usize) -> Result<u64, RecordError> {
    let start = *at;
    let mut value = 0u64;
    for (i, &byte) in bytes[start..].iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *at = start + i + 1;
            return Ok(value);
        }
    }
    Err(RecordError::Varint { offset: start })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payloads(batch: &[u8]) -> (Result<usize, RecordError>, Vec<Vec<u8>>) {
        let mut records = Records::default();
        let walked = records.load(Bytes::copy_from_slice(batch));
        let taken = std::iter::from_fn(|| records.take().map(<[u8]>::to_vec)).collect();
        (walked, taken)
    }

    #[test]
    fn payloads_come_out_in_order_and_share_the_batch() {
        let batch = Bytes::from_static(b"\x0a\x03abc\x0a\x00\x0a\x02de");
        let mut records = Records::default();
        assert_eq!(records.load(batch.clone()), Ok(3));
        let first = records.take().unwrap();
        assert_eq!(first, b"abc");
        assert_eq!(first.as_ptr(), batch[2..].as_ptr());
        assert_eq!(records.remaining(), 2);
        assert_eq!(records.take().unwrap().len(), 0);
        assert_eq!(records.take().unwrap(), b"de");
        assert_eq!(records.take(), None);
    }

    #[test]
    fn fields_we_do_not_know_are_stepped_over() {
        let batch = b"\x10\x96\x01\x0a\x01a\x1a\x02zz\x21\0\0\0\0\0\0\0\0\x2d\0\0\0\0\x0a\x01b";
        let (walked, taken) = payloads(batch);
        assert_eq!(walked, Ok(2));
        assert_eq!(taken, [b"a", b"b"]);
    }

    #[test]
    fn a_fault_is_named_and_what_came_before_it_is_kept() {
        let (walked, taken) = payloads(b"\x0a\x01a\x0a\x05bc");
        assert_eq!(
            walked,
            Err(RecordError::Truncated {
                offset: 5,
                claimed: 5,
                left: 2
            })
        );
        assert_eq!(taken, [b"a"]);
        assert_eq!(payloads(b"\x0a").0, Err(RecordError::Varint { offset: 1 }));
        assert_eq!(
            payloads(b"\x0b").0,
            Err(RecordError::WireType {
                offset: 0,
                wire_type: 3
            })
        );
        assert_eq!(
            payloads(&[0x0a, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]).0,
            Err(RecordError::Varint { offset: 1 })
        );
    }

    #[test]
    fn lengths_of_more_than_one_byte() {
        let mut batch = b"\x0a\xac\x02".to_vec();
        batch.extend(vec![7; 300]);
        let (walked, taken) = payloads(&batch);
        assert_eq!(walked, Ok(1));
        assert_eq!(taken[0].len(), 300);
    }
}
