//! Events into series.

use loggregator_envelope::{CounterRef, Kind, MetricRef, TimerRef};
use loggregator_nozzle::Event;

use super::data::Data;
use super::{ENTRY, Place, Refusal, Store, Stream, Target};
use crate::profile::{self, Request};
use crate::tags::{Tags, part};

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Folded {
    /// It changed series, or there is nothing in it that the profile exports.
    Taken,
    /// None of its samples could be taken.
    Refused(Refusal),
}

/// Kinds of streams, the first byte of their keys' ends.
const COUNTER: u8 = b'c';
const GAUGE: u8 = b'g';
const CONTAINER: u8 = b'k';
const HTTP: u8 = b'h';
const TIMER: u8 = b't';
const LOG: u8 = b'l';

/// Bytes of a stream's key. Streams are bounded in number and keep their keys, tags in full, so that only a bound on the
/// key bounds their memory. It is twice that of the labels, for tags that are left out of them.
const MAX_KEY: usize = 16 * 1024;

/// Names of the values of a container metric.
pub(crate) const CONTAINER_KEYS: [&str; 5] =
    ["cpu", "memory", "disk", "memory_quota", "disk_quota"];

impl Store {
    /// Takes an event in. `now` is the store's clock in milliseconds; it decides only what has expired.
    pub(crate) fn fold(&mut self, event: &Event, now: u64) -> Folded {
        self.counts.envelopes.one(event.received);
        let envelope = event.envelope();
        let tags = Tags::of(event);
        let folded = match envelope.kind() {
            Kind::Counter => match envelope.counter() {
                Some(counter) => {
                    self.counts.samples[0] += 1;
                    self.counts.counter.one(event.received);
                    self.counter(&tags, &counter, envelope.timestamp(), now)
                }
                None => Ok(()),
            },
            Kind::Gauge => self.gauge(&tags, event, now),
            Kind::Timer => match envelope.timer() {
                Some(timer) if timer.name == "http" && self.map.http => {
                    self.http(&tags, &timer, event.received, now)
                }
                Some(timer) if timer.name != "http" && self.map.timers => {
                    self.counts.samples[2] += 1;
                    self.timer(&tags, &timer, now)
                }
                _ => {
                    self.counts.ignored += 1;
                    return Folded::Taken;
                }
            },
            Kind::Log if self.map.log_rates => {
                self.counts.samples[3] += 1;
                self.log(&tags, event, now)
            }
            Kind::Log | Kind::Event | Kind::None => return Folded::Taken,
        };
        match folded {
            Ok(()) => Folded::Taken,
            Err(refusal) => Folded::Refused(refusal),
        }
    }

    /// The stream of the present key, if it is known and lives; it lives on from now.
    fn known(&mut self, now: u64) -> Option<&mut Stream> {
        let expire_ms = self.map.expire_ms;
        let stream = self.streams.get_mut(self.key.as_slice())?;
        if now.saturating_sub(stream.seen) >= expire_ms {
            return None;
        }
        stream.seen = now;
        Some(stream)
    }

    /// Makes the present key a stream.
    fn begin(&mut self, target: Target, now: u64) -> Target {
        let known = self.streams.contains_key(self.key.as_slice());
        let weight = self.key.len() + ENTRY;
        let few = self.streams.len() < self.map.max_series.saturating_mul(2);
        // Refused streams are kept too, so that their next event costs one look-up. They are bounded with the others.
        if known || (few && self.has_room(weight)) {
            self.bytes += if known { 0 } else { weight };
            let stream = Stream {
                seen: now,
                target,
                total: 0,
                extra: 0,
                at: i64::MIN,
            };
            self.streams.insert(self.key.clone().into(), stream);
            return target;
        }
        Target::Refused(Refusal::SeriesLimit)
    }

    /// Refuses a key that is too long, before it is looked up and anything is made for it.
    fn check_key(&mut self) -> Result<(), Refusal> {
        if self.key.len() > MAX_KEY {
            return self.refuse(Refusal::LabelsTooLong);
        }
        Ok(())
    }

    fn refuse(&mut self, refusal: Refusal) -> Result<(), Refusal> {
        self.counts.refused[refusal as usize] += 1;
        Err(refusal)
    }

    /// Changes a series, which lives on from now.
    fn change(&mut self, place: Place, now: u64, change: impl FnOnce(&mut Data)) {
        if let Some((_, series)) = self.at(place) {
            (series.seen, series.changed) = (now, true);
            change(&mut series.data);
            if let Some(touched) = &mut self.touched {
                touched.push(place);
            }
        }
    }

