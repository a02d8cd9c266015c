//! What a record is made of.

use loggregator_client::message;
use loggregator_nozzle::{Event, Outcome};

use crate::support::{Got, event, log, make_topic, read, shared, start};

fn header<'a>(got: &'a Got, name: &str) -> Option<&'a str> {
    let found = got.headers.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_has_key_time_headers_and_the_envelope_as_it_came() {
    let Some(broker) = shared("mapping").await else {
        return;
    };
    let address = broker.address();
    make_topic(&address, "map-acme_corp", &[]).await;
    let section =
        format!("brokers = [\"{address}\"]\ntopic = \"map-{{org|none}}\"\nfoundation = \"prod\"\n");
    let subject = start(&section, "b1").await;
    let envelope = message::log("a line")
        .source("4f1c0a52-8f2b-4d53-9a0e-3c1f5d7e9b10", "3")
        .tag("organization_name", "acme corp")
        .tag("organization_id", "o1")
        .tag("space_id", "s1")
        .tag("deployment", "cf")
        .at_nanos(1_700_000_000_123_456_789);
    let event = event(41, envelope);
    subject.deliver_all(std::slice::from_ref(&event)).await;
    let got = read(&address, "map-acme_corp").await;
    assert_eq!(got.len(), 1);
    let headers = [
        ("content_type", "application/x-protobuf"),
        ("schema", "loggregator.v2.Envelope"),
        ("kind", "log"),
        ("envelope_id", "audit/b1/41"),
        ("deployment", "cf"),
        ("foundation", "prod"),
        ("app_id", "4f1c0a52-8f2b-4d53-9a0e-3c1f5d7e9b10"),
        ("space_id", "s1"),
        ("org_id", "o1"),
    ];
    let expected = Got {
        // Where murmur2 puts this key, in Java as here.
        partition: got[0].partition,
        timestamp: 1_700_000_000_123,
        key: Some("4f1c0a52-8f2b-4d53-9a0e-3c1f5d7e9b10".to_owned()),
        value: event.body().to_vec(),
        headers: headers.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec(),
    };
    assert_eq!(got[0], expected);
    let metrics = subject.metrics.encode();
    let line = "loggregator_nozzle_kafka_delivered_records_total{destination=\"events\",topic=\"map-acme_corp\"} 1\n";
    assert!(metrics.contains(line), "{metrics}");
    subject.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_come_in_every_form() {
    let Some(broker) = shared("mapping").await else {
        return;
    };
    let address = broker.address();
    let gauge = message::gauge([("a", 1.0, "u"), ("b", 2.0, "u")]).source("s", "0");
    let events = [log(7, "s", "the line"), event(8, gauge)];
    let values = |got: Vec<Got>| got.into_iter().map(|got| got.value).collect::<Vec<_>>();
    let mut forms = Vec::new();
    for (form, compression) in [
        ("protobuf_v1", "gzip"),
        ("json", "zstd"),
        ("json_line", "snappy"),
        ("text", "none"),
    ] {
        let topic = format!("form-{form}");
        make_topic(&address, &topic, &[]).await;
        let section = format!(
            "brokers = [\"{address}\"]\ntopic = \"{topic}\"\nvalue = \"{form}\"\ncompression = \"{compression}\"\n"
        );
        let subject = start(&section, "b1").await;
        let wanted: Vec<Event> = events
            .iter()
            .filter(|event| subject.plan.accepts().contains(event.envelope().kind()))
            .cloned()
            .collect();
        subject.deliver_all(&wanted).await;
        let got = read(&address, &topic).await;
        let rendered: Vec<Vec<u8>> = wanted
            .iter()
            .flat_map(|event| subject.plan.render(event).unwrap())
            .map(|rendered| rendered.body.to_vec())
            .collect();
        let ids: Vec<String> = got
            .iter()
            .map(|got| header(got, "envelope_id").unwrap().to_owned())
            .collect();
        assert_eq!(values(got), rendered, "{form}");
        forms.push((form, rendered, ids));
        subject.stop().await;
    }
    let count = |form: &str| forms.iter().find(|(name, ..)| *name == form).unwrap();
    assert_eq!(count("text").1, [b"the line".to_vec()]);
    // A gauge of two values is two records, each with an id of its own.
    assert_eq!(
        count("protobuf_v1").2,
        ["audit/b1/7", "audit/b1/8", "audit/b1/8/1"]
    );
    assert_eq!(count("json").1.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_source_are_in_one_partition_in_order() {
    let Some(broker) = shared("mapping").await else {
        return;
    };
    let address = broker.address();
    make_topic(&address, "order", &[]).await;
    let section = format!("brokers = [\"{address}\"]\ntopic = \"order\"\nvalue = \"text\"\n");
    let subject = start(&section, "b1").await;
    let events: Vec<Event> = (0..2000)
        .map(|n| log(n, &format!("source-{}", n % 7), format!("{n}")))
        .collect();
    let batches: Vec<&[Event]> = events.chunks(300).collect();
    // All on their way at once, as the framework would have them.
    futures_util::future::join_all(batches.iter().map(|batch| subject.deliver_all(batch))).await;
    let got = read(&address, "order").await;
    assert_eq!(got.len(), events.len());
    for source in 0..7 {
        let key = format!("source-{source}");
        let of_source = || got.iter().filter(|got| got.key.as_ref() == Some(&key));
        let partition = of_source().next().unwrap().partition;
        assert!(of_source().all(|got| got.partition == partition));
        let texts: Vec<String> = of_source().map(Got::text).collect();
        let expected: Vec<String> = (0..2000)
            .filter(|n| n % 7 == source)
            .map(|n| n.to_string())
            .collect();
        assert_eq!(texts, expected);
    }
    subject.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_beyond_the_limit_go_to_the_fallback() {
    let Some(broker) = shared("mapping").await else {
        return;
    };
    let address = broker.address();
    for topic in ["cap-a", "cap-b", "cap-rest"] {
        make_topic(&address, topic, &[]).await;
    }
    let section = format!(
        "brokers = [\"{address}\"]\ntopic = \"cap-{{source_id}}\"\nvalue = \"text\"\nmax_topics = 2\n"
    );
    let events = ["a", "b", "c", "a"];
    let events: Vec<Event> = (0..).zip(events).map(|(n, s)| log(n, s, s)).collect();
    let subject = start(&section, "b1").await;
    let outcomes = subject.deliver(&events).await;
    let Outcome::Rejected(why) = &outcomes[2] else {
        panic!("{outcomes:?}");
    };
    assert_eq!(
        why.to_string(),
        "too_many_topics: `cap-c` would be one more than the 2 topics that max_topics allows"
    );
    assert_eq!(
        outcomes
            .iter()
            .filter(|o| **o == Outcome::Delivered)
            .count(),
        3
    );
    subject.stop().await;
    let section = format!("{section}fallback_topic = \"cap-rest\"\n");
    let subject = start(&section, "b1").await;
    subject.deliver_all(&events).await;
    let rest = read(&address, "cap-rest").await;
    assert_eq!(rest.iter().map(Got::text).collect::<Vec<_>>(), ["c"]);
    let metrics = subject.metrics.encode();
    let line = "loggregator_nozzle_kafka_topic_overflow_total{destination=\"events\"} 1\n";
    assert!(metrics.contains(line), "{metrics}");
    subject.stop().await;
}
