//! The proxy for a reader in the same process.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use loggregator_net::grpc::{Receipt, Status};
use loggregator_proto::v2::EgressBatchRequest;

use crate::accounts::Accounts;
use crate::provider::{Envelopes, Opening, Provider};
use crate::rlp::proxy::{Caller, Proxy};
use crate::rlp::reader::{Reader, end};

/// Readers in the same process: same limits, same refusals, same subscriptions as those of the gRPC port.
pub(crate) struct InProcess {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) accounts: Arc<Accounts>,
}

impl Provider for InProcess {
    fn open(&self, request: EgressBatchRequest) -> Opening {
        let (proxy, accounts) = (Arc::clone(&self.proxy), Arc::clone(&self.accounts));
        Box::pin(async move {
            if proxy.stop.is_cancelled() {
                return Err(Status::unavailable("the reverse log proxy is stopping"));
            }
            let caller = Caller {
                accounts: &accounts,
                endpoint: 0,
                peer: "in process".to_owned(),
            };
            let envelopes: Box<dyn Envelopes> = match proxy.open(request, caller).await {
                Ok(reader) => Box::new(Local(reader)),
                // Over gRPC a refusal is the end of a stream that was opened; here too.
                Err(status) => Box::new(Refused(Some(status))),
            };
            Ok(envelopes)
        })
    }
}

struct Local(Reader);

impl Envelopes for Local {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        let part = ready!(self.0.poll_part(cx));
        Poll::Ready(part.map(|part| {
            // Handed over is delivered; what becomes of it is in the reader's own ledger.
            let receipt = self.0.receipt(part.envelopes, part.bytes.len() as u64);
            Box::new(receipt).settle(true);
            Ok(part.bytes)
        }))
    }

    fn finish(&mut self, _: Duration) {
        self.0.finish(end::CLIENT);
    }

    /// What had arrived is in this process's own book: the proxy's, which closes with the reader.
    fn close(self: Box<Self>) -> u64 {
        0
    }
}

struct Refused(Option<Status>);

impl Envelopes for Refused {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        Poll::Ready(self.0.take().map(Err))
    }

    /// It is about to end.
    fn finish(&mut self, _: Duration) {}
}
