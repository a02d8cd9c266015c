//! The worker of one stream to one doppler.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use loggregator_net::Backoff;
use loggregator_net::grpc::{ClientSender, Code, Message, PendingResponse, Receipt, Status};
use loggregator_proto::rpc;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::Inner;
use super::queue::Item;
use super::route::LinkId;
use super::state::Phase;
use crate::set::Peer;

/// A stream that ended sooner than this did not work.
const HEALTHY: Duration = Duration::from_secs(1);
/// How long a stream that was ended well may take to say so.
const HALF_CLOSE: Duration = Duration::from_secs(2);

/// How a stream ended.
enum End {
    /// We ended it, the doppler has taken everything.
    Stopped,
    /// It broke.
    Broken(Status),
}

/// Connects, sends, connects again; until the pool stops or the doppler leaves.
pub(super) async fn run(inner: Arc<Inner>, id: LinkId, peer: Arc<Peer>, wake: Arc<Notify>) {
    let over = async {
        tokio::select! {
            () = inner.stop.cancelled() => {}
            () = peer.left().cancelled() => {}
        }
    };
    let mut over = pin!(over);
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    loop {
        let opened = tokio::select! {
            opened = open(&peer) => opened,
            () = &mut over => break,
        };
        let since = Instant::now();
        let status = match opened {
            Ok((sender, response)) => {
                inner.set_up(id, true, None);
                let link = Stream {
                    inner: &inner,
                    id,
                    wake: &wake,
                    peer: &peer,
                };
                match link.pump(sender, response).await {
                    End::Stopped => break,
                    End::Broken(status) => {
                        link.lost(&status).await;
                        status
                    }
                }
            }
            Err(status) => {
                // Waiting for the next attempt is the channel's business.
                inner.set_up(id, false, Some(status.to_string()));
                tracing::debug!(doppler = %peer.addr(), %status, "no connection");
                continue;
            }
        };
        if since.elapsed() >= HEALTHY {
            backoff.reset();
            continue;
        }
        inner.set_up(id, false, Some(status.to_string()));
        tokio::select! {
            () = tokio::time::sleep(backoff.next_delay()) => {}
            () = &mut over => break,
        }
    }
    if !inner.stop.is_cancelled() {
        // The doppler left. What its connection did not take has been handed back, and moves.
        inner.state.lock().forget(id);
    }
    inner.freed.notify_waiters();
}

async fn open(peer: &Peer) -> Result<(ClientSender, PendingResponse), Status> {
    peer.channel().ready().await?;
    peer.channel()
        .client_stream(rpc::INGRESS_BATCH_SENDER)
        .await
}

struct Stream<'a> {
    inner: &'a Arc<Inner>,
    id: LinkId,
    wake: &'a Notify,
    peer: &'a Peer,
}

impl Stream<'_> {
    /// Sends until the stream breaks or shall end.
    async fn pump(&self, sender: ClientSender, response: PendingResponse) -> End {
        let mut ended = pin!(response.wait());
        let mut sent = None;
        loop {
            let message = tokio::select! {
                biased;
                end = &mut ended => return End::Broken(status(end)),
                () = self.inner.stop.cancelled() => break,
                () = self.peer.left().cancelled() => break,
                message = self.next(sent) => message,
            };
            let handed = tokio::select! {
                biased;
                handed = sender.send(message) => handed.is_ok(),
                end = &mut ended => return End::Broken(status(end)),
            };
            if !handed {
                let end = timeout(HALF_CLOSE, ended).await;
                return End::Broken(
                    end.map_or_else(|_| Status::unavailable("the stream is closed"), status),
                );
            }
            sent = Some(Instant::now());
        }
        drop(sender);
        // An answer of any kind means that the doppler read to the end: Go's answers UNKNOWN "EOF".
        match timeout(HALF_CLOSE, ended).await.map(status) {
            Ok(status) if matches!(status.code, Code::Ok | Code::Unknown) => {
                let mut state = self.inner.state.lock();
                state.link(Some(self.id)).recent.clear();
                state.link(Some(self.id)).recent_bytes = 0;
            }
            Ok(status) => self.lost(&status).await,
            Err(_) => {
                self.lost(&Status::unavailable("no answer to the end of the stream"))
                    .await
            }
        }
        End::Stopped
    }

    /// The next message, when there is something to send and either the last one is a while ago or the message is full.
    async fn next(&self, sent: Option<Instant>) -> Message {
        loop {
            let wait = {
                let mut state = self.inner.state.lock();
                let (batch, linger, phase) =
                    (state.settings.batch(), state.settings.linger, state.phase);
                let link = state.link(Some(self.id));
                let due = sent.map_or_else(Instant::now, |sent| sent + linger);
                let full = link.queue.envelopes() >= u64::from(batch.envelopes)
                    || link.queue.bytes() >= batch.bytes;
                if link.queue.envelopes() == 0 {
                    None
                } else if full || phase > Phase::Open || due <= Instant::now() {
                    let items = link.queue.take(batch);
                    link.in_flight.0 += items.iter().map(Item::len).sum::<usize>();
                    link.in_flight.1 += items
                        .iter()
                        .map(|item| u64::from(item.envelopes))
                        .sum::<u64>();
                    drop(state);
                    return self.message(items);
                } else {
                    Some(due)
                }
            };
            match wait {
                Some(due) => {
                    // Woken or timed out: look again.
                    let _woken = tokio::time::timeout_at(due, self.wake.notified())
                        .await
                        .is_ok();
                }
                None => self.wake.notified().await,
            }
        }
    }

    fn message(&self, mut items: Vec<Item>) -> Message {
        let chunks = items.iter_mut().map(Item::seal).collect();
        let receipt = Delivery {
            inner: Arc::clone(self.inner),
            id: self.id,
            items,
        };
        Message::new(chunks).with_receipt(Box::new(receipt))
    }

    /// Takes note of a broken stream and waits until everything it did not take has been handed back, so that it is sent
    /// first on the next one.
    async fn lost(&self, status: &Status) {
        let in_doubt = self.inner.state.lock().broken(self.id, status.to_string());
        if in_doubt > 0 || status.code != Code::Ok {
            tracing::warn!(doppler = %self.peer.addr(), %status, in_doubt, "the stream to the doppler broke");
        }
        let handed_back = async {
            while self.inner.state.lock().link(Some(self.id)).in_flight.1 > 0 {
                self.wake.notified().await;
            }
        };
        // A connection that hangs hands back when it is cut; the next stream need not wait for that.
        let _complete = timeout(HALF_CLOSE, handed_back).await.is_ok();
    }
}

fn status(end: Result<Option<bytes::Bytes>, Status>) -> Status {
    match end {
        Ok(_) => Status::ok(),
        Err(status) => status,
    }
}

/// Tells the pool what became of a message; one that is thrown away was not delivered.
struct Delivery {
    inner: Arc<Inner>,
    id: LinkId,
    items: Vec<Item>,
}

impl Delivery {
    fn settled(&mut self, delivered: bool) {
        let items = std::mem::take(&mut self.items);
        if !items.is_empty() {
            self.inner.state.lock().settle(self.id, items, delivered);
            self.inner.freed.notify_waiters();
        }
    }
}

impl Receipt for Delivery {
    fn settle(mut self: Box<Self>, delivered: bool) {
        self.settled(delivered);
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.settled(false);
    }
}
