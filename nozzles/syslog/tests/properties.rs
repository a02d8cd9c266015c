//! Whatever an event holds, a reader that knows nothing but RFC 5424 gets it back.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;

use common::rfc5424::{parse, unframe};
use common::{envelope, plan};
use loggregator_proto::v2::{Counter, Envelope, Event, Log, envelope::Message};
use proptest::prelude::*;

fn any_message() -> impl Strategy<Value = Message> {
    prop_oneof![
        (any::<Vec<u8>>(), 0..2_i32).prop_map(|(payload, r#type)| {
            Message::Log(Log {
                payload: payload.into(),
                r#type,
            })
        }),
        (any::<String>(), any::<u64>(), any::<u64>())
            .prop_map(|(name, delta, total)| Message::Counter(Counter { name, delta, total })),
        (any::<String>(), any::<String>())
            .prop_map(|(title, body)| Message::Event(Event { title, body })),
    ]
}

fn any_envelope() -> impl Strategy<Value = Envelope> {
    let name = prop_oneof!["[a-z_.]{1,32}", any::<String>()];
    let id = prop_oneof!["[a-z0-9-]{0,60}", any::<String>()];
    let tags = prop::collection::btree_map(name, any::<String>(), 0..6);
    (any_message(), tags, id.clone(), id, any::<i64>()).prop_map(
        |(message, tags, source_id, instance_id, timestamp)| Envelope {
            timestamp,
            source_id,
            instance_id,
            tags: tags.into_iter().collect(),
            message: Some(message),
            ..Envelope::default()
        },
    )
}

fn element(found: &common::rfc5424::Message, id: &str) -> BTreeMap<String, String> {
    let element = found.element(id).unwrap_or_default();
    element
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

proptest! {
    #[test]
    fn what_is_written_can_be_read(of in any_envelope()) {
        let section = "url = \"syslog://x\"\ninvalid_utf8 = \"keep\"\nmax_tag_name = 32\nmax_message = \"16MiB\"";
        let Ok(rendered) = plan(section).render(&envelope(0, of.clone())) else {
            let plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
            let name = |name: &String| !name.is_empty() && name.len() <= 32
                && plain(name) && !name.contains(['=', ']', '"']);
            let fine = plain(&of.source_id) && plain(&of.instance_id) && of.tags.keys().all(name);
            prop_assert!(!fine, "refused without a reason");
            return Ok(());
        };
        prop_assert_eq!(rendered.len(), 1);
        let found = parse(&rendered[0].body, 32).map_err(TestCaseError::fail)?;
        let tags: BTreeMap<String, String> = of.tags.clone().into_iter().collect();
        prop_assert_eq!(element(&found, "tags@47450"), tags);
        match of.message.unwrap() {
            Message::Log(log) => {
                let mut text: Vec<u8> = log.payload.iter().copied().filter(|b| *b != 0).collect();
                if !text.ends_with(b"\n") {
                    text.push(b'\n');
                }
                prop_assert_eq!(&found.text, &text);
                prop_assert_eq!(found.priority, if log.r#type == 0 { 14 } else { 11 });
            }
            Message::Counter(counter) => {
                let data = element(&found, "counter@47450");
                prop_assert_eq!(&data["name"], &counter.name);
                prop_assert_eq!(&data["total"], &counter.total.to_string());
                prop_assert_eq!(&data["delta"], &counter.delta.to_string());
            }
            Message::Event(event) => {
                let data = element(&found, "event@47450");
                prop_assert_eq!((&data["title"], &data["body"]), (&event.title, &event.body));
            }
            _ => {}
        }
    }

    /// With settings under which nothing is refused for its bytes, nothing is, and what is written is within the limit.
    #[test]
    fn whatever_comes_fits_when_it_may_be_changed(
        of in any_envelope(),
        oversize in prop_oneof!["truncate", "split"],
        framing in prop_oneof!["octet-counting", "newline"],
        format in prop_oneof!["rfc5424", "rfc3164"],
        invalid_name in prop_oneof!["replace", "omit"],
    ) {
        let section = format!(
            "url = \"syslog://x\"\ninvalid_utf8 = \"replace\"\ninvalid_name = {invalid_name:?}\nmax_tag_name = 32\n\
            max_message = 480\noversize = {oversize:?}\nframing = {framing:?}\nformat = {format:?}"
        );
        match plan(&section).render(&envelope(0, of)) {
            Err(why) => prop_assert_eq!(why.code, "oversize"),
            Ok(rendered) => for one in rendered {
                prop_assert!(one.body.len() <= 480);
                if framing == "newline" {
                    let line = one.body.strip_suffix(b"\n").unwrap();
                    prop_assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
                }
                if format == "rfc5424" {
                    parse(&one.body, 32).map_err(TestCaseError::fail)?;
                    std::str::from_utf8(&one.body).map_err(|e| TestCaseError::fail(e.to_string()))?;
                }
            },
        }
    }

    #[test]
    fn frames_are_told_apart(texts in prop::collection::vec(any::<Vec<u8>>(), 0..20)) {
        let stream: Vec<u8> = texts.iter().flat_map(|text| {
            [format!("{} ", text.len()).into_bytes(), text.clone()].concat()
        }).collect();
        if texts.iter().all(|text| !text.is_empty()) {
            let (messages, rest) = unframe(&stream).map_err(TestCaseError::fail)?;
            prop_assert_eq!(messages, texts.iter().map(Vec::as_slice).collect::<Vec<_>>());
            prop_assert!(rest.is_empty());
        }
    }
}

/// A log that is split comes back together.
#[test]
fn parts_are_numbered_and_whole() {
    let text = "päöü".repeat(200);
    let log = common::log(0, "app", &text);
    let section = "url = \"syslog://x\"\nmax_message = 480\noversize = \"split\"";
    let rendered = plan(section).render(&log).unwrap();
    let mut whole = Vec::new();
    for (at, one) in rendered.iter().enumerate() {
        let message = parse(&one.body, 32).unwrap();
        let part = message.element("part@47450").unwrap();
        let expected = [
            ("n", (at + 1).to_string()),
            ("of", rendered.len().to_string()),
        ];
        assert!(expected.iter().all(|(name, value)| part[name] == value));
        whole.extend_from_slice(message.text.strip_suffix(b"\n").unwrap());
    }
    assert_eq!(String::from_utf8(whole).unwrap(), text);
    assert!(rendered.len() > 3);
}
