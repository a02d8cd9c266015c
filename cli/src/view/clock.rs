//! Timestamps in local time, as `cf logs` prints them: `2006-01-02T15:04:05.00-0700`.

use time::{OffsetDateTime, UtcOffset};

/// Days looked at on each side of today for changes of the local offset (summer time).
const DAYS: i64 = 800;
const DAY: i64 = 24 * 60 * 60;

/// The offsets of the local time zone around now.
///
/// The system's zone data may only be read while the process has a single thread, so they are read once, at the start
/// of `main`, for two years on either side.
#[derive(Debug, Clone)]
pub struct LocalTime {
    /// From this second on (Unix time), this offset. The first starts at the beginning of time. Never empty.
    periods: Vec<(i64, UtcOffset)>,
}

impl LocalTime {
    /// Reads the zone of this process. Falls back to UTC where it cannot be known.
    pub fn read() -> Self {
        let offset_at = |seconds: i64| {
            OffsetDateTime::from_unix_timestamp(seconds)
                .ok()
                .and_then(|when| UtcOffset::local_offset_at(when).ok())
        };
        let now = OffsetDateTime::now_utc().unix_timestamp();
        Self::sample(now - DAYS * DAY, now + DAYS * DAY, |at| {
            offset_at(at).unwrap_or(UtcOffset::UTC)
        })
    }

    /// Coordinated universal time, for tests and for where a zone would mislead.
    #[cfg(test)]
    pub fn utc() -> Self {
        Self {
            periods: vec![(i64::MIN, UtcOffset::UTC)],
        }
    }

    fn sample(from: i64, to: i64, offset_at: impl Fn(i64) -> UtcOffset) -> Self {
        let mut last = offset_at(from);
        let mut periods = vec![(i64::MIN, last)];
        for day in (from..to).step_by(DAY.unsigned_abs() as usize) {
            let offset = offset_at(day);
            if offset != last {
                // Changed within the day before: halve until the second is known.
                let (mut before, mut after) = (day - DAY, day);
                while after - before > 1 {
                    let middle = before + (after - before) / 2;
                    if offset_at(middle) == offset {
                        after = middle
                    } else {
                        before = middle
                    }
                }
                periods.push((after, offset));
                last = offset;
            }
        }
        Self { periods }
    }

    fn offset(&self, seconds: i64) -> UtcOffset {
        let after = self.periods.partition_point(|(from, _)| *from <= seconds);
        self.periods[after.saturating_sub(1)].1
    }
}

/// Writes timestamps; what does not change within a second is written once per second.
#[derive(Debug)]
pub struct Stamp {
    zone: LocalTime,
    second: Option<i64>,
    /// `2006-01-02T15:04:05.` of `second`, then its offset.
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Stamp {
    /// Stamps in this zone.
    pub fn new(zone: LocalTime) -> Self {
        Self {
            zone,
            second: None,
            head: Vec::new(),
            tail: Vec::new(),
        }
    }

    /// Appends the time, truncated to hundredths.
    pub fn write(&mut self, out: &mut Vec<u8>, nanos: i64) {
        let second = nanos.div_euclid(1_000_000_000);
        if self.second != Some(second) {
            self.turn_to(second);
        }
        let hundredths = nanos.rem_euclid(1_000_000_000) / 10_000_000;
        out.extend_from_slice(&self.head);
        out.push(b'0' + (hundredths / 10) as u8);
        out.push(b'0' + (hundredths % 10) as u8);
        out.extend_from_slice(&self.tail);
    }

    fn turn_to(&mut self, second: i64) {
        let offset = self.zone.offset(second);
        // 64 bits of nanoseconds lie within the years that the type holds.
        let when = OffsetDateTime::from_unix_timestamp(second)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
            .to_offset(offset);
        let (hours, minutes, _) = offset.as_hms();
        let sign = if offset.is_negative() { '-' } else { '+' };
        self.second = Some(second);
        self.head.clear();
        self.tail.clear();
        let date = format!(
            "{:04}-{:02}-{:02}",
            when.year(),
            u8::from(when.month()),
            when.day()
        );
        let time = format!(
            "T{:02}:{:02}:{:02}.",
            when.hour(),
            when.minute(),
            when.second()
        );
        self.head.extend_from_slice(date.as_bytes());
        self.head.extend_from_slice(time.as_bytes());
        let zone = format!(
            "{sign}{:02}{:02}",
            hours.unsigned_abs(),
            minutes.unsigned_abs()
        );
        self.tail.extend_from_slice(zone.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamped(zone: LocalTime, nanos: i64) -> String {
        let mut out = Vec::new();
        Stamp::new(zone).write(&mut out, nanos);
        String::from_utf8(out).unwrap()
    }

    fn zone(hours: i8, minutes: i8) -> LocalTime {
        LocalTime {
            periods: vec![(i64::MIN, UtcOffset::from_hms(hours, minutes, 0).unwrap())],
        }
    }

    #[test]
    fn hundredths_are_cut_not_rounded() {
        assert_eq!(
            stamped(LocalTime::utc(), 1_700_000_000_129_999_999),
            "2023-11-14T22:13:20.12+0000"
        );
        assert_eq!(stamped(LocalTime::utc(), 0), "1970-01-01T00:00:00.00+0000");
        assert_eq!(stamped(LocalTime::utc(), -1), "1969-12-31T23:59:59.99+0000");
        assert!(stamped(LocalTime::utc(), i64::MAX).starts_with("2262-04-11T"));
        assert!(stamped(LocalTime::utc(), i64::MIN).starts_with("1677-09-21T"));
    }

    #[test]
    fn offsets_are_four_digits_with_a_sign() {
        assert_eq!(
            stamped(zone(-3, -30), 1_700_000_000_000_000_000),
            "2023-11-14T18:43:20.00-0330"
        );
        assert_eq!(
            stamped(zone(5, 45), 1_700_000_000_000_000_000),
            "2023-11-15T03:58:20.00+0545"
        );
    }

    #[test]
    fn summer_time_begins_and_ends_at_its_second() {
        let (summer, winter) = (
            UtcOffset::from_hms(2, 0, 0).unwrap(),
            UtcOffset::from_hms(1, 0, 0).unwrap(),
        );
        let (begins, ends) = (1_711_846_800, 1_729_990_800); // Europe/Berlin, 2024
        let zone = LocalTime::sample(1_704_067_200, 1_735_689_600, |at| {
            if (begins..ends).contains(&at) {
                summer
            } else {
                winter
            }
        });
        assert_eq!(zone.periods.len(), 3);
        assert_eq!(zone.offset(begins - 1), winter);
        assert_eq!(zone.offset(begins), summer);
        assert_eq!(zone.offset(ends - 1), summer);
        assert_eq!(zone.offset(ends), winter);
        assert_eq!(zone.offset(i64::MAX), winter);
        assert_eq!(zone.offset(i64::MIN), winter);
    }

    #[test]
    fn a_cached_second_is_not_used_for_the_next() {
        let mut stamp = Stamp::new(LocalTime::utc());
        let mut out = Vec::new();
        stamp.write(&mut out, 1_700_000_000_990_000_000);
        stamp.write(&mut out, 1_700_000_001_000_000_000);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "2023-11-14T22:13:20.99+00002023-11-14T22:13:21.00+0000"
        );
    }
}
