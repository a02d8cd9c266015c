//! TLS with reload, listeners, gRPC framing over hyper, DNS and backoff.
