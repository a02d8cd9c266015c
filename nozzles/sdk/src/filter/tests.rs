use loggregator_client::message::{self, EnvelopeBuilder};
use loggregator_envelope::{Kind, KindSet};
use proptest::prelude::*;
use prost::Message as _;

use super::*;

fn event(builder: EnvelopeBuilder) -> Event {
    Event::new(0, 0, builder.build().encode_to_vec().into())
}

fn line() -> Event {
    let log = message::log("GET /x took 12ms")
        .source("shop", "1")
        .source_type("APP/PROC/WEB");
    event(log.tag("organization_name", "acme").tag("team", "blue"))
}

fn holds(filter: &str, event: &Event) -> bool {
    Filter::parse(filter).unwrap().matches(event)
}

fn error(filter: &str) -> String {
    Filter::parse(filter).unwrap_err().to_string()
}

#[test]
fn texts_are_compared() {
    for filter in [
        r#"kind == "log""#,
        r#"kind != "counter""#,
        r#"kind in ["counter", "log"]"#,
        r#"org == 'acme' and tag.team == "blue""#,
        r#"text contains "took" and text =~ "\d+ms$""#,
        r#"text !~ "POST""#,
        r#"source_type startswith "APP/" and source_id endswith "op""#,
        r#"stream == "out""#,
        "tag.team and not tag.colour",
        r#"space != "dev""#,
        r#"not space == "dev""#,
        r#"org == "x" or org == "y" or source_id == "shop""#,
        "bytes > 20",
        "true",
    ] {
        assert!(holds(filter, &line()), "{filter}");
        let opposite = format!("not ({filter})");
        assert!(!holds(&opposite, &line()), "{opposite}");
    }
}

#[test]
fn and_is_stronger_than_or_and_not_is_strongest() {
    assert!(holds("true or false and false", &line()));
    assert!(!holds("(true or false) and false", &line()));
    assert!(holds("not false or false", &line()));
    assert!(!holds("not true and true", &line()));
}

#[test]
fn numbers_are_compared_where_there_are_any() {
    let timer = event(message::timer_nanos("http", 0, 250_000_000));
    assert!(holds("duration_ms >= 250 and duration_ms < 250.1", &timer));
    assert!(!holds("duration_ms > 0", &line()));
    assert!(holds("duration_ms != 5", &line()));
    let counter = event(message::counter_both("hits", 3, 40));
    assert!(holds(
        "delta == 3 and total <= 40 and name == \"hits\"",
        &counter
    ));
    let gauge = event(message::gauge([
        ("cpu", 1.5, "percentage"),
        ("memory", 1e9, "bytes"),
    ]));
    assert!(holds(
        "value > 1_000_000 and name == \"cpu\" and name == \"memory\"",
        &gauge
    ));
    assert!(!holds("value < 1", &gauge));
}

