//! TLS and SASL.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use loggregator_nozzle::{Batch, Delivery, Kind as _, config::Section};
use loggregator_nozzle_kafka::KafkaKind;

use crate::broker::{Broker, PASSWORD};
use crate::support::{Got, log, make_topic, read, shared, start};

fn scram(broker: &Broker, password: &str) -> String {
    let tls = broker.certs.tls("client");
    format!(
        "brokers = [\"localhost:{}\"]\ntopic = \"secure-scram\"\nvalue = \"text\"\n\
         [tls]\nca_file = \"{}\"\ncert_file = \"{}\"\nkey_file = \"{}\"\n\
         [sasl]\nmechanism = \"scram_sha_512\"\nusername = \"nozzle\"\npassword = \"{password}\"\n",
        broker.ports.scram,
        tls.ca.display(),
        tls.cert.display(),
        tls.key.display()
    )
}

async fn passes(broker: &Broker, topic: &str, section: &str) {
    let address = broker.address();
    make_topic(&address, topic, &[]).await;
    let subject = start(section, "b1").await;
    subject.deliver_all(&[log(0, "s", "safe")]).await;
    let got = read(&address, topic).await;
    assert_eq!(got.iter().map(Got::text).collect::<Vec<_>>(), ["safe"]);
    let told = subject.plan.probe().await.unwrap();
    assert!(
        told.starts_with("1 broker (127.0.0.1:") && told.ends_with("4 partitions"),
        "{told}"
    );
    subject.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_a_client_certificate_and_scram() {
    let Some(broker) = shared("secure").await else {
        return;
    };
    passes(&broker, "secure-scram", &scram(&broker, PASSWORD)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain() {
    let Some(broker) = shared("secure").await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let section = format!(
        "brokers = [\"127.0.0.1:{}\"]\ntopic = \"secure-plain\"\nvalue = \"text\"\n\
         [sasl]\nmechanism = \"plain\"\nusername = \"nozzle\"\npassword = {{ file = \"{}\" }}\n",
        broker.ports.plain,
        file.display()
    );
    passes(&broker, "secure-plain", &section).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oauthbearer() {
    let Some(broker) = shared("secure").await else {
        return;
    };
    let encode = |text: String| URL_SAFE_NO_PAD.encode(text);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let token = format!(
        "{}.{}.",
        encode("{\"alg\":\"none\"}".to_owned()),
        encode(format!(
            "{{\"sub\":\"nozzle\",\"iat\":{now},\"exp\":{}}}",
            now + 600
        ))
    );
    let section = format!(
        "brokers = [\"127.0.0.1:{}\"]\ntopic = \"secure-oauth\"\nvalue = \"text\"\n\
         [sasl]\nmechanism = \"oauthbearer\"\n[sasl.oauth]\ntoken = \"{token}\"\n",
        broker.ports.oauth
    );
    passes(&broker, "secure-oauth", &section).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_a_retry_with_its_reason_and_is_not_shown() {
    let Some(broker) = shared("secure").await else {
        return;
    };
    let section = format!("stall_timeout = \"5s\"\n{}", scram(&broker, "hunter2"));
    let subject = start(&section, "b1").await;
    let batch = Batch::new(vec![log(0, "s", "x")], 0);
    let delivery = subject.destination.deliver(&batch).await;
    let text = format!("{delivery:?}");
    assert!(text.contains("\"authentication\""), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    assert!(!matches!(delivery, Delivery::All));
    let plan = KafkaKind
        .plan(&Section::from_text(&section).unwrap())
        .unwrap();
    assert!(!format!("{plan:?}").contains("hunter2"));
    let told = plan.probe().await.unwrap_err();
    assert_eq!(told.code, "authentication", "{told}");
    subject.stop().await;
}
