//! The router: ingress, log, subscriptions, egress.

pub mod router;
