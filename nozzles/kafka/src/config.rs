//! `[destination.kafka]`: what can be configured.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use loggregator_nozzle::config::{Secret, Size, Time};
use serde::Deserialize;

/// `[destination.kafka]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// `host:port` of some of the cluster's brokers; the others are learned from them.
    pub brokers: Vec<String>,
    /// Topic of every record, a template.
    pub topic: String,
    /// Topics of single kinds of envelopes, templates.
    #[serde(default)]
    pub topics: KindTopics,
    /// Topic of what has none of its own: no legal name came of its template, or there are `max_topics` already.
    pub fallback_topic: Option<String>,
    /// Different topics that records may go to.
    #[serde(default = "max_topics")]
    pub max_topics: usize,
    /// Key of every record: `none`, `source_id`, `source_id/instance_id`, `app`, `org`, or a template.
    #[serde(default = "key")]
    pub key: String,
    /// What the value of a record is.
    #[serde(default)]
    pub value: Value,
    /// The headers of every record.
    #[serde(default = "headers")]
    pub headers: Vec<HeaderName>,
    /// Name of the deployment of the platform, for the header `foundation`.
    pub foundation: Option<String>,
    /// Compression of batches on the wire and on the brokers' disks.
    #[serde(default)]
    pub compression: Compression,
    /// Level of the compression; the codec's own without.
    pub compression_level: Option<i32>,
    /// What is promised.
    #[serde(default)]
    pub delivery: Guarantee,
    /// Topic in which the place in the buffer is kept, with `delivery = "exactly_once"`.
    #[serde(default = "cursor_topic")]
    pub cursor_topic: String,
    /// How long a record waits for others, to go with them in one request.
    #[serde(default = "linger")]
    pub linger: Time,
    /// Bytes of records in the client, waiting or on their way.
    #[serde(default = "queue_bytes")]
    pub queue_bytes: Size,
    /// Largest record; should not be above the brokers' `message.max.bytes` or the topics' `max.message.bytes`.
    #[serde(default = "record_bytes")]
    pub max_record_bytes: Size,
    /// How long a topic that the brokers do not know may take to come into being.
    #[serde(default = "topic_grace")]
    pub topic_grace: Time,
    /// A batch that is not confirmed for so long counts as a failed attempt. Its records stay in the client and are not
    /// sent twice.
    #[serde(default = "stall_timeout")]
    pub stall_timeout: Time,
    /// How often the client's statistics become metrics; 0: never.
    #[serde(default = "statistics")]
    pub statistics_interval: Time,
    /// What brokers call this client, in logs and quotas.
    pub client_id: Option<String>,
    /// TLS; without this table connections are in the clear.
    pub tls: Option<Tls>,
    /// Who this client says it is.
    pub sasl: Option<Sasl>,
    /// Further settings of librdkafka, by its names.
    #[serde(default)]
    pub options: BTreeMap<String, toml::Value>,
}

/// `[destination.kafka.topics]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KindTopics {
    pub log: Option<String>,
    pub counter: Option<String>,
    pub gauge: Option<String>,
    pub timer: Option<String>,
    pub event: Option<String>,
}

/// What the value of a record is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Value {
    /// The `loggregator.v2.Envelope` as it came, not a byte changed.
    #[default]
    Protobuf,
    /// Its dropsonde form, `events.Envelope`: a record for each, none for events.
    ProtobufV1,
    /// Protobuf JSON of the envelope, as a reverse log proxy's gateway writes it.
    Json,
    /// An object that is easy to query, with names; as the file nozzle writes it.
    JsonLine,
    /// The line of a log, and nothing else.
    Text,
}

/// A header of every record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HeaderName {
    /// Media type of the value.
    ContentType,
    /// Message type and version of the value: `loggregator.v2.Envelope`.
    Schema,
    /// `log`, `counter`, `gauge`, `timer`, `event`.
    Kind,
    /// The same for every copy of an envelope: nozzle, buffer, number.
    EnvelopeId,
    /// The deployment on the platform, as the envelope's tag says.
    Deployment,
    /// The platform.
    Foundation,
    /// Id of the app.
    AppId,
    /// Id of the space.
    SpaceId,
    /// Id of the organisation.
    OrgId,
}

