//! Batches on their way: what a destination's answer means for each event of one.

use std::borrow::Cow;
use std::time::Duration;

use crate::dead_letter::Dead;
use crate::destination::{Delivery, Outcome, Reason};
use crate::event::Event;

/// Code of a dead letter that no attempt got through.
pub(crate) const RETRIES_EXHAUSTED: &str = "retries_exhausted";
/// Code of a dead letter that is too large for its destination.
pub(crate) const OVERSIZE: &str = "oversize";

/// Events that are delivered together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Work {
    pub events: Vec<Event>,
    /// Numbers of those of them that stand in the place of an event over its quota, in order; see [`crate::quota`].
    pub notices: Vec<u64>,
    /// How often each was tried; empty when none was.
    pub tried: Vec<u32>,
}

/// What a destination's answer means.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Numbers of the events that were taken.
    pub taken: Vec<u64>,
    /// Bytes of these.
    pub taken_bytes: usize,
    /// Events that will never be.
    pub dead: Vec<Dead>,
    /// What is to be tried again, in order.
    pub again: Vec<Work>,
    /// Why something is to be tried again after a pause.
    pub failed: Option<Reason>,
    /// The pause that the destination asked for.
    pub after: Option<Duration>,
    /// Reasons of all events that are to be tried again after a pause, and of how many each.
    pub retried: Vec<(Cow<'static, str>, u64)>,
}

impl Work {
    /// Number of its first event.
    pub(crate) fn first(&self) -> u64 {
        self.events.first().map_or(u64::MAX, |event| event.seq)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.events.iter().map(|event| event.body().len()).sum()
    }

    /// How often any of its events was tried, at most.
    pub(crate) fn most_tried(&self) -> u32 {
        self.tried.iter().copied().max().unwrap_or(0)
    }

    /// Two halves of it.
    fn halves(mut self) -> [Work; 2] {
        let half = self.events.len() / 2;
        let right = self.events.split_off(half);
        let from = right.first().map_or(u64::MAX, |event| event.seq);
        let of_right = |seq: &u64| *seq >= from;
        let right = Work {
            events: right,
            notices: self.notices.iter().copied().filter(of_right).collect(),
            tried: self.tried.split_off(half.min(self.tried.len())),
        };
        self.notices.retain(|seq| *seq < from);
        [self, right]
    }

    /// Sorts its events by what the destination answered. After `attempts` attempts there is no other; 0: there always is.
    pub(crate) fn judge(self, delivery: Delivery, attempts: u32) -> Verdict {
        match delivery {
            Delivery::All => Verdict {
                taken_bytes: self.bytes(),
                taken: self.events.iter().map(|event| event.seq).collect(),
                ..Verdict::default()
            },
            Delivery::Each(outcomes) => self.each(outcomes, attempts),
            Delivery::Paused { each, after } => Verdict {
                after: Some(after),
                ..self.each(each, attempts)
            },
            Delivery::Retry { why, after } => Verdict {
                after,
                ..self.each(vec![Outcome::again(why, after)], attempts)
            },
            Delivery::Refused(why) => self.bisect(&why),
            Delivery::TooLarge(why) => self.bisect(&oversize(&why)),
        }
    }

    fn bisect(self, why: &Reason) -> Verdict {
        let mut verdict = Verdict::default();
        if self.events.len() > 1 {
            verdict.again.extend(self.halves());
        } else {
            let attempts = self.most_tried() + 1;
            let dead = |event| Dead {
                event,
                why: why.clone(),
                attempts,
            };
            verdict.dead.extend(self.events.into_iter().map(dead));
        }
        verdict
    }

