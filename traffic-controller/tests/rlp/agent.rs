//! Own metrics: what the local agent is sent.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use loggregator_net::grpc::{Request, Response, Server, ServerSettings, Service};
use loggregator_net::{Profile, ServerTls};
use loggregator_proto::v2::envelope::Message;
use loggregator_proto::v2::value::Data;
use loggregator_proto::{rpc, v2};
use parking_lot::Mutex;
use prost::Message as _;
use tokio_util::sync::CancellationToken;

use crate::certs::Certs;
use crate::rig::{Rig, line, logs, until};

/// An agent that keeps what it is sent.
#[derive(Clone, Default)]
struct Agent(Arc<Mutex<Vec<v2::Envelope>>>);

impl Service for Agent {
    fn call(&self, mut request: Request) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        let envelopes = Arc::clone(&self.0);
        Box::pin(async move {
            assert_eq!(request.path, rpc::INGRESS_SENDER);
            while let Some(Ok(message)) = request.messages.next().await {
                let envelope = v2::Envelope::decode(message).unwrap();
                envelopes.lock().push(envelope);
            }
            Response::Unary(Ok(Bytes::new()))
        })
    }
}

impl Agent {
    fn start(&self, certs: &Certs) -> String {
        let server = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = server.local_addr().to_string();
        let tls = ServerTls::mutual(&certs.of("metron"), Profile::Grpc).unwrap();
        let stop = CancellationToken::new();
        let agent = Arc::new(self.clone());
        tokio::spawn(server.serve(Some(tls), agent, ServerSettings::default(), stop));
        addr
    }

    /// By name and tags: sums of counters, the last value of gauges.
    fn seen(&self) -> BTreeMap<String, u64> {
        let mut seen = BTreeMap::new();
        for envelope in self.0.lock().iter() {
            assert_eq!(envelope.source_id, "proxy-7");
            assert!(envelope.tags.is_empty() && envelope.instance_id.is_empty());
            let tags: Vec<_> = envelope
                .deprecated_tags
                .iter()
                .map(|(name, value)| match &value.data {
                    Some(Data::Text(text)) => format!("{name}={text}"),
                    other => panic!("{other:?}"),
                })
                .collect();
            let tags = tags.join(" ");
            match envelope.message.as_ref().unwrap() {
                Message::Counter(counter) => {
                    assert_eq!(counter.total, 0);
                    *seen.entry(format!("{} {tags}", counter.name)).or_default() += counter.delta;
                }
                Message::Gauge(gauge) => {
                    for (name, value) in &gauge.metrics {
                        let key = format!("{name} {} {tags}", value.unit);
                        seen.insert(key, value.value as u64);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        seen
    }
}

#[tokio::test]
async fn the_agent_is_told_what_the_go_proxy_tells() {
    let agent = Agent::default();
    let told = agent.clone();
    let rig = Rig::with(1, |config, certs| {
        config.agent_addr = Some(told.start(certs));
        config.metric_interval = Duration::from_millis(20);
        config.metric_source_id = "proxy-7".to_owned();
        config.max_streams = 1;
    })
    .await;
    let mut client = rig.read(logs()).await;
    rig.doppler()
        .subscription(0)
        .await
        .send(&[line("one"), line("two")]);
    client.envelopes(2).await;
    rig.call(rpc::EGRESS_BATCHED_RECEIVER, &logs())
        .await
        .end()
        .await;
    let version = "metric_version=2.0 origin=loggregator.rlp";
    let mut expected: BTreeMap<String, u64> = [
        (format!("ingress {version} protocol=grpc"), 2),
        (format!("egress {version}"), 2),
        (
            "dropped direction=egress metric_version=2.0 origin=loggregator.rlp".to_owned(),
            0,
        ),
        (format!("rejected_streams {version}"), 1),
        (format!("subscriptions total {version}"), 1),
        ("log_router_connects origin=loggregator.rlp".to_owned(), 1),
        (
            "log_router_disconnects origin=loggregator.rlp".to_owned(),
            0,
        ),
    ]
    .into();
    let compare = |expected: &BTreeMap<String, u64>| {
        let (agent, expected) = (agent.clone(), expected.clone());
        move || agent.seen() == expected
    };
    until("all of it arrived", compare(&expected)).await;

    // A doppler that goes, and a client that leaves.
    let mut rig = rig;
    rig.dopplers.remove(0).kill().await;
    drop(client);
    expected.insert(format!("subscriptions total {version}"), 0);
    expected.insert(
        "log_router_disconnects origin=loggregator.rlp".to_owned(),
        1,
    );
    until("the changes arrived", compare(&expected)).await;
}
