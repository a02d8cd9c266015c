//! What a client asks for: checked, and brought into the form in which every doppler is asked.

use loggregator_net::grpc::Status;
use loggregator_proto::v2::selector::Message;
use loggregator_proto::v2::{EgressBatchRequest, EgressRequest, Selector};

/// The request as it goes to the dopplers.
///
/// # Errors
/// The status, with its text, of the Go proxy for a request that selects nothing.
pub(crate) fn checked(mut request: EgressBatchRequest) -> Result<EgressBatchRequest, Status> {
    let legacy = request.legacy_selector.take();
    if request.selectors.is_empty() {
        request.selectors.extend(legacy);
    }
    if request.selectors.is_empty() {
        return Err(Status::invalid_argument("Selectors cannot be empty"));
    }
    if request.selectors.iter().any(|one| one.message.is_none()) {
        return Err(Status::invalid_argument("Selectors must have a Message"));
    }
    Ok(request)
}

/// The request of a stream of single envelopes, as one of batches. The Go proxy forgets the deterministic name here; its
/// members of a shard group would then get what they did not ask for.
pub(crate) fn batched(request: EgressRequest) -> EgressBatchRequest {
    EgressBatchRequest {
        shard_id: request.shard_id,
        legacy_selector: request.legacy_selector,
        use_preferred_tags: request.use_preferred_tags,
        selectors: request.selectors,
        deterministic_name: request.deterministic_name,
    }
}

/// Characters of what a client says that stand in the ledger, where a request may have megabytes.
const SHOWN: usize = 256;

/// The selectors in words, for the ledger.
pub(crate) fn describe(selectors: &[Selector]) -> String {
    let mut words = String::new();
    for (i, selector) in selectors.iter().enumerate() {
        if words.len() > SHOWN {
            return format!("{}, and {} more", shown(&words), selectors.len() - i);
        }
        if i > 0 {
            words.push_str(", ");
        }
        words.push_str(&one(selector));
    }
    shown(&words)
}

/// The beginning of a text.
pub(crate) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn one(selector: &Selector) -> String {
    let of = match &selector.message {
        None => "nothing".to_owned(),
        Some(Message::Log(_)) => "log".to_owned(),
        Some(Message::Timer(_)) => "timer".to_owned(),
        Some(Message::Event(_)) => "event".to_owned(),
        Some(Message::Counter(counter)) if counter.name.is_empty() => "counter".to_owned(),
        Some(Message::Counter(counter)) => format!("counter {}", counter.name),
        Some(Message::Gauge(gauge)) if gauge.names.is_empty() => "gauge".to_owned(),
        Some(Message::Gauge(gauge)) => format!("gauge {}", gauge.names.join("+")),
    };
    match selector.source_id.as_str() {
        "" => of,
        source => format!("{of} of {source}"),
    }
}

#[cfg(test)]
mod tests {
    use loggregator_net::grpc::Code;
    use loggregator_proto::v2::{CounterSelector, GaugeSelector, LogSelector};

    use super::*;

    fn selector(source_id: &str, message: Option<Message>) -> Selector {
        Selector {
            source_id: source_id.to_owned(),
            message,
        }
    }

    fn log(source_id: &str) -> Selector {
        selector(source_id, Some(Message::Log(LogSelector {})))
    }

    #[test]
    fn a_legacy_selector_counts_only_when_there_is_no_other() {
        let both = EgressBatchRequest {
            legacy_selector: Some(log("old")),
            selectors: vec![log("new")],
            ..EgressBatchRequest::default()
        };
        let asked = checked(both.clone()).unwrap();
        assert_eq!(asked.selectors, [log("new")]);
        assert_eq!(asked.legacy_selector, None);
        let asked = checked(EgressBatchRequest {
            selectors: Vec::new(),
            ..both
        })
        .unwrap();
        assert_eq!(asked.selectors, [log("old")]);
        assert_eq!(asked.legacy_selector, None);
    }

    #[test]
    fn what_selects_nothing_is_refused_with_the_go_proxys_texts() {
        let refusal = |selectors: Vec<Selector>, legacy_selector| {
            let status = checked(EgressBatchRequest {
                selectors,
                legacy_selector,
                ..EgressBatchRequest::default()
            })
            .unwrap_err();
            assert_eq!(status.code, Code::InvalidArgument);
            status.message
        };
        let bare = || selector("a", None);
        assert_eq!(refusal(Vec::new(), None), "Selectors cannot be empty");
        for (selectors, legacy) in [(vec![log("a"), bare()], None), (Vec::new(), Some(bare()))] {
            assert_eq!(refusal(selectors, legacy), "Selectors must have a Message");
        }
    }

    #[test]
    fn everything_else_of_a_request_is_kept() {
        let request = EgressRequest {
            shard_id: "s".to_owned(),
            legacy_selector: None,
            use_preferred_tags: true,
            selectors: vec![log("a")],
            deterministic_name: "d".to_owned(),
        };
        let expected = EgressBatchRequest {
            shard_id: "s".to_owned(),
            legacy_selector: None,
            use_preferred_tags: true,
            selectors: vec![log("a")],
            deterministic_name: "d".to_owned(),
        };
        assert_eq!(checked(batched(request)).unwrap(), expected);
    }

    #[test]
    fn a_client_cannot_fill_the_ledger() {
        let many = vec![log("a-source"); 100_000];
        let words = describe(&many);
        assert!(words.starts_with("log of a-source, log of a-source, "));
        assert!(words.ends_with("…, and 99984 more"), "{words}");
        let long = describe(&[log(&"é".repeat(1000))]);
        assert_eq!(long.chars().count(), SHOWN + 1);
        assert_eq!(shown("short"), "short");
    }

    #[test]
    fn selectors_are_told_in_words() {
        let counter = CounterSelector {
            name: "c".to_owned(),
        };
        let gauge = GaugeSelector {
            names: vec!["a".to_owned(), "b".to_owned()],
        };
        let selectors = [
            log(""),
            selector("app", Some(Message::Counter(counter))),
            selector("", Some(Message::Gauge(gauge))),
            selector("", Some(Message::Gauge(GaugeSelector::default()))),
        ];
        assert_eq!(
            describe(&selectors),
            "log, counter c of app, gauge a+b, gauge"
        );
    }
}
