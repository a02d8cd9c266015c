//! `rlp-gateway`.

use crate::process::{Process, Vars, get, run, with, without};
use loggregator_net::{ClientTls, tls_connect};
use loggregator_testkit::Certs;
use rustix::process::Signal;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub const GATEWAY: &str = env!("CARGO_BIN_EXE_rlp-gateway");

/// Everything that it must have, and ports that the system gives.
pub fn vars(certs: &Certs) -> Vars {
    let tls = certs.tls("client");
    let [ca, cert, key] = [tls.ca, tls.cert, tls.key].map(|path| path.to_str().unwrap().to_owned());
    [
        ("LOGS_PROVIDER_ADDR", "127.0.0.1:1"),
        ("LOGS_PROVIDER_CA_PATH", &ca),
        ("LOGS_PROVIDER_CLIENT_CERT_PATH", &cert),
        ("LOGS_PROVIDER_CLIENT_KEY_PATH", &key),
        ("GATEWAY_ADDR", "localhost:0"),
        ("HTTP_CERT_PATH", &cert),
        ("HTTP_KEY_PATH", &key),
        ("LOG_ACCESS_ADDR", "https://127.0.0.1:1"),
        ("LOG_ACCESS_ADDR_EXTERNAL", "http://127.0.0.1:1"),
        ("LOG_ACCESS_CERT_PATH", &cert),
        ("LOG_ACCESS_KEY_PATH", &key),
        ("LOG_ACCESS_CA_PATH", &ca),
        ("LOG_ACCESS_COMMON_NAME", "cloud-controller"),
        ("LOG_ADMIN_ADDR", "https://127.0.0.1:1"),
        ("LOG_ADMIN_CLIENT_ID", "doppler"),
        ("LOG_ADMIN_CLIENT_SECRET", "hunter2"),
        ("LOG_ADMIN_CA_PATH", &ca),
        ("METRICS_PORT", "0"),
        ("METRICS_CA_FILE_PATH", &ca),
        ("METRICS_CERT_FILE_PATH", &cert),
        ("METRICS_KEY_FILE_PATH", &key),
        ("PPROF_PORT", "0"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

fn report(dir: &str) -> String {
    "\
FIELD NAME:                          TYPE:          ENV:                            REQUIRED:  VALUE:
LogsProvider.Addr                    string         LOGS_PROVIDER_ADDR              true       127.0.0.1:1
LogsProvider.CAPath                  string         LOGS_PROVIDER_CA_PATH           true       DIR/ca.crt
LogsProvider.ClientCertPath          string         LOGS_PROVIDER_CLIENT_CERT_PATH  true       DIR/client.crt
LogsProvider.ClientKeyPath           string         LOGS_PROVIDER_CLIENT_KEY_PATH   true       DIR/client.key
LogsProvider.CommonName              string         LOGS_PROVIDER_COMMON_NAME       false      reverselogproxy
HTTP.GatewayAddr                     string         GATEWAY_ADDR                    false      localhost:0
HTTP.CertPath                        string         HTTP_CERT_PATH                  true       DIR/client.crt
HTTP.KeyPath                         string         HTTP_KEY_PATH                   true       DIR/client.key
LogAccessAuthorization.Addr          string         LOG_ACCESS_ADDR                 true       https://127.0.0.1:1
LogAccessAuthorization.ExternalAddr  string         LOG_ACCESS_ADDR_EXTERNAL        true       http://127.0.0.1:1
LogAccessAuthorization.CertPath      string         LOG_ACCESS_CERT_PATH            true       DIR/client.crt
LogAccessAuthorization.KeyPath       string         LOG_ACCESS_KEY_PATH             true       DIR/client.key
LogAccessAuthorization.CAPath        string         LOG_ACCESS_CA_PATH              true       DIR/ca.crt
LogAccessAuthorization.CommonName    string         LOG_ACCESS_COMMON_NAME          true       cloud-controller
LogAdminAuthorization.Addr           string         LOG_ADMIN_ADDR                  true       https://127.0.0.1:1
LogAdminAuthorization.ClientID       string         LOG_ADMIN_CLIENT_ID             true       (OMITTED)
LogAdminAuthorization.ClientSecret   string         LOG_ADMIN_CLIENT_SECRET         true       (OMITTED)
LogAdminAuthorization.CAPath         string         LOG_ADMIN_CA_PATH               true       DIR/ca.crt
Config.SkipCertVerify                bool           SKIP_CERT_VERIFY                false      false
Config.StreamTimeout                 time.Duration  STREAM_TIMEOUT                  false      14m
MetricsServer.Port                   uint16         METRICS_PORT                    false      0
MetricsServer.CAFile                 string         METRICS_CA_FILE_PATH            true       DIR/ca.crt
MetricsServer.CertFile               string         METRICS_CERT_FILE_PATH          true       DIR/client.crt
MetricsServer.KeyFile                string         METRICS_KEY_FILE_PATH           true       DIR/client.key
Config.PProfPort                     uint32         PPROF_PORT                      false      0
Config.UseRFC339                     bool           USE_RFC339                      false      (OMITTED)
"
    .replace("DIR", dir)
}

/// Scenario: every required variable; a request without a token; SIGTERM.
/// Guarantee: report and announcements without fractions of seconds, the access log on standard output, an orderly end.
#[tokio::test]
async fn it_starts_announces_its_ports_and_drains() {
    let certs = Certs::generate().unwrap();
    let mut gateway = Process::start(GATEWAY, &vars(&certs));
    let (http, pprof) = (gateway.port("http"), gateway.port("pprof"));
    let metrics = gateway.wait_for(r"Metrics endpoint is listening on 127\.0\.0\.1:(\d+)\n");
    assert!(
        get(pprof, "/debug/pprof/")
            .0
            .starts_with("HTTP/1.1 200 OK\r\n")
    );
    let answer = refused(&certs, http).await;
    assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
    assert!(
        answer.ends_with("{\"message\":\"resource not found\",\"error\":\"not_found\"}\n\n"),
        "{answer}"
    );
    gateway.signal(Signal::TERM);
    let ended = gateway.end();
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    assert!(
        ended.output.starts_with("127.0.0.1 - - [")
            && ended
                .output
                .contains("\"GET /v2/read?log HTTP/1.1\" 404 54\n"),
        "{}",
        ended.output
    );
    let log = ended
        .errors
        .strip_prefix(&report(&certs.dir().display().to_string()))
        .unwrap_or_else(|| panic!("{}", ended.errors));
    let stamp = regex::Regex::new(r"(?m)^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d ").unwrap();
    assert_eq!(stamp.find_iter(log).count(), log.lines().count(), "{log}");
    let log = stamp.replace_all(log, "");
    for line in [
        "starting RLP gateway",
        &format!("Metrics endpoint is listening on 127.0.0.1:{metrics}"),
        &format!("http bound to: 127.0.0.1:{http}"),
        &format!("pprof bound to: 127.0.0.1:{pprof}"),
    ] {
        assert!(
            log.lines().any(|found| found == line),
            "{line} is missing in {log}"
        );
    }
    assert!(!log.contains("hunter2"));
}

/// The answer to a request without a token.
async fn refused(certs: &Certs, port: u16) -> String {
    let tls = ClientTls::ca_only(&certs.ca()).unwrap();
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .unwrap();
    let mut stream = tls_connect(stream, &tls, "127.0.0.1", Duration::from_secs(10))
        .await
        .unwrap();
    let request = "GET /v2/read?log HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Guarantee: all missing variables are named at once, sorted.
#[test]
fn missing_variables_are_named_together() {
    let ended = run(GATEWAY, &Vars::new(), &[]);
    assert_eq!(
        ended.lines(),
        [
            "failed to load config from environment: missing required environment variables: HTTP_CERT_PATH, \
          HTTP_KEY_PATH, LOGS_PROVIDER_ADDR, LOGS_PROVIDER_CA_PATH, LOGS_PROVIDER_CLIENT_CERT_PATH, \
          LOGS_PROVIDER_CLIENT_KEY_PATH, LOG_ACCESS_ADDR, LOG_ACCESS_ADDR_EXTERNAL, LOG_ACCESS_CA_PATH, \
          LOG_ACCESS_CERT_PATH, LOG_ACCESS_COMMON_NAME, LOG_ACCESS_KEY_PATH, LOG_ADMIN_ADDR, LOG_ADMIN_CA_PATH, \
          LOG_ADMIN_CLIENT_ID, LOG_ADMIN_CLIENT_SECRET, METRICS_CA_FILE_PATH, METRICS_CERT_FILE_PATH, \
          METRICS_KEY_FILE_PATH"
        ]
    );
    assert_eq!(ended.code, Some(1));
}

/// Guarantee: each other mistake has a text and exit code 1, or 2 for the profiler's port.
#[test]
fn every_mistake_has_its_text_and_its_exit_code() {
    let certs = Certs::generate().unwrap();
    let missing = "failed to load keypair: open /nowhere: no such file or directory";
    let cases: &[(&str, &str, &str, i32)] = &[
        (
            "STREAM_TIMEOUT",
            "5",
            "failed to load config from environment: time: missing unit in duration \"5\" (STREAM_TIMEOUT)",
            1,
        ),
        (
            "METRICS_PORT",
            "x",
            "failed to load config from environment: strconv.ParseUint: parsing \"x\": invalid syntax (METRICS_PORT)",
            1,
        ),
        (
            "LOG_ADMIN_ADDR",
            "uaa",
            "failed to load config from environment: LOG_ADMIN_ADDR is not of the form https://host:port",
            1,
        ),
        (
            "LOGS_PROVIDER_CLIENT_CERT_PATH",
            "/nowhere",
            &format!("failed to load TLS config for the logs provider: {missing}"),
            1,
        ),
        (
            "HTTP_KEY_PATH",
            "/nowhere",
            &format!("failed to load HTTP TLS config: {missing}"),
            1,
        ),
        (
            "LOG_ACCESS_KEY_PATH",
            "/nowhere",
            &format!("failed to load CAPI TLS config: {missing}"),
            1,
        ),
        (
            "METRICS_CERT_FILE_PATH",
            "/nowhere",
            &format!("failed to load metrics TLS config: {missing}"),
            1,
        ),
        (
            "LOG_ADMIN_CA_PATH",
            "/nowhere",
            "failed to load UAA CA certificate: failed to read certificate(s) at path \"/nowhere\": open /nowhere: no such file or directory",
            1,
        ),
        (
            "GATEWAY_ADDR",
            "nowhere",
            "listen tcp: address nowhere: not an address such as 127.0.0.1:8088 or :8088",
            1,
        ),
        (
            "PPROF_PORT",
            "65536",
            "Error creating pprof listener: listen tcp: address 65536: invalid port",
            2,
        ),
    ];
    for (name, value, text, exit) in cases {
        let ended = run(GATEWAY, &with(&vars(&certs), &[(name, value)]), &[]);
        assert_eq!(ended.lines()[0], *text, "{name}");
        assert_eq!(
            (ended.code, ended.output.as_str()),
            (Some(*exit), ""),
            "{name}"
        );
    }
    let ended = run(
        GATEWAY,
        &with(
            &without(&vars(&certs), &["PPROF_PORT"]),
            &[("USE_RFC339", "1"), ("HTTP_KEY_PATH", "/nowhere")],
        ),
        &[],
    );
    assert!(
        regex::Regex::new(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z failed to load HTTP")
            .unwrap()
            .is_match(&ended.errors),
        "{}",
        ended.errors
    );
}
