//! The dropsonde messages as slices of bytes: each a table of its fields.

use super::{
    V1Error,
    uuid::Uuid,
    wire_message::{Message, Pairs, Repeated, Slot, keep_last_of_each, merge, optional, required},
};
use crate::wire::{Encode, Sink, Value};

/// `Name<'a> = "events.Name"`, then the fields in ascending order: number, label, name in the definition, name here, and
/// type.
macro_rules! message {
    ($(#[$doc:meta])* $name:ident<$a:lifetime> = $full:literal {
        $($number:literal $label:ident $wire:literal $field:ident: $type:ty,)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub(crate) struct $name<$a> {
            $(pub(crate) $field: $type,)*
            /// Fields that the definition does not have.
            pub(crate) unknown: Vec<&$a [u8]>,
        }

        impl<$a> Message<$a> for $name<$a> {
            fn set(&mut self, number: u32, value: Value<$a>, canonical: &mut bool) -> Result<bool, V1Error> {
                match number {
                    $($number => self.$field.accept(value, canonical),)*
                    _ => Ok(false),
                }
            }

            fn repeats(number: u32) -> bool {
                match number {
                    $($number => <$type as Slot<'_>>::REPEATS,)*
                    _ => false,
                }
            }

            fn keep(&mut self, field: &$a [u8]) {
                self.unknown.push(field);
            }

            fn check(&self) -> Result<(), V1Error> {
                $($label(&self.$field, concat!($full, ".", $wire))?;)*
                Ok(())
            }
        }

        impl Encode for $name<'_> {
            fn encode<S: Sink>(&self, to: &mut S) {
                $(self.$field.write($number, to);)*
                for field in &self.unknown {
                    to.raw(field);
                }
            }
        }
    };
}

message! {
    /// Every envelope. The bodies are no oneof: `event_type` alone says which counts.
    Envelope<'a> = "events.Envelope" {
        1 required "origin" origin: Option<&'a [u8]>,
        2 required "eventType" event_type: Option<i32>,
        6 optional "timestamp" timestamp: Option<i64>,
        7 optional "httpStartStop" http: Option<Http<'a>>,
        8 optional "logMessage" log: Option<Log<'a>>,
        9 optional "valueMetric" value: Option<ValueMetric<'a>>,
        10 optional "counterEvent" counter: Option<Counter<'a>>,
        11 optional "error" error: Option<Error<'a>>,
        12 optional "containerMetric" container: Option<Container<'a>>,
        13 optional "deployment" deployment: Option<&'a [u8]>,
        14 optional "job" job: Option<&'a [u8]>,
        15 optional "index" index: Option<&'a [u8]>,
        16 optional "ip" ip: Option<&'a [u8]>,
        17 optional "tags" tags: Pairs<'a>,
    }
}

message! {
    /// A request.
    Http<'a> = "events.HttpStartStop" {
        1 required "startTimestamp" start: Option<i64>,
        2 required "stopTimestamp" stop: Option<i64>,
        3 required "requestId" request_id: Option<Id<'a>>,
        4 required "peerType" peer_type: Option<i32>,
        5 required "method" method: Option<i32>,
        6 required "uri" uri: Option<&'a [u8]>,
        7 required "remoteAddress" remote_address: Option<&'a [u8]>,
        8 required "userAgent" user_agent: Option<&'a [u8]>,
        9 required "statusCode" status_code: Option<i32>,
        10 required "contentLength" content_length: Option<i64>,
        12 optional "applicationId" application_id: Option<Id<'a>>,
        13 optional "instanceIndex" instance_index: Option<i32>,
        14 optional "instanceId" instance_id: Option<&'a [u8]>,
        15 optional "forwarded" forwarded: Repeated<'a>,
    }
}

message! {
    /// A UUID.
    Id<'a> = "events.UUID" {
        1 required "low" low: Option<u64>,
        2 required "high" high: Option<u64>,
    }
}

message! {
    /// A line of output.
    Log<'a> = "events.LogMessage" {
        1 required "message" message: Option<&'a [u8]>,
        2 required "message_type" message_type: Option<i32>,
        3 required "timestamp" timestamp: Option<i64>,
        4 optional "app_id" app_id: Option<&'a [u8]>,
        5 optional "source_type" source_type: Option<&'a [u8]>,
        6 optional "source_instance" source_instance: Option<&'a [u8]>,
    }
}

message! {
    /// A value.
    ValueMetric<'a> = "events.ValueMetric" {
        1 required "name" name: Option<&'a [u8]>,
        2 required "value" value: Option<f64>,
        3 required "unit" unit: Option<&'a [u8]>,
    }
}

message! {
    /// Growth of a count.
    Counter<'a> = "events.CounterEvent" {
        1 required "name" name: Option<&'a [u8]>,
        2 required "delta" delta: Option<u64>,
        3 optional "total" total: Option<u64>,
    }
}

message! {
    /// An error.
    Error<'a> = "events.Error" {
        1 required "source" source: Option<&'a [u8]>,
        2 required "code" code: Option<i32>,
        3 required "message" message: Option<&'a [u8]>,
    }
}

message! {
    /// What a container uses.
    Container<'a> = "events.ContainerMetric" {
        1 required "applicationId" application_id: Option<&'a [u8]>,
        2 required "instanceIndex" instance_index: Option<i32>,
        3 required "cpuPercentage" cpu: Option<f64>,
        4 required "memoryBytes" memory: Option<u64>,
        5 required "diskBytes" disk: Option<u64>,
        6 optional "memoryBytesQuota" memory_quota: Option<u64>,
        7 optional "diskBytesQuota" disk_quota: Option<u64>,
    }
}

impl Id<'_> {
    pub(crate) fn uuid(&self) -> Uuid {
        Uuid {
            low: self.low.unwrap_or_default(),
            high: self.high.unwrap_or_default(),
        }
    }
}

/// Reads an envelope and checks that required fields are there. Also answers whether the bytes are those that writing it
/// would give.
pub(crate) fn parse(payload: &[u8]) -> Result<(Envelope<'_>, bool), V1Error> {
    let mut envelope = Envelope::default();
    let mut canonical = true;
    merge(&mut envelope, payload, &mut canonical)?;
    envelope.check()?;
    canonical &= keep_last_of_each(&mut envelope.tags);
    Ok((envelope, canonical))
}
