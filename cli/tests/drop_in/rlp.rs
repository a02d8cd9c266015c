//! `rlp`.

use crate::process::{Process, Vars, get, run, with, without};
use crate::router::{self, ROUTER};
use loggregator_client::{Connector, DOPPLER, REVERSE_LOG_PROXY, Selectors};
use loggregator_net::ClientTls;
use loggregator_proto::rpc;
use loggregator_proto::v2::EgressBatchRequest;
use loggregator_testkit::{Certs, Load, eventually};
use prost::Message as _;
use rustix::process::Signal;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

pub const RLP: &str = env!("CARGO_BIN_EXE_rlp");

/// Everything that it must have, and ports that the system gives.
pub fn vars(certs: &Certs) -> Vars {
    let tls = certs.tls("reverselogproxy");
    let [ca, cert, key] = [tls.ca, tls.cert, tls.key].map(|path| path.to_str().unwrap().to_owned());
    [
        ("ROUTER_ADDRS", "127.0.0.1:1,127.0.0.1:2"),
        ("RLP_PORT", "0"),
        ("RLP_CERT_FILE", &cert),
        ("RLP_KEY_FILE", &key),
        ("RLP_CA_FILE", &ca),
        ("RLP_CIPHER_SUITES", ""),
        ("RLP_PPROF_PORT", "0"),
        ("AGENT_ADDR", "localhost:37474"),
        ("RLP_METRIC_EMITTER_INTERVAL", "0s"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

const REPORT: &str = "\
FIELD NAME:                   TYPE:          ENV:                         REQUIRED:  VALUE:
Config.UseRFC339              bool           USE_RFC339                   false      (OMITTED)
Config.PProfPort              uint32         RLP_PPROF_PORT               false      (OMITTED)
Config.MetricEmitterInterval  time.Duration  RLP_METRIC_EMITTER_INTERVAL  false      (OMITTED)
Config.MetricSourceID         string         RLP_METRIC_SOURCE_ID         false      (OMITTED)
Config.RouterAddrs            []string       ROUTER_ADDRS                 true       (OMITTED)
Config.AgentAddr              string         AGENT_ADDR                   false      (OMITTED)
Config.MaxEgressStreams       int64          MAX_EGRESS_STREAMS           false      (OMITTED)
GRPC.Port                     int            RLP_PORT                     false      (OMITTED)
GRPC.CAFile                   string         RLP_CA_FILE                  false      (OMITTED)
GRPC.CertFile                 string         RLP_CERT_FILE                false      (OMITTED)
GRPC.KeyFile                  string         RLP_KEY_FILE                 false      (OMITTED)
GRPC.CipherSuites             []string       RLP_CIPHER_SUITES            false      (OMITTED)
";

/// Guarantee: report and announcements; SIGTERM ends it in order, with the Go program's lines about the dopplers.
#[test]
fn it_starts_announces_its_ports_and_drains() {
    let certs = Certs::generate().unwrap();
    let mut rlp = Process::start(RLP, &vars(&certs));
    let (grpc, pprof) = (rlp.port("grpc"), rlp.port("pprof"));
    assert!(
        get(pprof, "/debug/pprof/")
            .0
            .starts_with("HTTP/1.1 200 OK\r\n")
    );
    rlp.wait_for("adding doppler 127.0.0.1:2");
    rlp.signal(Signal::TERM);
    let ended = rlp.end();
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
        "Event from finder: {GRPCDopplers:[127.0.0.1:1 127.0.0.1:2]}",
        "adding doppler 127.0.0.1:1",
        "adding doppler 127.0.0.1:2",
        &format!("grpc bound to: [::]:{grpc}"),
        &format!("pprof bound to: 127.0.0.1:{pprof}"),
        "Event from finder: {GRPCDopplers:[]}",
        "Disabling reconnects for doppler 127.0.0.1:1",
        "closing doppler connection 127.0.0.1:1...",
    ] {
        assert!(
            log.contains(&format!(" {line}\n")),
            "{line} is missing in {log}"
        );
    }
}

/// Guarantee: each mistake has the Go program's text and exit code.
#[test]
fn every_mistake_has_its_text_and_its_exit_code() {
    let certs = Certs::generate().unwrap();
    let unset = "failed to load keypair: open : no such file or directory";
    let cases: &[(&str, &str, &str, i32)] = &[
        (
            "ROUTER_ADDRS",
            "",
            "Failed to load config: missing required environment variables: ROUTER_ADDRS",
            1,
        ),
        (
            "RLP_PORT",
            "abc",
            "Failed to load config: strconv.ParseInt: parsing \"abc\": invalid syntax (RLP_PORT)",
            1,
        ),
        (
            "RLP_METRIC_EMITTER_INTERVAL",
            "5",
            "Failed to load config: time: missing unit in duration \"5\" (RLP_METRIC_EMITTER_INTERVAL)",
            1,
        ),
        (
            "MAX_EGRESS_STREAMS",
            "0",
            "Failed to load config: MAX_EGRESS_STREAMS must be at least 1",
            1,
        ),
        (
            "RLP_CERT_FILE",
            "",
            &format!("Could not use TLS config: {unset}"),
            1,
        ),
        (
            "RLP_CA_FILE",
            "",
            "Could not use TLS config: failed to read certificate(s) at path \"\": open : no such file or directory",
            1,
        ),
        (
            "RLP_CIPHER_SUITES",
            "unknown",
            "no valid ciphers provided for TLS configuration",
            2,
        ),
        (
            "RLP_PORT",
            "65536",
            "listen tcp: address 65536: invalid port",
            1,
        ),
        (
            "RLP_PPROF_PORT",
            "65536",
            "Error creating pprof listener: listen tcp: address 65536: invalid port",
            2,
        ),
    ];
    for (name, value, text, exit) in cases {
        let ended = run(RLP, &with(&vars(&certs), &[(name, value)]), &[]);
        assert_eq!(ended.lines(), [*text], "{name}");
        assert_eq!(
            (ended.code, ended.output.as_str()),
            (Some(*exit), ""),
            "{name}"
        );
    }
}

/// Guarantee: a port that somebody else has ends it; that of the profiler is 6061 unless told otherwise.
#[test]
fn a_port_that_is_taken_ends_it() {
    let certs = Certs::generate().unwrap();
    let taken = TcpListener::bind("[::]:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ended = run(RLP, &with(&vars(&certs), &[("RLP_PORT", &port)]), &[]);
    let line = format!(" listen tcp :{port}: bind: address already in use\n");
    assert!(ended.errors.ends_with(&line), "{}", ended.errors);
    assert_eq!(ended.code, Some(1));

    // Either this test has the port now, or somebody else.
    let _usual = TcpListener::bind("127.0.0.1:6061");
    let ended = run(RLP, &without(&vars(&certs), &["RLP_PPROF_PORT"]), &[]);
    let line =
        " Error creating pprof listener: listen tcp 127.0.0.1:6061: bind: address already in use\n";
    assert!(ended.errors.ends_with(line), "{}", ended.errors);
    assert_eq!(ended.code, Some(2));
}

/// Scenario: two dopplers, one of which is not there; a client more than may subscribe; the other doppler is killed; the
/// client leaves.
/// Guarantee: what the Go program says of it, and nothing of the doppler that cannot be reached.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_told_in_the_words_of_the_go_program() {
    let certs = Certs::generate().unwrap();
    let mut router = Process::start(ROUTER, &router::vars(&certs));
    let doppler = format!("127.0.0.1:{}", router.port("grpc"));
    let settings = [
        ("ROUTER_ADDRS", format!("127.0.0.1:1,{doppler}")),
        ("RLP_MAX_SUBSCRIPTIONS", "1".to_owned()),
    ];
    let settings = settings.each_ref().map(|(name, value)| (*name, &**value));
    let mut rlp = Process::start(RLP, &with(&vars(&certs), &settings));
    let tls = ClientTls::mutual(&certs.tls("client")).unwrap();
    let proxy = Connector::new(REVERSE_LOG_PROXY, Some(Arc::clone(&tls)))
        .channel(&format!("127.0.0.1:{}", rlp.port("grpc")));
    let request: EgressBatchRequest = Selectors::everything().into();
    let subscribe = || {
        let request = request.encode_to_vec().into();
        proxy.server_stream(rpc::EGRESS_BATCHED_RECEIVER, request)
    };
    let mut first = subscribe().await.unwrap();
    let mut load = Load::new(Connector::new(DOPPLER, Some(tls)).channel(&doppler), &["a"]);
    eventually("the subscription stands", async || {
        load.send(1).await.unwrap();
        let batch = tokio::time::timeout(Duration::from_millis(20), first.next()).await;
        batch.is_ok_and(|batch| batch.unwrap().is_ok())
    })
    .await;

    let mut second = subscribe().await.unwrap();
    let status = second.next().await.unwrap().unwrap_err();
    assert_eq!(status.message, "unable to setup subscription");
    rlp.wait_for(r" Unable to setup subscription: at connection limit: 1\b");

    drop(router);
    rlp.wait_for(&format!(
        r" Error while reading from stream \({doppler}\): rpc error: code = Unavailable desc = .+\n"
    ));
    drop(first);
    rlp.wait_for(r" Subscribe error: context canceled\b");
    let log = rlp.errors();
    let of_the_absent: Vec<_> = log
        .lines()
        .filter(|line| line.contains("127.0.0.1:1 ") || line.contains("127.0.0.1:1)"))
        .collect();
    assert!(
        of_the_absent
            .iter()
            .all(|line| line.contains(" Event from finder: ")),
        "{log}"
    );
}

/// Guarantee: an operator can look into it.
#[test]
fn settings_of_ours_are_honoured() {
    let certs = Certs::generate().unwrap();
    let probe = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = probe.local_addr().unwrap();
    drop(probe);
    let vars = with(&vars(&certs), &[("RLP_ADMIN_ADDR", &addr.to_string())]);
    let mut rlp = Process::start(RLP, &vars);
    rlp.port("grpc");
    assert!(get(addr.port(), "/healthz").0.starts_with("HTTP/1.1 200 "));
}
