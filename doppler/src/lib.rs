//! The router: ingress, log, subscriptions, egress.
