//! What can be configured, as types.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::envelope::TestEnvelope;
use super::section::Section;
use super::values::{Secret, Size, Time};

/// A whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct NozzleConfig {
    /// `[nozzle]`
    pub nozzle: NozzleSection,
    /// `[intake.…]`
    pub intake: IntakeConfig,
    /// `[select]`
    pub select: SelectConfig,
    /// `[buffer.…]`
    pub buffer: BufferConfig,
    /// `[enrichment]`, if it is on.
    pub enrichment: Option<EnrichmentConfig>,
    /// `[[destination]]`, in the order of the file; never empty.
    pub destinations: Vec<DestinationConfig>,
    /// `[[test]]`
    pub tests: Vec<TestCase>,
}

/// `[nozzle]`: the process as a whole.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NozzleSection {
    /// Its name: what its metrics, its ledger and, unless `select.shard_id` says otherwise, its subscription are called.
    pub name: String,
    /// Where its admin server listens; none without.
    pub admin_addr: Option<std::net::SocketAddr>,
    /// Without any envelope for so long the nozzle is not ready, and its stream is opened again. 0 turns it off.
    #[serde(default = "silence")]
    pub max_silence: Time,
    /// A destination to which nothing was delivered for so long though there was something is not ready.
    #[serde(default = "stuck")]
    pub max_stuck: Time,
    /// How long a stop may take.
    #[serde(default = "drain")]
    pub drain_timeout: Time,
}

/// Where envelopes come from; the sub-table of `[intake]` that is there.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum IntakeConfig {
    /// `[intake.rlp]`: a reverse log proxy, or dopplers themselves, over gRPC.
    Rlp(RlpIntake),
    /// `[intake.websocket]`: a traffic controller's firehose.
    #[serde(rename = "websocket")]
    WebSocket(WebSocketIntake),
    /// `[intake.gateway]`: a reverse log proxy's gateway, JSON over HTTP.
    Gateway(GatewayIntake),
    /// `[intake.in_process]`: what runs in the same process, under `up --nozzle`; also what a file without `[intake]` means
    /// there.
    InProcess(InProcessIntake),
}

/// `[intake.rlp]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RlpIntake {
    /// `host:port` of each; all addresses that a name resolves to are read.
    pub addrs: Vec<String>,
    /// The name that their certificates must carry.
    #[serde(default = "rlp_name")]
    pub server_name: String,
    /// PEM file of the authorities that sign their certificates.
    pub ca_file: PathBuf,
    /// PEM file of the nozzle's certificate.
    pub cert_file: PathBuf,
    /// PEM file of its key.
    pub key_file: PathBuf,
    /// How often names are resolved again.
    #[serde(default = "five_seconds")]
    pub resolve_interval: Time,
    /// Bytes of a message. A longer one ends the stream that brings it.
    #[serde(default = "max_message")]
    pub max_message: Size,
}

/// `[intake.websocket]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebSocketIntake {
    /// `wss://doppler.example.com:443`
    pub url: String,
    /// PEM file of the authorities; those of the system without.
    pub ca_file: Option<PathBuf>,
    /// Whether the server's certificate is not looked at.
    #[serde(default)]
    pub skip_verify: bool,
    /// A token as it stands, `bearer …` or without.
    pub token: Option<Secret>,
    /// Where tokens come from instead.
    pub oauth: Option<OauthConfig>,
    /// Bytes of a message. A longer one ends the stream that brings it.
    #[serde(default = "max_message")]
    pub max_message: Size,
}

/// `[intake.gateway]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayIntake {
    /// `https://log-stream.example.com`
    pub url: String,
    /// PEM file of the authorities; those of the system without.
    pub ca_file: Option<PathBuf>,
    /// Whether the server's certificate is not looked at.
    #[serde(default)]
    pub skip_verify: bool,
    /// A token as it stands.
    pub token: Option<Secret>,
    /// Where tokens come from instead.
    pub oauth: Option<OauthConfig>,
    /// Bytes of an event, which is JSON. A longer one ends the stream that brings it.
    #[serde(default = "max_event")]
    pub max_message: Size,
}

/// `[intake.in_process]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InProcessIntake {}

/// Tokens by the client-credentials or password grant, renewed before they expire.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OauthConfig {
    /// The token endpoint's server, `https://uaa.example.com`; `/oauth/token` is added.
    pub url: String,
    /// The client.
    pub client: String,
    /// Its secret.
    pub secret: Secret,
    /// A user, for the password grant.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// PEM file of the authorities; those of the system without.
    pub ca_file: Option<PathBuf>,
    /// Whether the server's certificate is not looked at.
    #[serde(default)]
    pub skip_verify: bool,
}

/// `[select]`: what is asked of the dopplers, before it costs anything.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SelectConfig {
    /// Nozzles of the same shard id share the load. The nozzle's name unless given.
    pub shard_id: Option<String>,
    /// The member's name. Counters and gauges of one metric name always go to the same member of a shard; logs, timers and
    /// events go to all in turn.
    pub deterministic_name: Option<String>,
    /// `log`, `counter`, `gauge`, `timer`, `event`. Without, what the destinations accept.
    pub kinds: Vec<String>,
    /// Only these source ids.
    pub source_ids: Vec<String>,
    /// Only what this expression holds for; see [`crate::filter`].
    pub filter: Option<String>,
}

