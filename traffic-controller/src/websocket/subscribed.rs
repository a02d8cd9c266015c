//! A subscription whose client is not there yet.

use std::sync::Arc;

use crate::accounts::Account;
use crate::upstream::Batches;
use crate::websocket::relay::End;

/// What a client subscribed to, until its relay takes it over. A client that leaves before that leaves the dopplers, and
/// what had arrived for it is booked.
pub(crate) struct Subscribed {
    batches: Option<Box<dyn Batches>>,
    account: Arc<Account>,
}

impl Subscribed {
    pub(crate) fn new(batches: Box<dyn Batches>, account: Account) -> Self {
        Self {
            batches: Some(batches),
            account: Arc::new(account),
        }
    }

    /// Waits until the subscription stands at the dopplers, as far as its client should wait for that.
    pub(crate) async fn opened(&mut self) {
        if let Some(batches) = &mut self.batches {
            std::future::poll_fn(|cx| batches.poll_open(cx)).await;
        }
    }

    /// The client's address.
    pub(crate) fn peer(&self) -> &str {
        &self.account.identity().peer
    }

    /// Hands it over, with the account that goes with it.
    pub(crate) fn take(mut self) -> (Option<Box<dyn Batches>>, Arc<Account>) {
        (self.batches.take(), Arc::clone(&self.account))
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        if let Some(batches) = self.batches.take() {
            self.account.unread(batches.close());
            self.account.ended(End::Client.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll};
    use std::time::Duration;

    use loggregator_client::Batch;
    use loggregator_service::ledger::Source as _;

    use super::*;
    use crate::accounts::{Accounts, Identity};
    use crate::upstream::Unread;
    use crate::websocket::{FIREHOSE, PROGRAM};

    /// A subscription that never stands, and for which something has arrived.
    struct Arrived(Unread);

    impl Batches for Arrived {
        fn poll_open(&mut self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }

        fn poll_batch(&mut self, _: &mut Context<'_>) -> Poll<Option<Batch>> {
            Poll::Pending
        }

        fn finish(&mut self, _: Duration) {}

        fn close(self: Box<Self>) -> Unread {
            self.0
        }
    }

    #[tokio::test]
    async fn what_had_arrived_for_a_client_that_gives_up_is_booked() {
        let accounts = Accounts::new(PROGRAM, "test".to_owned(), 10);
        let identity = Identity {
            id: "s".to_owned(),
            peer: "p".to_owned(),
            selector: "firehose".to_owned(),
            endpoint: FIREHOSE,
        };
        let batches = Box::new(Arrived(Unread {
            envelopes: 3,
            missed: 2,
        }));
        let mut subscribed = Subscribed::new(batches, accounts.open(identity, false));
        let mut waiting = Box::pin(async move { subscribed.opened().await });
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert!(accounts.report().subscriptions[0].open);
        drop(waiting);
        let report = accounts.report();
        assert!(report.balanced(), "{report:?}");
        let line = &report.subscriptions[0];
        assert!(!line.open);
        let dropped: Vec<_> = line
            .dropped
            .iter()
            .map(|(why, n)| (why.as_str(), *n))
            .collect();
        assert_eq!(line.received, 5);
        assert_eq!(dropped, [("disconnected", 3), ("shared_behind", 2)]);
    }
}