    fn counter(
        &mut self,
        tags: &Tags<'_>,
        counter: &CounterRef<'_>,
        at: i64,
        now: u64,
    ) -> Result<(), Refusal> {
        self.key.clear();
        tags.write_key(&mut self.key);
        self.key.push(COUNTER);
        part(&mut self.key, counter.name);
        self.check_key()?;
        let known = self.known(now).map(|stream| stream.target);
        let (target, first) = match known {
            Some(target) => (target, None),
            None => self.new_counter(tags, counter, now),
        };
        let (place, delta) = match target {
            Target::Counter(place, delta) => (place, delta),
            Target::Refused(refusal) => return self.refuse(refusal),
            _ => return Ok(()),
        };
        let alone = self
            .at(place)
            .is_some_and(|(_, series)| series.streams <= 1);
        let Some(stream) = self.streams.get_mut(self.key.as_slice()) else {
            return Ok(());
        };
        let step = stream.step(counter, at, alone, first);
        self.change(place, now, |data| {
            if let Data::Counter(value) = data {
                match step {
                    Step::Add(more) => *value = value.saturating_add(more),
                    Step::Set(total) => *value = total,
                }
            }
        });
        if let Some(delta) = delta {
            self.change(delta, now, |data| *data = Data::Counter(counter.delta));
        }
        Ok(())
    }

    /// The stream's target, and whether its series starts from nothing.
    fn new_counter(
        &mut self,
        tags: &Tags<'_>,
        counter: &CounterRef<'_>,
        now: u64,
    ) -> (Target, Option<bool>) {
        let placed = profile::counter(&self.map, tags, counter.name)
            .and_then(|described| self.place(counter.name, described, now))
            .and_then(|(place, fresh)| {
                let delta = match profile::delta(&self.map, tags, counter.name) {
                    Some(described) => Some(self.place(counter.name, described?, now)?.0),
                    None => None,
                };
                Ok((Target::Counter(place, delta), fresh))
            });
        match placed {
            Ok((target, fresh)) => (self.begin(target, now), Some(fresh)),
            Err(refusal) => (self.begin(Target::Refused(refusal), now), None),
        }
    }

    fn gauge(&mut self, tags: &Tags<'_>, event: &Event, now: u64) -> Result<(), Refusal> {
        let envelope = event.envelope();
        let mut there = [false; CONTAINER_KEYS.len()];
        for metric in envelope.gauge() {
            if let Some(at) = CONTAINER_KEYS.iter().position(|key| *key == metric.name) {
                there[at] = true;
            }
        }
        let container = there == [true; CONTAINER_KEYS.len()];
        self.key.clear();
        tags.write_key(&mut self.key);
        let base = self.key.len();
        let (mut taken, mut refused) = (false, None);
        for metric in envelope.gauge() {
            let container = container && CONTAINER_KEYS.contains(&metric.name);
            self.counts.samples[1] += 1;
            if container {
                self.counts.container.one(event.received);
            } else {
                self.counts.value.one(event.received);
            }
            self.key.truncate(base);
            self.key.push(if container { CONTAINER } else { GAUGE });
            part(&mut self.key, metric.unit);
            part(&mut self.key, metric.name);
            match self.value(tags, &metric, container, now) {
                Ok(()) => taken = true,
                Err(refusal) => refused = Some(refusal),
            }
        }
        match refused {
            Some(refusal) if !taken => Err(refusal),
            _ => Ok(()),
        }
    }

    fn value(
        &mut self,
        tags: &Tags<'_>,
        metric: &MetricRef<'_>,
        container: bool,
        now: u64,
    ) -> Result<(), Refusal> {
        self.check_key()?;
        let target = match self.known(now).map(|stream| stream.target) {
            Some(target) => target,
            None => {
                let placed = profile::gauge(&self.map, tags, metric, container).and_then(
                    |(described, scale)| {
                        let (place, _) = self.place(metric.name, described, now)?;
                        Ok(Target::Gauge(place, scale))
                    },
                );
                self.begin(placed.unwrap_or_else(Target::Refused), now)
            }
        };
        match target {
            Target::Gauge(place, scale) => {
                let value = scale.of(metric.value);
                self.change(place, now, |data| *data = Data::Gauge(value));
                Ok(())
            }
            Target::Refused(refusal) => self.refuse(refusal),
            _ => Ok(()),
        }
    }

