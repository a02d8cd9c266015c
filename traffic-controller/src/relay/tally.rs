//! Which of the envelopes that were given to a WebSocket went all the way to its connection.

use super::Written;

/// The frames since the last complete flush.
#[derive(Debug)]
pub(super) struct Tally {
    /// Bytes that the connection took from the WebSocket, over its life.
    accepted: Written,
    /// That count at the last complete flush.
    base: u64,
    /// Sizes of the data frames since then, headers included.
    frames: Vec<u64>,
    data: u64,
    /// Bytes of control frames since then.
    control: u64,
}

impl Tally {
    pub(super) fn new(accepted: Written) -> Self {
        Self {
            accepted,
            base: 0,
            frames: Vec::new(),
            data: 0,
            control: 0,
        }
    }

    /// A data frame with a payload of this size was given.
    pub(super) fn data(&mut self, payload: usize) {
        let size = frame_size(payload);
        self.frames.push(size);
        self.data += size;
    }

    /// A control frame with a payload of this size was given, or an answer to one is queued.
    pub(super) fn control(&mut self, payload: usize) {
        self.control += frame_size(payload);
    }

    /// Bytes of data frames since the last complete flush.
    pub(super) fn unflushed(&self) -> u64 {
        self.data
    }

    /// All went out: returns how many data frames, and bytes of them, these were and begins anew.
    pub(super) fn flushed(&mut self) -> (u64, u64) {
        let sums = (self.frames.len() as u64, self.data);
        self.frames.clear();
        self.base = self.accepted.bytes();
        (self.data, self.control) = (0, 0);
        sums
    }

    /// For a connection that ends unflushed: how many data frames, and bytes of them, certainly went out whole. Control
    /// frames are taken to have gone first, so that it is never too many.
    pub(super) fn went_out(&self) -> (u64, u64) {
        let limit = (self.accepted.bytes() - self.base).saturating_sub(self.control);
        let (mut frames, mut bytes) = (0, 0);
        for size in &self.frames {
            if bytes + size > limit {
                break;
            }
            frames += 1;
            bytes += size;
        }
        (frames, bytes)
    }
}

/// The size of an unmasked frame.
fn frame_size(payload: usize) -> u64 {
    let header = match payload {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    };
    header + payload as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::line::Metered;
    use tokio::io::AsyncWriteExt;

    async fn take(written: &Written, bytes: usize) {
        Metered::new(tokio::io::sink(), written.clone())
            .write_all(&vec![0; bytes])
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn frames_that_went_out_whole_are_counted_and_never_too_many() {
        let accepted = Written::default();
        let mut tally = Tally::new(accepted.clone());
        tally.data(100);
        take(&accepted, 102).await;
        assert_eq!(
            (tally.unflushed(), tally.flushed(), tally.unflushed()),
            (102, (1, 102), 0)
        );

        tally.data(100);
        tally.data(200);
        tally.data(70_000);
        assert_eq!(tally.went_out(), (0, 0));
        take(&accepted, 102 + 203).await;
        assert_eq!(tally.went_out(), (1, 102));
        take(&accepted, 1).await;
        assert_eq!(tally.went_out(), (2, 306));
        tally.control(0);
        assert_eq!(tally.went_out(), (1, 102));
        take(&accepted, 2 + 70_010).await;
        assert_eq!(tally.went_out(), (3, 306 + 70_010));
    }
}
