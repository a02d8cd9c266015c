//! `trafficcontroller`.

use crate::process::{Process, Vars, get, run, with, without};
use crate::router::{self, ROUTER};
use loggregator_client::ws::{Subject, WsConfig, WsStream};
use loggregator_client::{Connector, DOPPLER};
use loggregator_net::{ClientTls, TlsStream, tls_connect};
use loggregator_testkit::{Certs, Consumer, Load, eventually};
use rustix::process::Signal;
use std::net::TcpListener;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub const TRAFFIC_CONTROLLER: &str = env!("CARGO_BIN_EXE_trafficcontroller");

/// The environment of the platform's integration tests, in full.
pub fn vars(certs: &Certs) -> Vars {
    let tls = certs.tls("trafficcontroller");
    let [ca, cert, key] = [tls.ca, tls.cert, tls.key].map(|path| path.to_str().unwrap().to_owned());
    [
        ("USE_RFC339", "false"),
        ("TRAFFIC_CONTROLLER_SECURITY_EVENT_LOG", ""),
        ("TRAFFIC_CONTROLLER_IP", "127.0.0.1"),
        ("TRAFFIC_CONTROLLER_API_HOST", "http://127.0.0.1:65530"),
        ("TRAFFIC_CONTROLLER_UAA_HOST", "http://127.0.0.1:65531"),
        ("TRAFFIC_CONTROLLER_OUTGOING_DROPSONDE_PORT", "0"),
        ("TRAFFIC_CONTROLLER_PPROF_PORT", "0"),
        ("TRAFFIC_CONTROLLER_OUTGOING_CERT_FILE", &cert),
        ("TRAFFIC_CONTROLLER_OUTGOING_KEY_FILE", &key),
        ("ROUTER_CERT_FILE", &cert),
        ("ROUTER_KEY_FILE", &key),
        ("ROUTER_CA_FILE", &ca),
        ("CC_CERT_FILE", &cert),
        ("CC_KEY_FILE", &key),
        ("CC_CA_FILE", &ca),
        ("CC_SERVER_NAME", "cloud-controller"),
        ("TRAFFIC_CONTROLLER_UAA_CA_CERT", &ca),
        ("TRAFFIC_CONTROLLER_SYSTEM_DOMAIN", "vcap.me"),
        ("TRAFFIC_CONTROLLER_SKIP_CERT_VERIFY", "true"),
        ("TRAFFIC_CONTROLLER_DISABLE_ACCESS_CONTROL", "true"),
        ("TRAFFIC_CONTROLLER_UAA_CLIENT", "bob"),
        ("TRAFFIC_CONTROLLER_UAA_CLIENT_SECRET", "yourUncle"),
        ("TRAFFIC_CONTROLLER_METRIC_EMITTER_INTERVAL", "0s"),
        ("ROUTER_ADDRS", "127.0.0.1:1, 127.0.0.1:2"),
        ("AGENT_GRPC_ADDRESS", "localhost:37474"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

const REPORT: &str = "\
FIELD NAME:                   TYPE:          ENV:                                        REQUIRED:  VALUE:
Config.IP                     string         TRAFFIC_CONTROLLER_IP                       false      (OMITTED)
Config.ApiHost                string         TRAFFIC_CONTROLLER_API_HOST                 false      (OMITTED)
Config.OutgoingDropsondePort  uint32         TRAFFIC_CONTROLLER_OUTGOING_DROPSONDE_PORT  false      (OMITTED)
Config.OutgoingCertFile       string         TRAFFIC_CONTROLLER_OUTGOING_CERT_FILE       false      (OMITTED)
Config.OutgoingKeyFile        string         TRAFFIC_CONTROLLER_OUTGOING_KEY_FILE        false      (OMITTED)
Config.SystemDomain           string         TRAFFIC_CONTROLLER_SYSTEM_DOMAIN            false      (OMITTED)
Config.SkipCertVerify         bool           TRAFFIC_CONTROLLER_SKIP_CERT_VERIFY         false      (OMITTED)
Config.UaaHost                string         TRAFFIC_CONTROLLER_UAA_HOST                 false      (OMITTED)
Config.UaaCACert              string         TRAFFIC_CONTROLLER_UAA_CA_CERT              false      (OMITTED)
Config.UaaClient              string         TRAFFIC_CONTROLLER_UAA_CLIENT               false      (OMITTED)
Config.UaaClientSecret        string         TRAFFIC_CONTROLLER_UAA_CLIENT_SECRET        false      (OMITTED)
Config.SecurityEventLog       string         TRAFFIC_CONTROLLER_SECURITY_EVENT_LOG       false      (OMITTED)
Config.PProfPort              uint32         TRAFFIC_CONTROLLER_PPROF_PORT               false      (OMITTED)
Config.MetricEmitterInterval  time.Duration  TRAFFIC_CONTROLLER_METRIC_EMITTER_INTERVAL  false      (OMITTED)
Config.DisableAccessControl   bool           TRAFFIC_CONTROLLER_DISABLE_ACCESS_CONTROL   false      (OMITTED)
Config.RouterAddrs            []string       ROUTER_ADDRS                                false      (OMITTED)
CCTLSClientConfig.CertFile    string         CC_CERT_FILE                                false      (OMITTED)
CCTLSClientConfig.KeyFile     string         CC_KEY_FILE                                 false      (OMITTED)
CCTLSClientConfig.CAFile      string         CC_CA_FILE                                  false      (OMITTED)
CCTLSClientConfig.ServerName  string         CC_SERVER_NAME                              false      (OMITTED)
Agent.GRPCAddress             string         AGENT_GRPC_ADDRESS                          false      (OMITTED)
GRPC.CAFile                   string         ROUTER_CA_FILE                              false      (OMITTED)
GRPC.CertFile                 string         ROUTER_CERT_FILE                            false      (OMITTED)
GRPC.KeyFile                  string         ROUTER_KEY_FILE                             false      (OMITTED)
Config.UseRFC339              bool           USE_RFC339                                  false      (OMITTED)
";

/// Scenario: the environment of the platform's tests; then SIGTERM, as the deployment's drain script sends it.
/// Guarantee: report and announcements; an end within the script's 5 s, with code 0.
#[test]
fn it_starts_as_the_platform_s_tests_start_it_and_drains_in_time() {
    let certs = Certs::generate().unwrap();
    let mut controller = Process::start(TRAFFIC_CONTROLLER, &vars(&certs));
    let (ws, pprof) = (controller.port("ws"), controller.port("pprof"));
    assert!(
        get(pprof, "/debug/pprof/")
            .0
            .starts_with("HTTP/1.1 200 OK\r\n")
    );
    let asked = Instant::now();
    controller.signal(Signal::TERM);
    let ended = controller.end();
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(
        (ended.code, ended.output.as_str()),
        (Some(0), ""),
        "{}",
        ended.errors
    );
    let log = ended
        .errors
        .strip_prefix(REPORT)
        .unwrap_or_else(|| panic!("{}", ended.errors));
    for line in [
        "Startup: Setting up the loggregator traffic controller",
        "Event from finder: {GRPCDopplers:[127.0.0.1:1 127.0.0.1:2]}",
        "adding doppler 127.0.0.1:1",
        "adding doppler 127.0.0.1:2",
        &format!("ws bound to: [::]:{ws}"),
        &format!("pprof bound to: 127.0.0.1:{pprof}"),
        "Shutting down",
    ] {
        assert!(
            log.contains(&format!(" {line}\n")),
            "{line} is missing in {log}"
        );
    }
}

/// Guarantee: each of many dopplers is announced.
#[test]
fn every_doppler_is_announced() {
    let certs = Certs::generate().unwrap();
    let dopplers: Vec<_> = (1..=40).map(|port| format!("127.0.0.1:{port}")).collect();
    let vars = with(&vars(&certs), &[("ROUTER_ADDRS", &dopplers.join(","))]);
    let mut controller = Process::start(TRAFFIC_CONTROLLER, &vars);
    controller.port("pprof");
    let log = controller.errors();
    for doppler in dopplers {
        assert!(
            log.contains(&format!(" adding doppler {doppler}\n")),
            "{doppler} is missing in {log}"
        );
    }
}

/// Guarantee: each mistake has the Go program's text and exit code.
#[test]
fn every_mistake_has_its_text_and_its_exit_code() {
    let certs = Certs::generate().unwrap();
    let missing = "failed to load keypair: open /nowhere: no such file or directory";
    let no_ca = "failed to read certificate(s) at path \"\": open : no such file or directory";
    let cases: &[(&str, &str, String, i32)] = &[
        (
            "TRAFFIC_CONTROLLER_SYSTEM_DOMAIN",
            "",
            "Unable to load config: need system domain in order to create the proxies".into(),
            2,
        ),
        ("TRAFFIC_CONTROLLER_IP", "", "Unable to load config: need IP address for access logging".into(), 2),
        ("ROUTER_CA_FILE", "", "Unable to load config: invalid router config, no GRPC.CAFile provided".into(), 2),
        ("ROUTER_CERT_FILE", "", "Unable to load config: invalid router config, no GRPC.CertFile provided".into(), 2),
        ("ROUTER_KEY_FILE", "", "Unable to load config: invalid router config, no GRPC.KeyFile provided".into(), 2),
        ("TRAFFIC_CONTROLLER_UAA_CLIENT_SECRET", "", "Unable to load config: missing UAA client secret".into(), 2),
        ("TRAFFIC_CONTROLLER_UAA_CA_CERT", "", "Unable to load config: missing UAA CA certificate".into(), 2),
        (
            "TRAFFIC_CONTROLLER_METRIC_EMITTER_INTERVAL",
            "5",
            "Unable to load config: time: missing unit in duration \"5\" (TRAFFIC_CONTROLLER_METRIC_EMITTER_INTERVAL)".into(),
            2,
        ),
        (
            "TRAFFIC_CONTROLLER_PPROF_PORT",
            "abc",
            "Unable to load config: strconv.ParseUint: parsing \"abc\": invalid syntax (TRAFFIC_CONTROLLER_PPROF_PORT)".into(),
            2,
        ),
        ("ROUTER_CERT_FILE", "/nowhere", format!("Could not use GRPC creds for server: {missing}"), 1),
        ("CC_CERT_FILE", "/nowhere", format!("Unable to create CC HTTP Client: {missing}"), 1),
        ("CC_CA_FILE", "", format!("Unable to create CC HTTP Client: {no_ca}"), 1),
        ("TRAFFIC_CONTROLLER_OUTGOING_CERT_FILE", "/nowhere", missing.into(), 1),
        (
            "TRAFFIC_CONTROLLER_SECURITY_EVENT_LOG",
            "/nowhere/log",
            "Unable to open access log: open /nowhere/log: no such file or directory".into(),
            1,
        ),
        ("TRAFFIC_CONTROLLER_OUTGOING_DROPSONDE_PORT", "65536", "listen tcp: address 65536: invalid port".into(), 1),
    ];
    for (name, value, text, exit) in cases {
        let ended = run(
            TRAFFIC_CONTROLLER,
            &with(&vars(&certs), &[(name, value)]),
            &[],
        );
        assert_eq!(ended.lines()[0], *text, "{name}");
        assert_eq!(
            (ended.code, ended.output.as_str()),
            (Some(*exit), ""),
            "{name}"
        );
    }
    // Without a UAA the certificate is still loaded.
    let vars = with(
        &vars(&certs),
        &[
            ("TRAFFIC_CONTROLLER_UAA_HOST", ""),
            ("TRAFFIC_CONTROLLER_UAA_CA_CERT", ""),
        ],
    );
    let ended = run(TRAFFIC_CONTROLLER, &vars, &[]);
    assert_eq!(
        ended.lines(),
        [format!("Unable to create UAA HTTP Client: {no_ca}")]
    );
    assert_eq!(ended.code, Some(1));
}

/// Guarantee: with access control on, addresses that cannot be used keep it from starting, and nobody without a token gets
/// in.
#[tokio::test]
async fn access_control_is_on_unless_it_is_disabled() {
    let certs = Certs::generate().unwrap();
    let on = without(
        &vars(&certs),
        &["TRAFFIC_CONTROLLER_DISABLE_ACCESS_CONTROL"],
    );
    let wrong = with(
        &on,
        &[
            ("TRAFFIC_CONTROLLER_UAA_HOST", "uaa"),
            ("TRAFFIC_CONTROLLER_API_HOST", ""),
            ("TRAFFIC_CONTROLLER_ACCESS_ALLOWED_FOR", "soon"),
        ],
    );
    let ended = run(TRAFFIC_CONTROLLER, &wrong, &[]);
    let lines = ended.lines();
    assert_eq!(
        lines,
        [
            "Unable to load config: TRAFFIC_CONTROLLER_ACCESS_ALLOWED_FOR=\"soon\": time: invalid duration \"soon\"",
            "Unable to load config: TRAFFIC_CONTROLLER_UAA_HOST is not of the form https://host:port",
            "Unable to load config: TRAFFIC_CONTROLLER_API_HOST is not of the form https://host:port",
        ]
    );
    assert_eq!(ended.code, Some(2));

    let security = certs.dir().join("security.log");
    let on = with(
        &on,
        &[(
            "TRAFFIC_CONTROLLER_SECURITY_EVENT_LOG",
            security.to_str().unwrap(),
        )],
    );
    let mut controller = Process::start(TRAFFIC_CONTROLLER, &on);
    let port = controller.port("ws");
    for (path, status) in [
        ("/firehose/a", "401 Unauthorized"),
        (
            "/apps/efe5c422-e8a7-42c2-a52b-98bffd8d6a07/stream",
            "401 Unauthorized",
        ),
        ("/", "404 Not Found"),
    ] {
        let head = get_tls(&certs, port, path).await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{path}: {head}"
        );
    }
    controller.signal(Signal::INT);
    assert_eq!(controller.end().code, Some(0));
    let logged = std::fs::read_to_string(security).unwrap();
    let lines: Vec<_> = logged.lines().collect();
    assert_eq!(lines.len(), 3, "{logged}");
    assert!(
        lines[0].starts_with("CEF:0|cloud_foundry|loggregator_trafficcontroller|1.0|GET /firehose/a|GET /firehose/a|0|rt=")
            && lines[0].ends_with(" dst=127.0.0.1 dpt=0"),
        "{logged}"
    );
}

/// Guarantee: cookies are for the system domain.
#[tokio::test]
async fn cookies_are_for_the_system_domain() {
    let certs = Certs::generate().unwrap();
    let mut controller = Process::start(TRAFFIC_CONTROLLER, &vars(&certs));
    let port = controller.port("ws");
    let path = "/set-cookie?CookieName=authorization&CookieValue=bearer%2BiAmAnAdmin";
    let answer = get_tls(&certs, port, path).await;
    let cookie = "\r\nset-cookie: authorization=bearer+iAmAnAdmin; Domain=doppler.vcap.me; HttpOnly; Secure; SameSite=Lax\r\n";
    assert!(answer.contains(cookie), "{answer}");
}

/// Guarantee: what operators search the log for is there, in the Go program's words.
#[tokio::test]
async fn a_subscription_is_told_in_the_words_of_the_go_program() {
    let certs = Certs::generate().unwrap();
    let mut controller = Process::start(TRAFFIC_CONTROLLER, &vars(&certs));
    let port = controller.port("ws");
    let request = "GET /firehose/a HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut stream = connect_tls(&certs, port).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 101");
    controller.wait_for(r" Connecting to 2 dopplers\n");
    for doppler in ["127.0.0.1:1", "127.0.0.1:2"] {
        controller.wait_for(&format!(
            r" Unable to connect to doppler \({doppler}\): rpc error: code = Unavailable desc = .*\n"
        ));
    }
    drop(stream);
    for doppler in ["127.0.0.1:1", "127.0.0.1:2"] {
        controller.wait_for(&format!(
            r" Disconnecting from stream \({doppler}\) \(doppler.disconnect=false\) \(ctx.disconnect=1\)\n"
        ));
    }
}

/// Scenario: one subscription at a doppler; a client more than there may be; a connection that is no TLS; then the doppler is
/// killed, and the program interrupted while its client is connected.
/// Guarantee: each has the Go program's line, and the exit code is 0.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_is_told_in_the_words_of_the_go_program() {
    let certs = Certs::generate().unwrap();
    let mut router = Process::start(ROUTER, &router::vars(&certs));
    let doppler = format!("127.0.0.1:{}", router.port("grpc"));
    let settings = [
        ("ROUTER_ADDRS", doppler.as_str()),
        ("TRAFFIC_CONTROLLER_MAX_SUBSCRIPTIONS", "1"),
    ];
    let mut controller = Process::start(TRAFFIC_CONTROLLER, &with(&vars(&certs), &settings));
    let port = controller.port("ws");
    let mut config = WsConfig::new(&format!("wss://127.0.0.1:{port}"));
    config.tls = Some(ClientTls::ca_only(&certs.ca()).unwrap());
    let subject = Subject::Firehose {
        id: "a".to_owned(),
        filter: None,
    };
    let reader = Consumer::web(WsStream::new(config, subject)).await.unwrap();
    let tls = ClientTls::mutual(&certs.tls("client")).unwrap();
    let mut load = Load::new(Connector::new(DOPPLER, Some(tls)).channel(&doppler), &["a"]);
    eventually("the subscription stands", async || {
        load.send(1).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        reader.lines() > 0
    })
    .await;

    let answer = get_tls(&certs, port, "/firehose/b").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    controller.wait_for(r" error occurred when subscribing to doppler: at connection limit: 1\n");

    let mut stranger = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .unwrap();
    let from = stranger.local_addr().unwrap();
    stranger.write_all(b"no TLS at all\r\n\r\n").await.unwrap();
    controller.wait_for(&format!(r" TLS handshake error from {from}: .+\n"));

    drop(router);
    controller
        .wait_for(r" error getting logs from provider: rpc error: code = Unavailable desc = .+\n");
}

