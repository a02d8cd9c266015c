//! What a client's error means for an event.

use loggregator_nozzle::{Outcome, Reason};
use rdkafka::error::RDKafkaErrorCode as Code;

/// The topic does not exist and did not come into being within `topic_grace`.
pub(crate) const UNKNOWN_TOPIC: &str = "unknown_topic";
/// The client may not write to the topic.
pub(crate) const TOPIC_FORBIDDEN: &str = "topic_forbidden";
/// The brokers refuse the record: its content, its time, its format.
pub(crate) const INVALID_RECORD: &str = "invalid_record";
/// The brokers refuse a record because of its size.
pub(crate) const BROKER_TOO_LARGE: &str = "broker_record_too_large";
/// Another record of the same request was refused; this one can go with others.
pub(crate) const INVALID_NEIGHBOUR: &str = "invalid_neighbour";
/// A policy of the brokers is against it for now.
pub(crate) const POLICY: &str = "policy_violation";
/// The client was rebuilt and gave up what it had.
pub(crate) const PRODUCER_RESTARTED: &str = "producer_restarted";
/// Confirmed neither way within `stall_timeout`.
pub(crate) const NOT_CONFIRMED: &str = "not_confirmed";
/// An earlier batch was given up before all of it was handed to the client.
pub(crate) const BEHIND_ANOTHER: &str = "behind_another";
/// Brokers cannot be reached.
pub(crate) const CONNECT: &str = "connect";
/// TLS failed.
pub(crate) const TLS: &str = "tls";
/// The client is not who it says, or may not do this on the cluster.
pub(crate) const AUTHENTICATION: &str = "authentication";
/// A transaction did not go through.
pub(crate) const TRANSACTION: &str = "transaction";
/// Another process delivers from this buffer.
pub(crate) const FENCED: &str = "fenced";
/// The topic that keeps the place in the buffer cannot be used.
pub(crate) const CURSOR_TOPIC: &str = "cursor_topic";
/// Anything else.
pub(crate) const OTHER: &str = "kafka_error";

/// What a delivery report means. The client itself has tried again what could be tried again.
pub(crate) fn of_report(code: Code, topic: &str) -> Outcome {
    let reason = |what: &'static str| Reason::new(what, format!("topic {topic}: {code}"));
    match code {
        // An earlier attempt had arrived after all.
        Code::NoError | Code::DuplicateSequenceNumber => Outcome::Delivered,
        Code::UnknownTopicOrPartition
        | Code::UnknownTopic
        | Code::UnknownPartition
        | Code::UnknownTopicId => Outcome::Rejected(reason(UNKNOWN_TOPIC)),
        Code::TopicAuthorizationFailed => Outcome::Rejected(reason(TOPIC_FORBIDDEN)),
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => {
            Outcome::Oversize(reason(BROKER_TOO_LARGE))
        }
        Code::InvalidMessage
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::InvalidTopic
        | Code::BadMessage
        | Code::UnsupportedForMessageFormat
        | Code::UnsupportedCompressionType => Outcome::Rejected(reason(INVALID_RECORD)),
        // It was not to blame: no attempt of its own.
        Code::InvalidDifferentRecord => Outcome::Later(reason(INVALID_NEIGHBOUR)),
        Code::PolicyViolation => Outcome::Retry(reason(POLICY)),
        code if is_restart(code) => Outcome::Retry(reason(PRODUCER_RESTARTED)),
        code => Outcome::Retry(reason(of_client(code))),
    }
}

/// Whether this outcome is that of a whole request: the event need not be to blame for it.
pub(crate) fn is_of_request(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Oversize(why) if why.code == BROKER_TOO_LARGE)
}

/// Whether a record came back because its client was given up.
fn is_restart(code: Code) -> bool {
    matches!(
        code,
        Code::PurgeQueue
            | Code::PurgeInflight
            | Code::Fatal
            | Code::DestroyBroker
            | Code::BrokerDestroy
    )
}

/// Code for an error of the client as a whole.
pub(crate) fn of_client(code: Code) -> &'static str {
    match code {
        Code::AllBrokersDown | Code::BrokerTransportFailure | Code::Resolve => CONNECT,
        Code::SSL => TLS,
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::SecurityDisabled => AUTHENTICATION,
        _ => OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(code: Code) -> (&'static str, String) {
        match of_report(code, "t") {
            Outcome::Delivered => ("delivered", String::new()),
            Outcome::Retry(why) => ("retry", why.code.into_owned()),
            Outcome::Later(why) => ("later", why.code.into_owned()),
            Outcome::Rejected(why) => ("rejected", why.code.into_owned()),
            Outcome::Oversize(why) => ("oversize", why.code.into_owned()),
        }
    }

    #[test]
    fn every_class_of_errors_has_its_outcome() {
        for (code, what, reason) in [
            (Code::NoError, "delivered", ""),
            (Code::DuplicateSequenceNumber, "delivered", ""),
            (Code::UnknownTopic, "rejected", "unknown_topic"),
            (Code::UnknownTopicOrPartition, "rejected", "unknown_topic"),
            (
                Code::TopicAuthorizationFailed,
                "rejected",
                "topic_forbidden",
            ),
            (
                Code::MessageSizeTooLarge,
                "oversize",
                "broker_record_too_large",
            ),
            (
                Code::MessageBatchTooLarge,
                "oversize",
                "broker_record_too_large",
            ),
            (Code::InvalidRecord, "rejected", "invalid_record"),
            (Code::InvalidTimestamp, "rejected", "invalid_record"),
            (Code::InvalidDifferentRecord, "later", "invalid_neighbour"),
            (Code::PolicyViolation, "retry", "policy_violation"),
            (Code::PurgeQueue, "retry", "producer_restarted"),
            (Code::PurgeInflight, "retry", "producer_restarted"),
            (Code::Fatal, "retry", "producer_restarted"),
            (Code::MessageTimedOut, "retry", "kafka_error"),
            (Code::ClusterAuthorizationFailed, "retry", "authentication"),
            (Code::BrokerTransportFailure, "retry", "connect"),
        ] {
            assert_eq!(class(code), (what, reason.to_owned()), "{code:?}");
        }
    }

    #[test]
    fn a_reason_tells_the_topic() {
        let Outcome::Rejected(why) = of_report(Code::TopicAuthorizationFailed, "cf-acme") else {
            panic!("not rejected");
        };
        assert_eq!(
            why.to_string(),
            "topic_forbidden: topic cf-acme: TopicAuthorizationFailed (Broker: Topic authorization failed)"
        );
    }
}
