//! What a request asks for, made regular: wildcard kinds, and selections that name a source or a metric.

use loggregator_envelope::{Entry, EnvelopeRef, Frame, Kind, KindSet};
use loggregator_proto::{plumbing, v2};
use smallvec::SmallVec;

/// Which form a subscription is served in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Api {
    /// dropsonde envelopes (`plumbing.Doppler`).
    V1,
    /// loggregator v2 envelopes (`loggregator.v2.Egress`).
    V2,
}

impl Api {
    /// `v1` or `v2`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// The normal form of a request's selectors. An envelope matches at most one part of it, so it is delivered once
/// however many selectors of the request name it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Kinds wanted of every source.
    pub(crate) kinds: KindSet,
    /// What is wanted besides: never a kind that `kinds` has, never twice the same.
    pub(crate) selections: Vec<Wish>,
}

/// One selector that names a source, a metric, or both.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Wish {
    /// Exactly this source id; `None` for any.
    pub(crate) source_id: Option<Box<str>>,
    pub(crate) of: Of,
}

/// The part of a [`Wish`] that looks at the message.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Of {
    /// Any envelope of that kind.
    Any(KindName),
    /// A counter of exactly that name.
    Counter(Box<str>),
    /// A gauge whose metric names are exactly this set (sorted).
    Gauge(Vec<Box<str>>),
    /// What v1 clients see under an application's id: its logs, container metrics and HTTP requests.
    App,
}

/// [`Kind`] with an order, for sorting wishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum KindName {
    Log,
    Counter,
    Gauge,
    Timer,
    Event,
}

impl KindName {
    const fn kind(self) -> Kind {
        match self {
            Self::Log => Kind::Log,
            Self::Counter => Kind::Counter,
            Self::Gauge => Kind::Gauge,
            Self::Timer => Kind::Timer,
            Self::Event => Kind::Event,
        }
    }
}

/// Which v1 envelopes of a converted frame a v1 subscription takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct V1Filter {
    /// Only this app id; empty for any.
    pub(crate) app_id: Box<str>,
    /// Only logs (`Some(true)`), only what is not a log (`Some(false)`), or both.
    pub(crate) logs: Option<bool>,
}

/// The app id under which everything lies that has no application of its own.
pub(crate) const SYSTEM: &str = "system";

// === impl Wanted ===

impl Wanted {
    /// From a v2 request. A selector without a message is ignored, as in the Go router; so are `legacy_selector` and
    /// `use_preferred_tags`.
    pub(crate) fn from_v2(selectors: &[v2::Selector]) -> Self {
        let mut wanted = Self::default();
        let mut wishes: Vec<Wish> = Vec::new();
        for selector in selectors {
            let Some(message) = &selector.message else {
                continue;
            };
            let of = of_message(message);
            match (&selector.source_id[..], of) {
                ("", Of::Any(kind)) => wanted.kinds.insert(kind.kind()),
                ("", of) => wishes.push(Wish {
                    source_id: None,
                    of,
                }),
                (source, of) => wishes.push(Wish {
                    source_id: Some(source.into()),
                    of,
                }),
            }
        }
        wishes.retain(|wish| !wanted.kinds.is_superset(wish.of.kinds()));
        wishes.sort();
        wishes.dedup();
        let all = wishes.clone();
        wishes.retain(|wish| !all.iter().any(|other| other != wish && other.covers(wish)));
        wanted.selections = wishes;
        wanted
    }

    /// From a v1 request: the wildcard kinds or the one application, and the filter on the converted form.
    pub(crate) fn from_v1(filter: Option<&plumbing::Filter>) -> (Self, V1Filter) {
        let app_id = filter.map_or("", |f| f.app_id.as_str());
        let logs = match filter.and_then(|f| f.message.as_ref()) {
            Some(plumbing::filter::Message::Log(_)) => Some(true),
            Some(plumbing::filter::Message::Metric(_)) => Some(false),
            None => None,
        };
        let filter = V1Filter {
            app_id: app_id.into(),
            logs,
        };
        let mut wanted = Self::default();
        if app_id.is_empty() || app_id == SYSTEM {
            // Logs may turn out to be dropsonde errors, which count as metrics: the converted form decides.
            for kind in [Kind::Log, Kind::Counter, Kind::Gauge, Kind::Timer] {
                wanted.kinds.insert(kind);
            }
            if logs == Some(true) {
                wanted.kinds = KindSet::of(Kind::Log);
            }
        } else {
            wanted.selections.push(Wish {
                source_id: Some(app_id.into()),
                of: Of::App,
            });
        }
        (wanted, filter)
    }

    /// For people: `log,counter` or `log of app-1`.
    pub(crate) fn describe(&self) -> String {
        let mut parts: Vec<String> = Vec::new();
        if self.kinds.is_superset(ALL_KINDS) {
            parts.push("everything".to_owned());
        } else {
            let names = [
                Kind::Log,
                Kind::Counter,
                Kind::Gauge,
                Kind::Timer,
                Kind::Event,
            ]
            .into_iter()
            .filter(|kind| self.kinds.contains(*kind))
            .map(Kind::name)
            .collect::<Vec<_>>();
            if !names.is_empty() {
                parts.push(names.join("+"));
            }
        }
        const SHOWN: usize = 4;
        parts.extend(self.selections.iter().take(SHOWN).map(Wish::describe));
        if self.selections.len() > SHOWN {
            parts.push(format!("{} more", self.selections.len() - SHOWN));
        }
        if parts.is_empty() {
            "nothing".to_owned()
        } else {
            parts.join(", ")
        }
    }
}

