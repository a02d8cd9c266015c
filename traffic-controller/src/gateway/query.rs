//! What a query asks for: the parameters of `/v2/read` as an `EgressBatchRequest`.

use std::borrow::Cow;

use loggregator_proto::v2::selector::Message;
use loggregator_proto::v2::{
    CounterSelector, EgressBatchRequest, EventSelector, GaugeSelector, LogSelector, Selector,
    TimerSelector,
};

use crate::gateway::answers::Refusal;
use crate::urls;

/// The parameters that mean something, as they stand in the query.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query<'a> {
    /// Whether there is any parameter at all, known or not.
    any: bool,
    shard_id: Option<Text<'a>>,
    deterministic_name: Option<Text<'a>>,
    source_ids: Vec<Text<'a>>,
    log: bool,
    counter: bool,
    counter_names: Vec<Text<'a>>,
    gauge: bool,
    gauge_names: Vec<Text<'a>>,
    timer: bool,
    event: bool,
}

/// A decoded value, which may be no text.
type Text<'a> = Cow<'a, [u8]>;

impl<'a> Query<'a> {
    /// Reads a query. Names are exact; of those that may stand once the first counts; unknown ones are passed over.
    pub(crate) fn parse(query: &'a str) -> Self {
        let mut parsed = Self::default();
        for (name, value) in urls::pairs(query) {
            parsed.any = true;
            match &*name {
                b"shard_id" => keep_first(&mut parsed.shard_id, value),
                b"deterministic_name" => keep_first(&mut parsed.deterministic_name, value),
                b"source_id" => parsed.source_ids.push(value),
                b"log" => parsed.log = true,
                b"counter" => parsed.counter = true,
                b"counter.name" => parsed.counter_names.push(value),
                b"gauge" => parsed.gauge = true,
                b"gauge.name" => parsed.gauge_names.push(value),
                b"timer" => parsed.timer = true,
                b"event" => parsed.event = true,
                _ => {}
            }
        }
        parsed
    }

    /// The source ids, for whoever judges access. One that is no text cannot be mistaken for one that is.
    pub(crate) fn source_ids(&self) -> Vec<String> {
        self.source_ids
            .iter()
            .map(|id| String::from_utf8_lossy(id).into_owned())
            .collect()
    }

    /// The request for a reverse log proxy: every source id with every selector, at most `max_selectors` of them.
    pub(crate) fn request(&self, max_selectors: usize) -> Result<EgressBatchRequest, Refusal> {
        if !self.any {
            return Err(Refusal::EmptyQuery);
        }
        let messages = self.messages()?;
        if messages.is_empty() {
            return Err(Refusal::MissingEnvelopeType);
        }
        if messages.len().saturating_mul(self.source_ids.len().max(1)) > max_selectors {
            return Err(Refusal::TooManySelectors);
        }
        let every_source = [Cow::Borrowed(&b""[..])];
        let sources: &[Text<'_>] = match &self.source_ids[..] {
            [] => &every_source,
            ids => ids,
        };
        let mut selectors = Vec::with_capacity(sources.len() * messages.len());
        for source in sources {
            let source_id = text(source)?;
            selectors.extend(messages.iter().map(|message| Selector {
                source_id: source_id.clone(),
                message: Some(message.clone()),
            }));
        }
        let first = |value: &Option<Text<'_>>| value.as_ref().map_or(Ok(String::new()), text);
        Ok(EgressBatchRequest {
            shard_id: first(&self.shard_id)?,
            deterministic_name: first(&self.deterministic_name)?,
            use_preferred_tags: true,
            selectors,
            legacy_selector: None,
        })
    }

    /// What each source is asked for, in the order in which the Go gateway asks. A name does away with the selector
    /// without one.
    fn messages(&self) -> Result<Vec<Message>, Refusal> {
        let mut messages = Vec::new();
        if self.log {
            messages.push(Message::Log(LogSelector {}));
        }
        for name in &self.counter_names {
            messages.push(Message::Counter(CounterSelector { name: text(name)? }));
        }
        if self.counter && self.counter_names.is_empty() {
            messages.push(Message::Counter(CounterSelector::default()));
        }
        for names in &self.gauge_names {
            let names = text(names)?.split(',').map(str::to_owned).collect();
            messages.push(Message::Gauge(GaugeSelector { names }));
        }
        if self.gauge && self.gauge_names.is_empty() {
            messages.push(Message::Gauge(GaugeSelector::default()));
        }
        if self.timer {
            messages.push(Message::Timer(TimerSelector {}));
        }
        if self.event {
            messages.push(Message::Event(EventSelector {}));
        }
        Ok(messages)
    }
}

fn keep_first<'a>(kept: &mut Option<Text<'a>>, value: Text<'a>) {
    if kept.is_none() {
        *kept = Some(value);
    }
}

