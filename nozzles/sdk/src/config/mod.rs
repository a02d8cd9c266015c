//! A nozzle's configuration: one TOML file.
//!
//! ```toml
//! [nozzle]
//! name = "audit"                     # names its subscription and its state
//!
//! [intake.rlp]
//! addrs = ["rlp.internal:8082"]
//! ca_file = "ca.crt"
//! cert_file = "nozzle.crt"
//! key_file = "nozzle.key"
//!
//! [buffer.disk]
//! path = "/var/vcap/store/audit"
//! max_bytes = "4GiB"
//!
//! [[destination]]
//! name = "siem"
//! filter = 'kind == "log"'
//! [destination.syslog]
//! url = "syslog-tls://siem.example.com:6514"
//! ```
//!
//! Unknown keys are errors. All errors of a file are told at once, each with line, column and key.

mod document;
mod model;
mod values;

pub use document::{ConfigError, ConfigErrors, Section};
pub use model::{
    Backlog, BatchConfig, BreakerConfig, BufferConfig, DeadLetterConfig, DestinationConfig,
    DiskBuffer, EnrichmentConfig, Full, GatewayIntake, InProcessIntake, IntakeConfig, MemoryBuffer,
    NozzleConfig, NozzleSection, OauthConfig, QuotaConfig, RateConfig, RetryConfig, RlpIntake,
    SelectConfig, TestCase, WebSocketIntake,
};
pub use values::{Secret, SecretError, Size, Time};
