//! All programs together, as a deployment has them, with stand-ins for UAA and the Cloud Controller.

use crate::process::{Process, Vars, with};
use crate::{rlp, rlp_gateway, router, traffic_controller};
use loggregator_client::ws::{Subject, WsConfig, WsStream};
use loggregator_client::{
    Connector, DOPPLER, DopplerSet, EgressStream, REVERSE_LOG_PROXY, Selectors,
};
use loggregator_net::ClientTls;
use loggregator_service::Lifecycle;
use loggregator_testkit::platform::{CAPI_NAME, CLIENT_ID, CLIENT_SECRET, Grant, PlatformStub};
use loggregator_testkit::{Certs, Consumer, Load, SseStream, eventually};
use rustix::process::Signal;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SOURCES: [&str; 3] = ["a", "b", "c"];
const LINES: u64 = 3_000;
const TOKEN: &str = "an-admins-token";

/// The four programs, and what their clients need.
struct Deployment {
    certs: Certs,
    router: Process,
    controller: Process,
    rlp: Process,
    gateway: Process,
    ports: [u16; 4],
}

impl Deployment {
    fn start(platform: &PlatformStub, certs: Certs) -> Self {
        let mut router = Process::start(router::ROUTER, &router::vars(&certs));
        let router_port = router.port("grpc");
        let dopplers = format!("127.0.0.1:{router_port}");
        let mut controller = Process::start(
            traffic_controller::TRAFFIC_CONTROLLER,
            &controller_vars(platform, &certs, &dopplers),
        );
        let rlp_vars = with(&rlp::vars(&certs), &[("ROUTER_ADDRS", &dopplers)]);
        let mut rlp = Process::start(rlp::RLP, &rlp_vars);
        let rlp_port = rlp.port("grpc");
        let mut gateway = Process::start(
            rlp_gateway::GATEWAY,
            &gateway_vars(platform, &certs, &format!("127.0.0.1:{rlp_port}")),
        );
        let ports = [
            router_port,
            controller.port("ws"),
            rlp_port,
            gateway.port("http"),
        ];
        Self {
            certs,
            router,
            controller,
            rlp,
            gateway,
            ports,
        }
    }

    fn tls(&self) -> Arc<ClientTls> {
        ClientTls::mutual(&self.certs.tls("client")).unwrap()
    }

    /// A reader over a WebSocket, one over gRPC, one over HTTP.
    async fn readers(&self) -> [Consumer; 3] {
        let [_, ws, rlp, http] = self.ports;
        let ca = ClientTls::ca_only(&self.certs.ca()).unwrap();
        let mut config = WsConfig::new(&format!("wss://127.0.0.1:{ws}"));
        config.tls = Some(Arc::clone(&ca));
        config.token = Some(TOKEN.to_owned());
        let subject = Subject::Firehose {
            id: "ws".to_owned(),
            filter: None,
        };
        let set = DopplerSet::fixed(
            [format!("127.0.0.1:{rlp}")],
            Connector::new(REVERSE_LOG_PROXY, Some(self.tls())),
        );
        let grpc = EgressStream::open(&set, Selectors::everything().shard("rlp"));
        let gateway = ([127, 0, 0, 1], http).into();
        let sse = SseStream::new(gateway, "log&shard_id=sse", TOKEN).with_tls(ca);
        [
            Consumer::web(WsStream::new(config, subject)).await.unwrap(),
            Consumer::v2(grpc, 1).await.unwrap(),
            Consumer::sse(sse).await.unwrap(),
        ]
    }

    fn load(&self) -> Load {
        let connector = Connector::new(DOPPLER, Some(self.tls()));
        Load::new(
            connector.channel(&format!("127.0.0.1:{}", self.ports[0])),
            &SOURCES,
        )
    }
}