/// What cannot stand in a protobuf string can be asked of nobody.
fn text(value: &Text<'_>) -> Result<String, Refusal> {
    match std::str::from_utf8(value) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(Refusal::NotUtf8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: usize = 1000;

    fn request(query: &str) -> Result<EgressBatchRequest, Refusal> {
        Query::parse(query).request(MANY)
    }

    /// A request's selectors, one word each: `source:kind` with the names in brackets.
    fn selectors(query: &str) -> Vec<String> {
        let request = request(query).unwrap();
        assert!(request.use_preferred_tags && request.legacy_selector.is_none());
        let word = |selector: &Selector| {
            let message = match selector.message.as_ref().unwrap() {
                Message::Log(_) => "log".to_owned(),
                Message::Counter(counter) => format!("counter[{}]", counter.name),
                Message::Gauge(gauge) => format!("gauge{:?}", gauge.names),
                Message::Timer(_) => "timer".to_owned(),
                Message::Event(_) => "event".to_owned(),
            };
            format!("{}:{message}", selector.source_id)
        };
        request.selectors.iter().map(word).collect()
    }

    #[test]
    fn every_parameter_and_its_edge_cases() {
        for (query, expected) in [
            // Presence alone counts.
            ("log", &[":log"][..]),
            ("log=", &[":log"]),
            ("log=false", &[":log"]),
            ("log&log", &[":log"]),
            ("timer&event", &[":timer", ":event"]),
            // The order is fixed, whatever the query's.
            (
                "event&timer&gauge&counter&log",
                &[":log", ":counter[]", ":gauge[]", ":timer", ":event"],
            ),
            // A name does away with the selector without one; a bare name is the empty name.
            ("counter", &[":counter[]"]),
            ("counter&counter.name=a", &[":counter[a]"]),
            (
                "counter.name=a&counter.name=b",
                &[":counter[a]", ":counter[b]"],
            ),
            ("counter.name", &[":counter[]"]),
            ("counter.name=a,b", &[":counter[a,b]"]),
            ("gauge", &[":gauge[]"]),
            ("gauge&gauge.name=a", &[r#":gauge["a"]"#]),
            ("gauge.name=a,b", &[r#":gauge["a", "b"]"#]),
            (
                "gauge.name=a&gauge.name=b,c",
                &[r#":gauge["a"]"#, r#":gauge["b", "c"]"#],
            ),
            ("gauge.name", &[r#":gauge[""]"#]),
            ("gauge.name=a,,", &[r#":gauge["a", "", ""]"#]),
            // Each source has all selectors; an empty one is every source.
            ("source_id=x&log", &["x:log"]),
            (
                "log&source_id=x&counter&source_id=y",
                &["x:log", "x:counter[]", "y:log", "y:counter[]"],
            ),
            ("source_id=&log", &[":log"]),
            ("source_id&log", &[":log"]),
            ("source_id=x&source_id=x&log", &["x:log", "x:log"]),
            // Decoded, and only in this spelling.
            ("source_id=a%20b+c%2B&l%6fg", &["a b c+:log"]),
            ("source_id=%E2%82%AC&log", &["€:log"]),
            ("LOG&Source_Id=x&event", &[":event"]),
            // Pairs that Go drops.
            ("log;counter&event", &[":event"]),
            ("source_id=%zz&log", &[":log"]),
            ("log=%&timer", &[":timer"]),
            ("&&log&", &[":log"]),
            ("unknown=1&log", &[":log"]),
        ] {
            assert_eq!(selectors(query), expected, "{query}");
        }
    }

    #[test]
    fn of_shard_and_name_the_first_counts() {
        let shard = request("log&shard_id=a&shard_id=b&deterministic_name=c&deterministic_name=d");
        let shard = shard.unwrap();
        assert_eq!((&*shard.shard_id, &*shard.deterministic_name), ("a", "c"));
        let empty = request("log&shard_id=&shard_id=b").unwrap();
        assert_eq!((&*empty.shard_id, &*empty.deterministic_name), ("", ""));
    }

    #[test]
    fn what_is_refused_and_as_what() {
        for (query, refusal) in [
            ("", Refusal::EmptyQuery),
            ("&", Refusal::EmptyQuery),
            ("log;counter", Refusal::EmptyQuery),
            ("log=%zz", Refusal::EmptyQuery),
            ("unknown", Refusal::MissingEnvelopeType),
            ("LOG", Refusal::MissingEnvelopeType),
            ("source_id=x", Refusal::MissingEnvelopeType),
            (
                "shard_id=x&deterministic_name=y",
                Refusal::MissingEnvelopeType,
            ),
            ("source_id=%FF&log", Refusal::NotUtf8),
            ("shard_id=%FF&log", Refusal::NotUtf8),
            ("deterministic_name=%FF&log", Refusal::NotUtf8),
            ("counter.name=%FF", Refusal::NotUtf8),
            ("gauge.name=a,%FF", Refusal::NotUtf8),
        ] {
            assert_eq!(request(query).unwrap_err(), refusal, "{query}");
        }
    }

    #[test]
    fn the_product_of_sources_and_selectors_is_bounded() {
        let query = Query::parse("source_id=a&source_id=b&log&event");
        assert_eq!(query.request(4).unwrap().selectors.len(), 4);
        assert_eq!(query.request(3).unwrap_err(), Refusal::TooManySelectors);
        assert_eq!(
            Query::parse("log&event").request(1).unwrap_err(),
            Refusal::TooManySelectors
        );
    }

    #[test]
    fn access_is_asked_about_the_ids_as_they_are_read() {
        let ids = |query| Query::parse(query).source_ids();
        assert_eq!(ids("log"), Vec::<String>::new());
        assert_eq!(
            ids("source_id=a%2Fb&source_id=&source_id=a"),
            ["a/b", "", "a"]
        );
        assert_eq!(ids("source_id=a%FF"), ["a\u{fffd}"]);
    }
}