    fn each(self, outcomes: Vec<Outcome>, most: u32) -> Verdict {
        let mut verdict = Verdict::default();
        let mut again = Work::default();
        let mut tried = self.tried.into_iter();
        for (event, outcome) in self.events.into_iter().zip(filled(outcomes)) {
            let attempts = tried.next().unwrap_or(0);
            let (why, attempts) = match outcome {
                Outcome::Delivered => {
                    verdict.taken_bytes += event.body().len();
                    verdict.taken.push(event.seq);
                    continue;
                }
                Outcome::Rejected(why) => {
                    verdict.bury(event, why, attempts + 1);
                    continue;
                }
                Outcome::Oversize(why) => {
                    verdict.bury(event, oversize(&why), attempts + 1);
                    continue;
                }
                Outcome::Retry(why) => (why, attempts + 1),
                Outcome::Later(why) => (why, attempts),
            };
            verdict.retry(&why);
            if most > 0 && attempts >= most {
                let detail = format!("after {attempts} attempts: {why}");
                verdict.bury(event, Reason::new(RETRIES_EXHAUSTED, detail), attempts);
            } else {
                if self.notices.binary_search(&event.seq).is_ok() {
                    again.notices.push(event.seq);
                }
                again.events.push(event);
                again.tried.push(attempts);
            }
            verdict.failed.get_or_insert(why);
        }
        if !again.events.is_empty() {
            verdict.again.push(again);
        }
        verdict
    }
}

/// One outcome per event, however many there are: what is missing at the end is as the last one that comes again, and without
/// such a one unknown.
fn filled(outcomes: Vec<Outcome>) -> impl Iterator<Item = Outcome> {
    let again = |outcome: &&Outcome| matches!(outcome, Outcome::Retry(_) | Outcome::Later(_));
    let last = outcomes.iter().rfind(again).cloned().unwrap_or_else(|| {
        Outcome::Retry(Reason::new(
            "no_outcome",
            "the destination said nothing about this event",
        ))
    });
    outcomes.into_iter().chain(std::iter::repeat(last))
}

fn oversize(why: &Reason) -> Reason {
    Reason::new(OVERSIZE, why.to_string())
}

impl Verdict {
    /// Whether the destination took or judged anything: it is there.
    pub(crate) fn progress(&self) -> bool {
        self.failed.is_none() || !self.taken.is_empty()
    }

    fn bury(&mut self, event: Event, why: Reason, attempts: u32) {
        self.dead.push(Dead {
            event,
            why,
            attempts,
        });
    }

