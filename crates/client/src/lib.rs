//! The client library for emitters and consumers.
