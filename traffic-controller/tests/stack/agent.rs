//! An agent that keeps what it is sent: own metrics and events of the traffic controller.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use loggregator_net::grpc::{Request, Response, Server, ServerSettings, Service};
use loggregator_net::{Profile, ServerTls};
use loggregator_proto::{rpc, v2};
use parking_lot::Mutex;
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use traffic_controller::Timing;
use v2::envelope::Message;

use crate::certs::Certs;
use crate::client::Ws;
use crate::rig::{Rig, until};
use crate::slow::connect_and_stall;

#[derive(Clone, Default)]
struct Agent(Arc<Mutex<Vec<v2::Envelope>>>);

impl Service for Agent {
    fn call(&self, mut request: Request) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        let envelopes = Arc::clone(&self.0);
        Box::pin(async move {
            assert_eq!(request.path, rpc::INGRESS_SENDER);
            while let Some(Ok(message)) = request.messages.next().await {
                envelopes
                    .lock()
                    .push(v2::Envelope::decode(message).unwrap());
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

    /// Sum of the deltas of each counter, by name and own tag.
    fn counters(&self) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for envelope in self.0.lock().iter() {
            assert_eq!(envelope.source_id, "traffic_controller");
            if let Some(Message::Counter(counter)) = &envelope.message {
                let own = ["protocol", "endpoint"].iter().find_map(|tag| {
                    match envelope.deprecated_tags.get(*tag)?.data.as_ref()? {
                        v2::value::Data::Text(text) => Some(text.as_str()),
                        _ => None,
                    }
                });
                let name = format!("{} {}", counter.name, own.unwrap_or_default());
                *sums.entry(name.trim_end().to_owned()).or_default() += counter.delta;
            }
        }
        sums
    }

    fn events(&self) -> Vec<v2::Event> {
        let envelopes = self.0.lock();
        let messages = envelopes
            .iter()
            .filter_map(|envelope| envelope.message.clone());
        let events = messages.filter_map(|message| match message {
            Message::Event(event) => Some(event),
            _ => None,
        });
        events.collect()
    }
}

#[tokio::test]
async fn metrics_and_slow_consumers_are_told_to_the_agent() {
    let agent = Agent::default();
    let told = agent.clone();
    let rig = Rig::with(1, |config, certs| {
        config.agent_addr = Some(told.start(certs));
        config.metric_interval = Duration::from_millis(50);
        let slow_after = Duration::from_millis(300);
        config.timing = Timing {
            slow_after,
            drop_after: slow_after * 2,
            ..Timing::default()
        };
    })
    .await;
    let mut client = Ws::connect(rig.addr(), "/firehose/s").await;
    rig.doppler().of_shard("s").await.send(&[b"one", b"two"]);
    client.payload().await;
    client.payload().await;
    let mut app = Ws::connect(rig.addr(), "/apps/a/stream").await;
    rig.doppler().of_shard("").await.send(&[b"three"]);
    app.payload().await;
    let expected = [
        ("doppler_proxy.slow_consumer", 0),
        ("egress firehose", 2),
        ("egress stream", 1),
        ("ingress grpc", 3),
    ];
    let expected = BTreeMap::from(expected.map(|(name, sum)| (name.to_owned(), sum)));
    until("all counters arrived", || agent.counters() == expected).await;

    let stalled = connect_and_stall(&rig, "/firehose/stuck?filter-type=logs").await;
    rig.doppler()
        .of_shard("stuck")
        .await
        .flood(&[&[0; 1000][..]; 100]);
    until("the event arrived", || !agent.events().is_empty()).await;
    until("it is counted", || {
        agent.counters()["doppler_proxy.slow_consumer"] == 1
    })
    .await;
    let events = agent.events();
    assert_eq!(events.len(), 1);
    assert_eq!(
        events[0].title,
        "Traffic Controller has disconnected slow consumer"
    );
    let peer = stalled.local_addr().unwrap();
    let head = format!(
        "Remote Address: {peer}\nX-Forwarded-For: \nPath: /firehose/stuck?filter-type=logs\n\n"
    );
    assert!(events[0].body.starts_with(&head), "{}", events[0].body);
}
