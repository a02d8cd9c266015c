//! Against a real Prometheus and its promtool.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // a panic is the report

mod common;

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::events::{APP, ROUTER, at, counter, gauge, log};
use common::{Running, get, until};
use loggregator_nozzle::{Delivery, Event};
use loggregator_proto::v2::{Timer, envelope::Message};
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// The Prometheus of this machine; without one the test is skipped, and says so.
fn peer(test: &str) -> Option<PathBuf> {
    let named = std::env::var_os("LOGGREGATOR_TEST_PROMETHEUS").map(PathBuf::from);
    let found = named.or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|folder| folder.join("prometheus"))
            .find(|file| file.exists())
    });
    if found.is_none() {
        println!("{test}: no prometheus on this machine");
        if let Some(skips) = std::env::var_os("LOGGREGATOR_TEST_SKIPS") {
            let mut file = std::fs::OpenOptions::new()
                .append(true)
                .open(skips)
                .unwrap();
            writeln!(file, "{test}: no prometheus").unwrap();
        }
    }
    found
}

/// A server that runs until it is dropped.
struct Prometheus {
    child: Child,
    addr: SocketAddr,
    dir: TempDir,
}

impl Prometheus {
    fn start(program: &Path, scrape: &str, more: &[&str]) -> Prometheus {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\nscrape_configs:\n{scrape}"
        );
        std::fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        let addr = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(program)
            .arg(format!(
                "--config.file={}",
                dir.path().join("prometheus.yml").display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={addr}"))
            .args(more)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Prometheus { child, addr, dir }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// What it warned of or failed at, if anything.
    fn complaints(&self) -> Vec<String> {
        let log = self.log();
        let bad = log.lines().filter(|line| {
            line.contains("level=warn") || line.contains("level=error") || line.contains("err=")
        });
        bad.map(str::to_owned).collect()
    }

    async fn ready(&self) {
        until("ready", async || {
            let connected = tokio::net::TcpStream::connect(self.addr).await;
            connected.ok()?;
            (get(self.addr, "/-/ready", &[]).await.status == 200).then_some(())
        })
        .await;
    }

    /// The result of a query.
    async fn ask(&self, query: &str) -> Vec<Value> {
        let encoded: String = query
            .bytes()
            .map(|b| match b {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(b).to_string(),
                b => format!("%{b:02X}"),
            })
            .collect();
        let answer = get(self.addr, &format!("/api/v1/query?query={encoded}"), &[]).await;
        let answer: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().unwrap().clone()
    }

    /// Waits until a query has a result of numbers, and returns the first of them.
    async fn has(&self, query: &str) -> f64 {
        until(query, async || {
            let result = self.ask(query).await;
            let number = result.first()?["value"][1].as_str()?.parse::<f64>().ok()?;
            (!number.is_nan()).then_some(number)
        })
        .await
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What a platform sends in its `n`-th half second.
fn platform(n: u64) -> Vec<Event> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_nanos()).unwrap();
    let job = |origin: &'static str, job: &'static str| {
        [
            ("deployment", "cf"),
            ("job", job),
            ("index", "ab12"),
            ("ip", "10.0.16.20"),
            ("origin", origin),
        ]
    };
    let mut app = job("rep", "diego-cell").to_vec();
    app.extend([
        ("app_id", APP),
        ("app_name", "shop"),
        ("space_name", "dev"),
        ("organization_name", "acme"),
    ]);
    let container = gauge(&[
        ("cpu", "percentage", 12.5),
        ("memory", "bytes", 268_435_456.0),
        ("disk", "bytes", 1024.0),
        ("memory_quota", "bytes", 536_870_912.0),
        ("disk_quota", "bytes", 1_073_741_824.0),
    ]);
    let mut events = vec![
        at(now, APP, "0", &app, container),
        at(
            now,
            "gorouter",
            "",
            &ROUTER,
            counter("total_requests", 10, 1000 + 10 * n),
        ),
        at(
            now,
            "gorouter",
            "",
            &ROUTER,
            counter("responses.5xx", 1, 1 + n),
        ),
        at(
            now,
            "gorouter",
            "",
            &ROUTER,
            gauge(&[("latency", "ms", 12.0), ("total_routes", "", 42.0)]),
        ),
        at(
            now,
            "rep",
            "",
            &job("rep", "diego-cell"),
            gauge(&[
                ("CapacityTotalMemory", "MiB", 1024.0),
                ("CapacityRemainingMemory", "MiB", 512.0),
            ]),
        ),
        at(
            now,
            "bbs",
            "",
            &job("bbs", "diego-api"),
            gauge(&[("LRPsMissing", "Metric", 0.0)]),
        ),
        at(
            now,
            APP,
            "0",
            &[("app_name", "shop"), ("source_type", "APP/PROC/WEB")],
            log(false, "hello"),
        ),
    ];
    for (status, millis) in [("200", 12), ("500", 740)] {
        let mut tags = ROUTER.to_vec();
        tags.extend_from_slice(&app[5..]);
        tags.extend([
            ("peer_type", "Server"),
            ("method", "GET"),
            ("uri", "https://shop.example.com/cart"),
            ("request_id", "a1b2c3d4-0000-4000-8000-000000000001"),
            ("status_code", status),
            ("content_length", "512"),
        ]);
        let timer = Message::Timer(Timer {
            name: "http".to_owned(),
            start: now - millis * 1_000_000,
            stop: now,
        });
        events.push(at(now, APP, "", &tags, timer));
    }
    events
}

/// Keeps a destination busy until it is cancelled.
fn feed(running: std::sync::Arc<Running>) -> CancellationToken {
    let stop = CancellationToken::new();
    tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
        for n in 0.. {
            assert_eq!(running.deliver(platform(n)).await, Delivery::All);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }));
    stop
}