fn controller_vars(platform: &PlatformStub, certs: &Certs, dopplers: &str) -> Vars {
    with(
        &traffic_controller::vars(certs),
        &[
            ("ROUTER_ADDRS", dopplers),
            ("TRAFFIC_CONTROLLER_DISABLE_ACCESS_CONTROL", "false"),
            ("TRAFFIC_CONTROLLER_SKIP_CERT_VERIFY", "false"),
            ("TRAFFIC_CONTROLLER_UAA_HOST", &platform.uaa_url),
            ("TRAFFIC_CONTROLLER_UAA_CLIENT", CLIENT_ID),
            ("TRAFFIC_CONTROLLER_UAA_CLIENT_SECRET", CLIENT_SECRET),
            ("TRAFFIC_CONTROLLER_API_HOST", &platform.capi_url),
            ("CC_SERVER_NAME", CAPI_NAME),
        ],
    )
}

fn gateway_vars(platform: &PlatformStub, certs: &Certs, rlp: &str) -> Vars {
    with(
        &rlp_gateway::vars(certs),
        &[
            ("LOGS_PROVIDER_ADDR", rlp),
            ("LOG_ADMIN_ADDR", &platform.uaa_url),
            ("LOG_ADMIN_CLIENT_ID", CLIENT_ID),
            ("LOG_ADMIN_CLIENT_SECRET", CLIENT_SECRET),
            ("LOG_ACCESS_ADDR", &platform.capi_url),
            ("LOG_ACCESS_ADDR_EXTERNAL", &platform.capi_external_url),
            ("LOG_ACCESS_COMMON_NAME", CAPI_NAME),
        ],
    )
}

/// Sends until every reader gets something: then all subscriptions stand. Returns when nothing is on its way any more.
async fn prime(load: &mut Load, readers: &[Consumer]) {
    eventually("every subscription stands", async || {
        load.send(10).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        readers.iter().all(|reader| reader.lines() > 0)
    })
    .await;
}

/// Scenario: an admin's token; a reader over a WebSocket, over gRPC and over HTTP while lines are sent; then SIGTERM to each
/// program, front to back, with its clients connected.
/// Guarantee: each reader gets every line since its subscription stands, in order; every program drains, ends with 0 and in
/// the time that deployments give it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_come_through_all_programs_and_all_drain() {
    let certs = Certs::generate().unwrap();
    let lifecycle = Lifecycle::new();
    let platform = PlatformStub::start(&certs, &lifecycle).unwrap();
    platform.grant(TOKEN, Grant::admin());
    let deployment = Deployment::start(&platform, certs);
    let readers = deployment.readers().await;
    let mut load = deployment.load();
    prime(&mut load, &readers).await;
    load.send(LINES).await.unwrap();
    let last = SOURCES.map(|source| load.made(source));
    for (name, reader) in ["ws", "rlp", "sse"].iter().zip(&readers) {
        eventually(&format!("{name} has everything"), async || {
            SOURCES
                .iter()
                .zip(last)
                .all(|(source, made)| reader.of(source).next == made)
        })
        .await;
        let checker = reader.checker();
        assert_eq!(
            (checker.out_of_order(), checker.told_lost),
            (0, 0),
            "{name}: {checker}"
        );
        assert!(checker.lines() >= LINES, "{name}: {checker}");
        assert_eq!(reader.unreadable(), 0, "{name}");
    }
    let Deployment {
        router,
        controller,
        rlp,
        gateway,
        ..
    } = deployment;
    for (name, process, limit) in [
        ("router", router, 60),
        ("trafficcontroller", controller, 5),
        ("rlp", rlp, 30),
        ("rlp-gateway", gateway, 5),
    ] {
        let asked = Instant::now();
        process.signal(Signal::TERM);
        let ended = tokio::task::spawn_blocking(|| process.end()).await.unwrap();
        assert_eq!(ended.code, Some(0), "{name}: {}", ended.errors);
        assert!(
            asked.elapsed() < Duration::from_secs(limit),
            "{name}: {:?}",
            asked.elapsed()
        );
    }
    lifecycle.shutdown(Duration::from_secs(1)).await;
}