/// What stands between intake and destinations; the sub-table of `[buffer]` that is there.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum BufferConfig {
    /// `[buffer.memory]`: gone with the process.
    Memory(MemoryBuffer),
    /// `[buffer.disk]`: survives it.
    Disk(DiskBuffer),
}

/// `[buffer.memory]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryBuffer {
    /// Bytes of envelopes held for all destinations together.
    pub max_bytes: Size,
}

/// `[buffer.disk]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskBuffer {
    /// The nozzle's folder: buffer, cursors, dead letters, names.
    pub path: PathBuf,
    /// Bytes of all segments together.
    #[serde(default = "disk_bytes")]
    pub max_bytes: Size,
    /// Bytes of a segment, the unit in which space is given back.
    #[serde(default = "segment_bytes")]
    pub segment_bytes: Size,
    /// What is written is on the disk after so long at the latest: what a crash of the machine may cost. A crash of the
    /// process costs nothing. 0: after every batch.
    #[serde(default = "sync_interval")]
    pub sync_interval: Time,
    /// Bytes of the newest envelopes that are kept in memory too, so that destinations that keep up do not read the disk.
    #[serde(default = "memory_bytes")]
    pub memory_bytes: Size,
}

/// `[[destination]]`: what all kinds have in common, and the section of its kind.
#[derive(Debug, Clone, PartialEq)]
pub struct DestinationConfig {
    /// Unique in the nozzle; names its cursor.
    pub name: String,
    /// The kind: the name of its sub-table.
    pub kind: String,
    /// That sub-table.
    pub section: Section,
    /// Only what this expression holds for; see [`crate::filter`].
    pub filter: Option<String>,
    /// `[destination.batch]`
    pub batch: BatchConfig,
    /// `[destination.backlog]`
    pub backlog: Backlog,
    /// `[destination.retry]`
    pub retry: RetryConfig,
    /// `[destination.breaker]`
    pub breaker: BreakerConfig,
    /// `[destination.rate]`
    pub rate: RateConfig,
    /// `[destination.quota]`
    pub quota: Option<QuotaConfig>,
    /// `[destination.dead_letter]`
    pub dead_letter: DeadLetterConfig,
    /// Renders and counts, sends nothing.
    pub dry_run: bool,
}

/// `[destination.batch]`: replaces what the kind takes for good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Events of a batch.
    pub events: Option<usize>,
    /// Bytes of a batch.
    pub bytes: Option<Size>,
    /// How long a batch that is not full waits for more.
    pub linger: Option<Time>,
    /// Batches on their way at a time.
    pub in_flight: Option<usize>,
}

/// `[destination.backlog]`: the destination's share of the buffer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Backlog {
    /// Bytes that may wait for it; an equal share of the buffer unless given.
    pub max_bytes: Option<Size>,
    /// What happens beyond.
    pub full: Full,
}

/// What a destination loses when its share of the buffer is full. The others lose nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Full {
    /// What arrives while it is full: whatever was once taken into the buffer for it is delivered.
    #[default]
    DropNewest,
    /// What has waited longest: it stays close to the present.
    DropOldest,
}

/// `[destination.retry]`: after each failure in a row the wait doubles, varied by ±20 %.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    /// The first wait.
    pub min: Time,
    /// The longest wait.
    pub max: Time,
    /// After so many attempts the events are dead-lettered; 0: never.
    pub attempts: u32,
    /// One attempt may take so long.
    pub timeout: Time,
}

/// `[destination.breaker]`: after failures in a row only one batch is tried at a time until one succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerConfig {
    /// Failures in a row that open it; 0: never.
    pub failures: u32,
    /// How long it stays open before one batch is tried.
    pub pause: Time,
}

/// `[destination.rate]`: how much is sent at most. What is above waits in the buffer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateConfig {
    /// Events per second; 0: any number.
    pub events: u64,
    /// Bytes of envelopes per second; 0: any number.
    pub bytes: Size,
}

/// `[destination.quota]`: how much one app may send. What is above is left out, counted, and told in a line of its own.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaConfig {
    /// Events per second and source id.
    pub events: u64,
    /// How many seconds' worth may be sent at once.
    #[serde(default = "burst")]
    pub burst: u32,
}

/// `[destination.dead_letter]`
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLetterConfig {
    /// Bytes kept on disk; the oldest go first, counted. Without a disk buffer dead letters are only counted and logged.
    pub max_bytes: Size,
}

