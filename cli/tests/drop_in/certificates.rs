//! Certificates that are replaced on disk while the programs run.

use crate::process::{Process, Vars, with};
use crate::{rlp, rlp_gateway, router, traffic_controller};
use loggregator_net::{ClientTls, tls_connect};
use loggregator_testkit::{Certs, NAMES, eventually};
use std::sync::Arc;
use std::time::Duration;

/// A program, its variables, the setting that makes it look at its files often, its announcement, and the name in its
/// certificate.
type Case = (
    &'static str,
    fn(&Certs) -> Vars,
    &'static str,
    &'static str,
    &'static str,
);

const CASES: [Case; 4] = [
    (
        router::ROUTER,
        router::vars,
        "DOPPLER_TLS_RELOAD_INTERVAL",
        "grpc",
        "doppler",
    ),
    (
        rlp::RLP,
        rlp::vars,
        "RLP_TLS_RELOAD_INTERVAL",
        "grpc",
        "reverselogproxy",
    ),
    (
        traffic_controller::TRAFFIC_CONTROLLER,
        traffic_controller::vars,
        "TRAFFIC_CONTROLLER_TLS_RELOAD_INTERVAL",
        "ws",
        "trafficcontroller",
    ),
    (
        rlp_gateway::GATEWAY,
        rlp_gateway::vars,
        "GATEWAY_TLS_RELOAD_INTERVAL",
        "http",
        "client",
    ),
];

/// Scenario: authority, certificate and key are replaced on disk while each program runs.
/// Guarantee: the next connection gets the new certificate.
#[tokio::test]
async fn new_ones_are_served_without_a_restart() {
    for (program, vars, reload, announced, name) in CASES {
        let (certs, other) = (Certs::generate().unwrap(), Certs::generate().unwrap());
        let mut process = Process::start(program, &with(&vars(&certs), &[(reload, "50ms")]));
        let port = process.port(announced);
        let client = |certs: &Certs| match announced {
            "grpc" => ClientTls::mutual(&certs.tls("client")).unwrap(),
            _ => ClientTls::ca_only(&certs.ca()).unwrap(),
        };
        let (old, new) = (client(&certs), client(&other));
        let connects = async |tls: &Arc<ClientTls>| {
            let stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .unwrap();
            tls_connect(stream, tls, name, Duration::from_secs(10))
                .await
                .is_ok()
        };
        assert!(connects(&old).await, "{program}");
        assert!(!connects(&new).await, "{program}");
        let files = NAMES
            .iter()
            .flat_map(|name| [format!("{name}.crt"), format!("{name}.key")]);
        for file in files.chain(["ca.crt".to_owned()]) {
            let (from, to) = (
                other.dir().join(&file),
                certs.dir().join(format!("{file}.new")),
            );
            std::fs::copy(from, &to).unwrap();
            std::fs::rename(to, certs.dir().join(&file)).unwrap();
        }
        eventually("the new certificate is served", async || {
            connects(&new).await
        })
        .await;
        assert!(!connects(&old).await, "{program}");
    }
}
