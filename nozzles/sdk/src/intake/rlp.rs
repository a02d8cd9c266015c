//! From a reverse log proxy, or straight from dopplers, over gRPC.

use std::task::{Context, Poll};

use bytes::Bytes;
use loggregator_client::{Connector, DopplerSet, EgressStream};
use loggregator_net::dns::Addresses;
use loggregator_net::{ClientTls, TlsFiles};
use loggregator_proto::v2::EgressBatchRequest;
use loggregator_service::Lifecycle;

use super::{Intake, IntakeError, Status};
use crate::config::RlpIntake;

/// A merged subscription at all addresses.
pub(super) struct Rlp {
    stream: EgressStream,
}

impl Rlp {
    pub(super) async fn open(
        config: &RlpIntake,
        request: EgressBatchRequest,
        lifecycle: &Lifecycle,
    ) -> Result<Rlp, IntakeError> {
        let tls = ClientTls::mutual(&TlsFiles {
            ca: config.ca_file.clone(),
            cert: config.cert_file.clone(),
            key: config.key_file.clone(),
        })?;
        let watch = ClientTls::watch(tls.clone(), config.resolve_interval.0, lifecycle.token());
        lifecycle.spawn("intake certificates", watch);
        let connector = Connector::new(&config.server_name, Some(tls));
        let addresses = Addresses::resolved(
            config.addrs.clone(),
            config.resolve_interval.0,
            lifecycle.token(),
        );
        let set = DopplerSet::new(&addresses.await, connector);
        Ok(Rlp {
            stream: EgressStream::open(&set, request),
        })
    }
}

impl Intake for Rlp {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.stream
            .poll_next(cx)
            .map(|batch| batch.map(|batch| batch.bytes))
    }

    fn status(&self) -> Status {
        let stats = self.stream.stats();
        Status {
            open: stats.open,
            reconnects: stats.reconnects,
            last_error: stats.last_error,
        }
    }
}
