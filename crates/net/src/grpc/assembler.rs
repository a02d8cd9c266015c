//! Cuts the bytes of a stream into messages.

use bytes::{Buf, Bytes};
use smallvec::SmallVec;

use super::message::HEADER_LEN;
use super::status::Status;

/// Pieces of a message that are kept as they came before they are copied together, so that a message
/// that comes byte by byte does not cost a multiple of its size.
const MAX_PIECES: usize = 32;

/// Cuts chunks of bytes into messages. A message that lies in one chunk is a slice of it; one that
/// does not is copied once into an allocation of its size, which is made when all of it has come.
pub(super) struct Assembler {
    max_message: usize,
    chunk: Bytes,
    header: [u8; HEADER_LEN],
    header_read: usize,
    /// The length of the message whose header was read.
    length: Option<usize>,
    /// What has come of it: first `copied`, then `pieces`.
    copied: Vec<u8>,
    pieces: SmallVec<[Bytes; 4]>,
    gathered: usize,
}

impl Assembler {
    pub fn new(max_message: usize) -> Self {
        Self {
            max_message,
            chunk: Bytes::new(),
            header: [0; HEADER_LEN],
            header_read: 0,
            length: None,
            copied: Vec::new(),
            pieces: SmallVec::new(),
            gathered: 0,
        }
    }

    /// Adds the next chunk. The last one must be used up: [`Assembler::next`] gave `None`.
    pub fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty());
        self.chunk = chunk;
    }

    /// Whether the bytes so far end within a message.
    pub fn is_within_message(&self) -> bool {
        self.header_read > 0 || self.length.is_some()
    }

    /// The next whole message, or `None` when another chunk is needed.
    ///
    /// # Errors
    /// The message is too large, or compressed. Nothing more can be read then.
    pub fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let length = match self.length {
            Some(length) => length,
            None => match self.read_header()? {
                Some(length) => length,
                None => return Ok(None),
            },
        };
        if self.gathered == 0 && self.chunk.len() >= length {
            self.length = None;
            return Ok(Some(self.split(length)));
        }
        self.length = Some(length);
        let take = self.chunk.len().min(length - self.gathered);
        if take > 0 {
            let piece = self.split(take);
            self.gather(piece, length);
        }
        Ok((self.gathered == length).then(|| self.join(length)))
    }

    fn read_header(&mut self) -> Result<Option<usize>, Status> {
        let take = self.chunk.len().min(HEADER_LEN - self.header_read);
        self.header[self.header_read..][..take].copy_from_slice(&self.chunk[..take]);
        self.header_read += take;
        self.chunk.advance(take);
        if self.header_read < HEADER_LEN {
            self.chunk = Bytes::new();
            return Ok(None);
        }
        self.header_read = 0;
        let [format, length @ ..] = self.header;
        let length = u32::from_be_bytes(length);
        match usize::try_from(length) {
            Ok(length) if length <= self.max_message => match format {
                0 => Ok(Some(length)),
                1 => Err(Status::internal(
                    "grpc: compressed flag set with identity or empty encoding",
                )),
                other => Err(Status::internal(format!(
                    "grpc: received unexpected payload format {other}"
                ))),
            },
            _ => Err(Status::too_large(length.into(), self.max_message)),
        }
    }

    /// The first `count` bytes of the chunk, without pinning it longer than needed.
    fn split(&mut self, count: usize) -> Bytes {
        if count == self.chunk.len() {
            std::mem::take(&mut self.chunk)
        } else {
            self.chunk.split_to(count)
        }
    }

    fn gather(&mut self, piece: Bytes, length: usize) {
        self.gathered += piece.len();
        self.pieces.push(piece);
        if self.pieces.len() < MAX_PIECES || self.gathered == length {
            return;
        }
        // Grows by doubling what has come, never by what was promised.
        if self.gathered > self.copied.capacity() {
            let wanted = self.gathered.max(2 * self.copied.capacity()).min(length);
            self.copied.reserve_exact(wanted - self.copied.len());
        }
        for piece in self.pieces.drain(..) {
            self.copied.extend_from_slice(&piece);
        }
    }

    fn join(&mut self, length: usize) -> Bytes {
        let mut message = std::mem::take(&mut self.copied);
        message.reserve_exact(length - message.len());
        for piece in self.pieces.drain(..) {
            message.extend_from_slice(&piece);
        }
        self.length = None;
        self.gathered = 0;
        message.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::Code;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut framed = vec![0];
        framed.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
        framed.extend_from_slice(payload);
        framed
    }

    fn read(assembler: &mut Assembler, chunk: impl Into<Bytes>) -> Vec<Bytes> {
        assembler.push(chunk.into());
        std::iter::from_fn(|| assembler.next().unwrap()).collect()
    }

    #[test]
    fn any_cut_gives_the_same_messages() {
        let payloads: [&[u8]; 4] = [b"first", b"", &[7; 300], b"last"];
        let wire: Vec<u8> = payloads.iter().flat_map(|payload| frame(payload)).collect();
        for size in 1..=wire.len() {
            let mut assembler = Assembler::new(1000);
            let got: Vec<Bytes> = wire
                .chunks(size)
                .flat_map(|chunk| read(&mut assembler, chunk.to_vec()))
                .collect();
            assert_eq!(got, payloads, "in chunks of {size}");
            assert!(!assembler.is_within_message());
        }
    }

    #[test]
    fn a_message_in_one_chunk_is_a_slice_of_it() {
        let wire = Bytes::from(frame(&[1; 100]));
        let mut assembler = Assembler::new(1000);
        let got = read(&mut assembler, wire.clone());
        assert_eq!(got[0].as_ptr(), wire[5..].as_ptr());
    }

    #[test]
    fn an_assembled_message_fits_exactly() {
        let mut assembler = Assembler::new(1_000_000);
        let wire = frame(&vec![3; 100_000]);
        let got: Vec<Bytes> = wire
            .chunks(7)
            .flat_map(|chunk| read(&mut assembler, chunk.to_vec()))
            .collect();
        let vec = Vec::from(got[0].clone());
        assert_eq!((vec.len(), vec.capacity()), (100_000, 100_000));
    }

    #[test]
    fn a_promise_allocates_nothing() {
        let mut assembler = Assembler::new(1 << 30);
        let mut wire = vec![0];
        wire.extend_from_slice(&(1_u32 << 30).to_be_bytes());
        assert!(read(&mut assembler, wire).is_empty());
        for _ in 0..1000 {
            assert!(read(&mut assembler, vec![0; 10]).is_empty());
        }
        assert!(assembler.copied.capacity() <= 20_000);
        assert!(assembler.is_within_message());
    }

    #[test]
    fn limits_and_formats_are_refused_as_go_refuses_them() {
        let error = |wire: Vec<u8>| {
            let mut assembler = Assembler::new(4);
            assembler.push(wire.into());
            assembler.next().unwrap_err()
        };
        assert_eq!(
            error(frame(b"12345")),
            Status::new(
                Code::ResourceExhausted,
                "grpc: received message larger than max (5 vs. 4)"
            )
        );
        assert_eq!(error(vec![1, 0, 0, 0, 0]).code, Code::Internal);
        assert_eq!(
            error(vec![7, 0, 0, 0, 0]).message,
            "grpc: received unexpected payload format 7"
        );
        let mut assembler = Assembler::new(4);
        assert_eq!(read(&mut assembler, frame(b"1234")), ["1234"]);
    }
}
