//! Lanes, work and window against a naive model: random outcomes, any number of batches on their way, landing in any order.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::lanes::Lanes;
use super::settle::{Class, Fate, Window};
use super::work::Work;
use crate::account::Account;
use crate::destination::{Delivery, Outcome, Reason};
use crate::event::Event;

/// What a destination does next, whatever it gets.
#[derive(Debug, Clone)]
enum Answer {
    All,
    /// Per event, over and over: 0 delivered, 1 retry, 2 rejected, 3 oversize, 4 later.
    Each(Vec<u8>),
    Retry,
    Refused,
    TooLarge,
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        4 => Just(Answer::All),
        2 => prop::collection::vec(0..5_u8, 1..6).prop_map(Answer::Each),
        2 => Just(Answer::Retry),
        1 => Just(Answer::Refused),
        1 => Just(Answer::TooLarge),
    ]
}

impl Answer {
    fn to(&self, work: &Work) -> Delivery {
        let why = || Reason::new("why", "");
        match self {
            Answer::All => Delivery::All,
            Answer::Each(pattern) => {
                let outcome = |n: &u8| match n {
                    0 => Outcome::Delivered,
                    1 => Outcome::Retry(why()),
                    4 => Outcome::Later(why()),
                    2 => Outcome::Rejected(why()),
                    _ => Outcome::Oversize(why()),
                };
                let each = pattern.iter().cycle().take(work.events.len());
                Delivery::Each(each.map(outcome).collect())
            }
            Answer::Retry => Delivery::Retry {
                why: why(),
                after: None,
            },
            Answer::Refused => Delivery::Refused(why()),
            Answer::TooLarge => Delivery::TooLarge(why()),
        }
    }
}

/// The naive model: what is known of each event, and nothing clever.
#[derive(Default)]
struct Model {
    settled: BTreeMap<u64, &'static str>,
    flying: BTreeSet<u64>,
    delivered_by_source: BTreeMap<u64, Vec<u64>>,
}

const SOURCES: u64 = 3;

impl Model {
    /// When an event is sent, every earlier one of its source is settled, on its way, or in the same batch.
    fn sent(&mut self, work: &Work) {
        let seqs: Vec<u64> = work.events.iter().map(|event| event.seq).collect();
        assert!(seqs.is_sorted_by(|a, b| a < b), "in order: {seqs:?}");
        self.flying.extend(&seqs);
        for seq in seqs {
            assert!(!self.settled.contains_key(&seq), "{seq} was settled");
            let earlier = (0..seq).filter(|earlier| earlier % SOURCES == seq % SOURCES);
            for earlier in earlier {
                let known = self.settled.contains_key(&earlier) || self.flying.contains(&earlier);
                assert!(known, "{seq} overtakes {earlier}");
            }
        }
    }

    fn settle(&mut self, seq: u64, how: &'static str) {
        assert!(self.settled.insert(seq, how).is_none(), "{seq} twice");
        if how == "delivered" {
            let source = self.delivered_by_source.entry(seq % SOURCES);
            source.or_default().push(seq);
        }
    }

    fn next(&self) -> u64 {
        let mut next = 0;
        while self.settled.contains_key(&next) {
            next += 1;
        }
        next
    }

    fn count(&self, how: &str, below: u64) -> u64 {
        self.settled
            .range(..below)
            .filter(|(_, h)| **h == how)
            .count() as u64
    }
}

fn check(window: &mut Window, model: &Model) {
    window.advance();
    let next = model.next();
    assert_eq!(window.next(), next);
    let account = window.account();
    assert_eq!(account.total(), next);
    assert_eq!(account.delivered, model.count("delivered", next));
    let dead = account.dead_lettered.values().sum::<u64>();
    assert_eq!(dead, model.count("dead", next));
    let filtered = account.filtered.values().sum::<u64>();
    assert_eq!(filtered, model.count("filtered", next));
    let dropped = account.dropped.values().sum::<u64>();
    assert_eq!(dropped, model.count("dropped", next));
}

/// Runs `events` events through, `limit` at a time; returns the model at the end.
fn run(events: u64, batch: usize, limit: usize, answers: &[Answer], picks: &[usize]) -> Model {
    let mut model = Model::default();
    let mut window = Window::new(0, Account::default());
    let mut lanes = Lanes::default();
    let mut building = Work::default();
    for seq in 0..events {
        // Every seventh is filtered out, and of every 31 four in a row are lost.
        if (20..24).contains(&(seq % 31)) {
            if seq % 31 == 20 {
                let fate = window.fate(Class::Dropped, "backlog_full");
                window.lose(seq..(seq + 4).min(events), fate);
            }
            model.settle(seq, "dropped");
            continue;
        }
        if seq % 7 == 3 {
            let fate = window.fate(Class::Filtered, "filter");
            assert!(window.settle(seq, fate));
            model.settle(seq, "filtered");
            continue;
        }
        building.events.push(Event::new(seq, 0, Bytes::new()));
        if building.events.len() == batch {
            lanes.push(std::mem::take(&mut building));
        }
    }
    if !building.events.is_empty() {
        lanes.push(building);
    }
    let mut flying: Vec<Work> = Vec::new();
    let mut answers = answers
        .iter()
        .cloned()
        .chain(std::iter::repeat(Answer::All));
    let mut picks = picks.iter().copied().cycle();
    while !lanes.is_empty() {
        while lanes.may_send(limit) {
            let work = lanes.send().unwrap();
            model.sent(&work);
            flying.push(work);
        }
        assert!(flying.len() <= limit && lanes.flying() == flying.len());
        let work = flying.swap_remove(picks.next().unwrap() % flying.len());
        let delivery = answers.next().unwrap().to(&work);
        let first = work.first();
        for event in &work.events {
            model.flying.remove(&event.seq);
        }
        let verdict = work.judge(delivery, 0);
        for seq in verdict.taken {
            assert!(window.settle(seq, Fate::DELIVERED));
            model.settle(seq, "delivered");
        }
        for dead in verdict.dead {
            let fate = window.fate(Class::DeadLettered, &dead.why.code);
            assert!(window.settle(dead.event.seq, fate));
            model.settle(dead.event.seq, "dead");
        }
        lanes.landed(first, verdict.again);
        check(&mut window, &model);
    }
    model
}

proptest! {
    #[test]
    fn every_event_is_settled_once_and_nothing_overtakes(
        events in 0..120_u64,
        batch in 1..20_usize,
        limit in 1..9_usize,
        answers in prop::collection::vec(answer(), 0..40),
        picks in prop::collection::vec(0..8_usize, 1..20),
    ) {
        let model = run(events, batch, limit, &answers, &picks);
        prop_assert_eq!(model.settled.len() as u64, events);
    }

    #[test]
    fn one_at_a_time_keeps_the_order_of_every_source(
        events in 0..120_u64,
        batch in 1..20_usize,
        // Outcomes per event are the destination's own choice of order.
        answers in prop::collection::vec(
            answer().prop_filter("whole batches", |a| !matches!(a, Answer::Each(_))), 0..40),
    ) {
        let model = run(events, batch, 1, &answers, &[0]);
        for delivered in model.delivered_by_source.values() {
            prop_assert!(delivered.is_sorted());
        }
    }
}
