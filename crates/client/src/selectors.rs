//! Building the selectors of a v2 subscription.

use loggregator_proto::v2::selector::Message;
use loggregator_proto::v2::{
    CounterSelector, EgressBatchRequest, EventSelector, GaugeSelector, LogSelector, Selector,
    TimerSelector,
};

/// What a v2 subscription asks for. Each call adds a selector; an envelope is delivered when any of them matches.
///
/// ```
/// # use loggregator_client::Selectors;
/// let request = Selectors::new().logs_of("app-1").counters_named("requests").shard("my-nozzle").request();
/// assert_eq!(request.selectors.len(), 2);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Selectors {
    request: EgressBatchRequest,
}

impl Selectors {
    /// Nothing selected yet: such a subscription is accepted and receives nothing.
    #[must_use]
    pub fn new() -> Selectors {
        Selectors {
            request: EgressBatchRequest {
                use_preferred_tags: true,
                ..Default::default()
            },
        }
    }

    /// Everything of every source: logs, counters, gauges, timers and events.
    #[must_use]
    pub fn everything() -> Selectors {
        Selectors::new().everything_of("")
    }

    /// Everything of one source; the empty text means any source.
    #[must_use]
    pub fn everything_of(self, source_id: &str) -> Selectors {
        self.select(source_id, Message::Log(LogSelector {}))
            .select(source_id, Message::Counter(CounterSelector::default()))
            .select(source_id, Message::Gauge(GaugeSelector::default()))
            .select(source_id, Message::Timer(TimerSelector {}))
            .select(source_id, Message::Event(EventSelector {}))
    }

    /// Logs of every source.
    #[must_use]
    pub fn logs(self) -> Selectors {
        self.logs_of("")
    }

    /// Logs of one source.
    #[must_use]
    pub fn logs_of(self, source_id: &str) -> Selectors {
        self.select(source_id, Message::Log(LogSelector {}))
    }

    /// Counters of every source.
    #[must_use]
    pub fn counters(self) -> Selectors {
        self.counters_named("")
    }

    /// Counters of exactly this name, of every source.
    #[must_use]
    pub fn counters_named(self, name: &str) -> Selectors {
        self.select(
            "",
            Message::Counter(CounterSelector {
                name: name.to_owned(),
            }),
        )
    }

    /// Gauges of every source.
    #[must_use]
    pub fn gauges(self) -> Selectors {
        self.select("", Message::Gauge(GaugeSelector::default()))
    }

    /// Gauges whose set of metric names is exactly this one, of every source.
    #[must_use]
    pub fn gauges_named<'a>(self, names: impl IntoIterator<Item = &'a str>) -> Selectors {
        let names = names.into_iter().map(str::to_owned).collect();
        self.select("", Message::Gauge(GaugeSelector { names }))
    }

    /// Timers of every source.
    #[must_use]
    pub fn timers(self) -> Selectors {
        self.select("", Message::Timer(TimerSelector {}))
    }

    /// Events of every source.
    #[must_use]
    pub fn events(self) -> Selectors {
        self.select("", Message::Event(EventSelector {}))
    }

    /// Any selector of the protocol.
    #[must_use]
    pub fn select(mut self, source_id: &str, message: Message) -> Selectors {
        self.request.selectors.push(Selector {
            source_id: source_id.to_owned(),
            message: Some(message),
        });
        self
    }

    /// Share the envelopes with all other subscriptions of this shard id: each envelope goes to one of them.
    #[must_use]
    pub fn shard(mut self, shard_id: &str) -> Selectors {
        self.request.shard_id = shard_id.to_owned();
        self
    }

    /// Within the shard, give each metric name always to the same member, chosen by the members' names.
    #[must_use]
    pub fn deterministic(mut self, name: &str) -> Selectors {
        self.request.deterministic_name = name.to_owned();
        self
    }

    /// The request to subscribe with.
    #[must_use]
    pub fn request(self) -> EgressBatchRequest {
        self.request
    }
}

impl From<Selectors> for EgressBatchRequest {
    fn from(selectors: Selectors) -> EgressBatchRequest {
        selectors.request
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_firehose_asks_for_every_kind_once() {
        let request = Selectors::everything()
            .shard("nozzle")
            .deterministic("n-0")
            .request();
        let kinds: Vec<_> = request
            .selectors
            .iter()
            .map(|s| s.message.clone().unwrap())
            .collect();
        assert_eq!(kinds.len(), 5);
        assert!(
            kinds
                .iter()
                .enumerate()
                .all(|(i, kind)| !kinds[..i].contains(kind))
        );
        assert!(request.selectors.iter().all(|s| s.source_id.is_empty()));
        assert_eq!(
            (
                request.shard_id.as_str(),
                request.deterministic_name.as_str()
            ),
            ("nozzle", "n-0")
        );
    }

    #[test]
    fn names_and_sources_are_kept() {
        let request = Selectors::new()
            .logs_of("a")
            .gauges_named(["cpu", "memory"])
            .request();
        assert_eq!(request.selectors[0].source_id, "a");
        let Some(Message::Gauge(gauge)) = &request.selectors[1].message else {
            panic!("{request:?}")
        };
        assert_eq!(gauge.names, ["cpu", "memory"]);
    }
}
