//! Which envelopes a person wants to see.
//!
//! Conditions of different kinds must all hold; of several of one kind one suffices.

use clap::Args;
use globset::{Glob, GlobBuilder, GlobMatcher, GlobSet, GlobSetBuilder};
use loggregator_envelope::{EnvelopeRef, Kind, KindSet};
use regex::bytes::Regex;

/// A kind of envelope, as the command line names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum KindName {
    /// Log lines.
    #[value(alias = "logs")]
    Log,
    /// Counters.
    #[value(alias = "counters")]
    Counter,
    /// Gauges.
    #[value(alias = "gauges")]
    Gauge,
    /// Timers.
    #[value(alias = "timers")]
    Timer,
    /// Events.
    #[value(alias = "events")]
    Event,
}

impl From<KindName> for Kind {
    fn from(name: KindName) -> Self {
        match name {
            KindName::Log => Self::Log,
            KindName::Counter => Self::Counter,
            KindName::Gauge => Self::Gauge,
            KindName::Timer => Self::Timer,
            KindName::Event => Self::Event,
        }
    }
}

/// The filter options that `tail` and `firehose` share.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Filters (all must hold; of one option given several times, any)")]
pub struct FilterArgs {
    /// Only these kinds of envelope: log, counter, gauge, timer, event [default: all]
    #[arg(
        long,
        short = 'k',
        value_name = "KIND",
        value_enum,
        value_delimiter = ',',
        hide_possible_values = true
    )]
    pub kind: Vec<KindName>,
    /// Only these instances of a source, for instance `0`
    #[arg(long, short = 'i', value_name = "ID", value_delimiter = ',')]
    pub instance: Vec<String>,
    /// Only these source types; `app` means `APP` and `APP/…`, globs work, case does not matter
    #[arg(long, short = 't', value_name = "GLOB", value_delimiter = ',', value_parser = source_type_glob)]
    pub source_type: Vec<GlobMatcher>,
    /// Only envelopes with this tag; the value may be a glob
    #[arg(long, value_name = "NAME=GLOB", value_parser = parse_tag)]
    pub tag: Vec<TagGlob>,
    /// Only envelopes whose text (log line, event, metric name) matches this regular expression
    #[arg(long, short = 'e', visible_alias = "grep", value_name = "REGEX")]
    pub text: Vec<Regex>,
    /// Not those whose text matches this one
    #[arg(long, short = 'v', value_name = "REGEX")]
    pub exclude: Vec<Regex>,
}

/// A tag that must be there with a value like this.
#[derive(Debug, Clone)]
pub struct TagGlob {
    name: String,
    value: GlobMatcher,
}

fn parse_tag(text: &str) -> Result<TagGlob, String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("a tag filter has the form NAME=VALUE, for instance app_name=web-*")?;
    let value = Glob::new(value)
        .map_err(|error| error.to_string())?
        .compile_matcher();
    Ok(TagGlob {
        name: name.to_owned(),
        value,
    })
}

fn source_type_glob(text: &str) -> Result<GlobMatcher, globset::Error> {
    // `app` is what people say for `APP/PROC/WEB`.
    let pattern = if text.contains(['*', '?', '[', '{']) {
        text.to_owned()
    } else {
        format!("{{{text},{text}/*}}")
    };
    GlobBuilder::new(&pattern)
        .case_insensitive(true)
        .build()
        .map(|glob| glob.compile_matcher())
}

/// Whether a source argument is a pattern and not simply an id.
pub fn is_glob(source: &str) -> bool {
    source.contains(['*', '?', '[', '{'])
}

/// Source ids and globs, compiled.
///
/// # Errors
/// When one is not a valid glob.
pub fn source_set(patterns: &[String]) -> Result<GlobSet, globset::Error> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(Glob::new(pattern)?);
    }
    set.build()
}

/// A compiled filter.
#[derive(Debug)]
pub struct Filter {
    kinds: KindSet,
    sources: Option<GlobSet>,
    args: FilterArgs,
}

impl Filter {
    /// A filter of these conditions; `sources` as the server could not already select them.
    pub fn new(args: FilterArgs, sources: Option<GlobSet>) -> Self {
        let kinds = if args.kind.is_empty() {
            KindSet::ALL
        } else {
            args.kind.iter().fold(KindSet::EMPTY, |set, kind| {
                set.union(KindSet::of((*kind).into()))
            })
        };
        Self {
            kinds,
            sources,
            args,
        }
    }

    /// The kinds that can pass; what to ask the server for.
    pub fn kinds(&self) -> KindSet {
        self.kinds
    }

    /// Whether the envelope is wanted. Cheap conditions first.
    pub fn passes(&self, envelope: &EnvelopeRef<'_>) -> bool {
        let FilterArgs {
            instance,
            source_type,
            tag,
            text,
            exclude,
            ..
        } = &self.args;
        self.kinds.contains(envelope.kind())
            && self
                .sources
                .as_ref()
                .is_none_or(|set| set.is_match(envelope.source_id()))
            && (instance.is_empty()
                || instance
                    .iter()
                    .any(|wanted| wanted == envelope.instance_id()))
            && (source_type.is_empty() || {
                let actual = envelope.tag("source_type").unwrap_or_default();
                source_type.iter().any(|wanted| wanted.is_match(&*actual))
            })
            && tags_match(tag, envelope)
            && (text.is_empty() || text.iter().any(|wanted| text_matches(wanted, envelope)))
            && !exclude
                .iter()
                .any(|unwanted| text_matches(unwanted, envelope))
    }
}

