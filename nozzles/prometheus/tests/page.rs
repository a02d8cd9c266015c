//! The page over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the report

mod common;

use std::io::Read as _;

use common::events::{counter, event};
use common::{Running, get};
use loggregator_net::http::client::{Client, Limits, Question};
use loggregator_net::{ClientTls, Profile};
use loggregator_nozzle::{BufferIdentity, Delivery};
use loggregator_testkit::Certs;
use std::time::Duration;
use tokio::time::Instant;

const EXPECTED: &str = "# HELP cf_hits_total Counter hits of the firehose.\n# TYPE cf_hits_total counter\ncf_hits_total{source_id=\"s\"} 3\n";

async fn running(extra: &str) -> Running {
    let running = Running::start(&format!("listen_addr = \"127.0.0.1:0\"\n{extra}")).await;
    let events = vec![event("s", "", &[], counter("hits", 1, 3))];
    assert_eq!(running.deliver(events).await, Delivery::All);
    running
}

#[tokio::test]
async fn the_page_is_where_it_should_be_in_the_format_that_is_asked_for() {
    let running = running("").await;
    let addr = running.addr();
    let answer = get(addr, "/metrics", &[]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    assert_eq!(answer.body, EXPECTED);
    let accept = ("accept", "application/openmetrics-text;version=1.0.0");
    let answer = get(addr, "/metrics", &[accept, ("accept-encoding", "gzip")]).await;
    assert_eq!(
        answer.headers["content-type"],
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    assert_eq!(answer.headers["content-encoding"], "gzip");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&*answer.body)
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(
        text,
        EXPECTED
            .replace("# HELP cf_hits_total", "# HELP cf_hits")
            .replace("# TYPE cf_hits_total", "# TYPE cf_hits")
            + "# EOF\n"
    );
    assert_eq!(get(addr, "/other", &[]).await.status, 404);
    assert_eq!(get(addr, "/", &[]).await.body, "metrics are at /metrics\n");
    let metrics = running.metrics.encode();
    for line in [
        "loggregator_nozzle_prometheus_scrapes_total{destination=\"subject\",format=\"text\"} 1",
        "loggregator_nozzle_prometheus_scrapes_total{destination=\"subject\",format=\"openmetrics\"} 1",
        "loggregator_nozzle_prometheus_series{destination=\"subject\"} 1",
        "loggregator_nozzle_prometheus_samples_total{destination=\"subject\",kind=\"counter\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
}

#[tokio::test]
async fn a_password_is_asked_for() {
    let running = running("auth = { username = \"me\", password = \"secret\" }").await;
    let addr = running.addr();
    let answer = get(addr, "/metrics", &[]).await;
    assert_eq!(
        (answer.status.as_u16(), answer.body),
        (401, "a name and a password are needed\n".into())
    );
    assert_eq!(
        answer.headers["www-authenticate"],
        "Basic realm=\"metrics\", charset=\"UTF-8\""
    );
    for (credentials, status) in [
        ("Basic bWU6c2VjcmV0", 200),
        ("basic bWU6c2VjcmV0", 200),
        ("Basic bWU6d3Jvbmc=", 401),
        ("Basic !", 401),
        ("Bearer bWU6c2VjcmV0", 401),
    ] {
        let answer = get(addr, "/metrics", &[("authorization", credentials)]).await;
        assert_eq!(answer.status, status, "{credentials}");
    }
}

#[tokio::test]
async fn the_page_is_served_over_tls_to_those_with_a_certificate() {
    let certs = Certs::generate().unwrap();
    let (server, client) = (certs.tls("doppler"), certs.tls("client"));
    let running = running(&format!(
        "tls = {{ cert_file = {:?}, key_file = {:?}, client_ca_file = {:?} }}",
        server.cert, server.key, server.ca
    ))
    .await;
    let uri = format!("https://localhost:{}/metrics", running.addr().port());
    let ask = async |tls| {
        let client = Client {
            tls: Some(tls),
            server_name: None,
            limits: Limits::default(),
        };
        let mut question = Question::new(bytes::Bytes::new());
        *question.uri_mut() = uri.parse().unwrap();
        client
            .send(question, Instant::now() + Duration::from_secs(20))
            .await
    };
    let known = ClientTls::mutual_with(&client, Profile::Http).unwrap();
    assert_eq!(ask(known).await.unwrap().body, EXPECTED);
    let unknown = ClientTls::ca_only(&certs.ca()).unwrap();
    assert!(ask(unknown).await.is_err());
}

#[tokio::test]
async fn a_taken_port_is_told() {
    use loggregator_nozzle::Kind as _;
    use loggregator_nozzle::config::Section;
    let first = running("").await;
    let section = format!("listen_addr = \"{}\"", first.addr());
    let kind = loggregator_nozzle_prometheus::PrometheusKind::new();
    let plan = kind.plan(&Section::from_text(&section).unwrap()).unwrap();
    let context = loggregator_nozzle::Context {
        nozzle: "n".to_owned(),
        name: "second".to_owned(),
        metrics: loggregator_service::metrics::Metrics::empty(),
        lifecycle: loggregator_service::Lifecycle::new(),
        buffer: BufferIdentity::new(""),
        state_dir: None,
    };
    let error = plan.start(context).await.err().unwrap().to_string();
    assert_eq!(
        error,
        format!("destination second: cannot listen on {}", first.addr())
    );
}

#[test]
fn everything_that_is_wrong_with_a_section_is_told_at_once() {
    use loggregator_nozzle::Kind as _;
    use loggregator_nozzle::config::Section;
    let section = "path = \"metrics\"\nprofile = \"firehose_exporter\"\nlog_rates = true\nnamespace = \"1x\"\n\
                   duration_buckets = [2, 1]\nexpire = \"1ms\"\nmax_series = 0\n[remote_write]\nurl = \"ftp://x\"";
    let kind = loggregator_nozzle_prometheus::PrometheusKind::new();
    let errors = kind
        .plan(&Section::from_text(section).unwrap())
        .unwrap_err();
    let keys: Vec<_> = errors.errors.iter().map(|e| e.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "path",
            "environment",
            "log_rates",
            "namespace",
            "duration_buckets",
            "expire",
            "max_series",
            "remote_write.url"
        ]
    );
}

#[test]
fn every_key_of_the_example_is_one() {
    use loggregator_nozzle::Kind as _;
    use loggregator_nozzle::config::Section;
    let kind = loggregator_nozzle_prometheus::PrometheusKind::new();
    let (_, section) = kind
        .example()
        .split_once("[destination.prometheus]\n")
        .unwrap();
    let section = section.replace("[destination.prometheus.", "[");
    assert!(kind.plan(&Section::from_text(&section).unwrap()).is_ok());
    let setting = |line: &&str| line.contains(" = ") || line.contains("# [");
    let all: String = section
        .lines()
        .filter(setting)
        .map(|line| format!("{}\n", line.trim_start_matches("# ")))
        .collect();
    let errors = kind.plan(&Section::from_text(&all).unwrap()).unwrap_err();
    // Only what excludes each other.
    let keys: Vec<_> = errors.errors.iter().map(|e| e.key.as_str()).collect();
    assert_eq!(keys, ["listen_addr", "environment"], "{errors}");
}
