//! The services that give envelopes out: `loggregator.v2.Egress` and `plumbing.Doppler`.
//!
//! Each call becomes a [`Subscription`] of the router, and its response stream asks for the next message
//! whenever the line is free: no timer, no queue of its own. Messages grow because a reader is busy,
//! so that a quiet system delivers at once and a busy one in big writes.
//!
//! | method | messages |
//! | --- | --- |
//! | `Egress/BatchedReceiver` | `EnvelopeBatch`, as many envelopes as the byte budget takes |
//! | `Egress/Receiver` | one `Envelope` each (the Go router refuses the call) |
//! | `Doppler/BatchSubscribe` | `BatchResponse`, likewise joined |
//! | `Doppler/Subscribe` | one `Response` each |

mod singly;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use loggregator_net::grpc::{Code, Message, MessageSource, Receipt, Request, Response, Status};
use loggregator_proto::{plumbing, v2};

use crate::ingress::no_request_message;
use crate::router::{Batch, Router, SubscribeError, Subscription};
use singly::{Form, Singly};

/// The egress services over one router.
pub(crate) struct Egress {
    router: Arc<Router>,
    /// Bytes of one joined message at most, unless a single envelope is bigger.
    budget: usize,
    counts: Arc<EgressCounts>,
}

/// What connections took, and who was turned away.
#[derive(Debug, Default)]
pub(crate) struct EgressCounts {
    pub(crate) v1: Taken,
    pub(crate) v2: Taken,
    /// Subscriptions refused at the limit.
    pub(crate) over_limit: AtomicU64,
    /// Calls whose request message was missing or did not decode.
    pub(crate) bad_request: AtomicU64,
}

/// What connections took of one API.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) messages: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

/// The two APIs, as far as counting goes.
#[derive(Clone, Copy)]
enum Api {
    V1,
    V2,
}

impl Egress {
    pub(crate) fn new(router: Arc<Router>, budget: usize, counts: Arc<EgressCounts>) -> Self {
        Self {
            router,
            budget,
            counts,
        }
    }

    /// `Egress/BatchedReceiver`.
    pub(crate) async fn batched_receiver(&self, request: Request) -> Response {
        let peer = request.peer.addr.to_string();
        match self
            .request_message::<v2::EgressBatchRequest>(request)
            .await
        {
            Ok(message) => self.joined(self.router.subscribe_v2(&message, &peer), Api::V2),
            Err(status) => Response::Status(status),
        }
    }

    /// `Egress/Receiver`.
    pub(crate) async fn receiver(&self, request: Request) -> Response {
        let peer = request.peer.addr.to_string();
        let message = match self.request_message::<v2::EgressRequest>(request).await {
            Ok(message) => message,
            Err(status) => return Response::Status(status),
        };
        let message = v2::EgressBatchRequest {
            shard_id: message.shard_id,
            legacy_selector: message.legacy_selector,
            use_preferred_tags: message.use_preferred_tags,
            selectors: message.selectors,
            deterministic_name: message.deterministic_name,
        };
        self.singly(
            self.router.subscribe_v2(&message, &peer),
            Api::V2,
            Form::Bare,
        )
    }

    /// `Doppler/BatchSubscribe`.
    pub(crate) async fn batch_subscribe(&self, request: Request) -> Response {
        let peer = request.peer.addr.to_string();
        match self
            .request_message::<plumbing::SubscriptionRequest>(request)
            .await
        {
            Ok(message) => self.joined(self.router.subscribe_v1(&message, &peer), Api::V1),
            Err(status) => Response::Status(status),
        }
    }

    /// `Doppler/Subscribe`.
    pub(crate) async fn subscribe(&self, request: Request) -> Response {
        let peer = request.peer.addr.to_string();
        match self
            .request_message::<plumbing::SubscriptionRequest>(request)
            .await
        {
            Ok(message) => self.singly(
                self.router.subscribe_v1(&message, &peer),
                Api::V1,
                Form::Record,
            ),
            Err(status) => Response::Status(status),
        }
    }

