//! How often the Cloud Controller is asked.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use tokio::time::{Instant, sleep_until};

/// The longest time that is waited because the Cloud Controller says so: its interval is an hour.
const LONGEST: Duration = Duration::from_secs(3600);
/// How long it is left alone when it says that it is too much and not for how long.
const UNTOLD: Duration = Duration::from_secs(30);

/// A token bucket: so many requests per second, as many at once. And a time until which there are none.
#[derive(Debug)]
pub(super) struct Limiter {
    per_second: f64,
    tokens: f64,
    counted: Instant,
    closed_until: Option<Instant>,
}

impl Limiter {
    pub(super) fn new(per_second: u32) -> Limiter {
        let per_second = f64::from(per_second.max(1));
        Limiter {
            per_second,
            tokens: per_second,
            counted: Instant::now(),
            closed_until: None,
        }
    }

    /// Waits until the next request may be made.
    pub(super) async fn take(&mut self) {
        if let Some(until) = self.closed_until.take() {
            sleep_until(until).await;
        }
        let now = Instant::now();
        let earned = now.duration_since(self.counted).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + earned).min(self.per_second);
        self.counted = now;
        if self.tokens < 1.0 {
            let wait = Duration::from_secs_f64((1.0 - self.tokens) / self.per_second);
            self.counted = now + wait;
            self.tokens = 1.0;
            sleep_until(self.counted).await;
        }
        self.tokens -= 1.0;
    }

    /// Takes note of what an answer says of further ones; true when this one was too many.
    pub(super) fn heed(&mut self, status: u16, headers: &HeaderMap) -> bool {
        let pause = pause(status, headers, SystemTime::now());
        if let Some(pause) = pause {
            self.closed_until = Some(Instant::now() + pause);
        }
        status == 429
    }
}

/// For how long no request should be made after this answer.
fn pause(status: u16, headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    let until_reset = || {
        let reset = UNIX_EPOCH.checked_add(Duration::from_secs(number("x-ratelimit-reset")?))?;
        Some(reset.duration_since(now).unwrap_or_default())
    };
    let pause = match status {
        429 | 503 if headers.contains_key("retry-after") => number("retry-after")
            .map(Duration::from_secs)
            .unwrap_or(UNTOLD),
        429 => until_reset().unwrap_or(UNTOLD),
        _ if number("x-ratelimit-remaining") == Some(0) => until_reset()?,
        _ => return None,
    };
    Some(pause.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_at_once_and_so_many_per_second() {
        let mut limiter = Limiter::new(5);
        let begin = Instant::now();
        for _ in 0..5 {
            limiter.take().await;
        }
        assert!(begin.elapsed() < Duration::from_millis(10));
        for _ in 0..50 {
            limiter.take().await;
        }
        let took = begin.elapsed().as_millis();
        assert!((9_990..=10_100).contains(&took), "{took} ms");
        let headers = [("retry-after", "7")];
        assert!(limiter.heed(429, &map(&headers)));
        let begin = Instant::now();
        limiter.take().await;
        limiter.take().await;
        let took = begin.elapsed().as_millis();
        assert!((7_000..=7_500).contains(&took), "{took} ms");
    }

    fn map(headers: &[(&'static str, &str)]) -> HeaderMap {
        headers
            .iter()
            .map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn answers_say_when_the_next_request_is_welcome() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let secs = |status, headers: &[(&'static str, &str)]| {
            pause(status, &map(headers), now).map(|pause| pause.as_secs())
        };
        let (left, reset) = ("x-ratelimit-remaining", "x-ratelimit-reset");
        assert_eq!(secs(200, &[]), None);
        assert_eq!(secs(200, &[(left, "7"), (reset, "1060")]), None);
        assert_eq!(secs(200, &[(left, "0"), (reset, "1060")]), Some(60));
        assert_eq!(secs(200, &[(left, "0"), (reset, "900")]), Some(0));
        assert_eq!(secs(200, &[(left, "0")]), None);
        assert_eq!(secs(429, &[(reset, "1060")]), Some(60));
        assert_eq!(secs(429, &[(reset, "1060"), ("retry-after", "5")]), Some(5));
        assert_eq!(
            secs(429, &[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")]),
            Some(30)
        );
        assert_eq!(secs(429, &[]), Some(30));
        assert_eq!(secs(503, &[("retry-after", "9")]), Some(9));
        assert_eq!(secs(503, &[]), None);
        assert_eq!(secs(429, &[("retry-after", "99999")]), Some(3600));
    }
}
