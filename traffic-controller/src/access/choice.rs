//! Which of the three access controls a program has, read from its settings. The traffic controller and the gateway have the
//! same choice under different names.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use loggregator_service::Lifecycle;
use loggregator_service::config::Reader;

use super::{
    AccessControl, Open, Platform, PlatformConfig, PlatformError, TokenFile, TokenFileError,
    is_base_address,
};

/// Who may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody, everything.
    None,
    /// Who has a token of this file, what the file says; see [`crate::access::TokenFile`].
    TokenFile(PathBuf),
    /// Whom UAA and the Cloud Controller allow; see [`crate::access::Platform`].
    Platform(Box<PlatformConfig>),
}

/// Why nobody can decide who may read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// The token file cannot be used.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
    /// UAA and the Cloud Controller cannot be asked with these settings.
    #[error(transparent)]
    Platform(#[from] PlatformError),
}

/// Who decides who may read, and what its metrics are taken from.
pub(crate) struct Judge {
    /// Is asked.
    pub access: Arc<dyn AccessControl>,
    /// The same, if it is a token file.
    pub tokens: Option<Arc<TokenFile>>,
    /// The same, if it is UAA and the Cloud Controller.
    pub platform: Option<Arc<Platform>>,
}

impl Access {
    /// Reads the files of the choice; tasks of `lifecycle` keep up with them, every `reload_interval`.
    pub(crate) fn start(
        &self,
        reload_interval: Duration,
        lifecycle: &Lifecycle,
    ) -> Result<Judge, AccessError> {
        Ok(match self {
            Self::None => Judge {
                access: Arc::new(Open),
                tokens: None,
                platform: None,
            },
            Self::TokenFile(path) => {
                let tokens = TokenFile::open(path)?;
                let watch = Arc::clone(&tokens).watch(reload_interval, lifecycle.token());
                lifecycle.spawn("token file", watch);
                Judge {
                    access: Arc::clone(&tokens) as _,
                    tokens: Some(tokens),
                    platform: None,
                }
            }
            Self::Platform(config) => {
                let platform = Platform::start(config, reload_interval, lifecycle)?;
                Judge {
                    access: Arc::clone(&platform) as _,
                    tokens: None,
                    platform: Some(platform),
                }
            }
        })
    }
}

/// What the settings of the choice are called.
pub(crate) struct Names {
    /// Says that everybody may read everything.
    pub disable: &'static str,
    /// The file of tokens.
    pub token_file: &'static str,
    /// UAA's address.
    pub uaa: &'static str,
}

impl Names {
    /// Off, or by a token file, or by UAA, whose settings `platform` reads; neither of them, or both, is an error.
    pub fn read(
        &self,
        reader: &mut Reader<'_>,
        platform: impl FnOnce(&mut Reader<'_>, String) -> PlatformConfig,
    ) -> Access {
        let Self {
            disable,
            token_file,
            uaa,
        } = self;
        let disabled = reader.value(disable);
        match (reader.optional(token_file), reader.optional(uaa)) {
            _ if disabled => return Access::None,
            (Some(path), None) => return Access::TokenFile(path),
            (None, Some(uaa)) => return Access::Platform(Box::new(platform(reader, uaa))),
            (None, None) => reader.conflict(format!(
                "{token_file} or {uaa} is required unless {disable} is true"
            )),
            (Some(_), Some(_)) => {
                reader.conflict(format!(
                    "{token_file} and {uaa} exclude each other: both are set"
                ));
            }
        }
        Access::None
    }

    /// A text that may be required because UAA is used; empty without.
    pub fn beside_uaa(&self, reader: &mut Reader<'_>, name: &str, required: bool) -> String {
        let text: Option<String> = reader.optional(name);
        if required && text.is_none() {
            reader.conflict(format!("{name} is required with {}", self.uaa));
        }
        text.unwrap_or_default()
    }

    /// The base address of a service that is required because UAA is used; empty without.
    pub fn service(&self, reader: &mut Reader<'_>, name: &str) -> String {
        let url = self.beside_uaa(reader, name, true);
        if !url.is_empty() {
            check_address(reader, name, &url);
        }
        url
    }
}

/// Rejects what is not the base address of a service.
pub(crate) fn check_address(reader: &mut Reader<'_>, name: &str, url: &str) {
    if !is_base_address(url) {
        reader.reject(name, "is not of the form https://host:port");
    }
}
