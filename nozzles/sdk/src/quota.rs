//! How much one app may send to a destination.
//!
//! What is above a source's quota is left out with the reason `quota`. So that people who read the app's log see that
//! something is missing, the last event left out of each read is replaced by a log line that says how many were. That line
//! stands in the place of the event: it has the event's number, and once the destination has taken it, the number
//! settles as dropped for `quota`, like those of the others that were left out. So every number is settled once, the
//! account adds up, and no consumer sees a number twice.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use foldhash::quality::RandomState;
use loggregator_envelope::Kind;
use loggregator_proto::v2;
use prost::Message as _;
use tokio::time::Instant;

use crate::config::QuotaConfig;
use crate::event::Event;
use crate::pipeline::rate::Bucket;

/// Reason of what was left out.
pub(crate) const QUOTA: &str = "quota";
/// Sources that are known at a time. Those that are within their quota make room; when none is, further sources are not
/// limited.
const MOST_SOURCES: usize = 65_536;
/// A source gets one notice in so long, unless so many events were left out before.
const NOTICE_EVERY: Duration = Duration::from_secs(1);
const NOTICE_AT: u64 = 1000;

/// The quotas of all sources at one destination.
#[derive(Debug)]
pub(crate) struct Quota {
    nozzle: String,
    config: QuotaConfig,
    notices: bool,
    sources: HashMap<Box<str>, Source, RandomState>,
    swept: Instant,
}

#[derive(Debug)]
struct Source {
    bucket: Bucket,
    /// Left out and not told.
    untold: u64,
    told: Option<Instant>,
    /// Place of the last one left out of the current read.
    last: Option<usize>,
}

/// What becomes of an event.
#[derive(Debug)]
pub(crate) enum Ruling {
    /// Within the quota.
    Pass(Event),
    /// Left out.
    Drop(Event),
    /// Left out, and the place where that is told.
    Notice {
        /// The one left out.
        dropped: Event,
        /// What stands for it.
        notice: Event,
    },
}

impl Quota {
    /// `notices`: whether the destination can do anything with a log line.
    pub(crate) fn new(nozzle: &str, config: QuotaConfig, notices: bool, now: Instant) -> Quota {
        Quota {
            nozzle: nozzle.to_owned(),
            config,
            notices,
            sources: HashMap::default(),
            swept: now,
        }
    }

    /// Rules on what was read, in order.
    pub(crate) fn rule(&mut self, events: Vec<Event>, now: Instant) -> Vec<Ruling> {
        let mut over: Vec<Box<str>> = Vec::new();
        let mut rulings: Vec<Ruling> = Vec::with_capacity(events.len());
        for event in events {
            let at = rulings.len();
            let envelope = event.envelope();
            let id = envelope.source_id();
            let mut passes = true;
            if let Some(source) = self.source(id, now)
                && !source.bucket.one(now)
            {
                passes = false;
                source.untold += 1;
                if source.last.replace(at).is_none() {
                    over.push(id.into());
                }
            }
            rulings.push(if passes {
                Ruling::Pass(event)
            } else {
                Ruling::Drop(event)
            });
        }
        for id in over {
            self.tell(&id, &mut rulings, now);
        }
        rulings
    }

    fn source(&mut self, id: &str, now: Instant) -> Option<&mut Source> {
        if !self.sources.contains_key(id) {
            if self.sources.len() >= MOST_SOURCES && !self.sweep(now) {
                return None;
            }
            let source = Source {
                bucket: Bucket::new(self.config.events, self.config.burst, now),
                untold: 0,
                told: None,
                last: None,
            };
            self.sources.insert(id.into(), source);
        }
        self.sources.get_mut(id)
    }

    /// Forgets the sources that have been quiet. Whether there is room now.
    fn sweep(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.swept) >= NOTICE_EVERY {
            self.swept = now;
            self.sources
                .retain(|_, source| source.last.is_some() || !source.bucket.is_full(now));
        }
        self.sources.len() < MOST_SOURCES
    }

    fn tell(&mut self, id: &str, rulings: &mut [Ruling], now: Instant) {
        let Some(source) = self.sources.get_mut(id) else {
            return;
        };
        let Some(at) = source.last.take() else {
            return;
        };
        let due = source
            .told
            .is_none_or(|told| now.saturating_duration_since(told) >= NOTICE_EVERY);
        if !self.notices || (!due && source.untold < NOTICE_AT) {
            return;
        }
        let Some(Ruling::Drop(dropped)) = rulings.get(at) else {
            return;
        };
        let dropped = dropped.clone();
        let notice = notice(&dropped, &self.nozzle, source.untold, self.config.events);
        source.untold = 0;
        source.told = Some(now);
        rulings[at] = Ruling::Notice { dropped, notice };
    }
}