/// What promtool says of a page.
fn lint(program: &Path, page: &[u8]) -> String {
    let mut child = Command::new(program.with_file_name("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(page).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stderr).unwrap()
}

const CLEAN: &str = "listen_addr = \"127.0.0.1:0\"\nlog_rates = true";
const EXPORTER: &str =
    "listen_addr = \"127.0.0.1:0\"\nprofile = \"firehose_exporter\"\nenvironment = \"prod\"";

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_scrapes_both_profiles_without_a_complaint() {
    let Some(program) = peer("prometheus_scrapes_both_profiles_without_a_complaint") else {
        return;
    };
    let clean = std::sync::Arc::new(Running::start(CLEAN).await);
    let exporter = std::sync::Arc::new(Running::start(EXPORTER).await);
    let _feeds = [
        feed(clean.clone()).drop_guard(),
        feed(exporter.clone()).drop_guard(),
    ];
    let scrape = format!(
        "  - job_name: clean\n    honor_labels: true\n    static_configs: [{{targets: ['{}']}}]\n\
         \x20 - job_name: exporter\n    static_configs: [{{targets: ['{}']}}]\n",
        clean.addr(),
        exporter.addr()
    );
    let plain = Prometheus::start(&program, &scrape, &["--enable-feature=exemplar-storage"]);
    let native = Prometheus::start(&program, &scrape, &["--enable-feature=native-histograms"]);
    plain.ready().await;
    native.ready().await;

    // What dashboards of the Prometheus BOSH release ask for.
    for query in [
        "sum(rate(firehose_counter_event_gorouter_total_requests_total{environment=\"prod\"}[1m])) by (bosh_job_id)",
        "sum(rate(firehose_counter_event_gorouter_responses_5_xx_total[1m])) by (bosh_job_name)",
        "avg(firehose_container_metric_cpu_percentage{application_name=\"shop\"}) by (application_name)",
        "firehose_container_metric_memory_bytes / firehose_container_metric_memory_bytes_quota",
        "sum(firehose_value_metric_rep_capacity_total_memory{bosh_deployment=\"cf\"})",
        "1 - sum(firehose_value_metric_rep_capacity_remaining_memory) / sum(firehose_value_metric_rep_capacity_total_memory)",
        "firehose_value_metric_gorouter_latency{bosh_job_ip=\"10.0.0.9\"}",
        "firehose_value_metric_gorouter_total_routes",
        "firehose_value_metric_bbs_lr_ps_missing",
        "sum(rate(firehose_http_total[1m])) by (status_code)",
        "sum(rate(firehose_http_total{status_code=~\"5..\"}[1m])) by (application_name) / sum(rate(firehose_http_total[1m])) by (application_name)",
        "histogram_quantile(0.95, sum(rate(firehose_http_duration_seconds_bucket[1m])) by (le, application_id))",
        "firehose_http_response_size_bytes{quantile=\"0.95\"}",
        "time() - firehose_last_envelope_received_timestamp",
        "rate(firehose_total_container_metrics_received[1m])",
    ] {
        plain.has(query).await;
    }
    let total = plain
        .has("firehose_counter_event_gorouter_total_requests_total")
        .await;
    assert!(total >= 1000.0 && total % 10.0 == 0.0, "{total}");

    // The clean profile, in OpenMetrics.
    let ratio = plain
        .has("cf_container_cpu_usage_ratio{app_name=\"shop\",job=\"diego-cell\"}")
        .await;
    assert_eq!(ratio, 0.125);
    assert_eq!(plain.has("cf_latency_seconds").await, 0.012);
    for query in [
        "sum(rate(cf_http_requests_total{status_code=\"500\"}[1m])) by (app_name)",
        "histogram_quantile(0.95, sum(rate(cf_http_request_duration_seconds_bucket[1m])) by (le))",
        "rate(cf_log_lines_total{stream=\"out\"}[1m])",
        "rate(cf_responses_5xx_total[1m])",
    ] {
        plain.has(query).await;
    }
    let exemplars = until("exemplars", async || {
        let path = "/api/v1/query_exemplars?query=cf_http_request_duration_seconds_bucket&start=0&end=9999999999";
        let answer = get(plain.addr, path, &[]).await;
        let answer: Value = serde_json::from_slice(&answer.body).unwrap();
        let found = answer["data"].as_array().filter(|data| !data.is_empty())?;
        Some(found[0]["exemplars"][0]["labels"]["request_id"].clone())
    })
    .await;
    assert_eq!(exemplars, "a1b2c3d4-0000-4000-8000-000000000001");

    // The same in protobuf, with native histograms.
    let quantile = native
        .has("histogram_quantile(0.9, sum(rate(cf_http_request_duration_seconds[1m])))")
        .await;
    assert!((0.6..0.8).contains(&quantile), "{quantile}");
    native
        .has("histogram_count(rate(firehose_http_duration_seconds[1m]))")
        .await;

    for server in [&plain, &native] {
        assert_eq!(server.ask("up == 1").await.len(), 2);
        assert_eq!(server.complaints(), [""; 0]);
    }

    let accept = [("accept", "text/plain")];
    let page = get(clean.addr(), "/metrics", &accept).await.body;
    assert_eq!(
        lint(&program, &page),
        "",
        "{}",
        String::from_utf8_lossy(&page)
    );
    // The names that dashboards ask for are not all what promtool would have.
    let page = get(exporter.addr(), "/metrics", &accept).await.body;
    let inherent = [
        "metric name should not include type 'counter'",
        "counter metrics should have \"_total\" suffix",
    ];
    for line in lint(&program, &page).lines() {
        println!("promtool, inherent: {line}");
        assert!(inherent.iter().any(|known| line.contains(known)), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_takes_what_is_written_to_it() {
    let Some(program) = peer("prometheus_takes_what_is_written_to_it") else {
        return;
    };
    let server = Prometheus::start(&program, "  []\n", &["--web.enable-remote-write-receiver"]);
    server.ready().await;
    for (name, protocol) in [("one", "1.0"), ("two", "2.0")] {
        let section = format!(
            "log_rates = true\nexpire = \"3s\"\nlabels = {{ member = \"{name}\" }}\n\
             remote_write.url = \"http://{}/api/v1/write\"\nremote_write.protocol = \"{protocol}\"",
            server.addr
        );
        let running = std::sync::Arc::new(Running::start(&section).await);
        for n in 0..10 {
            assert_eq!(running.deliver(platform(n)).await, Delivery::All);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let of = |name: &str, labels: &str, member: &str| {
            format!("{name}{{member=\"{member}\"{labels}}}")
        };
        assert_eq!(
            server.has(&of("cf_total_requests_total", "", name)).await,
            1090.0
        );
        assert_eq!(
            server
                .has(&of("cf_http_requests_total", ",status_code=\"500\"", name))
                .await,
            10.0
        );
        assert_eq!(
            server
                .has(&of(
                    "cf_http_request_duration_seconds_bucket",
                    ",le=\"0.025\"",
                    name
                ))
                .await,
            10.0
        );
        assert_eq!(
            server
                .has(&of("cf_http_request_duration_seconds_count", "", name))
                .await,
            20.0
        );
        assert_eq!(
            server
                .has(&of("cf_log_lines_total", ",stream=\"out\"", name))
                .await,
            10.0
        );
        // Only the router is heard of any more: the others end, and Prometheus does not show them for another five minutes.
        until("ended", async || {
            let router = platform(100).into_iter().skip(1).take(1).collect();
            assert_eq!(running.deliver(router).await, Delivery::All);
            let gone = server
                .ask(&of("cf_container_cpu_usage_ratio", "", name))
                .await;
            gone.is_empty().then_some(())
        })
        .await;
        assert_eq!(
            server.has(&of("cf_total_requests_total", "", name)).await,
            2000.0
        );
    }
    let complaints: Vec<_> = server.complaints();
    assert_eq!(complaints, [""; 0]);
}