async fn connect_tls(certs: &Certs, port: u16) -> TlsStream<tokio::net::TcpStream> {
    let tls = ClientTls::ca_only(&certs.ca()).unwrap();
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .unwrap();
    tls_connect(stream, &tls, "127.0.0.1", Duration::from_secs(10))
        .await
        .unwrap()
}

/// The answer to `GET path` over TLS.
async fn get_tls(certs: &Certs, port: u16, path: &str) -> String {
    let mut stream = connect_tls(certs, port).await;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Guarantee: everything that is wrong is told at once, in the Go program's order.
#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let vars = with(
        &Vars::new(),
        &[("TRAFFIC_CONTROLLER_DISABLE_ACCESS_CONTROL", "true")],
    );
    let ended = run(TRAFFIC_CONTROLLER, &vars, &[]);
    let no_ca = "failed to read certificate(s) at path \"\": open : no such file or directory";
    let no_pair = "failed to load keypair: open : no such file or directory";
    assert_eq!(
        ended.lines(),
        [
            "Unable to load config: need system domain in order to create the proxies".to_owned(),
            "Unable to load config: need IP address for access logging".to_owned(),
            "Unable to load config: invalid router config, no GRPC.CAFile provided".to_owned(),
            "Unable to load config: invalid router config, no GRPC.CertFile provided".to_owned(),
            "Unable to load config: invalid router config, no GRPC.KeyFile provided".to_owned(),
            "Unable to load config: missing UAA client secret".to_owned(),
            format!("Unable to create UAA HTTP Client: {no_ca}"),
            format!("Unable to create CC HTTP Client: {no_ca}"),
            no_pair.to_owned(),
        ]
    );
    assert_eq!(ended.code, Some(2));
}

/// Guarantee: a port that somebody else has ends it, and nothing of the secret is shown.
#[test]
fn a_port_that_is_taken_ends_it() {
    let certs = Certs::generate().unwrap();
    let taken = TcpListener::bind("[::]:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let vars = with(
        &vars(&certs),
        &[("TRAFFIC_CONTROLLER_OUTGOING_DROPSONDE_PORT", &port)],
    );
    let ended = run(TRAFFIC_CONTROLLER, &without(&vars, &["ROUTER_ADDRS"]), &[]);
    let line = format!(" listen tcp :{port}: bind: address already in use\n");
    assert!(ended.errors.ends_with(&line), "{}", ended.errors);
    assert!(
        ended
            .errors
            .contains(" Event from finder: {GRPCDopplers:[]}\n"),
        "{}",
        ended.errors
    );
    assert!(!ended.errors.contains("yourUncle"));
    assert_eq!(ended.code, Some(1));
}
