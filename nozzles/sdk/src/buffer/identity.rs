//! Who a buffer is, and which of its openings gave an event its number.
//!
//! When the machine crashes, the events of the last `sync_interval` may be gone from the buffer, though a destination has got
//! them; their numbers are given again. A number alone does not name an event then. The opening under which it was
//! given and the number together do.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Openings that are remembered. A buffer that is opened more often while events of its first openings wait forgets the oldest.
const MAX_OPENINGS: usize = 64;

/// Identity of a buffer, from when a process has opened it. It does not change while the process has it; clones cost nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BufferIdentity {
    id: Arc<str>,
    /// In the order of time, never empty.
    openings: Arc<[Opening]>,
}

/// One opening of a buffer by a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Opening {
    /// Unlike that of every other opening.
    name: String,
    /// The number of the first event that came in under it.
    first: u64,
}

impl BufferIdentity {
    /// Of a buffer that is opened for the first time.
    #[must_use]
    pub fn new(id: impl Into<String>) -> BufferIdentity {
        let id = id.into();
        let first = Opening {
            name: id.clone(),
            first: 0,
        };
        BufferIdentity {
            id: id.into(),
            openings: [first].into(),
        }
    }

    /// Of a buffer that is opened once more; the next event gets number `next`.
    pub(super) fn again(id: String, mut openings: Vec<Opening>, next: u64) -> BufferIdentity {
        if openings.is_empty() && next == 0 {
            return BufferIdentity::new(id);
        }
        let forgotten = (openings.len() + 1).saturating_sub(MAX_OPENINGS);
        openings.drain(..forgotten);
        openings.push(Opening {
            name: random_name(),
            first: next,
        });
        BufferIdentity {
            id: id.into(),
            openings: openings.into(),
        }
    }

    pub(super) fn openings(&self) -> &[Opening] {
        &self.openings
    }

    /// The buffer's id: made when it was empty for the first time; one on disk keeps it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The opening under which the event of this number came in. The pair of the two names this event and no other.
    #[must_use]
    pub fn opening(&self, seq: u64) -> &str {
        let before = |opening: &&Opening| opening.first <= seq;
        // Numbers of an opening that is forgotten count to the oldest that is known.
        let opening = self.openings.iter().rfind(before);
        opening.or(self.openings.first()).map_or("", |it| &it.name)
    }

    /// The opening by the process that has the buffer now.
    #[must_use]
    pub fn current(&self) -> &str {
        self.openings.last().map_or("", |opening| &opening.name)
    }

    /// The first event that is not delivered, where a process that had the buffer under `opening` has delivered all those
    /// below `next`. What came in later under the same numbers is not delivered. `None` when nothing is known of that opening.
    #[must_use]
    pub fn resume(&self, opening: &str, next: u64) -> Option<u64> {
        let at = self.openings.iter().position(|it| it.name == opening)?;
        let later = self.openings[at + 1..].iter().map(|it| it.first);
        Some(later.fold(next, u64::min))
    }
}

fn random_name() -> String {
    format!(
        "{:016x}",
        foldhash::quality::RandomState::default().hash_one(1)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(last: &BufferIdentity, next: u64) -> BufferIdentity {
        BufferIdentity::again(last.id.to_string(), last.openings.to_vec(), next)
    }

    #[test]
    fn a_number_that_is_given_again_is_another_event() {
        let first = BufferIdentity::new("b");
        let second = again(&first, 100);
        assert_eq!(second.id(), "b");
        assert_eq!(second.opening(99), first.opening(99));
        assert_ne!(second.opening(100), first.opening(100));
        assert_eq!(second.opening(100), second.current());
        let third = again(&second, 50);
        assert_eq!(third.opening(49), first.opening(49));
        assert_eq!(third.opening(100), third.current());
    }

    #[test]
    fn a_place_behind_what_was_lost_is_drawn_back_to_it() {
        let first = BufferIdentity::new("b");
        assert_eq!(first.resume(first.current(), 150), Some(150));
        let second = again(&first, 100);
        assert_eq!(second.resume(first.current(), 90), Some(90));
        assert_eq!(second.resume(first.current(), 150), Some(100));
        assert_eq!(second.resume(second.current(), 150), Some(150));
        let third = again(&again(&second, 80), 300);
        assert_eq!(third.resume(first.current(), 90), Some(80));
        assert_eq!(third.resume("another", 90), None);
    }

    #[test]
    fn of_many_openings_the_last_ones_are_known() {
        let mut identity = BufferIdentity::new("b");
        for next in 1..1000 {
            identity = again(&identity, next);
        }
        assert_eq!(identity.openings.len(), MAX_OPENINGS);
        assert_eq!(identity.opening(0), identity.openings[0].name);
        assert_eq!(identity.resume("b", 1), None);
    }
}
