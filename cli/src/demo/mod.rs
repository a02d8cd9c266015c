//! The example apps of `up --demo`: what a small Cloud Foundry space sounds like.
//!
//! | source id | is | emits |
//! | --- | --- | --- |
//! | `web-shop` | a web app, two instances | requests: an app line, a router line and an `http` timer each |
//! | `order-worker` | a background worker | a line and a counter per job, its queue's length as a gauge |
//! | `flaky-api` | a web app that falls over about twice a minute | a stack trace on standard error, the platform's lines, an event, the restart |
//!
//! and container metrics of every instance, each 10 seconds. About 25 envelopes per second in all.
//!
//! The generator is a plain function of time and seed: [`Demo::until`] returns what happened since the last call.

mod flaky;
mod origin;
mod shop;
mod worker;

use loggregator_proto::v2::Envelope;
use origin::Origin;
use std::time::Duration;

/// Source ids of the demo apps, in the order in which the banner names them.
#[cfg(test)]
pub const SOURCES: [&str; 3] = ["web-shop", "order-worker", "flaky-api"];

/// Something that emits now and then.
trait Actor: Send {
    /// What happens at `at` (nanoseconds since 1970), and how long until something happens again.
    fn step(&mut self, at: i64, rng: &mut fastrand::Rng, out: &mut Vec<Envelope>) -> Duration;
}

/// All example apps.
pub struct Demo {
    rng: fastrand::Rng,
    actors: Vec<(i64, Box<dyn Actor>)>,
}

impl Demo {
    /// Apps that start at `start`; the same seed gives the same day.
    pub fn new(seed: u64, start: i64) -> Self {
        let actors: Vec<Box<dyn Actor>> = vec![
            Box::new(shop::Shop::new()),
            Box::new(worker::Worker::new()),
            Box::new(flaky::Flaky::new()),
            Box::new(Containers::new()),
        ];
        Self {
            rng: fastrand::Rng::with_seed(seed),
            actors: actors.into_iter().map(|actor| (start, actor)).collect(),
        }
    }

    /// Everything that happened up to and including `now`, oldest first.
    pub fn until(&mut self, now: i64) -> Vec<Envelope> {
        let mut out = Vec::new();
        for (next, actor) in &mut self.actors {
            // After a pause of the machine nobody wants the missed hour at once.
            if now.saturating_sub(*next) > nanos(Duration::from_secs(5)) {
                *next = now;
            }
            while *next <= now {
                let pause = actor.step(*next, &mut self.rng, &mut out);
                *next = next.saturating_add(nanos(pause).max(1));
            }
        }
        out.sort_by_key(|envelope| envelope.timestamp);
        out
    }
}

/// A duration as envelopes count time.
fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// An app's instance, tagged as the platform tags it.
fn app(name: &str, instance: &str, source_type: &str) -> Origin {
    Origin::new(name, instance)
        .tag("organization_name", "demo")
        .tag("space_name", "dev")
        .tag("app_name", name)
        .tag("source_type", source_type)
}

/// A pause around `mean`, never regular.
fn around(rng: &mut fastrand::Rng, mean: Duration) -> Duration {
    mean.mul_f64(0.4 + 1.2 * rng.f64())
}