    fn http(
        &mut self,
        tags: &Tags<'_>,
        timer: &TimerRef<'_>,
        received: i64,
        now: u64,
    ) -> Result<(), Refusal> {
        let Some(request) = Request::of(&self.map, tags, &mut self.hosts) else {
            self.counts.ignored += 1;
            return Ok(());
        };
        self.counts.samples[2] += 1;
        self.counts.http.one(received);
        let Some(seconds) = seconds(timer) else {
            return self.refuse(Refusal::NegativeDuration);
        };
        self.key.clear();
        self.key.push(HTTP);
        request.write_key(&self.map, &mut self.key);
        self.check_key()?;
        let target = match self.known(now).map(|stream| stream.target) {
            Some(target) => target,
            None => {
                let placed = self.new_http(&request, now);
                self.begin(placed.unwrap_or_else(Target::Refused), now)
            }
        };
        let (requests, durations, sizes) = match target {
            Target::Http(requests, durations, sizes) => (requests, durations, sizes),
            Target::Refused(refusal) => return self.refuse(refusal),
            _ => return Ok(()),
        };
        self.change(requests, now, add(1));
        let slow = self
            .map
            .exemplars_above
            .is_some_and(|above| seconds >= above);
        let (id, at) = (request.id(), timer.stop / 1_000_000);
        self.change(durations, now, |data| {
            if let Data::Histogram(histogram) = data {
                let bucket = histogram.observe(seconds);
                if slow {
                    histogram.remember(bucket, seconds, at, id);
                }
            }
        });
        let size = request.size();
        self.change(sizes, now, |data| match (data, size) {
            (Data::Histogram(histogram), Some(size)) => {
                histogram.observe(size);
            }
            (Data::Summary(summary), Some(size)) => summary.observe(size, now),
            _ => {}
        });
        Ok(())
    }

    fn new_http(&mut self, request: &Request<'_, '_>, now: u64) -> Result<Target, Refusal> {
        let [requests, durations, sizes] = profile::http(&self.map, request);
        let (requests, _) = self.place("http", requests, now)?;
        let (durations, _) = self.place("http", durations, now)?;
        let (sizes, _) = self.place("http", sizes, now)?;
        Ok(Target::Http(requests, durations, sizes))
    }

    fn timer(&mut self, tags: &Tags<'_>, timer: &TimerRef<'_>, now: u64) -> Result<(), Refusal> {
        let Some(seconds) = seconds(timer) else {
            return self.refuse(Refusal::NegativeDuration);
        };
        self.key.clear();
        self.key.push(TIMER);
        part(&mut self.key, timer.name);
        profile::rollup_key(&self.map, tags, &mut self.key);
        self.check_key()?;
        let target = match self.known(now).map(|stream| stream.target) {
            Some(target) => target,
            None => {
                let placed = profile::timer(&self.map, tags, timer.name)
                    .and_then(|described| self.place(timer.name, described, now));
                let target = placed.map(|(place, _)| Target::Timer(place));
                self.begin(target.unwrap_or_else(Target::Refused), now)
            }
        };
        match target {
            Target::Timer(place) => {
                self.change(place, now, |data| {
                    if let Data::Histogram(histogram) = data {
                        histogram.observe(seconds);
                    }
                });
                Ok(())
            }
            Target::Refused(refusal) => self.refuse(refusal),
            _ => Ok(()),
        }
    }

    fn log(&mut self, tags: &Tags<'_>, event: &Event, now: u64) -> Result<(), Refusal> {
        let Some(log) = event.envelope().log() else {
            return Ok(());
        };
        let stream = if log.err { "err" } else { "out" };
        self.key.clear();
        self.key.push(LOG);
        self.key.push(u8::from(log.err));
        part(&mut self.key, tags.get("source_type").unwrap_or_default());
        profile::rollup_key(&self.map, tags, &mut self.key);
        self.check_key()?;
        let target = match self.known(now).map(|stream| stream.target) {
            Some(target) => target,
            None => {
                let [lines, bytes] = profile::log(&self.map, tags, stream);
                let placed = self.place("log", lines, now).and_then(|(lines, _)| {
                    let (bytes, _) = self.place("log", bytes, now)?;
                    Ok(Target::Log(lines, bytes))
                });
                self.begin(placed.unwrap_or_else(Target::Refused), now)
            }
        };
        match target {
            Target::Log(lines, bytes) => {
                self.change(lines, now, add(1));
                self.change(bytes, now, add(log.payload.len() as u64));
                Ok(())
            }
            Target::Refused(refusal) => self.refuse(refusal),
            _ => Ok(()),
        }
    }
}

/// A change that makes a counter grow.
fn add(more: u64) -> impl FnOnce(&mut Data) {
    move |data| {
        if let Data::Counter(value) = data {
            *value = value.saturating_add(more);
        }
    }
}

/// How long a timer ran; `None` when it ends before it begins.
fn seconds(timer: &TimerRef<'_>) -> Option<f64> {
    let nanos = timer.stop.checked_sub(timer.start)?;
    #[expect(clippy::cast_precision_loss, reason = "as every Prometheus value")]
    (nanos >= 0).then(|| nanos as f64 / 1e9)
}

