//! What can be wrong with an endpoint.

use serde::{Deserialize, Serialize};

/// An endpoint of the stubs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// UAA, `POST /check_token`.
    CheckToken,
    /// UAA, `GET /token_keys`.
    TokenKeys,
    /// Cloud Controller, `GET /internal/v4/log_access/<id>`.
    LogAccess,
    /// Cloud Controller, `GET /v3/service_instances/<id>`.
    ServiceInstances,
    /// UAA, `POST /oauth/token`.
    OauthToken,
    /// Cloud Controller, `GET /v3/apps`.
    Apps,
    /// Any other path of either.
    Other,
}

/// How an endpoint answers. The default is: well, and at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// Milliseconds before anything happens.
    pub latency_ms: u64,
    /// What happens then.
    pub mode: Mode,
}

impl Fault {
    /// Well, after so many milliseconds.
    pub fn slow(latency_ms: u64) -> Self {
        Self {
            latency_ms,
            mode: Mode::None,
        }
    }
}

impl From<Mode> for Fault {
    fn from(mode: Mode) -> Self {
        Self {
            latency_ms: 0,
            mode,
        }
    }
}

/// What an endpoint does instead of answering well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It answers well.
    #[default]
    None,
    /// It answers with this status and a page that is no JSON.
    Status(u16),
    /// It answers that it was asked too often (429), and for how many seconds it wants to be left alone.
    Limited(u64),
    /// It answers with 200 and something that is no JSON.
    WrongJson,
    /// It never answers.
    Hang,
    /// It breaks the connection off in the middle of the answer.
    Close,
    /// It redirects (302) to this address.
    Redirect(String),
}
