//! Configuration from environment variables.
//!
//! A stage states its settings once, as a table of [`Setting`]s. The table is what [`Reader`] parses by (names,
//! defaults), what `--help` is built from ([`help`]) and what the reference page is rendered from ([`markdown`]), so
//! that the three cannot disagree.
//!
//! Rules, which are those of the platform's own components:
//! - an empty value is the same as an unset one;
//! - a bool is true for exactly `true` or `1` and false for everything else, without an error;
//! - a list is split on commas and each element trimmed; a map splits each element at its first colon;
//! - all errors are collected and reported together ([`Errors`]), before any port is bound; the program then exits
//!   with [`EXIT_CONFIG`].
//!
//! The types of [`go`] parse exactly as Go's `strconv` and `time` do, error texts and truncation of 16-bit ports
//! included; plain Rust types are stricter (a port of 70000 is an error) and accept sizes and durations as people
//! write them.
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::time::Duration;
//! use loggregator_service::config::{ByteSize, Reader, Setting};
//!
//! const SETTINGS: &[Setting] = &[
//!     Setting::new("LOG_BYTES", "256MiB", "Bytes of envelopes kept in memory."),
//!     Setting::new("RESUME_GRACE", "60s", "How long a named subscription may be away."),
//!     Setting::required("CA_FILE", "PEM file of the certificate authority."),
//! ];
//!
//! let env = BTreeMap::from([("CA_FILE".to_owned(), "ca.pem".to_owned())]);
//! let mut reader = Reader::new(&env, SETTINGS);
//! let log_bytes: ByteSize = reader.value("LOG_BYTES");
//! let grace: Duration = reader.value("RESUME_GRACE");
//! let ca: String = reader.value("CA_FILE");
//! reader.finish(()).unwrap();
//! assert_eq!((log_bytes.0, grace.as_secs(), ca.as_str()), (268_435_456, 60, "ca.pem"));
//! ```

mod doc;
mod env;
pub mod go;
mod reader;
mod setting;
mod value;

pub use doc::{help, markdown};
pub use env::{Env, Layered, ProcessEnv};
pub use reader::{Error, Errors, Reader};
pub use setting::Setting;
pub use value::{ByteSize, Value, parse_duration};

/// Exit code of a program whose configuration is wrong (`EX_USAGE` of `sysexits.h`).
pub const EXIT_CONFIG: u8 = 64;
