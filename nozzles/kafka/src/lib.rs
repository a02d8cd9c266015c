//! The nozzle for Apache Kafka.
//!
//! An event becomes a record: topic and key from templates, what it is about as headers, the envelope as the value.
//! librdkafka does the rest: batches, compression, retries, TLS and SASL.
//!
//! | mode | promise |
//! | --- | --- |
//! | `at_least_once` | the cursor moves past an event when all in-sync replicas have its records; twice after a crash, in order |
//! | `exactly_once` | events and the place in the buffer are written in one transaction; readers with `read_committed` see every event once |
//!
//! Both begin at the buffer: what reached it and is not lost with it is in the topic in the end. Client errors mean for
//! an event:
//!
//! | error | outcome |
//! | --- | --- |
//! | whatever the client can try again | it tries for ever; nothing is told to the framework but that it takes long |
//! | record too large, here or at the broker | oversize: dead letter |
//! | unknown topic after `topic_grace`, topic forbidden, invalid record | rejected: dead letter; other topics go on |
//! | no connection, TLS, authentication | retry; the destination is unhealthy and the buffer fills |
//! | fatal error of the producer | the client is made anew, what was not confirmed is sent again in order |

mod client;
mod config;
mod context;
mod cursor;
mod grant;
mod kind;
mod oauth;
mod outcome;
mod pending;
mod probe;
mod producer;
mod record;
mod stats;
mod subject;
mod topic;
mod transaction;

pub use kind::KafkaKind;
