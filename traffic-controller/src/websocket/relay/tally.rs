//! Which of the envelopes that were given to a WebSocket went all the way to its connection.

/// The frames since the last complete flush.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Bytes that the connection had taken from the WebSocket at the last complete flush.
    base: u64,
    /// Sizes of the data frames since then, headers included.
    frames: Vec<u64>,
    data: u64,
    /// Bytes of control frames since then.
    control: u64,
}

impl Tally {
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

    /// All went out, the connection has `taken` so many bytes in all: returns how many data frames, and bytes of them,
    /// these were and begins anew.
    pub(super) fn flushed(&mut self, taken: u64) -> (u64, u64) {
        let sums = (self.frames.len() as u64, self.data);
        self.frames.clear();
        self.base = taken;
        (self.data, self.control) = (0, 0);
        sums
    }

    /// For a connection that ends unflushed, having `taken` so many bytes in all: how many data frames, and bytes of them, certainly went out whole. Control
    /// frames are taken to have gone first, so that it is never too many.
    pub(super) fn went_out(&self, taken: u64) -> (u64, u64) {
        let limit = taken.saturating_sub(self.base).saturating_sub(self.control);
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

    #[test]
    fn frames_that_went_out_whole_are_counted_and_never_too_many() {
        let mut tally = Tally::default();
        tally.data(100);
        assert_eq!(tally.unflushed(), 102);
        assert_eq!(tally.flushed(102), (1, 102));
        assert_eq!(tally.unflushed(), 0);

        tally.data(100);
        tally.data(200);
        tally.data(70_000);
        let base = 102;
        assert_eq!(tally.went_out(base + 101), (0, 0));
        assert_eq!(tally.went_out(base + 102 + 203), (1, 102));
        assert_eq!(tally.went_out(base + 102 + 204), (2, 306));
        tally.control(0);
        assert_eq!(tally.went_out(base + 102 + 204), (1, 102));
        assert_eq!(tally.went_out(base + 306 + 2 + 70_010), (3, 306 + 70_010));
    }
}
