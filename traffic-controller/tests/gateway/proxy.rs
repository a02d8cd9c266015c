//! A reverse log proxy in the same process that does as the test says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use loggregator_net::grpc::Status;
use loggregator_proto::v2::{
    Counter, EgressBatchRequest, Envelope, EnvelopeBatch, envelope::Message,
};
use prost::Message as _;
use tokio::sync::mpsc;
use traffic_controller::provider::{Envelopes, Opening, Provider};

use crate::rig::soon;

/// More than any test sends at once.
const QUEUE: usize = 10_000;

/// Every request opens a subscription that the test gets hold of.
pub struct Proxy {
    opened: mpsc::Sender<Result<Subscription, EgressBatchRequest>>,
    refuse: parking_lot::Mutex<Option<Status>>,
    pub open: Arc<AtomicUsize>,
}

/// One subscription: what it asked for, and the way to feed it.
pub struct Subscription {
    pub request: EgressBatchRequest,
    feed: mpsc::Sender<Result<Bytes, Status>>,
    /// How many items were asked for and taken.
    pub taken: Arc<AtomicUsize>,
}

/// The subscriptions, in the order of their requests.
pub struct Opened(mpsc::Receiver<Result<Subscription, EgressBatchRequest>>);

impl Proxy {
    pub fn new() -> (Arc<Self>, Opened) {
        let (opened, subscriptions) = mpsc::channel(QUEUE);
        let proxy = Self {
            opened,
            refuse: parking_lot::Mutex::default(),
            open: Arc::default(),
        };
        (Arc::new(proxy), Opened(subscriptions))
    }

    /// From now on no subscription can be opened.
    pub fn refuse(&self, status: Status) {
        *self.refuse.lock() = Some(status);
    }
}

impl Opened {
    pub async fn next(&mut self) -> Subscription {
        soon("a subscription", self.0.recv())
            .await
            .unwrap()
            .unwrap_or_else(|_| panic!("refused"))
    }

    pub fn none(&mut self) -> bool {
        self.0.try_recv().is_err()
    }
}

impl Subscription {
    pub fn send(&self, batch: impl Into<Bytes>) {
        self.feed
            .try_send(Ok(batch.into()))
            .unwrap_or_else(|_| panic!("the subscription is closed or full"));
    }

    pub fn fail(self, status: Status) {
        self.feed
            .try_send(Err(status))
            .unwrap_or_else(|_| panic!("the subscription is closed or full"));
    }

    pub async fn closed(&self) {
        soon("the end of the subscription", self.feed.closed()).await;
    }

    pub fn is_closed(&self) -> bool {
        self.feed.is_closed()
    }
}

impl Provider for Proxy {
    fn open(&self, request: EgressBatchRequest) -> Opening {
        let (feed, items) = mpsc::channel(QUEUE);
        let taken = Arc::<AtomicUsize>::default();
        let subscription = Subscription {
            request,
            feed,
            taken: Arc::clone(&taken),
        };
        if let Some(status) = &*self.refuse.lock() {
            self.opened.try_send(Err(subscription.request)).ok();
            return Box::pin(std::future::ready(Err(status.clone())));
        }
        self.opened.try_send(Ok(subscription)).ok();
        self.open.fetch_add(1, Ordering::Relaxed);
        let items = Items {
            items,
            taken,
            open: Arc::clone(&self.open),
        };
        Box::pin(std::future::ready(
            Ok(Box::new(items) as Box<dyn Envelopes>),
        ))
    }
}

struct Items {
    items: mpsc::Receiver<Result<Bytes, Status>>,
    taken: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl Envelopes for Items {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        let item = self.items.poll_recv(cx);
        if item.is_ready() {
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
        item
    }

    fn finish(&mut self, _: Duration) {
        self.items.close();
    }
}

impl Drop for Items {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The counter of the worked example, with this total.
pub fn counter(total: u64) -> Envelope {
    Envelope {
        timestamp: 1_795_293_671_306_864_594,
        source_id: "src".to_owned(),
        instance_id: "3".to_owned(),
        tags: [("a".to_owned(), "b".to_owned())].into(),
        message: Some(Message::Counter(Counter {
            name: "c".to_owned(),
            delta: 0,
            total,
        })),
        ..Envelope::default()
    }
}

pub fn batch(envelopes: impl IntoIterator<Item = Envelope>) -> Vec<u8> {
    let batch = envelopes.into_iter().collect();
    EnvelopeBatch { batch }.encode_to_vec()
}

/// What the batch of these counters is on the wire.
pub fn data_event(totals: impl IntoIterator<Item = u64>) -> String {
    let envelopes: Vec<String> = totals
        .into_iter()
        .map(|total| format!(r#"{{"timestamp":"1795293671306864594","source_id":"src","instance_id":"3","deprecated_tags":{{}},"tags":{{"a":"b"}},"counter":{{"name":"c","delta":"0","total":"{total}"}}}}"#))
        .collect();
    format!("data: {{\"batch\":[{}]}}\n\n", envelopes.join(","))
}
