//! `router`.

use crate::process::{Process, Vars, get, run, with, without};
use loggregator_client::{Connector, DOPPLER, DopplerSet, EgressStream, Selectors};
use loggregator_net::ClientTls;
use loggregator_testkit::{Certs, Consumer, Load};
use rustix::process::Signal;
use std::net::TcpListener;

pub const ROUTER: &str = env!("CARGO_BIN_EXE_router");

/// The environment of the platform's integration tests, in full.
pub fn vars(certs: &Certs) -> Vars {
    let tls = certs.tls("doppler");
    let file = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
    [
        ("ROUTER_PORT", "0".to_owned()),
        ("ROUTER_CERT_FILE", file(tls.cert)),
        ("ROUTER_KEY_FILE", file(tls.key)),
        ("ROUTER_CA_FILE", file(tls.ca)),
        ("ROUTER_CIPHER_SUITES", String::new()),
        ("INGRESS_BUFFER_SIZE", "10000".to_owned()),
        ("EGRESS_BUFFER_SIZE", "1000".to_owned()),
        ("USE_RFC339", "false".to_owned()),
        ("ROUTER_PPROF_PORT", "0".to_owned()),
        ("AGENT_GRPC_ADDRESS", "127.0.0.1:0".to_owned()),
        ("ROUTER_METRIC_BATCH_INTERVAL_MILLISECONDS", "10".to_owned()),
        ("ROUTER_METRIC_SOURCE_ID", String::new()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

const REPORT: &str = "\
FIELD NAME:                             TYPE:     ENV:                                       REQUIRED:  VALUE:
GRPC.Port                               uint16    ROUTER_PORT                                false      (OMITTED)
GRPC.CertFile                           string    ROUTER_CERT_FILE                           false      (OMITTED)
GRPC.KeyFile                            string    ROUTER_KEY_FILE                            false      (OMITTED)
GRPC.CAFile                             string    ROUTER_CA_FILE                             false      (OMITTED)
GRPC.CipherSuites                       []string  ROUTER_CIPHER_SUITES                       false      (OMITTED)
Config.IngressBufferSize                int       INGRESS_BUFFER_SIZE                        false      (OMITTED)
Config.EgressBufferSize                 int       EGRESS_BUFFER_SIZE                         false      (OMITTED)
Config.UseRFC339                        bool      USE_RFC339                                 false      (OMITTED)
Config.PProfPort                        uint32    ROUTER_PPROF_PORT                          false      (OMITTED)
Agent.GRPCAddress                       string    AGENT_GRPC_ADDRESS                         false      (OMITTED)
Config.MetricBatchIntervalMilliseconds  uint      ROUTER_METRIC_BATCH_INTERVAL_MILLISECONDS  false      (OMITTED)
Config.MetricSourceID                   string    ROUTER_METRIC_SOURCE_ID                    false      (OMITTED)
";

/// Scenario: the environment of the platform's tests; then SIGTERM.
/// Guarantee: the report and the lines that others wait for, on standard error alone; an orderly end with code 0.
#[test]
fn it_starts_as_the_platform_s_tests_start_it_and_drains() {
    let certs = Certs::generate().unwrap();
    let mut router = Process::start(ROUTER, &vars(&certs));
    let (grpc, pprof) = (router.port("grpc"), router.port("pprof"));
    assert_ne!(grpc, pprof);
    router.signal(Signal::TERM);
    let ended = router.end();
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
    let stamp = regex::Regex::new(r"(?m)^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{6} ").unwrap();
    assert_eq!(stamp.find_iter(log).count(), log.lines().count(), "{log}");
    for line in [
        "Startup: Setting up the router server".to_owned(),
        format!("grpc bound to: [::]:{grpc}"),
        "Startup: router server started.".to_owned(),
        "MessageRouter:Starting".to_owned(),
        format!("Starting gRPC server on [::]:{grpc}"),
        format!("pprof bound to: 127.0.0.1:{pprof}"),
    ] {
        let lines: Vec<_> = log.lines().map(|line| stamp.replace(line, "")).collect();
        assert!(
            lines.contains(&line.as_str().into()),
            "{line} is missing in {log}"
        );
    }
}

/// Scenario: SIGTERM while a reader does not read, then another.
/// Guarantee: the first waits for the reader, the second does not; what was not delivered is said, and the exit code is 75.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_cuts_the_drain_short() {
    let certs = Certs::generate().unwrap();
    let vars = with(&vars(&certs), &[("DOPPLER_DRAIN_TIMEOUT", "60s")]);
    let mut router = Process::start(ROUTER, &vars);
    let addr = format!("127.0.0.1:{}", router.port("grpc"));
    let tls = ClientTls::mutual(&certs.tls("client")).unwrap();
    let connector = Connector::new(DOPPLER, Some(tls));
    let set = DopplerSet::fixed([addr.clone()], connector.clone());
    let stream = EgressStream::open(&set, Selectors::everything().shard("stalled"));
    let reader = Consumer::v2(stream, 1).await.unwrap();
    reader.pause();
    let mut load = Load::new(connector.channel(&addr), &["noise"]).padded(4_000);
    load.send(5_000).await.unwrap();
    router.signal(Signal::TERM);
    router.wait_for("draining");
    router.signal(Signal::TERM);
    let ended = tokio::task::spawn_blocking(|| router.end()).await.unwrap();
    assert_eq!(ended.code, Some(75), "{}", ended.errors);
    for line in [
        "second signal: the drain is cut short",
        "drain was cut short",
    ] {
        assert!(
            ended.errors.contains(line),
            "{line} is missing in {}",
            ended.errors
        );
    }
}

/// Guarantee: `USE_RFC339` changes the time to UTC with nine digits; SIGINT ends as SIGTERM does; an unset agent and an
/// interval of 0 are no errors, nor are sizes of 0, which end the Go program.
#[test]
fn log_lines_can_have_utc() {
    let certs = Certs::generate().unwrap();
    let vars = without(
        &vars(&certs),
        &["AGENT_GRPC_ADDRESS", "INGRESS_BUFFER_SIZE"],
    );
    let vars = with(
        &vars,
        &[
            ("USE_RFC339", "true"),
            ("EGRESS_BUFFER_SIZE", "0"),
            ("ROUTER_METRIC_BATCH_INTERVAL_MILLISECONDS", "0"),
        ],
    );
    let mut router = Process::start(ROUTER, &vars);
    router.wait_for(r"(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z grpc bound to: \[::\]:(\d+)$");
    router.port("pprof");
    router.signal(Signal::INT);
    assert_eq!(router.end().code, Some(0));
}

/// Guarantee: each mistake has the Go program's text and exit code.
#[test]
fn every_mistake_has_its_text_and_its_exit_code() {
    let certs = Certs::generate().unwrap();
    let dir = certs.dir().display().to_string();
    let other = certs.tls("metron").key;
    let cases: &[(&str, &str, &str, i32)] = &[
        (
            "ROUTER_PORT",
            "abc",
            "Unable to parse config: strconv.ParseUint: parsing \"abc\": invalid syntax (ROUTER_PORT)",
            1,
        ),
        (
            "INGRESS_BUFFER_SIZE",
            "1k",
            "Unable to parse config: strconv.ParseInt: parsing \"1k\": invalid syntax (INGRESS_BUFFER_SIZE)",
            1,
        ),
        (
            "EGRESS_BUFFER_SIZE",
            "99999999999999999999",
            "Unable to parse config: strconv.ParseInt: parsing \"99999999999999999999\": value out of range (EGRESS_BUFFER_SIZE)",
            1,
        ),
        (
            "ROUTER_METRIC_BATCH_INTERVAL_MILLISECONDS",
            "-1",
            "Unable to parse config: strconv.ParseUint: parsing \"-1\": invalid syntax (ROUTER_METRIC_BATCH_INTERVAL_MILLISECONDS)",
            1,
        ),
        (
            "ROUTER_CA_FILE",
            "",
            "Unable to parse config: invalid router config, no GRPC.CAFile provided",
            1,
        ),
        (
            "ROUTER_CERT_FILE",
            "",
            "Unable to parse config: invalid router config, no GRPC.CertFile provided",
            1,
        ),
        (
            "ROUTER_KEY_FILE",
            "",
            "Unable to parse config: invalid router config, no GRPC.KeyFile provided",
            1,
        ),
        (
            "ROUTER_CERT_FILE",
            "/nowhere/x",
            "Could not use GRPC creds for server: failed to load keypair: open /nowhere/x: no such file or directory",
            1,
        ),
        (
            "ROUTER_CA_FILE",
            "/nowhere/ca",
            "Could not use GRPC creds for server: failed to read certificate(s) at path \"/nowhere/ca\": open /nowhere/ca: no such file or directory",
            1,
        ),
        (
            "ROUTER_CA_FILE",
            "DIR/doppler.key",
            "Could not use GRPC creds for server: unexpected PEM block type \"PRIVATE KEY\" in file \"DIR/doppler.key\"",
            1,
        ),
        (
            "ROUTER_CIPHER_SUITES",
            "TLS_RSA_WITH_RC4_128_SHA",
            "no valid ciphers provided for TLS configuration",
            2,
        ),
        (
            "AGENT_GRPC_ADDRESS",
            "%zz:1",
            "Could not configure metric emitter: parse \"dns:///%zz:1\": invalid URL escape \"%zz\"",
            1,
        ),
        (
            "ROUTER_PPROF_PORT",
            "70000",
            "Error creating pprof listener: listen tcp: address 70000: invalid port",
            2,
        ),
        (
            "DOPPLER_LOG_BYTES",
            "1MiB",
            "Unable to parse config: DOPPLER_LOG_BYTES=\"1MiB\": must be at least 33554432 bytes",
            1,
        ),
    ];
    for (name, value, text, exit) in cases {
        let value = value.replace("DIR", &dir);
        let ended = run(ROUTER, &with(&vars(&certs), &[(name, &value)]), &[]);
        assert_eq!(
            ended.lines()[0],
            text.replace("DIR", &dir),
            "{name}={value}"
        );
        assert_eq!(ended.code, Some(*exit), "{name}={value}");
        assert_eq!(ended.output, "");
    }
    let ended = run(
        ROUTER,
        &with(
            &vars(&certs),
            &[("ROUTER_KEY_FILE", other.to_str().unwrap())],
        ),
        &[],
    );
    assert!(
        ended.lines()[0].starts_with(
            "Could not use GRPC creds for server: failed to load keypair: tls: private key does not match public key"
        ),
        "{}",
        ended.errors
    );
    assert_eq!(ended.code, Some(1));
}

/// Scenario: an environment without anything useful.
/// Guarantee: everything that is wrong is told, each thing as the Go program would tell it; the exit code is that of the
/// first.
#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let vars = with(
        &Vars::new(),
        &[
            ("ROUTER_PORT", "-"),
            ("ROUTER_CIPHER_SUITES", "unknown"),
            ("EGRESS_BUFFER_SIZE", "x"),
            ("ROUTER_CERT_FILE", "cert"),
            ("ROUTER_PPROF_PORT", "65536"),
            ("DOPPLER_RESUME_GRACE", "soon"),
        ],
    );
    let ended = run(ROUTER, &vars, &[]);
    assert_eq!(
        ended.lines(),
        [
            "Unable to parse config: strconv.ParseUint: parsing \"-\": invalid syntax (ROUTER_PORT)",
            "Unable to parse config: strconv.ParseInt: parsing \"x\": invalid syntax (EGRESS_BUFFER_SIZE)",
            "Unable to parse config: invalid router config, no GRPC.CAFile provided",
            "Unable to parse config: invalid router config, no GRPC.KeyFile provided",
            "Unable to parse config: DOPPLER_RESUME_GRACE=\"soon\": time: invalid duration \"soon\"",
            "no valid ciphers provided for TLS configuration",
            "Error creating pprof listener: listen tcp: address 65536: invalid port",
        ]
    );
    assert_eq!(ended.code, Some(1));
}

