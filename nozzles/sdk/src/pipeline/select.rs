//! What of that which was read goes to the destination.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use loggregator_envelope::KindSet;
use tokio::time::Instant;

use super::settle::{Class, Fate, Window};
use super::state::State;
use crate::enrich::Directory;
use crate::event::Event;
use crate::filter::Filter;
use crate::quota::{QUOTA, Quota, Ruling};

/// Rule that left out what the kind of destination can do nothing with.
pub(crate) const KIND: &str = "kind";
/// Rule that left out what the destination's filter does not hold for.
pub(crate) const FILTER: &str = "filter";
/// After so many events a filter that matched none of them, or all, is told in the log.
const SUSPICIOUS: u64 = 10_000;

/// Kinds, names, filter, quota; in this order, since a filter may ask for names.
pub(crate) struct Select {
    pub accepts: KindSet,
    pub filter: Filter,
    /// The filter's text, if there is one.
    pub text: Option<String>,
    pub directory: Option<Arc<dyn Directory>>,
    pub quota: Option<Quota>,
    /// Events below this number were delivered by an earlier process.
    pub resume: u64,
    told: bool,
}

/// What goes on.
#[derive(Debug, Default)]
pub(crate) struct Selected {
    /// In the order of their numbers.
    pub events: Vec<Event>,
    /// Numbers of those that are notices of a quota.
    pub notices: Vec<u64>,
    /// What the quota left out.
    pub over: Vec<Event>,
}

impl Select {
    pub(crate) fn new(accepts: KindSet, filter: Filter, text: Option<String>) -> Select {
        Select {
            accepts,
            filter,
            text,
            directory: None,
            quota: None,
            resume: 0,
            told: false,
        }
    }

    /// Sorts what was read. What does not go on is settled, except for an event in whose place a notice goes on.
    pub(crate) fn select(
        &mut self,
        events: Vec<Event>,
        window: &mut Window,
        state: &State,
        now: Instant,
    ) -> Selected {
        let kind = window.fate(Class::Filtered, KIND);
        let filter = window.fate(Class::Filtered, FILTER);
        let mut wanted = Vec::with_capacity(events.len());
        let mut unmatched = 0;
        let any = self.accepts == KindSet::ALL;
        for event in events {
            if !any && !self.accepts.contains(event.envelope().kind()) {
                window.settle(event.seq, kind);
                continue;
            }
            let event = self.named(event);
            if !self.filter.matches(&event) {
                unmatched += 1;
                window.settle(event.seq, filter);
            } else if event.seq < self.resume {
                window.settle(event.seq, Fate::DELIVERED);
            } else {
                wanted.push(event);
            }
        }
        state.unmatched.fetch_add(unmatched, Ordering::Relaxed);
        state
            .matched
            .fetch_add(wanted.len() as u64, Ordering::Relaxed);
        self.ration(wanted, window, now)
    }

    fn named(&self, event: Event) -> Event {
        match &self.directory {
            None => event,
            Some(directory) => {
                let names = directory.names(&event);
                event.with_names(names)
            }
        }
    }

    fn ration(&mut self, wanted: Vec<Event>, window: &mut Window, now: Instant) -> Selected {
        let Some(quota) = &mut self.quota else {
            return Selected {
                events: wanted,
                ..Selected::default()
            };
        };
        let over = window.fate(Class::Dropped, QUOTA);
        let mut selected = Selected::default();
        for ruling in quota.rule(wanted, now) {
            match ruling {
                Ruling::Pass(event) => selected.events.push(event),
                Ruling::Drop(event) => {
                    window.settle(event.seq, over);
                    selected.over.push(event);
                }
                Ruling::Notice { dropped, notice } => {
                    selected.over.push(dropped);
                    selected.notices.push(notice.seq);
                    selected.events.push(notice);
                }
            }
        }
        selected
    }

    /// A filter that holds for nothing, or for everything, is probably not what was meant: said once.
    pub(crate) fn suspect(&mut self, destination: &str, state: &State) {
        let Some(text) = &self.text else {
            return;
        };
        let what = suspicion(state);
        if let (Some(what), false) = (what, self.told) {
            self.told = true;
            tracing::warn!(
                destination,
                filter = text,
                "the filter matched {what} of the first {SUSPICIOUS} events"
            );
        }
    }
}

/// `none` or `all`, when a filter has seen enough and matched so much of it.
pub(crate) fn suspicion(state: &State) -> Option<&'static str> {
    let matched = state.matched.load(Ordering::Relaxed);
    let unmatched = state.unmatched.load(Ordering::Relaxed);
    match (matched, unmatched) {
        (0, SUSPICIOUS..) => Some("none"),
        (SUSPICIOUS.., 0) => Some("all"),
        _ => None,
    }
}
