//! What a [`Platform`](super::Platform) needs to know.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use loggregator_net::{TlsError, TlsFiles};

/// A text that is never shown, not even by `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() {
            "Secret(empty)"
        } else {
            "Secret(hidden)"
        })
    }
}

/// Who judges whether a token is an admin's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TokenCheck {
    /// UAA, asked about each token (`POST /check_token`). A token that was revoked is noticed when the cached answer
    /// expires.
    #[default]
    Remote,
    /// We, by the token's signature and UAA's public keys. UAA is asked about opaque tokens only. A token that was
    /// revoked holds until it expires; streams end then.
    Local(LocalCheck),
}

/// How signed tokens are checked without asking UAA. [`LocalCheck::issuer`] must be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalCheck {
    /// How often UAA's keys are fetched. Default 5 min.
    pub key_refresh: Duration,
    /// The least time between two attempts to fetch them, however many tokens name unknown keys. Default 10 s.
    pub refetch_floor: Duration,
    /// How long keys hold that cannot be refreshed; then every signed token is denied. Default 1 h.
    pub keys_hold_for: Duration,
    /// By how much clocks may differ. Default 60 s.
    pub leeway: Duration,
    /// The issuer that a token must have (`iss`). There is no default: a UAA zone without keys of its own signs with those of
    /// the default zone, and only this tells their tokens apart.
    pub issuer: String,
    /// The audience that a token must have among its own (`aud`). `None`: any.
    pub audience: Option<String>,
}

impl Default for LocalCheck {
    fn default() -> Self {
        Self {
            key_refresh: Duration::from_secs(300),
            refetch_floor: Duration::from_secs(10),
            keys_hold_for: Duration::from_secs(3600),
            leeway: Duration::from_secs(60),
            issuer: String::new(),
            audience: None,
        }
    }
}

/// What the checks may cost, and for how long their answers hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a token that was allowed stays so without asking again. Default 30 s.
    pub allowed_for: Duration,
    /// How long a token that was denied stays so without asking again. Default 5 s.
    pub denied_for: Duration,
    /// Answers kept, and different questions under way, at most; the answers that end first go first. Default 10,000.
    pub max_cached: usize,
    /// Requests under way to each of UAA, the Cloud Controller, and its external address; others wait. Default 64.
    pub max_in_flight: usize,
    /// Time for one question, waiting included. Default 20 s, as the Go programs.
    pub timeout: Duration,
    /// So many failures in a row, and a service is left alone for a while. Default 5.
    pub breaker_failures: u32,
    /// The first such while; each further one is longer. Default 500 ms.
    pub breaker_pause: Duration,
    /// The longest such while (±20 %). Default 30 s.
    pub breaker_max_pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            allowed_for: Duration::from_secs(30),
            denied_for: Duration::from_secs(5),
            max_cached: 10_000,
            max_in_flight: 64,
            timeout: Duration::from_secs(20),
            breaker_failures: 5,
            breaker_pause: Duration::from_millis(500),
            breaker_max_pause: Duration::from_secs(30),
        }
    }
}

/// Where UAA and the Cloud Controller are, and how to ask them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformConfig {
    /// UAA's base address, such as `https://uaa.service.cf.internal:8443`; `/check_token` is put behind it.
    pub uaa_url: String,
    /// Authorities that sign UAA's certificate. May be empty for `http://`.
    pub uaa_ca: PathBuf,
    /// UAA client that may check tokens.
    pub uaa_client: String,
    /// Its secret.
    pub uaa_secret: Secret,
    /// The Cloud Controller's base address, such as `https://cloud-controller-ng.service.cf.internal:9023`.
    pub capi_url: String,
    /// Its external base address, for service instances. `None`: nobody reads those of a service instance.
    pub capi_external_url: Option<String>,
    /// Own certificate for the Cloud Controller, and the authorities that sign its. May be empty for `http://`.
    pub capi_tls: TlsFiles,
    /// The name that the Cloud Controller's certificate carries. Empty: the host of the address.
    pub capi_server_name: String,
    /// Does not verify the certificates of UAA and Cloud Controller.
    pub skip_verify: bool,
    /// Who judges tokens.
    pub tokens: TokenCheck,
    /// Bounds, and times of the cache.
    pub limits: Limits,
}

impl Default for PlatformConfig {
    /// No addresses, no files, the usual limits.
    fn default() -> Self {
        Self {
            uaa_url: String::new(),
            uaa_ca: PathBuf::new(),
            uaa_client: String::new(),
            uaa_secret: Secret::default(),
            capi_url: String::new(),
            capi_external_url: None,
            capi_tls: TlsFiles {
                ca: PathBuf::new(),
                cert: PathBuf::new(),
                key: PathBuf::new(),
            },
            capi_server_name: String::new(),
            skip_verify: false,
            tokens: TokenCheck::default(),
            limits: Limits::default(),
        }
    }
}

/// Why UAA and Cloud Controller cannot be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlatformError {
    /// An address cannot be used. The address itself is not shown: it might carry a password.
    #[error("the address of {service} is not of the form https://host:port")]
    Url {
        /// Whose address.
        service: &'static str,
    },
    /// Certificates cannot be used.
    #[error("certificates for {service}: {source}")]
    Tls {
        /// For whom.
        service: &'static str,
        /// What is wrong.
        source: TlsError,
    },
    /// `https://` without certificates.
    #[error("{service} has an https:// address and there are no certificate files for it")]
    NoTls {
        /// For whom.
        service: &'static str,
    },
    /// Tokens are to be checked here, and it is not said whose.
    #[error("tokens are to be checked locally and there is no issuer that they must have")]
    NoIssuer,
    /// The system gave no random bytes for the key of the cache.
    #[error("no random key for the cache of answers")]
    NoRandom,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let config = PlatformConfig {
            uaa_secret: Secret::new("hush"),
            ..PlatformConfig::default()
        };
        assert!(!format!("{config:?}").contains("hush"));
    }
}