/// The line that stands for `event`: of its app, its instance, its time and with its tags.
fn notice(event: &Event, nozzle: &str, n: u64, quota: u64) -> Event {
    let envelope = event.envelope();
    let what = match (envelope.kind(), n) {
        (Kind::Log, 1) => "1 line of this app was",
        (Kind::Log, _) => "lines of this app were",
        (_, 1) => "1 event of this app was",
        _ => "events of this app were",
    };
    let what = if n == 1 {
        what.to_owned()
    } else {
        format!("{n} {what}")
    };
    let text = format!("nozzle {nozzle}: {what} left out: quota of {quota} per second");
    let mut tags: std::collections::BTreeMap<String, String> = envelope
        .tags()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    // As the platform's own lines in an app's log.
    tags.insert("source_type".to_owned(), "LGR".to_owned());
    let line = v2::Envelope {
        timestamp: envelope.timestamp(),
        source_id: envelope.source_id().to_owned(),
        instance_id: envelope.instance_id().to_owned(),
        tags,
        message: Some(v2::envelope::Message::Log(v2::Log {
            payload: text.into_bytes().into(),
            r#type: v2::log::Type::Err as i32,
        })),
        ..v2::Envelope::default()
    };
    event.with_body(Bytes::from(line.encode_to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(seq: u64, source: &str) -> Event {
        let envelope = v2::Envelope {
            source_id: source.to_owned(),
            instance_id: "3".to_owned(),
            timestamp: 7,
            tags: [("app_name".to_owned(), "shop".to_owned())].into(),
            message: Some(v2::envelope::Message::Log(v2::Log {
                payload: "x".into(),
                r#type: 0,
            })),
            ..v2::Envelope::default()
        };
        Event::new(seq, 1, envelope.encode_to_vec().into())
    }

    fn quota(now: Instant) -> Quota {
        let config = QuotaConfig {
            events: 2,
            burst: 1,
        };
        Quota::new("audit", config, true, now)
    }

    fn shape(rulings: &[Ruling]) -> String {
        let letter = |ruling: &Ruling| match ruling {
            Ruling::Pass(_) => 'p',
            Ruling::Drop(_) => 'd',
            Ruling::Notice { .. } => 'n',
        };
        rulings.iter().map(letter).collect()
    }

    #[test]
    fn the_last_one_left_out_of_a_read_tells_of_all() {
        let now = Instant::now();
        let mut quota = quota(now);
        let events = ["a", "a", "b", "a", "a", "b", "a"];
        let events = (0..).zip(events).map(|(seq, id)| log(seq, id)).collect();
        let rulings = quota.rule(events, now);
        assert_eq!(shape(&rulings), "pppddpn");
        let Some(Ruling::Notice { dropped, notice }) = rulings.last() else {
            panic!("{rulings:?}");
        };
        assert_eq!((dropped.seq, notice.seq), (6, 6));
        let line = notice.envelope();
        assert_eq!(
            std::str::from_utf8(line.log().unwrap().payload).unwrap(),
            "nozzle audit: 3 lines of this app were left out: quota of 2 per second"
        );
        assert_eq!(line.source_id(), "a");
        assert_eq!(line.instance_id(), "3");
        assert_eq!(line.timestamp(), 7);
        assert_eq!(line.tag("app_name").unwrap(), "shop");
        assert_eq!(line.tag("source_type").unwrap(), "LGR");
    }

    #[test]
    fn one_notice_a_second_that_tells_of_everything_since_the_last() {
        let mut now = Instant::now();
        let mut quota = quota(now);
        let burst = |from: u64| (from..from + 3).map(|seq| log(seq, "a")).collect();
        assert_eq!(shape(&quota.rule(burst(0), now)), "ppn");
        assert_eq!(shape(&quota.rule(burst(3), now)), "ddd");
        now += NOTICE_EVERY;
        let rulings = quota.rule(burst(6), now);
        assert_eq!(shape(&rulings), "ppn");
        let Some(Ruling::Notice { notice, .. }) = rulings.last() else {
            panic!("{rulings:?}");
        };
        let payload = notice.envelope().log().unwrap().payload;
        assert!(payload.starts_with(b"nozzle audit: 4 lines"));
    }

    #[test]
    fn a_destination_that_takes_no_lines_gets_none() {
        let now = Instant::now();
        let mut quota = quota(now);
        quota.notices = false;
        let events = (0..3).map(|seq| log(seq, "a")).collect();
        assert_eq!(shape(&quota.rule(events, now)), "ppd");
    }

    #[test]
    fn sources_that_are_quiet_make_room_and_loud_ones_stay_limited() {
        let mut now = Instant::now();
        let mut quota = quota(now);
        let many = (0..MOST_SOURCES as u64).map(|n| log(n, &format!("s{n}")));
        quota.rule(many.collect(), now);
        assert_eq!(quota.sources.len(), MOST_SOURCES);
        // No room: not limited.
        let events = (0..5).map(|seq| log(seq, "late")).collect();
        assert_eq!(shape(&quota.rule(events, now)), "ppppp");
        now += NOTICE_EVERY;
        let events = (0..3).map(|seq| log(seq, "late")).collect();
        assert_eq!(shape(&quota.rule(events, now)), "ppn");
    }
}
