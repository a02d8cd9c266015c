//! The protocol definitions of the pipeline and the types generated from them.
//!
//! Three packages cross the wire: [`v2`] (loggregator-api v2: emitters, dopplers, reverse log proxies), [`events`]
//! (dropsonde, the v1 envelope) and [`plumbing`] (the doppler's internal v1 services, which carry `events` as bytes).
//! The hot path does not decode these types, it works on the bytes (crate `loggregator-envelope`); they serve requests,
//! tests, and everybody who wants an envelope as a value.
//!
//! The definitions are the `.proto` files of this folder. The types are checked in under `src/gen`, so that a build
//! needs neither `protoc` nor a build script; the test `generated` fails when the two differ.

/// The v2 API, package `loggregator.v2`.
#[allow(missing_docs, clippy::all)]
pub mod v2 {
    include!("gen/loggregator.v2.rs");
}

/// The v1 envelope, package `events` (dropsonde). These types check strings for UTF-8, which the protocol does not.
#[allow(missing_docs, clippy::all)]
pub mod events {
    include!("gen/events.rs");
}

/// The doppler's internal v1 services, package `plumbing`.
#[allow(missing_docs, clippy::all)]
pub mod plumbing {
    include!("gen/plumbing.rs");
}

/// Paths of the gRPC calls.
pub mod rpc {
    /// Stream of [`Envelope`](crate::v2::Envelope)s in.
    pub const INGRESS_SENDER: &str = "/loggregator.v2.Ingress/Sender";
    /// Stream of [`EnvelopeBatch`](crate::v2::EnvelopeBatch)es in.
    pub const INGRESS_BATCH_SENDER: &str = "/loggregator.v2.Ingress/BatchSender";
    /// One [`EnvelopeBatch`](crate::v2::EnvelopeBatch) in, answered.
    pub const INGRESS_SEND: &str = "/loggregator.v2.Ingress/Send";
    /// Stream of [`Envelope`](crate::v2::Envelope)s out, for an [`EgressRequest`](crate::v2::EgressRequest).
    pub const EGRESS_RECEIVER: &str = "/loggregator.v2.Egress/Receiver";
    /// Stream of [`EnvelopeBatch`](crate::v2::EnvelopeBatch)es out, for an
    /// [`EgressBatchRequest`](crate::v2::EgressBatchRequest).
    pub const EGRESS_BATCHED_RECEIVER: &str = "/loggregator.v2.Egress/BatchedReceiver";
    /// Stream of [`Response`](crate::plumbing::Response)s out, for a
    /// [`SubscriptionRequest`](crate::plumbing::SubscriptionRequest).
    pub const DOPPLER_SUBSCRIBE: &str = "/plumbing.Doppler/Subscribe";
    /// Stream of [`BatchResponse`](crate::plumbing::BatchResponse)s out, for a
    /// [`SubscriptionRequest`](crate::plumbing::SubscriptionRequest).
    pub const DOPPLER_BATCH_SUBSCRIBE: &str = "/plumbing.Doppler/BatchSubscribe";
    /// Stream of [`EnvelopeData`](crate::plumbing::EnvelopeData) in.
    pub const DOPPLER_INGESTOR_PUSHER: &str = "/plumbing.DopplerIngestor/Pusher";
}
