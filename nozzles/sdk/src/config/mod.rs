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
//!
//! A variable of the environment replaces a key: `NOZZLE__INTAKE__RLP__ADDRS='["a:8082"]'` is `intake.rlp.addrs`,
//! `NOZZLE__DESTINATION__SIEM__SYSLOG__URL` is `url` in the section of the destination `siem`. The value is one of TOML, or
//! the text as it stands where a text is wanted.

mod check;
mod de;
mod document;
mod envelope;
mod errors;
mod model;
mod overlay;
mod read;
mod section;
mod source;
mod tree;
mod values;

pub use document::Loader;
pub use envelope::{EnvelopeError, TestEnvelope};
pub use errors::{ConfigError, ConfigErrors, Excerpt};
pub use model::{
    Backlog, BatchConfig, BreakerConfig, BufferConfig, DeadLetterConfig, DestinationConfig,
    DiskBuffer, EnrichmentConfig, Expect, Full, GatewayIntake, InProcessIntake, IntakeConfig,
    MemoryBuffer, NozzleConfig, NozzleSection, OauthConfig, QuotaConfig, RateConfig, RetryConfig,
    RlpIntake, SelectConfig, TestCase, WebSocketIntake,
};
pub use overlay::{ENV_PREFIX, environment};
pub use section::Section;
pub use values::{Secret, SecretError, Size, Time};

pub use crate::intake::address::keeps_secrets;

#[cfg(test)]
mod page;
#[cfg(test)]
mod tests;
