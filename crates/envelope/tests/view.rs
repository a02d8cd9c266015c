//! Questions to one envelope get the answers of a full decode.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;

use common::any_envelope;
use loggregator_envelope::{EnvelopeRef, Kind, TagValue};
use loggregator_proto::v2::{self, envelope::Message as M};
use proptest::prelude::*;
use prost::Message;

fn value(data: &Option<v2::value::Data>) -> String {
    use v2::value::Data;
    let value = match data {
        None => TagValue::Unset,
        Some(Data::Text(text)) => TagValue::Text(text),
        Some(Data::Integer(number)) => TagValue::Integer(*number),
        Some(Data::Decimal(number)) => TagValue::Decimal(*number),
    };
    // NaN differs from itself; the text does not.
    format!("{value:?}")
}

proptest! {
    #[test]
    fn views_agree_with_decoding(body in any_envelope()) {
        let decoded = v2::Envelope::decode(&body[..]).unwrap();
        let view = EnvelopeRef::new(&body);
        prop_assert_eq!(view.timestamp(), decoded.timestamp);
        prop_assert_eq!(view.source_id(), &decoded.source_id);
        prop_assert_eq!(view.instance_id(), &decoded.instance_id);

        let tags: BTreeMap<_, _> = view.tags().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        prop_assert_eq!(&tags, &decoded.tags);
        let deprecated: BTreeMap<_, _> = view.deprecated_tags().map(|(k, v)| (k.to_owned(), format!("{v:?}"))).collect();
        let expected: BTreeMap<_, _> = decoded.deprecated_tags.iter().map(|(k, v)| (k.clone(), value(&v.data))).collect();
        prop_assert_eq!(&deprecated, &expected);
        for name in ["a", "origin", "", "nobody"] {
            let known = decoded.tags.contains_key(name) || decoded.deprecated_tags.contains_key(name);
            prop_assert_eq!(view.tag(name).is_some(), known);
            if let Some(text) = decoded.tags.get(name) {
                let tag = view.tag(name);
                prop_assert_eq!(tag.as_deref(), Some(&text[..]));
            }
        }

        let log = view.log().map(|log| (log.payload.to_vec(), log.type_number, log.err));
        let counter = view.counter().map(|c| (c.name.to_owned(), c.delta, c.total));
        let timer = view.timer().map(|t| (t.name.to_owned(), t.start, t.stop));
        let event = view.event().map(|e| (e.title.to_owned(), e.body.to_owned()));
        let gauge: BTreeMap<_, _> = view.gauge().map(|m| (m.name.to_owned(), (m.unit.to_owned(), m.value.to_bits()))).collect();
        let (mut kind, mut want) = (Kind::None, (None, None, None, None, BTreeMap::new()));
        match &decoded.message {
            None => {}
            Some(M::Log(m)) => { kind = Kind::Log; want.0 = Some((m.payload.to_vec(), m.r#type, m.r#type != 0)); }
            Some(M::Counter(m)) => { kind = Kind::Counter; want.1 = Some((m.name.clone(), m.delta, m.total)); }
            Some(M::Timer(m)) => { kind = Kind::Timer; want.2 = Some((m.name.clone(), m.start, m.stop)); }
            Some(M::Event(m)) => { kind = Kind::Event; want.3 = Some((m.title.clone(), m.body.clone())); }
            Some(M::Gauge(m)) => {
                kind = Kind::Gauge;
                want.4 = m.metrics.iter().map(|(k, v)| (k.clone(), (v.unit.clone(), v.value.to_bits()))).collect();
            }
        }
        prop_assert_eq!(view.kind(), kind);
        prop_assert_eq!((log, counter, timer, event, gauge), want);
    }

    #[test]
    fn an_outline_says_what_the_view_says(
        body in prop_oneof![any_envelope(), proptest::collection::vec(any::<u8>(), 0..120)],
    ) {
        let view = EnvelopeRef::new(&body);
        let mut tags = Vec::new();
        let outline = view.outline(|name, value| tags.push((name, value)));
        prop_assert_eq!(outline.timestamp, view.timestamp());
        prop_assert_eq!(outline.source_id, view.source_id());
        prop_assert_eq!(outline.instance_id, view.instance_id());
        prop_assert_eq!(outline.kind, view.kind());
        prop_assert_eq!(outline.log(), view.log());
        prop_assert_eq!(outline.deprecated_tags, view.deprecated_tags().count() > 0);
        let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
        let tags: Vec<_> = tags.into_iter().map(|(name, value)| (text(name), text(value))).collect();
        prop_assert_eq!(tags, view.tags().collect::<Vec<_>>());
    }

    #[test]
    fn views_of_any_bytes_do_no_harm(body in proptest::collection::vec(any::<u8>(), 0..120)) {
        let view = EnvelopeRef::new(&body);
        let _ = (view.timestamp(), view.source_id(), view.instance_id(), view.kind(), view.log(), view.counter());
        let _ = (view.timer(), view.event(), view.gauge().count(), view.tag("origin"));
        let mut out = Vec::new();
        loggregator_envelope::json::write_envelope(&mut out, view);
        prop_assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok());
    }
}

#[test]
fn deprecated_values_have_three_texts() {
    let value = TagValue::Decimal(1e21);
    assert_eq!(value.to_v1_text(), "1000000000000000000000.000000");
    assert_eq!(value.to_plain_text(), "1000000000000000000000");
    assert_eq!(value.to_short_text(), "1e+21");
    assert_eq!(TagValue::Integer(-5).to_v1_text(), "-5");
    assert_eq!(TagValue::Text("t").to_plain_text(), "t");
    assert_eq!(TagValue::Unset.to_short_text(), "");
}
