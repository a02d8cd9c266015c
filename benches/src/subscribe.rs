//! Subscribers over gRPC v2, each on a connection of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use loggregator_proto::v2;
use prost::Message;
use rustls::ClientConfig;

use crate::BenchError;
use crate::control::{Phase, Shared, wait_for};
use crate::http2::{Client, Windows, framed};
use crate::receive::{Cutter, Receiver, ReceiverReport};

/// What one subscriber asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Shard id, empty for none.
    pub shard_id: String,
    /// Source id, empty for a firehose.
    pub source_id: String,
    /// Whether tags are wanted in `tags`.
    pub preferred_tags: bool,
}

impl Request {
    /// A firehose asks for every kind of every source, as nozzles do; a tail for the logs of one source.
    fn encode(&self) -> Vec<u8> {
        use v2::selector::Message as Kind;
        let mut kinds = vec![Kind::Log(v2::LogSelector {})];
        if self.source_id.is_empty() {
            kinds.extend([
                Kind::Counter(v2::CounterSelector::default()),
                Kind::Gauge(v2::GaugeSelector::default()),
                Kind::Timer(v2::TimerSelector {}),
                Kind::Event(v2::EventSelector {}),
            ]);
        }
        let selectors = kinds
            .into_iter()
            .map(|kind| v2::Selector {
                source_id: self.source_id.clone(),
                message: Some(kind),
            })
            .collect();
        v2::EgressBatchRequest {
            shard_id: self.shard_id.clone(),
            use_preferred_tags: self.preferred_tags,
            selectors,
            ..Default::default()
        }
        .encode_to_vec()
    }
}

/// A subscriber that stops reading for a while, once.
#[derive(Clone, Copy, Debug)]
pub struct Stall {
    /// From the start of sending.
    pub after: Duration,
    /// How long.
    pub length: Duration,
}

/// One subscriber.
pub struct Subscriber {
    /// Where from.
    pub addr: SocketAddr,
    /// With what identity.
    pub tls: Arc<ClientConfig>,
    /// What it asks for.
    pub request: Request,
    /// Its flow control.
    pub windows: Windows,
    /// Whether it stalls.
    pub stall: Option<Stall>,
    /// Envelopes per second that it reads at most.
    pub at_most: Option<f64>,
    /// The run.
    pub control: Shared,
}

impl Subscriber {
    /// Reads until the run ends. An error ends reading and is reported.
    pub async fn run(self, mut receiver: Receiver) -> ReceiverReport {
        let mut phase = self.control.phase();
        let result = tokio::select! {
            result = self.read(&mut receiver) => result,
            _ = wait_for(&mut phase, |_| false) => Ok(()),
        };
        receiver.finish(result.err().map(|e| e.to_string()))
    }

    async fn read(&self, receiver: &mut Receiver) -> Result<(), BenchError> {
        let client = Client::connect(self.addr, self.tls.clone(), self.windows).await?;
        let (response, mut send) = client
            .call(loggregator_proto::rpc::EGRESS_BATCHED_RECEIVER)
            .await?;
        let failed = |e: h2::Error| BenchError::new(format!("subscriber: {e}"));
        send.send_data(framed(&self.request.encode()), true)
            .map_err(failed)?;
        let response = response.await.map_err(failed)?;
        if let Some(status) = response.headers().get("grpc-status") {
            return Err(BenchError::new(format!(
                "subscription refused: status {status:?} {:?}",
                response.headers().get("grpc-message")
            )));
        }
        let mut body = response.into_body();
        let mut cutter = Cutter::default();
        let mut stall = self.stall;
        while let Some(data) = body.data().await {
            let data = data.map_err(failed)?;
            let mut result = Ok(());
            receiver.piece(|piece| {
                result = cutter.feed(&data, |envelope| piece.envelope(envelope, false))
            });
            result.map_err(BenchError::new)?;
            body.flow_control()
                .release_capacity(data.len())
                .map_err(failed)?;
            if let Some(due) = stall
                && let Phase::Send { start, .. } = self.control.current()
                && start.elapsed() >= due.after
            {
                stall = None;
                tokio::time::sleep(due.length).await;
            }
            if let Some(rate) = self.at_most
                && let Phase::Send { start, .. } = self.control.current()
            {
                let due = start + Duration::from_secs_f64(receiver.records() as f64 / rate);
                tokio::time::sleep_until(due.into()).await;
            }
        }
        let trailers = body.trailers().await.map_err(failed)?;
        Err(BenchError::new(format!(
            "the server ended the subscription: {trailers:?}"
        )))
    }
}
