//! The doppler about itself: as envelopes in the pipeline, and on its admin port.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use loggregator_net::grpc::{Request, Response, Server, ServerSettings, Service};
use loggregator_net::{Profile, ServerTls};
use loggregator_proto::{rpc, v2};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::harness::*;

/// Name and direction of an own metric, with its value.
fn metric(envelope: &v2::Envelope) -> ((String, String), f64) {
    let direction = match envelope
        .deprecated_tags
        .get("direction")
        .and_then(|value| value.data.as_ref())
    {
        Some(v2::value::Data::Text(text)) => text.clone(),
        _ => String::new(),
    };
    match envelope.message.as_ref().unwrap() {
        v2::envelope::Message::Counter(counter) => {
            ((counter.name.clone(), direction), counter.delta as f64)
        }
        v2::envelope::Message::Gauge(gauge) => {
            let (name, value) = gauge.metrics.first_key_value().unwrap();
            ((name.clone(), direction), value.value)
        }
        other => panic!("{other:?}"),
    }
}

/// A reader of the metrics of this source.
async fn reader(client: &Client, source_id: &str) -> V2Reader {
    let gauges = v2::selector::Message::Gauge(v2::GaugeSelector::default());
    client
        .batched(request(
            "",
            vec![
                selector(source_id, any_counter()),
                selector(source_id, gauges),
            ],
        ))
        .await
}

#[tokio::test]
async fn own_metrics_come_out_of_the_own_log_where_there_is_no_agent() {
    let doppler = Doppler::start_with(|config| {
        config.metric_interval = Duration::from_millis(50);
        config.metric_source_id = "router-7".to_owned();
    })
    .await;
    let client = doppler.connect();
    let mut metrics = reader(&client, "router-7").await;
    let _other = client.batched(logs_for("")).await;
    doppler.subscribed(2).await;
    client.send_batch(logs("app", 0, 11)).await;
    eventually("the logs to be delivered", || {
        (doppler.running.router.stats().egress_v2 >= 11).then_some(())
    })
    .await;

    let mut sums: BTreeMap<(String, String), f64> = BTreeMap::new();
    let mut rounds = 0;
    while rounds < 5 {
        for envelope in metrics.batch().await {
            let (name, value) = metric(&envelope);
            if name.0 == "subscriptions" {
                rounds += 1;
                sums.insert(name, value);
            } else {
                *sums.entry(name).or_default() += value;
            }
        }
    }
    let name = |name: &str, direction: &str| (name.to_owned(), direction.to_owned());
    assert_eq!(sums.len(), 5, "{sums:?}");
    assert!(sums[&name("ingress", "")] >= 11.0, "{sums:?}");
    assert!(sums[&name("egress", "")] >= 11.0, "{sums:?}");
    assert_eq!(sums[&name("dropped", "ingress")], 0.0);
    assert_eq!(sums[&name("dropped", "egress")], 0.0);
    assert_eq!(sums[&name("subscriptions", "")], 2.0);
}

/// What a local agent was sent, over all its lives.
#[derive(Clone, Default)]
struct Agent {
    received: Arc<Mutex<Vec<v2::Envelope>>>,
}

impl Service for Agent {
    fn call(&self, mut request: Request) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        assert_eq!(request.path, rpc::INGRESS_SENDER);
        let received = Arc::clone(&self.received);
        Box::pin(async move {
            while let Some(message) = request.messages.next().await {
                match message {
                    Ok(bytes) => received.lock().push(v2::Envelope::decode(bytes).unwrap()),
                    Err(status) => return Response::Status(status),
                }
            }
            Response::Unary(Ok(Bytes::new()))
        })
    }
}

impl Agent {
    /// Serves at `addr` under the name that agents have, until `stop`.
    fn serve(&self, addr: SocketAddr, stop: &CancellationToken) -> (SocketAddr, JoinHandle<()>) {
        let server = Server::bind(addr).unwrap();
        let addr = server.local_addr();
        let tls = ServerTls::mutual(&Pki::shared().files("metron"), Profile::Grpc).unwrap();
        let settings = ServerSettings::default();
        let service = Arc::new(self.clone());
        (
            addr,
            tokio::spawn(server.serve(Some(tls), service, settings, stop.clone())),
        )
    }