/// Twenty-four hex digits and dashes that look like a request id.
fn request_id(rng: &mut fastrand::Rng) -> String {
    let bits = rng.u128(..);
    let hex = format!("{bits:032x}");
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// The cell's view of every instance: one gauge with the five values that the v1 API calls container metrics.
struct Containers {
    instances: Vec<(Origin, f64, f64)>,
}

impl Containers {
    fn new() -> Self {
        let instance = |name, index, process, cpu, memory_mib: f64| {
            (
                app(name, index, process).tag("process_type", "web"),
                cpu,
                memory_mib,
            )
        };
        Self {
            instances: vec![
                instance("web-shop", "0", "APP/PROC/WEB", 9.0, 310.0),
                instance("web-shop", "1", "APP/PROC/WEB", 8.0, 295.0),
                instance("order-worker", "0", "APP/PROC/WORKER", 35.0, 180.0),
                instance("flaky-api", "0", "APP/PROC/WEB", 22.0, 470.0),
            ],
        }
    }
}

impl Actor for Containers {
    fn step(&mut self, at: i64, rng: &mut fastrand::Rng, out: &mut Vec<Envelope>) -> Duration {
        const MIB: f64 = 1024.0 * 1024.0;
        for (origin, cpu, memory_mib) in &mut self.instances {
            *cpu = (*cpu + 6.0 * (rng.f64() - 0.5)).clamp(0.5, 95.0);
            *memory_mib = (*memory_mib + 12.0 * (rng.f64() - 0.48)).clamp(96.0, 500.0);
            out.push(origin.gauge(
                at,
                [
                    ("cpu", (*cpu * 100.0).round() / 100.0, "percentage"),
                    ("memory", (*memory_mib * MIB).round(), "bytes"),
                    ("disk", 143.0 * MIB, "bytes"),
                    ("memory_quota", 512.0 * MIB, "bytes"),
                    ("disk_quota", 1024.0 * MIB, "bytes"),
                ],
            ));
        }
        Duration::from_secs(10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loggregator_proto::v2::envelope::Message;
    use std::collections::BTreeSet;

    const START: i64 = 1_700_000_000_000_000_000;

    fn two_minutes() -> Vec<Envelope> {
        let mut demo = Demo::new(1, START);
        (0..1200)
            .flat_map(|tick: i64| demo.until(START + tick * 100_000_000))
            .collect()
    }

    #[test]
    fn every_kind_and_every_app_shows_up_within_two_minutes() {
        let all = two_minutes();
        let sources: BTreeSet<&str> = all
            .iter()
            .map(|envelope| envelope.source_id.as_str())
            .collect();
        assert_eq!(sources, SOURCES.into_iter().collect());
        let has = |wanted: fn(&Message) -> bool| {
            all.iter().filter_map(|e| e.message.as_ref()).any(wanted)
        };
        assert!(has(|m| matches!(m, Message::Log(log) if log.r#type == 0)));
        assert!(has(|m| matches!(m, Message::Log(log) if log.r#type == 1)));
        assert!(has(|m| matches!(m, Message::Counter(_))));
        assert!(has(|m| matches!(m, Message::Gauge(_))));
        assert!(has(|m| matches!(m, Message::Timer(_))));
        assert!(has(|m| matches!(m, Message::Event(_))));
    }

    #[test]
    fn the_rate_is_gentle() {
        let per_second = two_minutes().len() as f64 / 120.0;
        assert!(
            (10.0..60.0).contains(&per_second),
            "{per_second} envelopes per second"
        );
    }

    #[test]
    fn logs_carry_what_cf_logs_prints() {
        for envelope in two_minutes()
            .iter()
            .filter(|e| matches!(e.message, Some(Message::Log(_))))
        {
            assert!(envelope.tags.contains_key("source_type"), "{envelope:?}");
            assert!(!envelope.instance_id.is_empty(), "{envelope:?}");
        }
    }

    #[test]
    fn container_metrics_have_a_v1_form() {
        let all = two_minutes();
        let gauge = all
            .iter()
            .find_map(|e| match &e.message {
                Some(Message::Gauge(gauge)) if gauge.metrics.contains_key("cpu") => Some(gauge),
                _ => None,
            })
            .unwrap();
        for (name, unit) in [
            ("cpu", "percentage"),
            ("memory", "bytes"),
            ("disk", "bytes"),
            ("memory_quota", "bytes"),
            ("disk_quota", "bytes"),
        ] {
            assert_eq!(gauge.metrics[name].unit, unit);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_day_and_a_pause_is_not_caught_up() {
        assert_eq!(two_minutes(), two_minutes());
        let mut demo = Demo::new(1, START);
        demo.until(START);
        let after_an_hour = demo.until(START + 3_600_000_000_000);
        assert!(after_an_hour.len() < 200, "{}", after_an_hour.len());
    }
}
