//! Deterministic routing: which member of a group with names gets a counter or a gauge.

use crc::{CRC_64_XZ, Crc, Table};
use loggregator_envelope::{Entry, Frame, Kind};

/// CRC-64/XZ, as the Go router computes it, so that several dopplers (of either kind) agree.
const CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_XZ);

/// The routing number of an envelope: the hash of a counter's name, the wrapping sum of the hashes of a gauge's metric
/// names. `None` for the other kinds, which go to members in turn.
pub(crate) fn route(frame: &Frame, entry: &Entry) -> Option<u64> {
    match entry.kind() {
        Kind::Counter => frame
            .envelope(entry)
            .counter()
            .map(|counter| checksum(counter.name)),
        Kind::Gauge => Some(
            frame
                .envelope(entry)
                .gauge()
                .fold(0u64, |sum, metric| sum.wrapping_add(checksum(metric.name))),
        ),
        _ => None,
    }
}

fn checksum(name: &str) -> u64 {
    CRC.checksum(name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::checksum;

    /// Values observed from the Go router.
    #[test]
    fn agrees_with_the_go_router() {
        for (name, hash) in [
            ("", 0),
            ("123456789", 0x995d_c9bb_df19_39fa),
            ("hash", 0x232e_ec78_c114_cc40),
            ("other-hash", 0x3189_6233_e032_cbf1),
            ("a", 0x3302_8477_2e65_2b05),
            ("b", 0x74a8_fe9e_8582_d431),
        ] {
            assert_eq!(checksum(name), hash, "{name:?}");
        }
        assert_eq!(
            checksum("a").wrapping_add(checksum("b")),
            0xa7ab_8315_b3e7_ff36
        );
    }
}