    /// The sum of all deltas of this counter.
    fn sum(&self, name: &str) -> f64 {
        let received = self.received.lock();
        received
            .iter()
            .map(metric)
            .filter(|(found, _)| found.0 == name)
            .map(|(_, value)| value)
            .sum()
    }
}

#[tokio::test]
async fn own_metrics_go_to_the_agent_and_lose_no_count_while_it_is_away() {
    let agent = Agent::default();
    let stop = CancellationToken::new();
    let (addr, served) = agent.serve("127.0.0.1:0".parse().unwrap(), &stop);
    let doppler = Doppler::start_with(|config| {
        config.metric_interval = Duration::from_millis(20);
        config.agent_addr = Some(addr.to_string());
    })
    .await;
    let client = doppler.connect();
    client.send_batch(logs("app", 0, 5)).await;
    eventually("the agent to hear of it", || {
        (agent.sum("ingress") >= 5.0).then_some(())
    })
    .await;
    let sources: BTreeSet<_> = agent
        .received
        .lock()
        .iter()
        .map(|e| e.source_id.clone())
        .collect();
    assert_eq!(sources, BTreeSet::from(["doppler".to_owned()]));
    assert_eq!(
        doppler.report().ingress.accepted,
        5,
        "its own metrics do not come this way"
    );

    stop.cancel();
    within("the agent's end", served).await.unwrap();
    client.send_batch(logs("app", 5, 6)).await;
    let (_, _served) = agent.serve(addr, &CancellationToken::new());
    client.send_batch(logs("app", 11, 1)).await;
    eventually("the agent to hear of the rest", || {
        (agent.sum("ingress") >= 12.0).then_some(())
    })
    .await;
    assert_eq!(agent.sum("ingress"), 12.0);
}

#[tokio::test]
async fn the_admin_port_has_metrics_health_and_the_ledger() {
    let doppler =
        Doppler::start_with(|config| config.admin_addr = Some("127.0.0.1:0".parse().unwrap()))
            .await;
    let client = doppler.connect();
    let mut reader = client.batched(logs_for("nozzle")).await;
    doppler.subscribed(1).await;
    let mut sender = client.batch_sender().await;
    sender.batch(logs("app", 0, 7)).await;
    sender.raw(vec![0x0a, 99]).await;
    reader.take(7).await;
    doppler.settled("nozzle").await;
    eventually("the refusal to be counted", || {
        (doppler.report().ingress.rejected_total() == 1).then_some(())
    })
    .await;

    let (status, _) = doppler.get("/healthz").await;
    assert_eq!(status, 200);
    let (status, _) = doppler.get("/readyz").await;
    assert_eq!(status, 200);
    let (status, ledger) = doppler.get("/ledger").await;
    assert_eq!(status, 200);
    let ledger: loggregator_service::ledger::Report = serde_json::from_str(&ledger).unwrap();
    assert_eq!(
        (ledger.component.as_str(), ledger.instance),
        ("doppler", doppler.running.grpc_addr.to_string())
    );
    assert_eq!((ledger.ingress.received, ledger.ingress.accepted), (8, 7));
    assert_eq!(
        (
            ledger.subscriptions[0].id.as_str(),
            ledger.subscriptions[0].delivered
        ),
        ("nozzle", 7)
    );

    let (status, metrics) = doppler.get("/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "loggregator_doppler_ingress_envelopes_total{api=\"v2\"} 7",
        "loggregator_doppler_egress_envelopes_total{api=\"v2\"} 7",
        "loggregator_doppler_subscriptions{api=\"v2\"} 1",
        "loggregator_doppler_subscriptions{api=\"v1\"} 0",
        "loggregator_doppler_log_envelopes 7",
        "loggregator_server_connections{listener=\"grpc\"} 1",
        "loggregator_ready 1",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line} not in\n{metrics}"
        );
    }
    assert!(
        metrics.contains("loggregator_doppler_rejected_envelopes_total{reason=\""),
        "{metrics}"
    );
}