/// Tags of one name are alternatives; different names must all match.
fn tags_match(wanted: &[TagGlob], envelope: &EnvelopeRef<'_>) -> bool {
    wanted.iter().all(|this| {
        let actual = envelope.tag(&this.name);
        wanted
            .iter()
            .filter(|other| other.name == this.name)
            .any(|other| {
                actual
                    .as_ref()
                    .is_some_and(|actual| other.value.is_match(&**actual))
            })
    })
}

fn text_matches(regex: &Regex, envelope: &EnvelopeRef<'_>) -> bool {
    match envelope.kind() {
        Kind::Log => envelope
            .log()
            .is_some_and(|log| regex.is_match(log.payload)),
        Kind::Counter => envelope
            .counter()
            .is_some_and(|counter| regex.is_match(counter.name.as_bytes())),
        Kind::Gauge => envelope
            .gauge()
            .any(|metric| regex.is_match(metric.name.as_bytes())),
        Kind::Timer => envelope
            .timer()
            .is_some_and(|timer| regex.is_match(timer.name.as_bytes())),
        Kind::Event => envelope.event().is_some_and(|event| {
            regex.is_match(event.title.as_bytes()) || regex.is_match(event.body.as_bytes())
        }),
        Kind::None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use loggregator_client::message::{self, EnvelopeBuilder};
    use prost::Message as _;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        filter: FilterArgs,
    }

    fn passes(flags: &[&str], builder: EnvelopeBuilder) -> bool {
        let args = Flags::try_parse_from(["x"].iter().chain(flags))
            .unwrap()
            .filter;
        let bytes = builder.build().encode_to_vec();
        Filter::new(args, None).passes(&EnvelopeRef::new(&bytes))
    }

    fn line() -> EnvelopeBuilder {
        message::log("GET /products 200")
            .source("shop", "1")
            .source_type("APP/PROC/WEB")
            .tag("env", "prod")
    }

    #[test]
    fn without_conditions_everything_passes() {
        assert!(passes(&[], line()));
        assert!(passes(&[], message::gauge([("cpu", 1.0, "")])));
    }

    #[test]
    fn kinds_are_alternatives() {
        assert!(passes(&["--kind", "counter,log"], line()));
        assert!(passes(&["--kind", "logs"], line()));
        assert!(!passes(&["--kind", "counter"], line()));
    }

    #[test]
    fn source_types_mean_their_family() {
        for matching in ["app", "APP/PROC/WEB", "app/*", "*web", "rtr,app"] {
            assert!(passes(&["--source-type", matching], line()), "{matching}");
        }
        for other in ["rtr", "ap", "app/proc/worker"] {
            assert!(!passes(&["--source-type", other], line()), "{other}");
        }
        assert!(!passes(&["--source-type", "app"], message::log("untagged")));
    }

    #[test]
    fn tags_of_one_name_are_alternatives_and_of_different_names_all_needed() {
        assert!(passes(&["--tag", "env=dev", "--tag", "env=pr*"], line()));
        assert!(!passes(
            &["--tag", "env=prod", "--tag", "region=eu"],
            line()
        ));
        assert!(
            !passes(&["--tag", "region=*"], line()),
            "a tag that is not there has no value"
        );
    }

    #[test]
    fn text_is_searched_in_what_a_person_reads() {
        assert!(passes(&["--text", "products"], line()));
        assert!(!passes(&["--text", "^products"], line()));
        assert!(!passes(
            &["--text", "products", "--exclude", " 200$"],
            line()
        ));
        assert!(passes(
            &["--grep", "^cpu$"],
            message::gauge([("mem", 1.0, ""), ("cpu", 1.0, "")])
        ));
        assert!(passes(&["--text", "v2"], message::event("deployed", "v2")));
    }

    #[test]
    fn instances_and_sources() {
        assert!(passes(&["--instance", "0,1"], line()));
        assert!(!passes(&["--instance", "0"], line()));
        let bytes = line().build().encode_to_vec();
        let only = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
            Filter::new(FilterArgs::default(), Some(source_set(&patterns).unwrap()))
                .passes(&EnvelopeRef::new(&bytes))
        };
        assert!(only(&["sh*"]) && only(&["other", "shop"]) && !only(&["s"]));
    }

    #[test]
    fn a_condition_that_cannot_be_read_is_refused() {
        for wrong in [
            ["--text", "("],
            ["--tag", "novalue"],
            ["--kind", "lgo"],
            ["--tag", "a=[z-"],
        ] {
            assert!(
                Flags::try_parse_from(["x"].iter().chain(&wrong)).is_err(),
                "{wrong:?}"
            );
        }
    }
}