/// `[enrichment]`: names of apps, spaces and organisations from the Cloud Controller.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrichmentConfig {
    /// The Cloud Controller, `https://api.example.com`.
    pub url: String,
    /// Where tokens come from.
    pub oauth: OauthConfig,
    /// PEM file of the authorities; those of the system without.
    pub ca_file: Option<PathBuf>,
    /// Whether the server's certificate is not looked at.
    #[serde(default)]
    pub skip_verify: bool,
    /// Whether labels are wanted.
    #[serde(default)]
    pub labels: bool,
    /// Whether annotations are wanted.
    #[serde(default)]
    pub annotations: bool,
    /// Names older than this are asked for again, and served meanwhile.
    #[serde(default = "ten_minutes")]
    pub refresh: Time,
    /// Names older than this are no longer used.
    #[serde(default = "one_day")]
    pub expire: Time,
    /// Requests per second at most.
    #[serde(default = "requests_per_second")]
    pub requests_per_second: u32,
    /// Apps that are kept.
    #[serde(default = "most_apps")]
    pub max_apps: usize,
}

/// `[[test]]`: what should become of an envelope; run by `nozzle test`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestCase {
    /// What is tested.
    pub name: String,
    /// The envelope as the gateway writes it (protobuf JSON); a log's `payload` may be given as `text` instead.
    pub envelope: TestEnvelope,
    /// Names to enrich it with: `app`, `space`, `space_id`, `org`, `org_id`.
    #[serde(default)]
    pub names: BTreeMap<String, String>,
    /// Which destinations get it, and what they send.
    #[serde(default)]
    pub expect: Vec<Expect>,
}

/// What an event may be enriched with in a test.
pub(super) const NAMES: [&str; 5] = ["app", "space", "space_id", "org", "org_id"];

/// `[[test.expect]]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The destination.
    pub destination: String,
    /// The body of what it sends, in full: a text, or a list where an event is sent as several things. Not looked at unless
    /// given.
    #[serde(default, deserialize_with = "one_or_more")]
    pub body: Option<Vec<String>>,
    /// What stands beside the body: `topic`, `key`, ….
    #[serde(default)]
    pub fields: BTreeMap<String, String>,
    /// The code of the reason for which it is rejected instead.
    pub rejected: Option<String>,
}

fn silence() -> Time {
    Time(Duration::from_secs(60))
}
fn stuck() -> Time {
    Time(Duration::from_secs(60))
}
fn drain() -> Time {
    Time(Duration::from_secs(10))
}
/// What the platform's own clients take of dopplers.
fn max_message() -> Size {
    Size(10 << 20)
}
/// A batch of 4 MiB has some 6 MiB as JSON.
fn max_event() -> Size {
    Size(32 << 20)
}
fn five_seconds() -> Time {
    Time(Duration::from_secs(5))
}
fn ten_minutes() -> Time {
    Time(Duration::from_secs(600))
}
fn one_day() -> Time {
    Time(Duration::from_secs(86_400))
}
fn rlp_name() -> String {
    loggregator_client::REVERSE_LOG_PROXY.to_owned()
}
fn disk_bytes() -> Size {
    Size(1 << 30)
}
fn segment_bytes() -> Size {
    Size(16 << 20)
}
fn sync_interval() -> Time {
    Time(Duration::from_millis(500))
}
fn memory_bytes() -> Size {
    Size(16 << 20)
}
fn burst() -> u32 {
    5
}
fn requests_per_second() -> u32 {
    5
}
fn most_apps() -> usize {
    100_000
}

impl RlpIntake {
    /// These addresses, with these files of certificates; everything else as it is without a configuration.
    #[must_use]
    pub fn new(
        addrs: Vec<String>,
        ca_file: impl Into<PathBuf>,
        cert_file: impl Into<PathBuf>,
        key_file: impl Into<PathBuf>,
    ) -> RlpIntake {
        RlpIntake {
            addrs,
            server_name: rlp_name(),
            ca_file: ca_file.into(),
            cert_file: cert_file.into(),
            key_file: key_file.into(),
            resolve_interval: five_seconds(),
            max_message: max_message(),
        }
    }
}

/// A text, or several.
fn one_or_more<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    struct Visitor;
    impl<'de> de::Visitor<'de> for Visitor {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text or a list of texts")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<String>, E> {
            Ok(vec![text.to_owned()])
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<String>, A::Error> {
            let mut texts = Vec::new();
            while let Some(text) = seq.next_element()? {
                texts.push(text);
            }
            Ok(texts)
        }
    }
    deserializer.deserialize_any(Visitor).map(Some)
}

impl Default for MemoryBuffer {
    /// 64 MiB.
    fn default() -> Self {
        MemoryBuffer {
            max_bytes: Size(64 << 20),
        }
    }
}

impl Default for BufferConfig {
    fn default() -> Self {
        BufferConfig::Memory(MemoryBuffer::default())
    }
}

impl Default for RetryConfig {
    /// 100 ms to 30 s, for ever, 60 s each.
    fn default() -> Self {
        RetryConfig {
            min: Time(Duration::from_millis(100)),
            max: Time(Duration::from_secs(30)),
            attempts: 0,
            timeout: Time(Duration::from_secs(60)),
        }
    }
}

impl Default for BreakerConfig {
    /// Opens after 5 failures, for 5 s.
    fn default() -> Self {
        BreakerConfig {
            failures: 5,
            pause: Time(Duration::from_secs(5)),
        }
    }
}

impl Default for DeadLetterConfig {
    /// 64 MiB.
    fn default() -> Self {
        DeadLetterConfig {
            max_bytes: Size(64 << 20),
        }
    }
}