/// Compression of batches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Compression {
    None,
    Gzip,
    Snappy,
    #[default]
    Lz4,
    Zstd,
}

impl Compression {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

/// What is promised about what reached the buffer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Guarantee {
    /// An idempotent producer; the cursor moves past what all in-sync replicas have.
    #[default]
    AtLeastOnce,
    /// A transactional producer; the place in the buffer is part of the transaction.
    ExactlyOnce,
}

/// `[destination.kafka.tls]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    /// PEM file of the authorities that sign the brokers' certificates; those of the system without.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client's certificate.
    pub cert_file: Option<PathBuf>,
    /// PEM file of its key.
    pub key_file: Option<PathBuf>,
    /// What the key is encrypted with.
    pub key_password: Option<Secret>,
    /// Whether a broker's certificate must be for the name that is connected to.
    #[serde(default = "yes")]
    pub verify_hostname: bool,
    /// Whether the brokers' certificates are not looked at.
    #[serde(default)]
    pub skip_verify: bool,
}

/// `[destination.kafka.sasl]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sasl {
    pub mechanism: Mechanism,
    /// User name of `plain` and `scram_…`.
    pub username: Option<String>,
    /// Password of `plain` and `scram_…`.
    pub password: Option<Secret>,
    /// `[destination.kafka.sasl.oauth]`: where tokens of `oauthbearer` come from.
    pub oauth: Option<OAuth>,
}

/// How the client proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mechanism {
    Plain,
    #[serde(rename = "scram_sha_256")]
    ScramSha256,
    #[serde(rename = "scram_sha_512")]
    ScramSha512,
    Oauthbearer,
}

impl Mechanism {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
            Mechanism::Oauthbearer => "OAUTHBEARER",
        }
    }
}

/// `[destination.kafka.sasl.oauth]`: a token as it stands, or where to get one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OAuth {
    /// A token; a file is read again for every renewal.
    pub token: Option<Secret>,
    /// In place of that: the whole URL of a token endpoint, which is asked by the client-credentials grant.
    pub url: Option<String>,
    /// Who asks there.
    pub client: Option<String>,
    /// The client's secret.
    pub secret: Option<Secret>,
    /// What the token is to be good for, where the endpoint wants to know.
    pub scope: Option<String>,
    /// PEM file of the authorities that sign the endpoint's certificate; those of the system without.
    pub ca_file: Option<PathBuf>,
    /// Whether the endpoint's certificate is not looked at.
    #[serde(default)]
    pub skip_verify: bool,
    /// Whose token it is; what it says under `sub`, unless given.
    pub principal: Option<String>,
    /// A token that does not say when it expires is asked for again after so long.
    #[serde(default = "token_lifetime")]
    pub lifetime: Time,
}

fn max_topics() -> usize {
    1000
}
fn key() -> String {
    "source_id".to_owned()
}
fn headers() -> Vec<HeaderName> {
    vec![
        HeaderName::ContentType,
        HeaderName::Schema,
        HeaderName::Kind,
        HeaderName::EnvelopeId,
        HeaderName::Deployment,
        HeaderName::Foundation,
        HeaderName::AppId,
        HeaderName::SpaceId,
        HeaderName::OrgId,
    ]
}
fn cursor_topic() -> String {
    "loggregator-nozzle-cursors".to_owned()
}
fn linger() -> Time {
    Time(Duration::from_millis(20))
}
fn queue_bytes() -> Size {
    Size(64 << 20)
}
fn record_bytes() -> Size {
    // Kafka's own default is 1,048,588 for a whole batch; librdkafka's is this.
    Size(1_000_000)
}
fn topic_grace() -> Time {
    Time(Duration::from_secs(30))
}
fn stall_timeout() -> Time {
    Time(Duration::from_secs(30))
}
fn statistics() -> Time {
    Time(Duration::from_secs(5))
}
fn token_lifetime() -> Time {
    Time(Duration::from_secs(300))
}
fn yes() -> bool {
    true
}
