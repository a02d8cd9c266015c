//! When to ping a client, and when to give it up for silent.
//!
//! The rule is the Go traffic controller's: a ping at once, an answer within 30 s of each ping, and the next ping 15 s
//! after the answer. Any pong is an answer, its payload is not looked at.

use std::time::Duration;

use tokio::time::Instant;

/// Where a client stands with its pongs.
#[derive(Debug)]
pub(crate) struct KeepAlive {
    interval: Duration,
    deadline: Duration,
    state: State,
}

#[derive(Debug)]
enum State {
    /// A ping is to be sent at this time.
    Due(Instant),
    /// A ping was sent, a pong must come until this time.
    Awaiting(Instant),
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Nothing before this time.
    Wait(Instant),
    /// Send a ping and say so by [`KeepAlive::pinged`].
    Ping,
    /// The client did not answer in time.
    Expired,
}

impl KeepAlive {
    /// For a client that connected `now`: the first ping is due.
    pub(crate) fn new(now: Instant, interval: Duration, deadline: Duration) -> Self {
        Self {
            interval,
            deadline,
            state: State::Due(now),
        }
    }

    /// What is to be done at this time.
    pub(crate) fn duty(&self, now: Instant) -> Duty {
        match self.state {
            State::Due(at) if at <= now => Duty::Ping,
            State::Awaiting(until) if until <= now => Duty::Expired,
            State::Due(at) | State::Awaiting(at) => Duty::Wait(at),
        }
    }

    /// A ping was handed to the connection.
    pub(crate) fn pinged(&mut self, now: Instant) {
        self.state = State::Awaiting(now + self.deadline);
    }

    /// A pong came. One that nobody asked for changes nothing.
    pub(crate) fn ponged(&mut self, now: Instant) {
        if let State::Awaiting(_) = self.state {
            self.state = State::Due(now + self.interval);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(15);
    const DEADLINE: Duration = Duration::from_secs(30);

    #[test]
    fn a_ping_at_once_then_one_15_s_after_each_pong() {
        let t0 = Instant::now();
        let mut client = KeepAlive::new(t0, INTERVAL, DEADLINE);
        assert_eq!(client.duty(t0), Duty::Ping);
        client.pinged(t0);
        assert_eq!(client.duty(t0), Duty::Wait(t0 + DEADLINE));
        let t1 = t0 + Duration::from_secs(4);
        client.ponged(t1);
        client.ponged(t1 + Duration::from_secs(1));
        assert_eq!(client.duty(t1), Duty::Wait(t1 + INTERVAL));
        assert_eq!(client.duty(t1 + INTERVAL), Duty::Ping);
    }

    #[test]
    fn silence_expires_30_s_after_the_ping() {
        let t0 = Instant::now();
        let mut client = KeepAlive::new(t0, INTERVAL, DEADLINE);
        client.pinged(t0);
        assert_eq!(
            client.duty(t0 + DEADLINE - Duration::from_millis(1)),
            Duty::Wait(t0 + DEADLINE)
        );
        assert_eq!(client.duty(t0 + DEADLINE), Duty::Expired);
    }
}
