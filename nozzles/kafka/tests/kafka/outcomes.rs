//! What cannot be delivered, and that its neighbours are.

use loggregator_nozzle::config::{NozzleConfig, Section};
use loggregator_nozzle::{Event, Kind as _, Outcome};
use loggregator_nozzle_kafka::KafkaKind;

use crate::broker::PASSWORD;
use crate::support::{Got, log, make_topic, read, remove_topic, shared, start};

fn codes(outcomes: &[Outcome]) -> Vec<String> {
    let code = |outcome: &Outcome| match outcome {
        Outcome::Delivered => "delivered".to_owned(),
        Outcome::Rejected(why) => format!("rejected {}", why.code),
        Outcome::Oversize(why) => format!("oversize {}", why.code),
        Outcome::Retry(why) => format!("retry {}", why.code),
        Outcome::Later(why) => format!("later {}", why.code),
    };
    outcomes.iter().map(code).collect()
}

fn texts(got: &[Got]) -> Vec<String> {
    got.iter().map(Got::text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_told_and_its_neighbours_are_delivered() {
    let Some(broker) = shared("outcomes").await else {
        return;
    };
    let address = broker.address();
    // This broker's topic takes less than the configuration says.
    make_topic(&address, "small", &[("max.message.bytes", "20000")]).await;
    let section = format!(
        "brokers = [\"{address}\"]\ntopic = \"small\"\nvalue = \"text\"\ncompression = \"none\"\nmax_record_bytes = 50000\n"
    );
    let subject = start(&section, "b1").await;
    let events = [
        log(0, "s", "before"),
        log(1, "s", "x".repeat(60_000)),
        log(2, "s", "between"),
        // Only the broker knows that this one is too large, and says so of the whole request.
        log(3, "s", "y".repeat(30_000)),
        log(4, "s", "after"),
    ];
    let outcomes = subject.deliver(&events).await;
    assert_eq!(
        codes(&outcomes),
        [
            "delivered",
            "oversize record_too_large",
            "delivered",
            "oversize broker_record_too_large",
            "delivered"
        ]
    );
    assert_eq!(
        texts(&read(&address, "small").await),
        ["before", "between", "after"]
    );
    subject.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forbidden_topic_costs_only_its_own_events() {
    let Some(broker) = shared("outcomes").await else {
        return;
    };
    let address = broker.address();
    for topic in ["acl-open", "acl-closed"] {
        make_topic(&address, topic, &[]).await;
    }
    let allowed = broker.clone();
    tokio::task::spawn_blocking(move || allowed.allow("limited", "Write", "acl-open"))
        .await
        .unwrap();
    let section = format!(
        "brokers = [\"127.0.0.1:{}\"]\ntopic = \"acl-{{source_id}}\"\nvalue = \"text\"\n\
         [sasl]\nmechanism = \"plain\"\nusername = \"limited\"\npassword = \"{PASSWORD}\"\n",
        broker.ports.plain
    );
    let subject = start(&section, "b1").await;
    let events: Vec<Event> = (0..20)
        .map(|n| log(n, ["open", "closed"][n as usize % 2], format!("{n}")))
        .collect();
    let outcomes = codes(&subject.deliver(&events).await);
    let expected: Vec<&str> = (0..20)
        .map(|n| ["delivered", "rejected topic_forbidden"][n % 2])
        .collect();
    assert_eq!(outcomes, expected);
    assert_eq!(read(&address, "acl-open").await.len(), 10);
    subject.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_removed_costs_only_its_own_events_and_may_come_back() {
    let Some(broker) = shared("outcomes").await else {
        return;
    };
    let address = broker.address();
    for topic in ["gone-stays", "gone-goes"] {
        make_topic(&address, topic, &[]).await;
    }
    let section = format!(
        "brokers = [\"{address}\"]\ntopic = \"gone-{{source_id}}\"\nvalue = \"text\"\ntopic_grace = \"1s\"\n\
         [options]\n\"topic.metadata.refresh.interval.ms\" = 500\n"
    );
    let subject = start(&section, "b1").await;
    let both = |seq: u64| [log(seq, "stays", "a"), log(seq + 1, "goes", "b")];
    subject.deliver_all(&both(0)).await;
    remove_topic(&address, "gone-goes").await;
    let outcomes = subject.deliver(&both(2)).await;
    assert_eq!(codes(&outcomes), ["delivered", "rejected unknown_topic"]);
    make_topic(&address, "gone-goes", &[]).await;
    // The client finds it with its next look; nothing has to be restarted.
    let mut seq = 4;
    while codes(&subject.deliver(&both(seq)).await) != ["delivered", "delivered"] {
        seq += 2;
        assert!(seq < 200, "the topic is not found again");
    }
    assert!(!read(&address, "gone-goes").await.is_empty());
    subject.stop().await;
}

#[test]
fn a_wrong_configuration_is_told_at_once_and_in_full() {
    let section = "\
        brokers = [\"kafka\"]\n\
        topic = \"{org}\"\n\
        fallback_topic = \"a b\"\n\
        key = \"source\"\n\
        [topics]\n\
        log = \"cf-{nope}\"\n\
        [sasl]\n\
        mechanism = \"scram_sha_512\"\n\
        username = \"u\"\n\
        [options]\n\
        acks = 1\n\
        \"linger.ms\" = 5\n\
        \"no.such.thing\" = \"x\"\n\
        \"socket.timeout.ms\" = \"often\"\n";
    let errors = KafkaKind
        .plan(&Section::from_text(section).unwrap())
        .unwrap_err();
    let mut told: Vec<String> = errors
        .errors
        .iter()
        .map(|error| format!("{}: {}", error.key, error.message))
        .collect();
    told.sort();
    let expected = [
        "brokers: `kafka` is not host:port",
        "fallback_topic: `a b`: no topic may have ' ' in its name",
        "key: `source` is not none, source_id, source_id/instance_id, app, org or a template such as {job}/{index}",
        "options.acks: has a key of its own: `delivery`",
        "options.linger.ms: has a key of its own: `linger`",
        "options.no.such.thing: No such configuration property: \"no.such.thing\"",
        "options.socket.timeout.ms: Invalid value for configuration property \"socket.timeout.ms\"",
        "sasl.password: SCRAM-SHA-512 needs it",
        "topic: `{org}` must begin with fixed text, so that no app can choose a topic as it likes: `cf-{org}`",
    ];
    let (of_template, others): (Vec<_>, Vec<_>) = told
        .into_iter()
        .partition(|error| error.starts_with("topics.log"));
    assert_eq!(others, expected);
    assert!(
        of_template[0].contains("`nope` is no field"),
        "{of_template:?}"
    );
}

#[test]
fn the_example_is_complete_and_right() {
    let text = format!("[nozzle]\nname = \"audit\"\n{}", KafkaKind.example());
    let config = NozzleConfig::parse("nozzle.toml".as_ref(), &text).unwrap();
    let plan = KafkaKind.plan(&config.destinations[0].section).unwrap();
    assert_eq!(plan.limits().in_flight, 8);
}
