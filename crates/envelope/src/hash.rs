//! Hashes of source ids.

use std::{
    hash::{BuildHasher, Hasher},
    sync::LazyLock,
};

use foldhash::fast::RandomState;

static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// Hash of a source id, for maps and counts within this process.
///
/// Seeded anew in every process, so that nobody who chooses source ids can choose collisions. It is therefore of no use
/// on the wire: what must agree between processes (the choice of a doppler, say) needs another hash.
#[inline]
pub fn source_hash(source_id: &[u8]) -> u64 {
    SourceHasher::get().hash(source_id)
}

/// The seed, looked up once for many hashes.
#[derive(Clone, Copy)]
pub(crate) struct SourceHasher(&'static RandomState);

impl SourceHasher {
    pub(crate) fn get() -> SourceHasher {
        SourceHasher(&SEED)
    }

    #[inline]
    pub(crate) fn hash(self, source_id: &[u8]) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write(source_id);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_ids_agree_and_others_differ() {
        assert_eq!(source_hash(b"app-1"), source_hash(b"app-1"));
        assert_ne!(source_hash(b"app-1"), source_hash(b"app-2"));
        assert_ne!(source_hash(b""), source_hash(b"\0"));
    }
}