/// Guarantee: a port that somebody else has is told in the Go program's words, with its exit code.
#[test]
fn a_port_that_is_taken_ends_it() {
    let certs = Certs::generate().unwrap();
    let taken = TcpListener::bind("[::]:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ended = run(ROUTER, &with(&vars(&certs), &[("ROUTER_PORT", &port)]), &[]);
    let reason = format!(
        "Failed to start listener (port={port}) for gRPC: listen tcp :{port}: bind: address already in use"
    );
    assert!(
        ended.errors.contains(&format!(" {reason}\n")),
        "{}",
        ended.errors
    );
    assert!(
        ended
            .errors
            .ends_with(&format!(" Failed to create router server: {reason}\n")),
        "{}",
        ended.errors
    );
    assert_eq!(ended.code, Some(2));

    let ended = run(
        ROUTER,
        &with(&vars(&certs), &[("ROUTER_PPROF_PORT", &port)]),
        &[],
    );
    let line = format!(
        " Error creating pprof listener: listen tcp 127.0.0.1:{port}: bind: address already in use\n"
    );
    assert!(ended.errors.ends_with(&line), "{}", ended.errors);
    assert_eq!(ended.code, Some(2));
}

/// Guarantee: the profiler's port has the index that the platform's script looks for, and tells what it cannot do.
#[test]
fn the_profiler_s_port_answers() {
    let certs = Certs::generate().unwrap();
    let mut router = Process::start(ROUTER, &vars(&certs));
    let port = router.port("pprof");
    let (head, body) = get(port, "/debug/pprof/");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("content-type: text/html; charset=utf-8"),
        "{head}"
    );
    assert!(body.contains("<title>/debug/pprof/</title>"), "{body}");
    assert_eq!(get(port, "/debug/pprof/cmdline").1, ROUTER);
    let (_, tasks) = get(port, "/debug/pprof/goroutine?debug=1");
    assert!(
        tasks.contains("\nrouter\n") && tasks.contains("\ngrpc\n"),
        "{tasks}"
    );
    assert!(get(port, "/debug/pprof/heap").1.contains("VmRSS:"));
    assert!(
        get(port, "/debug/pprof/threadcreate")
            .1
            .starts_with("Threads:")
    );
    for path in ["profile", "trace", "block", "mutex", "symbol"] {
        let (head, body) = get(port, &format!("/debug/pprof/{path}"));
        assert!(head.starts_with("HTTP/1.1 501 "), "{path}: {head}");
        assert_eq!(
            body,
            "This program has no Go runtime that could record this. Use perf on the process.\n"
        );
    }
    for path in ["/", "/debug/pprof", "/debug/pprof/other", "/metrics"] {
        let (head, body) = get(port, path);
        assert!(
            head.starts_with("HTTP/1.1 404 Not Found\r\n"),
            "{path}: {head}"
        );
        assert_eq!(body, "404 page not found\n");
    }
}

