//! The stubs' control port, for tests that are other programs.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

use http::Method;
use loggregator_net::http::{Handler, Request, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::PlatformStub;
use super::fault::{Endpoint, Fault};
use super::keys::Rotation;
use super::server::{answer, complaint, read};
use super::state::Grant;

/// The body of `POST /control`; everything in it may be absent.
///
/// ```json
/// {
///   "faults": {"check_token": {"latency_ms": 2000}, "log_access": {"mode": {"status": 500}}},
///   "tokens": {"opaque-1": {"scopes": ["doppler.firehose"]}, "opaque-2": {"apps": ["<guid>"], "lifetime_s": 60}},
///   "forget": ["opaque-3"],
///   "rotate": "replace",
///   "reset_calls": true
/// }
/// ```
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// Endpoints that are to be slow or wrong, or with `{}` well again. Others stay as they are.
    pub faults: BTreeMap<Endpoint, Fault>,
    /// Opaque tokens and what they may.
    pub tokens: BTreeMap<String, Grant>,
    /// Tokens that are unknown from now on.
    pub forget: Vec<String>,
    /// A new signing key.
    pub rotate: Option<Rotation>,
    /// Forgets the calls so far.
    pub reset_calls: bool,
}

/// The body of `POST /token`: a grant, and claims that are added, override or, with `null`, remove the usual ones.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wanted {
    scopes: Vec<String>,
    apps: Vec<String>,
    instances: Vec<String>,
    lifetime_s: Option<i64>,
    claims: Value,
}

pub(super) struct Port(pub PlatformStub);

impl Handler for Port {
    fn handle(
        &self,
        request: Request,
        _: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        let stub = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = read(body).await;
            let done = match (head.method, head.uri.path()) {
                (Method::POST, "/control") => control(&stub, &body),
                (Method::POST, "/token") => token(&stub, &body),
                (Method::GET, "/calls") => {
                    serde_json::to_value(stub.all_calls()).map_err(anyhow::Error::from)
                }
                _ => return complaint(404, "not_found", "no such endpoint"),
            };
            match done {
                Ok(body) => answer(200, &body),
                Err(error) => complaint(400, "bad_request", &format!("{error:#}")),
            }
        })
    }
}

fn control(stub: &PlatformStub, body: &[u8]) -> anyhow::Result<Value> {
    let control: Control = serde_json::from_slice(body)?;
    for (endpoint, fault) in control.faults {
        stub.set_fault(endpoint, fault);
    }
    for (token, grant) in control.tokens {
        stub.grant(&token, grant);
    }
    for token in control.forget {
        stub.forget(&token);
    }
    if let Some(how) = control.rotate {
        stub.rotate(how)?;
    }
    if control.reset_calls {
        stub.reset_calls();
    }
    Ok(json!({}))
}

fn token(stub: &PlatformStub, body: &[u8]) -> anyhow::Result<Value> {
    let wanted: Wanted = serde_json::from_slice(body)?;
    let grant = Grant {
        scopes: wanted.scopes,
        apps: wanted.apps,
        instances: wanted.instances,
        lifetime_s: wanted.lifetime_s,
    };
    let token = stub.issue(grant, &wanted.claims)?;
    Ok(json!({ "token": token }))
}