/// The kinds that selectors can name.
const ALL_KINDS: KindSet = kinds(&[
    Kind::Log,
    Kind::Counter,
    Kind::Gauge,
    Kind::Timer,
    Kind::Event,
]);

const fn kinds(list: &[Kind]) -> KindSet {
    let mut set = KindSet::EMPTY;
    let mut i = 0;
    while i < list.len() {
        set.insert(list[i]);
        i += 1;
    }
    set
}

fn of_message(message: &v2::selector::Message) -> Of {
    use v2::selector::Message;
    match message {
        Message::Log(_) => Of::Any(KindName::Log),
        Message::Timer(_) => Of::Any(KindName::Timer),
        Message::Event(_) => Of::Any(KindName::Event),
        Message::Counter(counter) if counter.name.is_empty() => Of::Any(KindName::Counter),
        Message::Counter(counter) => Of::Counter(counter.name.as_str().into()),
        Message::Gauge(gauge) if gauge.names.is_empty() => Of::Any(KindName::Gauge),
        Message::Gauge(gauge) => {
            let mut names: Vec<Box<str>> = gauge
                .names
                .iter()
                .map(|name| name.as_str().into())
                .collect();
            names.sort();
            Of::Gauge(names)
        }
    }
}

/// Names of the metrics that together make a gauge a dropsonde `ContainerMetric`.
const CONTAINER_METRICS: [&str; 5] = ["cpu", "memory", "disk", "memory_quota", "disk_quota"];

fn is_container_metric(envelope: &EnvelopeRef<'_>) -> bool {
    let mut found = [false; CONTAINER_METRICS.len()];
    for metric in envelope.gauge() {
        if let Some(at) = CONTAINER_METRICS
            .iter()
            .position(|known| *known == metric.name)
        {
            found[at] = true;
        }
    }
    found.iter().all(|found| *found)
}

/// How many dropsonde envelopes a gauge is: one per metric, or one in all if it is a container metric.
pub(crate) fn v1_gauge_count(envelope: &EnvelopeRef<'_>) -> u64 {
    let metrics = envelope.gauge().count() as u64;
    if metrics > 1 && is_container_metric(envelope) {
        1
    } else {
        metrics
    }
}

/// Exact set equality, as the Go router has it: a list that repeats a name matches nothing, and the list of one empty
/// name also matches a gauge without metrics.
fn gauge_names_are(envelope: &EnvelopeRef<'_>, wanted: &[Box<str>]) -> bool {
    let mut names: SmallVec<[&str; 8]> = envelope.gauge().map(|metric| metric.name).collect();
    names.sort_unstable();
    names.dedup();
    let equal = names.len() == wanted.len()
        && names
            .iter()
            .zip(wanted)
            .all(|(have, want)| *have == &**want);
    equal || (names.is_empty() && matches!(wanted, [only] if only.is_empty()))
}

// === impl Wish ===

impl Wish {
    /// Whether an envelope of the right source matches.
    pub(crate) fn matches(&self, frame: &Frame, entry: &Entry) -> bool {
        let kind = entry.kind();
        match &self.of {
            Of::Any(name) => name.kind() == kind,
            Of::App => match kind {
                Kind::Log | Kind::Timer => true,
                Kind::Gauge => is_container_metric(&frame.envelope(entry)),
                _ => false,
            },
            Of::Counter(name) => {
                kind == Kind::Counter
                    && frame
                        .envelope(entry)
                        .counter()
                        .is_some_and(|counter| counter.name == &**name)
            }
            Of::Gauge(names) => {
                kind == Kind::Gauge && gauge_names_are(&frame.envelope(entry), names)
            }
        }
    }

    /// Whether everything that `other` matches is matched by this one too.
    fn covers(&self, other: &Self) -> bool {
        let source = self.source_id.is_none() || self.source_id == other.source_id;
        let of = match (&self.of, &other.of) {
            (Of::Any(kind), of) => KindSet::of(kind.kind()).is_superset(of.kinds()),
            (mine, theirs) => mine == theirs,
        };
        source && of
    }

    fn describe(&self) -> String {
        let of = match &self.of {
            Of::Any(kind) => kind.kind().name().to_owned(),
            Of::Counter(name) => format!("counter {name}"),
            Of::Gauge(names) => format!("gauge {}", names.join("+")),
            Of::App => "app".to_owned(),
        };
        match &self.source_id {
            Some(source) => format!("{of} of {source}"),
            None => of,
        }
    }
}

impl Of {
    /// The kinds that can match.
    fn kinds(&self) -> KindSet {
        match self {
            Self::Any(kind) => KindSet::of(kind.kind()),
            Self::Counter(_) => KindSet::of(Kind::Counter),
            Self::Gauge(_) => KindSet::of(Kind::Gauge),
            Self::App => kinds(&[Kind::Log, Kind::Timer, Kind::Gauge]),
        }
    }
}