    /// The one request message of a server stream.
    async fn request_message<M: prost::Message + Default>(
        &self,
        mut request: Request,
    ) -> Result<M, Status> {
        let message = match request.messages.next().await {
            Some(Ok(bytes)) => M::decode(bytes).map_err(Status::unmarshal),
            Some(Err(status)) => Err(status),
            None => Err(no_request_message()),
        };
        message.inspect_err(|_| {
            self.counts.bad_request.fetch_add(1, Ordering::Relaxed);
        })
    }

    fn joined(&self, subscription: Result<Subscription, SubscribeError>, api: Api) -> Response {
        match subscription {
            Ok(subscription) => Response::Stream(Box::new(Joined {
                subscription: Some(subscription),
                budget: self.budget,
                counter: self.counter(api),
            })),
            Err(error) => Response::Status(self.refusal(&error)),
        }
    }

    fn singly(
        &self,
        subscription: Result<Subscription, SubscribeError>,
        api: Api,
        form: Form,
    ) -> Response {
        match subscription {
            Ok(subscription) => {
                Response::Stream(Box::new(Singly::new(subscription, form, self.counter(api))))
            }
            Err(error) => Response::Status(self.refusal(&error)),
        }
    }

    fn counter(&self, api: Api) -> Counter {
        Counter {
            counts: Arc::clone(&self.counts),
            api,
        }
    }

    fn refusal(&self, error: &SubscribeError) -> Status {
        match error {
            SubscribeError::Limit { .. } => {
                self.counts.over_limit.fetch_add(1, Ordering::Relaxed);
                Status::new(Code::ResourceExhausted, error.to_string())
            }
            SubscribeError::Closed => stopping(),
        }
    }
}

/// The end of a stream whose doppler stops: a status that clients answer by connecting elsewhere.
fn stopping() -> Status {
    Status::unavailable("the doppler is stopping")
}

/// A subscription whose messages are batches.
struct Joined {
    /// Gone when the stream has ended.
    subscription: Option<Subscription>,
    budget: usize,
    counter: Counter,
}

impl MessageSource for Joined {
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Status>>> {
        let Some(subscription) = &mut self.subscription else {
            return Poll::Ready(None);
        };
        let next = match ready!(subscription.poll_batch(cx, self.budget)) {
            Some(Batch {
                chunks, receipt, ..
            }) => Ok(self.counter.counted(Message::new(chunks), Some(receipt))),
            None => {
                self.subscription = None;
                Err(stopping())
            }
        };
        Poll::Ready(Some(next))
    }

    /// The router ends the subscription when nothing is appended any more and all was read.
    fn drains_itself(&self) -> bool {
        true
    }
}

/// Counts what the connections of one API take.
#[derive(Clone)]
struct Counter {
    counts: Arc<EgressCounts>,
    api: Api,
}

impl Counter {
    /// The message with a receipt that counts it and passes the outcome on.
    fn counted(&self, message: Message, receipt: Option<Box<dyn Receipt>>) -> Message {
        let bytes = message.len() as u64;
        message.with_receipt(Box::new(Counted {
            counter: self.clone(),
            bytes,
            receipt,
        }))
    }
}

struct Counted {
    counter: Counter,
    bytes: u64,
    receipt: Option<Box<dyn Receipt>>,
}

impl Receipt for Counted {
    fn settle(self: Box<Self>, delivered: bool) {
        if delivered {
            let taken = match self.counter.api {
                Api::V1 => &self.counter.counts.v1,
                Api::V2 => &self.counter.counts.v2,
            };
            taken.messages.fetch_add(1, Ordering::Relaxed);
            taken.bytes.fetch_add(self.bytes, Ordering::Relaxed);
        }
        if let Some(receipt) = self.receipt {
            receipt.settle(delivered);
        }
    }
}