    /// One more event comes again for this reason.
    fn retry(&mut self, why: &Reason) {
        match self.retried.iter_mut().find(|(code, _)| *code == why.code) {
            Some((_, n)) => *n += 1,
            None => self.retried.push((why.code.clone(), 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn work(seqs: std::ops::Range<u64>) -> Work {
        Work {
            events: seqs.map(|seq| Event::new(seq, 0, Bytes::new())).collect(),
            ..Work::default()
        }
    }

    fn seqs(work: &Work) -> Vec<u64> {
        work.events.iter().map(|event| event.seq).collect()
    }

    fn busy() -> Reason {
        Reason::new("busy", "")
    }

    #[test]
    fn only_those_that_want_it_are_tried_again_in_order() {
        let verdict = work(0..4).judge(
            Delivery::Each(vec![
                Outcome::Retry(busy()),
                Outcome::Delivered,
                Outcome::Rejected(Reason::new("bad", "x")),
                Outcome::Retry(busy()),
            ]),
            0,
        );
        assert_eq!(verdict.taken, [1]);
        assert_eq!(verdict.dead[0].event.seq, 2);
        assert_eq!(seqs(&verdict.again[0]), [0, 3]);
        assert_eq!(verdict.again[0].tried, [1, 1]);
        assert_eq!(verdict.retried, [(Cow::Borrowed("busy"), 2)]);
        assert!(verdict.progress());
    }

    #[test]
    fn a_list_that_is_too_short_is_a_retry_for_the_rest() {
        let verdict = work(0..3).judge(Delivery::Each(vec![Outcome::Delivered]), 0);
        assert_eq!(verdict.taken, [0]);
        assert_eq!(seqs(&verdict.again[0]), [1, 2]);
        assert_eq!(verdict.failed.unwrap().code, "no_outcome");
    }

    #[test]
    fn a_retry_of_all_gives_all_the_same_reason() {
        let after = Some(Duration::from_secs(7));
        let verdict = work(0..3).judge(Delivery::Retry { why: busy(), after }, 0);
        assert_eq!(seqs(&verdict.again[0]), [0, 1, 2]);
        assert_eq!(verdict.retried, [(Cow::Borrowed("busy"), 3)]);
        assert_eq!(verdict.after, after);
        assert!(!verdict.progress());
    }

    #[test]
    fn the_last_attempt_is_a_dead_letter_that_tells_why() {
        let mut tried = work(0..1);
        tried.tried = vec![2];
        let retry = Delivery::retry(Reason::new("connect", "refused"));
        let verdict = tried.judge(retry, 3);
        assert_eq!(
            verdict.dead[0].why,
            Reason::new(RETRIES_EXHAUSTED, "after 3 attempts: connect: refused")
        );
        assert_eq!(verdict.dead[0].attempts, 3);
        assert!(verdict.again.is_empty());
    }

    #[test]
    fn what_was_not_tried_is_no_attempt_and_keeps_its_own_count() {
        let mut tried = work(0..4);
        tried.tried = vec![1, 0, 2, 2];
        let verdict = tried.judge(
            Delivery::Each(vec![
                Outcome::Delivered,
                Outcome::Retry(busy()),
                Outcome::Retry(busy()),
                Outcome::Later(Reason::new("time", "")),
            ]),
            3,
        );
        assert_eq!(verdict.dead[0].event.seq, 2);
        assert_eq!(seqs(&verdict.again[0]), [1, 3]);
        assert_eq!(verdict.again[0].tried, [1, 2]);
        assert_eq!(
            verdict.retried,
            [(Cow::Borrowed("busy"), 2), (Cow::Borrowed("time"), 1)]
        );
    }

    #[test]
    fn to_wait_as_one_was_asked_to_is_no_attempt() {
        let after = Duration::from_secs(7);
        let mut work = work(0..2);
        for _ in 0..10 {
            let asked = Delivery::Retry {
                why: busy(),
                after: Some(after),
            };
            let mut verdict = work.judge(asked, 1);
            assert_eq!((verdict.after, verdict.dead.len()), (Some(after), 0));
            work = verdict.again.remove(0);
        }
        let each = vec![Outcome::Later(busy()), Outcome::Retry(busy())];
        let verdict = work.judge(Delivery::Paused { each, after }, 1);
        assert_eq!(verdict.after, Some(after));
        assert_eq!(verdict.dead[0].event.seq, 1);
        assert_eq!(seqs(&verdict.again[0]), [0]);
    }

    #[test]
    fn the_rest_of_a_short_list_is_as_its_last_one_that_comes_again() {
        let later = Outcome::Later(Reason::new("time", ""));
        let outcomes = vec![Outcome::Retry(busy()), later, Outcome::Delivered];
        let verdict = work(0..5).judge(Delivery::Each(outcomes), 0);
        assert_eq!(seqs(&verdict.again[0]), [0, 1, 3, 4]);
        assert_eq!(verdict.again[0].tried, [1, 0, 0, 0]);
    }

    #[test]
    fn refused_is_halved_down_to_the_one_that_is_to_blame() {
        let mut queue = std::collections::VecDeque::from([work(0..1000)]);
        let (mut taken, mut dead, mut asked) = (Vec::new(), Vec::new(), 0);
        while let Some(next) = queue.pop_front() {
            asked += 1;
            let bad = next.events.iter().any(|event| event.seq == 617);
            let delivery = match bad {
                true => Delivery::Refused(Reason::new("bad", "")),
                false => Delivery::All,
            };
            let verdict = next.judge(delivery, 0);
            taken.extend(verdict.taken);
            dead.extend(verdict.dead);
            for again in verdict.again.into_iter().rev() {
                queue.push_front(again);
            }
        }
        assert_eq!(taken, (0..1000).filter(|n| *n != 617).collect::<Vec<_>>());
        assert_eq!(dead.len(), 1);
        assert!(asked <= 21, "{asked} requests");
    }

    #[test]
    fn a_single_event_that_is_too_large_is_oversize() {
        let verdict = work(3..4).judge(Delivery::TooLarge(Reason::new("status_413", "")), 0);
        assert_eq!(verdict.dead[0].why, Reason::new(OVERSIZE, "status_413"));
    }

    #[test]
    fn notices_and_attempts_stay_with_their_half() {
        let mut noted = work(0..4);
        noted.notices = vec![1, 2];
        noted.tried = vec![1, 2, 3, 4];
        let [left, right] = noted.halves();
        assert_eq!((left.notices, right.notices), (vec![1], vec![2]));
        assert_eq!((left.tried, right.tried), (vec![1, 2], vec![3, 4]));
    }
}
