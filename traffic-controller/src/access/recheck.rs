//! Asking again, while a stream lives, whether its reader may still read.

use std::future::{Future, pending};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{Allowed, Denied};

/// How long it is put up with that nobody can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patience {
    /// From one attempt to the next, at first; it doubles.
    pub(crate) first: Duration,
    /// And at most.
    pub(crate) most: Duration,
    /// From the time of the question; then the stream ends.
    pub(crate) total: Duration,
}

impl Patience {
    /// Attempts 1 s to 30 s apart, for so long in all.
    pub(crate) fn of(total: Duration) -> Self {
        Self {
            first: Duration::from_secs(1),
            most: Duration::from_secs(30),
            total,
        }
    }
}

/// Asks again whenever the last answer, at first `allowed`, says that it is time. Returns when the reader may read no more:
/// it was denied, or nobody could say for longer than `patience`.
pub(crate) async fn until_denied<F, V>(allowed: Allowed, patience: Patience, ask: F) -> Denied
where
    F: Fn() -> V,
    V: Future<Output = Result<Allowed, Denied>>,
{
    let mut allowed = allowed;
    loop {
        let Some(after) = allowed.recheck_after else {
            return pending().await;
        };
        // Whatever the answer says, it holds for a moment.
        sleep(after.max(Duration::from_millis(100))).await;
        let asked = Instant::now();
        let mut pause = patience.first;
        allowed = loop {
            match ask().await {
                Ok(allowed) => break allowed,
                Err(Denied::Unavailable(why)) if asked.elapsed() < patience.total => {
                    warn!(
                        "whether a stream may go on could not be checked, it goes on for now: {why}"
                    );
                }
                Err(why) => return why,
            }
            sleep(pause).await;
            pause = (pause * 2).min(patience.most);
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const SOON: Allowed = Allowed {
        recheck_after: Some(Duration::from_millis(1)),
    };

    fn patience(total: Duration) -> Patience {
        Patience {
            first: Duration::from_millis(1),
            most: Duration::from_millis(2),
            total,
        }
    }

    fn away() -> Result<Allowed, Denied> {
        Err(Denied::Unavailable("nobody there".to_owned()))
    }

    #[tokio::test]
    async fn asks_until_denied_and_bears_with_silence() {
        let asked = AtomicUsize::new(0);
        let ask = || {
            let answer = match asked.fetch_add(1, Ordering::SeqCst) {
                0 => Ok(SOON),
                1..5 => away(),
                5 => Ok(SOON),
                _ => Err(Denied::Refused),
            };
            std::future::ready(answer)
        };
        let why = until_denied(SOON, patience(Duration::from_secs(60)), ask).await;
        assert_eq!((why, asked.load(Ordering::SeqCst)), (Denied::Refused, 7));
    }

    #[tokio::test]
    async fn silence_for_too_long_is_a_denial() {
        let ask = || std::future::ready(away());
        let why = until_denied(SOON, patience(Duration::from_millis(20)), ask).await;
        assert_eq!(why, away().unwrap_err());
    }

    #[tokio::test]
    async fn once_may_be_enough() {
        let ask = || std::future::ready(Ok(Allowed::default()));
        let asking = until_denied(SOON, patience(Duration::ZERO), ask);
        let waited = tokio::time::timeout(Duration::from_millis(300), asking).await;
        assert!(waited.is_err(), "it never ends");
    }
}
