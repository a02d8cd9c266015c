//! Starting a failed task again, with backoff.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use super::{Lifecycle, TaskOutput, guarded};

/// When and how often a task is started again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RestartPolicy {
    /// Wait before the first restart.
    pub first: Duration,
    /// Longest wait; each wait is twice the one before, up to this.
    pub longest: Duration,
    /// A task that ran this long counts as healthy: the waits start over.
    pub healthy_after: Duration,
    /// Restarts in a row after which the failure is a fault of the program; `None` tries for ever.
    pub attempts: Option<u32>,
}

impl Default for RestartPolicy {
    /// From 100 ms up to 30 s, for ever; healthy after a minute.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(30),
            healthy_after: Duration::from_secs(60),
            attempts: None,
        }
    }
}

impl RestartPolicy {
    /// The wait before restart number `attempt` (from 0), without jitter.
    fn wait(&self, attempt: u32) -> Duration {
        self.first
            .saturating_mul(2_u32.saturating_pow(attempt))
            .min(self.longest)
    }
}

/// Runs what `make` makes until it ends with `Ok` or the lifecycle stops.
pub(super) async fn run<M, F>(
    lifecycle: &Lifecycle,
    task: &str,
    policy: RestartPolicy,
    mut make: M,
) -> Result<(), String>
where
    M: FnMut() -> F,
    F: Future + Send,
    F::Output: TaskOutput,
{
    let stop = lifecycle.token();
    let mut attempt = 0;
    loop {
        let started = Instant::now();
        let Err(cause) = guarded(make()).await else {
            return Ok(());
        };
        if stop.is_cancelled() {
            return Err(cause);
        }
        if started.elapsed() >= policy.healthy_after {
            attempt = 0;
        }
        if policy.attempts.is_some_and(|most| attempt >= most) {
            return Err(format!("{cause} (given up after {attempt} restarts)"));
        }
        let wait = jitter(policy.wait(attempt));
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(
            task,
            cause,
            attempt,
            wait_ms,
            "task failed and will be restarted"
        );
        lifecycle.restarted(task);
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
        }
        attempt = attempt.saturating_add(1);
    }
}

/// Between half of `wait` and all of it, so that many that failed together do not come back together.
fn jitter(wait: Duration) -> Duration {
    wait.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let policy = RestartPolicy::default();
        assert_eq!(policy.wait(0), Duration::from_millis(100));
        assert_eq!(policy.wait(1), Duration::from_millis(200));
        assert_eq!(policy.wait(8), Duration::from_millis(25_600));
        assert_eq!(policy.wait(9), Duration::from_secs(30));
        assert_eq!(policy.wait(u32::MAX), Duration::from_secs(30));
    }

    #[test]
    fn jitter_stays_between_half_and_all() {
        for _ in 0..1000 {
            let wait = jitter(Duration::from_secs(10));
            assert!(
                (Duration::from_secs(5)..=Duration::from_secs(10)).contains(&wait),
                "{wait:?}"
            );
        }
    }
}