/// Guarantee: settings of ours work beside the Go program's variables.
#[test]
fn an_operator_can_look_into_it() {
    let certs = Certs::generate().unwrap();
    let vars = with(
        &vars(&certs),
        &[
            ("DOPPLER_ADMIN_ADDR", "127.0.0.1:0"),
            ("DOPPLER_LOG_BYTES", "64MiB"),
        ],
    );
    let mut router = Process::start(ROUTER, &vars);
    let port = router
        .wait_for(r"doppler started .*admin=\D*127\.0\.0\.1:(\d+)")
        .parse()
        .unwrap();
    router.wait_for("the log holds 67108864 bytes");
    assert!(get(port, "/readyz").0.starts_with("HTTP/1.1 200 "));
}

/// Guarantee: it takes no arguments but `--help` and `--version`.
#[test]
fn it_takes_variables_only() {
    let ended = run(ROUTER, &Vars::new(), &["--port", "1"]);
    assert_eq!(
        ended.errors,
        "router: unexpected argument \"--port\": this program takes environment variables only; --help lists them\n"
    );
    assert_eq!(ended.code, Some(2));
    let help = run(ROUTER, &Vars::new(), &["--help"]);
    assert_eq!(help.code, Some(0));
    for name in [
        "  ROUTER_PORT [default: 0]\n",
        "  DOPPLER_LOG_BYTES [default: 256MiB]\n",
        "  LOG_LEVEL ",
    ] {
        assert!(help.output.contains(name), "{name} in {}", help.output);
    }
    assert!(
        !help.output.contains("DOPPLER_GRPC_ADDR"),
        "{}",
        help.output
    );
    let version = run(ROUTER, &Vars::new(), &["--version"]);
    assert_eq!(
        version.output,
        concat!("router ", env!("CARGO_PKG_VERSION"), "\n")
    );
}