/// What a counter's event does to its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Add(u64),
    Set(u64),
}

impl Stream {
    /// A total wins over deltas: it is whole, whoever else of a shard saw the events between. Deltas count where there is
    /// no total, until one includes them. A total that falls is a restart of the emitter, unless the event is older than
    /// the last one, which only arrived late.
    ///
    /// `alone`: no other stream goes into the series, which then shows the emitter's own total. `first` is set for the
    /// stream's first event, to whether its series starts from nothing; in a series that lives already it counts what it
    /// grew by, not what it was before.
    fn step(
        &mut self,
        counter: &CounterRef<'_>,
        at: i64,
        alone: bool,
        first: Option<bool>,
    ) -> Step {
        let late = at < self.at;
        self.at = self.at.max(at);
        if let Some(fresh) = first {
            self.total = counter.total;
            return match (fresh, counter.total) {
                (true, 0) => {
                    self.extra = counter.delta;
                    Step::Set(counter.delta)
                }
                (true, total) => Step::Set(total),
                (false, total) => {
                    self.extra = if total == 0 { counter.delta } else { 0 };
                    Step::Add(counter.delta)
                }
            };
        }
        if counter.total == 0 {
            self.extra = self.extra.saturating_add(counter.delta);
            return Step::Add(counter.delta);
        }
        if counter.total >= self.total {
            let grown = counter.total - self.total;
            let more = grown.saturating_sub(self.extra);
            self.extra = self.extra.saturating_sub(grown);
            self.total = counter.total;
            return Step::Add(more);
        }
        if late {
            return Step::Add(0);
        }
        (self.total, self.extra) = (counter.total, 0);
        if alone {
            Step::Set(counter.total)
        } else {
            Step::Add(counter.total)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(events: &[(u64, u64, i64)], alone: bool, fresh: bool) -> Vec<u64> {
        let mut stream = Stream {
            seen: 0,
            target: Target::Refused(Refusal::SeriesLimit),
            total: 0,
            extra: 0,
            at: i64::MIN,
        };
        let (mut value, mut first) = (if fresh { 0 } else { 1000 }, Some(fresh));
        let step = |(delta, total, at): &(u64, u64, i64)| {
            let counter = CounterRef {
                name: "c",
                delta: *delta,
                total: *total,
            };
            match stream.step(&counter, *at, alone, first.take()) {
                Step::Add(more) => value += more,
                Step::Set(total) => value = total,
            }
            value
        };
        events.iter().map(step).collect()
    }

    #[test]
    fn totals_win_and_deltas_count_where_there_are_none() {
        // Totals as they are, though deltas between were seen by another member of the shard.
        assert_eq!(
            steps(&[(1, 42, 1), (1, 50, 2), (0, 50, 3)], true, true),
            [42, 50, 50]
        );
        // Only deltas.
        assert_eq!(
            steps(&[(5, 0, 1), (3, 0, 2), (0, 0, 3)], true, true),
            [5, 8, 8]
        );
        // A total includes the deltas before it.
        assert_eq!(
            steps(
                &[(1, 100, 1), (5, 0, 2), (0, 103, 3), (0, 107, 4)],
                true,
                true
            ),
            [100, 105, 105, 107]
        );
        assert_eq!(steps(&[(5, 0, 1), (1, 1000, 2)], true, true), [5, 1000]);
    }

    #[test]
    fn a_total_that_falls_is_a_restart_and_a_late_one_is_not() {
        assert_eq!(
            steps(&[(1, 100, 1), (2, 2, 2), (1, 3, 3)], true, true),
            [100, 2, 3]
        );
        assert_eq!(
            steps(&[(1, 100, 5), (1, 99, 4), (1, 101, 6)], true, true),
            [100, 100, 101]
        );
        // Beside other streams a series never falls.
        assert_eq!(
            steps(&[(7, 100, 1), (2, 2, 2), (1, 3, 3)], false, false),
            [1007, 1009, 1010]
        );
        assert_eq!(steps(&[(4, 0, 1), (0, 6, 2)], false, false), [1004, 1006]);
    }

    #[test]
    fn nothing_overflows() {
        assert_eq!(
            seconds(&TimerRef {
                name: "",
                start: i64::MIN,
                stop: i64::MAX
            }),
            None
        );
        assert_eq!(
            seconds(&TimerRef {
                name: "",
                start: 2,
                stop: 1
            }),
            None
        );
        assert_eq!(
            seconds(&TimerRef {
                name: "",
                start: 1,
                stop: 500_000_001
            }),
            Some(0.5)
        );
    }
}