#[test]
fn a_line_need_not_be_utf8() {
    let log = event(message::log(&b"\xff\xfe boom"[..]));
    assert!(holds(r#"text contains "boom" and text =~ "boom$""#, &log));
}

#[test]
fn a_sample_is_a_share_and_stays_the_same() {
    let filter = Filter::parse("sample(0.25)").unwrap();
    let taken = |filter: &Filter| -> Vec<u64> {
        (0..10_000)
            .filter(|seq| filter.matches(&Event::new(*seq, 0, bytes::Bytes::new())))
            .collect()
    };
    let first = taken(&filter);
    assert!((2_300..2_700).contains(&first.len()), "{}", first.len());
    assert_eq!(first, taken(&filter));
    assert_eq!(taken(&Filter::parse("sample(1)").unwrap()).len(), 10_000);
    assert_eq!(taken(&Filter::parse("sample(0)").unwrap()).len(), 0);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let list = "kind, source_id, instance_id, org, org_id, space, space_id, app, app_id, source_type, stream, deployment, job, \
                index, ip, origin, name, text and tag.NAME; numbers are duration_ms, delta, total, value, bytes";
    for (filter, message) in [
        ("", "at character 1: there is no expression; `true` lets everything pass".to_owned()),
        ("orgg == \"x\"", format!("at character 1: `orgg` is no field; there are {list}")),
        ("kind = \"log\"", "at character 6: write `==` to compare".to_owned()),
        (
            "kind == \"logs\"",
            "at character 9: `kind` is never \"logs\"; it is one of log, counter, gauge, timer, event".to_owned(),
        ),
        ("org == acme", "at character 8: a text in quotes is expected, not `acme`".to_owned()),
        ("org > \"a\"", "at character 5: `org` is a text and `>` is for numbers".to_owned()),
        ("delta == \"3\"", "at character 10: a number is expected, not the text \"3\"".to_owned()),
        ("(org", "at character 5: `)` is expected".to_owned()),
        ("org space", "at character 5: `space` is not expected here; `and` or `or`?".to_owned()),
        ("text =~ \"(\"", "at character 9: not a regular expression: unclosed group".to_owned()),
        ("text == \"a", "at character 9: the text that begins here does not end".to_owned()),
        ("sample(2)", "at character 8: a share between 0 and 1 is expected, not the number 2".to_owned()),
        ("org in [\"a\" \"b\"]", "at character 13: `]` is expected, not the text \"b\"".to_owned()),
        ("und org", "at character 1: `und` is no field; there are ".to_owned() + list),
        ("delta > 1e999", "at character 9: `1e999` is no number".to_owned()),
        ("org ; x", "at character 5: `;` is not expected here".to_owned()),
    ] {
        assert_eq!(error(filter), message, "{filter}");
    }
    assert!(error(&"(".repeat(100_000)).contains("more than 64 levels"));
}

#[test]
fn what_dopplers_need_not_send_is_known() {
    let kinds = |filter: &str| -> Vec<&str> {
        let kinds = Filter::parse(filter).unwrap().kinds();
        let each = Kind::EACH.into_iter().filter(|kind| kinds.contains(*kind));
        each.filter(|kind| *kind != Kind::None)
            .map(Kind::name)
            .collect()
    };
    assert_eq!(
        kinds("kind == \"log\" or kind == \"event\""),
        ["log", "event"]
    );
    assert_eq!(
        kinds("kind != \"log\""),
        ["counter", "gauge", "timer", "event"]
    );
    assert_eq!(kinds("org == \"acme\" and duration_ms > 5"), ["timer"]);
    assert_eq!(
        kinds("text contains \"x\" and not kind == \"event\""),
        ["log"]
    );
    assert_eq!(
        kinds("kind == \"log\" and kind == \"gauge\""),
        Vec::<&str>::new()
    );
    assert_eq!(kinds("not text contains \"x\"").len(), 5);
    let sources = |filter: &str| Filter::parse(filter).unwrap().source_ids();
    assert_eq!(
        sources("source_id in [\"b\", \"a\"] and org == \"x\"").unwrap(),
        ["a", "b"]
    );
    assert_eq!(
        sources("source_id == \"a\" or source_id == \"b\"").unwrap(),
        ["a", "b"]
    );
    assert_eq!(sources("source_id == \"a\" or org == \"x\""), None);
    assert_eq!(sources("not source_id == \"a\""), None);
}

fn any_expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("kind == \"log\"".to_owned()),
        Just("kind in [\"gauge\", \"timer\"]".to_owned()),
        Just("kind != \"event\"".to_owned()),
        Just("org".to_owned()),
        Just("text contains \"a\"".to_owned()),
        Just("name == \"a\"".to_owned()),
        Just("delta > 0".to_owned()),
        Just("duration_ms < 5".to_owned()),
        Just("value != 1".to_owned()),
        Just("source_id == \"a\"".to_owned()),
        Just("source_id in [\"a\", \"b\"]".to_owned()),
        Just("true".to_owned()),
    ];
    leaf.prop_recursive(4, 16, 3, |inside| {
        prop_oneof![
            inside.clone().prop_map(|a| format!("not ({a})")),
            (inside.clone(), inside.clone()).prop_map(|(a, b)| format!("({a} and {b})")),
            (inside.clone(), inside).prop_map(|(a, b)| format!("({a} or {b})")),
        ]
    })
}

fn any_event() -> impl Strategy<Value = Event> {
    let builder = prop_oneof![
        Just(message::log("a")),
        Just(message::log("b")),
        Just(message::counter("a", 1)),
        Just(message::gauge([("a", 1.0, "")])),
        Just(message::timer_nanos("b", 0, 9_000_000)),
        Just(message::event("a", "b")),
    ];
    (builder, prop_oneof!["a", "b", "c"]).prop_map(|(builder, id)| event(builder.source(&id, "0")))
}

proptest! {
    #[test]
    fn what_is_pushed_down_never_costs_an_event(text in any_expression(), event in any_event()) {
        let filter = Filter::parse(&text).unwrap();
        if filter.matches(&event) {
            prop_assert!(filter.kinds().contains(event.envelope().kind()));
            if let Some(ids) = filter.source_ids() {
                prop_assert!(ids.iter().any(|id| id == event.envelope().source_id()));
            }
        }
        let negated = Filter::parse(&format!("not ({text})")).unwrap();
        prop_assert_ne!(filter.matches(&event), negated.matches(&event));
        prop_assert!(filter.kinds().union(negated.kinds()).is_superset(KindSet::of(event.envelope().kind())));
    }

    #[test]
    fn nothing_that_is_typed_does_harm(text in "[a-z_ ()\\[\\]\"'=!<>~,.0-9\\\\]{0,60}") {
        if let Ok(filter) = Filter::parse(&text) {
            let negated = Filter::parse(&format!("not ({text})")).unwrap();
            prop_assert_ne!(filter.matches(&line()), negated.matches(&line()));
        }
    }
}
