//! From a reverse log proxy, or straight from dopplers, over gRPC.
//!
//! Only `BatchedReceiver` is spoken: every reverse log proxy and doppler has it, and the older `Receiver` loses
//! `deterministic_name` at a Go proxy and is not served by a Go doppler.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use loggregator_client::{Connector, DopplerSet, EgressStream};
use loggregator_net::dns::Addresses;
use loggregator_net::{ClientTls, TlsFiles};
use loggregator_proto::v2::EgressBatchRequest;
use loggregator_service::Lifecycle;

use super::monitor::{Ended, Monitor};
use super::watch::Source;
use super::{IntakeError, bytes};
use crate::config::RlpIntake;

/// How long servers may take to end their streams when the nozzle stops.
const FINISH_WITHIN: Duration = Duration::from_secs(2);

/// A merged subscription at all addresses.
pub(super) struct Rlp {
    addresses: Addresses,
    connector: Connector,
    request: EgressBatchRequest,
    stream: EgressStream,
    /// Calls that ended on the streams before this one.
    ended: u64,
    monitor: Arc<Monitor>,
}

impl Rlp {
    pub(super) async fn open(
        config: &RlpIntake,
        request: EgressBatchRequest,
        monitor: &Arc<Monitor>,
        lifecycle: &Lifecycle,
    ) -> Result<Rlp, IntakeError> {
        let files = TlsFiles {
            ca: config.ca_file.clone(),
            cert: config.cert_file.clone(),
            key: config.key_file.clone(),
        };
        let key = || "intake.rlp".to_owned();
        let tls =
            ClientTls::mutual(&files).map_err(|source| IntakeError::Tls { key: key(), source })?;
        let watch = ClientTls::watch(tls.clone(), config.resolve_interval.0, lifecycle.token());
        lifecycle.spawn("intake certificates", watch);
        monitor.uses(None, Some(&tls));
        let mut connector = Connector::new(&config.server_name, Some(tls));
        connector.settings.max_message = bytes(config.max_message);
        let (addrs, every) = (config.addrs.clone(), config.resolve_interval.0);
        let addresses = Addresses::resolved(addrs, every, lifecycle.token()).await;
        let set = DopplerSet::new(&addresses, connector.clone());
        let stream = EgressStream::open(&set, request.clone());
        let monitor = Arc::clone(monitor);
        Ok(Rlp {
            addresses,
            connector,
            request,
            stream,
            ended: 0,
            monitor,
        })
    }

    fn tell(&self) {
        self.monitor.standing(self.stream.open_calls());
        let total = self.ended + self.stream.reconnects();
        let error = || self.stream.stats().last_error;
        self.monitor.ended_in_all(Ended::Closed, total, error);
    }
}

impl Source for Rlp {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let next = self.stream.poll_next(cx);
        self.tell();
        next.map(|batch| batch.map(|batch| batch.bytes))
    }

    /// On new connections: the old ones may be what is wrong.
    fn reopen(&mut self) {
        self.ended += self.stream.reconnects();
        let set = DopplerSet::new(&self.addresses, self.connector.clone());
        self.stream = EgressStream::open(&set, self.request.clone());
    }

    fn stop(&mut self) {
        self.stream.finish(FINISH_WITHIN);
    }
}
