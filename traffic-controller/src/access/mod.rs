//! Who may read what.
//!
//! [`AccessControl`] is asked before a request is looked at any further. Three implementations are here: [`Open`], which
//! lets everybody in; [`TokenFile`], which knows tokens from a file; and [`Platform`], which asks UAA and the Cloud
//! Controller.

mod choice;
mod credentials;
pub(crate) mod platform;
pub(crate) mod recheck;
mod token_file;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

pub use choice::{Access, AccessError};
pub(crate) use choice::{Names, check_address};
pub use credentials::Credentials;
pub(crate) use credentials::{Plus, unescape};
pub use platform::{
    Latencies, Limits, LocalCheck, Platform, PlatformConfig, PlatformError, Secret, TokenCheck,
    is_base_address,
};
pub use token_file::{TokenFile, TokenFileError};

/// Why somebody may not read what they asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The request carries no token.
    #[error("authorization not provided")]
    NoToken,
    /// The token is unknown, expired, or does not allow it.
    #[error("invalid authorization")]
    Refused,
    /// The name in the path cannot be an application's, by the rules of whoever judges it.
    #[error("not an application id")]
    NotAnAppId,
    /// The token is good, but for this holder the application does not exist.
    #[error("no such application for this token")]
    NotFound,
    /// Whoever judges the token could not be asked, or did not answer.
    #[error("authorization could not be checked: {0}")]
    Unavailable(String),
}

/// The bearer may read, and until when that is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowed {
    /// A stream that lives for longer must ask again by then, and end if it is denied. `None`: once is enough.
    pub recheck_after: Option<Duration>,
}

/// What [`AccessControl`] answers, when it has an answer.
pub type Verdict<'a> = Pin<Box<dyn Future<Output = Result<Allowed, Denied>> + Send + 'a>>;

/// Decides who may read what. Asked once per connection attempt, and again by long streams when the answer says so; nothing
/// is cached by the caller.
pub trait AccessControl: fmt::Debug + Send + Sync + 'static {
    /// Whether each refusal has its line in the log already, so that whoever asks need not write one.
    fn logs_refusals(&self) -> bool {
        false
    }

    /// May the bearer read the firehose, that is everything?
    fn firehose<'a>(&'a self, who: &'a Credentials) -> Verdict<'a>;

    /// May the bearer read the stream of this application?
    fn app_stream<'a>(&'a self, app_id: &'a str, who: &'a Credentials) -> Verdict<'a>;

    /// May the bearer read what these sources say, or, when there are none, everything? The HTTP gateway's question.
    fn sources<'a>(&'a self, source_ids: &'a [String], who: &'a Credentials) -> Verdict<'a>;
}

/// No access control: everybody may read everything, whatever the application's id looks like.
#[derive(Debug, Clone, Copy, Default)]
pub struct Open;

impl AccessControl for Open {
    fn firehose<'a>(&'a self, _: &'a Credentials) -> Verdict<'a> {
        Box::pin(std::future::ready(Ok(Allowed::default())))
    }

    fn app_stream<'a>(&'a self, _: &'a str, _: &'a Credentials) -> Verdict<'a> {
        Box::pin(std::future::ready(Ok(Allowed::default())))
    }

    fn sources<'a>(&'a self, _: &'a [String], _: &'a Credentials) -> Verdict<'a> {
        Box::pin(std::future::ready(Ok(Allowed::default())))
    }
}
