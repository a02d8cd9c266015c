//! What is asked of the dopplers, and what is left out here because they cannot leave it out.

use loggregator_client::Selectors;
use loggregator_envelope::{EnvelopeRef, Kind, KindSet};
use loggregator_proto::v2::selector::Message;
use loggregator_proto::v2::{
    CounterSelector, EgressBatchRequest, EventSelector, GaugeSelector, LogSelector, TimerSelector,
};

use super::IntakeError;
use crate::config::SelectConfig;

/// Bytes of a subscription's name. It stands in URLs and metrics.
const MAX_SHARD_ID: usize = 256;

/// What is asked of the dopplers: one selector for each source and kind. `shard` is the subscription's name unless `select`
/// has one. `kinds` is what the destinations can do something with, and `sources` are the only ones that they want, if
/// that is known; both count where `select` does not say so itself.
///
/// # Errors
/// When `select` names a kind that there is not, nothing is left to ask for, or the subscription cannot have its name.
pub fn request(
    select: &SelectConfig,
    shard: &str,
    kinds: KindSet,
    sources: Option<&[String]>,
) -> Result<EgressBatchRequest, IntakeError> {
    let shard = select.shard_id.as_deref().unwrap_or(shard);
    check_shard_id(shard).map_err(|why| IntakeError::ShardId(shard.to_owned(), why))?;
    let kinds = match select.kinds.as_slice() {
        [] => kinds,
        some => some
            .iter()
            .map(|name| kind(name))
            .collect::<Result<KindSet, _>>()?,
    };
    let kinds = Kind::EACH
        .into_iter()
        .filter(|kind| kinds.contains(*kind) && *kind != Kind::None);
    let kinds: Vec<Message> = kinds.filter_map(selector).collect();
    if kinds.is_empty() {
        return Err(IntakeError::Nothing);
    }
    let mut selectors = Selectors::new().shard(shard);
    if let Some(name) = &select.deterministic_name {
        selectors = selectors.deterministic(name);
    }
    let any = [String::new()];
    let sources = match (select.source_ids.as_slice(), sources) {
        ([], None | Some([])) => &any,
        ([], Some(sources)) => sources,
        (sources, _) => sources,
    };
    let mut sources: Vec<&String> = sources.iter().collect();
    sources.sort();
    sources.dedup();
    for source in sources {
        for message in &kinds {
            selectors = selectors.select(source, message.clone());
        }
    }
    Ok(selectors.request())
}

fn kind(name: &str) -> Result<Kind, IntakeError> {
    let known = Kind::EACH
        .into_iter()
        .find(|kind| kind.name() == name && *kind != Kind::None);
    known.ok_or_else(|| IntakeError::Kind(name.to_owned()))
}

fn selector(kind: Kind) -> Option<Message> {
    Some(match kind {
        Kind::None => return None,
        Kind::Log => Message::Log(LogSelector {}),
        Kind::Counter => Message::Counter(CounterSelector::default()),
        Kind::Gauge => Message::Gauge(GaugeSelector::default()),
        Kind::Timer => Message::Timer(TimerSelector {}),
        Kind::Event => Message::Event(EventSelector {}),
    })
}

pub(super) fn kind_of(message: &Message) -> Kind {
    match message {
        Message::Log(_) => Kind::Log,
        Message::Counter(_) => Kind::Counter,
        Message::Gauge(_) => Kind::Gauge,
        Message::Timer(_) => Kind::Timer,
        Message::Event(_) => Kind::Event,
    }
}

/// A name that is a path's segment and a query's value wherever it goes. Go traffic controllers cut it off at `#` and `?`,
/// and know no such path when there is a `/`, however it is written.
pub(crate) fn check_shard_id(id: &str) -> Result<(), &'static str> {
    if id.is_empty() {
        return Err("without a name it keeps no place, and each connection gets everything");
    }
    if id.len() > MAX_SHARD_ID {
        return Err("it is longer than 256 bytes");
    }
    if id == "." || id == ".." || id.contains(['#', '/', '?', '%', '\\']) {
        return Err("it becomes a part of an address and may have none of # / ? % \\");
    }
    if id.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("it has blanks or control characters");
    }
    Ok(())
}

/// What was asked for, where the other side sends more.
#[derive(Debug)]
pub(super) struct Selection {
    kinds: KindSet,
    /// Sorted; empty: all.
    sources: Vec<String>,
}

