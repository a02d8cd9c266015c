//! TLS and SASL.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use loggregator_nozzle::{Batch, Delivery, Kind as _, config::Section};
use loggregator_nozzle_kafka::KafkaKind;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

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

/// A token that nobody has signed, good for ten minutes.
fn unsigned() -> String {
    let encode = |text: String| URL_SAFE_NO_PAD.encode(text);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    format!(
        "{}.{}.",
        encode("{\"alg\":\"none\"}".to_owned()),
        encode(format!(
            "{{\"sub\":\"nozzle\",\"iat\":{now},\"exp\":{}}}",
            now + 600
        ))
    )
}

fn oauth(broker: &Broker, topic: &str, keys: &str) -> String {
    format!(
        "brokers = [\"127.0.0.1:{}\"]\ntopic = \"{topic}\"\nvalue = \"text\"\n\
         [sasl]\nmechanism = \"oauthbearer\"\n[sasl.oauth]\n{keys}\n",
        broker.ports.oauth
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn oauthbearer() {
    let Some(broker) = shared("secure").await else {
        return;
    };
    let token = format!("token = \"{}\"", unsigned());
    let section = oauth(&broker, "secure-oauth", &token);
    passes(&broker, "secure-oauth", &section).await;
}

/// A token endpoint: answers each request with this status and body, and keeps what it was asked.
async fn endpoint(status: u16, body: String) -> (std::net::SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut io, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"scope=a%20b") {
                if io.read_buf(&mut request).await.unwrap() == 0 {
                    break;
                }
            }
            seen.lock().push(String::from_utf8(request).unwrap());
            let answer = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            io.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (addr, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn oauthbearer_with_a_token_of_an_endpoint() {
    let Some(broker) = shared("secure").await else {
        return;
    };
    let body = format!("{{\"access_token\":\"{}\",\"expires_in\":600}}", unsigned());
    let (addr, asked) = endpoint(200, body).await;
    let keys = format!(
        "url = \"http://{addr}/token\"\nclient = \"nozzle\"\nsecret = \"hunter2\"\nscope = \"a b\""
    );
    let section = oauth(&broker, "secure-granted", &keys);
    passes(&broker, "secure-granted", &section).await;
    let asked = asked.lock().clone();
    let first = asked[0].to_lowercase();
    assert!(first.starts_with("post /token http/1.1\r\n"), "{first}");
    // nozzle:hunter2
    assert!(asked[0].contains("Basic bm96emxlOmh1bnRlcjI="), "{first}");
    assert!(
        asked[0].ends_with("\r\n\r\ngrant_type=client_credentials&scope=a%20b"),
        "{first}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_grants_nothing_is_a_retry_with_its_reason() {
    let Some(broker) = shared("secure").await else {
        return;
    };
    let (addr, _) = endpoint(401, "{\"error\":\"invalid_client\"}".to_owned()).await;
    let keys = format!(
        "url = \"http://{addr}/token\"\nclient = \"nozzle\"\nsecret = \"hunter2\"\nscope = \"a b\""
    );
    let section = format!(
        "stall_timeout = \"3s\"\n{}",
        oauth(&broker, "secure-oauth", &keys)
    );
    let subject = start(&section, "b1").await;
    let batch = Batch::new(vec![log(0, "s", "x")], 0);
    let delivery = subject.destination.deliver(&batch).await;
    let text = format!("{delivery:?}");
    assert!(text.contains("\"authentication\""), "{text}");
    assert!(text.contains("answered 401 invalid_client"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    subject.stop().await;
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

#[test]
fn either_a_token_or_who_gives_one() {
    let told = |keys: &str| {
        let section = format!(
            "brokers = [\"k:9092\"]\ntopic = \"t\"\n[sasl]\nmechanism = \"oauthbearer\"\n[sasl.oauth]\n{keys}"
        );
        let plan = KafkaKind.plan(&Section::from_text(&section).unwrap());
        let errors = plan.err().map(|errors| errors.errors).unwrap_or_default();
        let all: Vec<_> = { errors.iter() }
            .map(|error| format!("{}: {}", error.key, error.message))
            .collect();
        all.join("; ")
    };
    assert_eq!(
        told(""),
        "sasl.oauth: needs `token`, or `url`, `client` and `secret`"
    );
    assert_eq!(
        told("token = \"x\"\nclient = \"n\""),
        "sasl.oauth.client: is of use with `url` only"
    );
    assert_eq!(
        told("token = \"x\"\nurl = \"https://a/\""),
        "sasl.oauth.url: there is a `token` already"
    );
    let of = |url: &str| told(&format!("url = \"{url}\"\nclient = \"n\"\nsecret = \"s\""));
    assert_eq!(of("https://login.example.com/oauth/token"), "");
    assert_eq!(
        of("http://login.example.com/oauth/token"),
        "sasl.oauth.url: must begin with https://, or the secret could be read on its way"
    );
    assert_eq!(
        of("login"),
        "sasl.oauth.url: must be the whole URL of a token endpoint"
    );
    assert_eq!(
        told("url = \"https://a/\"\nclient = \"n\""),
        "sasl.oauth.secret: is missing: who asks for tokens"
    );
}
