//! Leaves a service alone that does not answer.

use std::time::Duration;

use loggregator_net::Backoff;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Lets requests through until so many in a row have failed; then none for a while; then one, which decides.
pub(super) struct Breaker {
    /// Failures in a row that open it.
    limit: u32,
    state: Mutex<State>,
}

struct State {
    failures: u32,
    backoff: Backoff,
    open_until: Option<Instant>,
    probing: bool,
}

/// Leave to ask. To be given back with the outcome; dropped, it counts as neither, except for the one request that was
/// let through to find out.
pub(super) struct Pass<'a> {
    breaker: &'a Breaker,
    probe: bool,
    settled: bool,
}

impl Breaker {
    pub fn new(limit: u32, pause: Duration, max_pause: Duration) -> Self {
        Self {
            limit: limit.max(1),
            state: Mutex::new(State {
                failures: 0,
                backoff: Backoff::new(pause, max_pause),
                open_until: None,
                probing: false,
            }),
        }
    }

    /// Whether a request would be let through, without asking for it.
    pub fn resting(&self) -> bool {
        let state = self.state.lock();
        state
            .open_until
            .is_some_and(|until| state.probing || Instant::now() < until)
    }

    /// Leave to ask, unless the service is being left alone.
    pub fn enter(&self) -> Option<Pass<'_>> {
        let mut state = self.state.lock();
        let probe = match state.open_until {
            None => false,
            Some(until) if state.probing || Instant::now() < until => return None,
            Some(_) => {
                state.probing = true;
                true
            }
        };
        Some(Pass {
            breaker: self,
            probe,
            settled: false,
        })
    }

    /// Whether it is open, be it that a request is finding out right now.
    pub fn open(&self) -> bool {
        self.state.lock().open_until.is_some()
    }
}

impl Pass<'_> {
    /// The service answered.
    pub fn answered(mut self) {
        self.settled = true;
        let mut state = self.breaker.state.lock();
        state.failures = 0;
        state.open_until = None;
        state.probing = false;
        state.backoff.reset();
    }

    /// It did not, or not sensibly.
    pub fn failed(mut self) {
        self.settled = true;
        self.fail();
    }

    fn fail(&self) {
        let mut state = self.breaker.state.lock();
        state.failures = state.failures.saturating_add(1);
        // Those that were under way when it opened change nothing any more.
        let opens = state.open_until.is_none() && state.failures >= self.breaker.limit;
        if self.probe || opens {
            let pause = state.backoff.next_delay();
            state.open_until = Some(Instant::now() + pause);
            state.probing = false;
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.probe && !self.settled {
            self.fail();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn opens_after_failures_in_a_row_and_one_request_finds_out() {
        let second = Duration::from_secs(1);
        let breaker = Breaker::new(2, second, 4 * second);
        breaker.enter().unwrap().failed();
        breaker.enter().unwrap().answered();
        breaker.enter().unwrap().failed();
        let late = breaker.enter().unwrap();
        breaker.enter().unwrap().failed();
        assert!(breaker.enter().is_none() && breaker.resting());
        late.failed();

        tokio::time::advance(2 * second).await;
        assert!(!breaker.resting() && breaker.open());
        let probe = breaker.enter().unwrap();
        assert!(breaker.enter().is_none(), "one at a time");
        drop(probe);
        assert!(breaker.resting(), "a probe that was given up is a failure");
        tokio::time::advance(second).await;
        assert!(breaker.resting(), "the second pause is longer");
        tokio::time::advance(2 * second).await;
        breaker.enter().unwrap().answered();
        assert!(!breaker.open());
        breaker.enter().unwrap().failed();
        assert!(breaker.enter().is_some(), "the count started again");
    }
}