impl Selection {
    pub(super) fn of(request: &EgressBatchRequest) -> Selection {
        let messages = request.selectors.iter().filter_map(|s| s.message.as_ref());
        let kinds = messages.map(kind_of).collect();
        let mut sources: Vec<String> = request
            .selectors
            .iter()
            .map(|s| s.source_id.clone())
            .collect();
        sources.sort();
        sources.dedup();
        if sources.iter().any(String::is_empty) {
            sources.clear();
        }
        Selection { kinds, sources }
    }

    pub(super) fn kinds(&self) -> KindSet {
        self.kinds
    }

    pub(super) fn sources(&self) -> &[String] {
        &self.sources
    }

    /// Whether there is nothing that it leaves out.
    pub(super) fn is_everything(&self) -> bool {
        self.sources.is_empty()
            && Kind::EACH
                .into_iter()
                .all(|kind| kind == Kind::None || self.kinds.contains(kind))
    }

    pub(super) fn matches(&self, envelope: EnvelopeRef<'_>) -> bool {
        self.kinds.contains(envelope.kind())
            && (self.sources.is_empty()
                || self
                    .sources
                    .binary_search_by(|id| id.as_str().cmp(envelope.source_id()))
                    .is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(
        select: &SelectConfig,
        kinds: KindSet,
        sources: Option<&[String]>,
    ) -> Vec<(String, Kind)> {
        let request = request(select, "nozzle", kinds, sources).unwrap();
        assert!(request.use_preferred_tags);
        let selectors = request.selectors.into_iter();
        selectors
            .map(|s| (s.source_id, kind_of(&s.message.unwrap())))
            .collect()
    }

    #[test]
    fn one_selector_for_each_source_and_kind() {
        let mut select = SelectConfig::default();
        let any = |kind| (String::new(), kind);
        let of = |id: &str, kind| (id.to_owned(), kind);
        let all: Vec<_> = Kind::EACH
            .into_iter()
            .filter(|k| *k != Kind::None)
            .map(any)
            .collect();
        assert_eq!(asked(&select, KindSet::ALL, None), all);
        assert_eq!(
            asked(&select, KindSet::of(Kind::Timer), None),
            [any(Kind::Timer)]
        );
        let wanted = ["b".to_owned(), "a".to_owned(), "b".to_owned()];
        assert_eq!(
            asked(&select, KindSet::of(Kind::Log), Some(&wanted)),
            [of("a", Kind::Log), of("b", Kind::Log)]
        );
        select.kinds = vec!["gauge".to_owned(), "log".to_owned(), "log".to_owned()];
        select.source_ids = vec!["c".to_owned()];
        assert_eq!(
            asked(&select, KindSet::of(Kind::Event), Some(&wanted)),
            [of("c", Kind::Log), of("c", Kind::Gauge)]
        );
    }

    #[test]
    fn names_and_what_cannot_be_asked_for() {
        let mut select = SelectConfig::default();
        assert_eq!(
            request(&select, "audit", KindSet::ALL, None)
                .unwrap()
                .shard_id,
            "audit"
        );
        select.shard_id = Some("team-a.prod:1".to_owned());
        select.deterministic_name = Some("audit-0".to_owned());
        let asked = request(&select, "audit", KindSet::ALL, None).unwrap();
        assert_eq!(
            (asked.shard_id.as_str(), asked.deterministic_name.as_str()),
            ("team-a.prod:1", "audit-0")
        );
        for wrong in [
            "",
            "#a",
            "a/b",
            "a?b",
            "a%2Fb",
            "a b",
            "..",
            "a\u{7f}",
            &"x".repeat(257),
        ] {
            select.shard_id = Some(wrong.to_owned());
            let error = request(&select, "audit", KindSet::ALL, None).unwrap_err();
            assert!(
                matches!(error, IntakeError::ShardId(..)),
                "{wrong:?}: {error}"
            );
        }
        select.shard_id = None;
        let error = request(&select, "audit", KindSet::EMPTY, None).unwrap_err();
        assert!(matches!(error, IntakeError::Nothing));
        for wrong in ["logs", "none", "Log", ""] {
            select.kinds = vec![wrong.to_owned()];
            let error = request(&select, "audit", KindSet::ALL, None).unwrap_err();
            assert!(matches!(error, IntakeError::Kind(_)), "{wrong:?}: {error}");
        }
    }
}
