//! What the stubs know, and what they were asked.

use std::collections::{BTreeMap, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::apps::App;
use super::fault::{Endpoint, Fault};
use super::keys::Keys;

/// Scopes whose bearer sees every application.
const ADMIN_SCOPES: [&str; 3] = ["doppler.firehose", "logs.admin", "cloud_controller.admin"];

/// What the bearer of a token may.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grant {
    /// The token's scopes.
    pub scopes: Vec<String>,
    /// Applications that its bearer sees; `*` is every one.
    pub apps: Vec<String>,
    /// Service instances that its bearer sees; `*` is every one.
    pub instances: Vec<String>,
    /// Seconds until it expires; negative: it has. `None`: an hour.
    pub lifetime_s: Option<i64>,
}

impl Grant {
    /// An admin's.
    pub fn admin() -> Self {
        Self {
            scopes: vec!["doppler.firehose".to_owned()],
            ..Self::default()
        }
    }

    /// A developer's, who sees these applications.
    pub fn apps(apps: &[&str]) -> Self {
        Self {
            scopes: vec!["cloud_controller.read".to_owned()],
            apps: apps.iter().map(|app| (*app).to_owned()).collect(),
            ..Self::default()
        }
    }
}

struct Token {
    grant: Grant,
    expires: i64,
    /// The key that it was signed with; none: opaque.
    key: Option<String>,
}

/// Calls by endpoint and token. Calls without a token count under the empty text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Calls {
    /// How many.
    #[serde(flatten)]
    pub counts: BTreeMap<Endpoint, BTreeMap<String, u64>>,
    /// Method and path of each, in order; the first 10,000.
    pub requests: Vec<String>,
}

impl Calls {
    /// Calls of an endpoint with a token.
    pub fn of(&self, endpoint: Endpoint, token: &str) -> u64 {
        let tokens = self.counts.get(&endpoint);
        tokens
            .and_then(|tokens| tokens.get(token))
            .copied()
            .unwrap_or(0)
    }

    /// Calls of an endpoint.
    pub fn total(&self, endpoint: Endpoint) -> u64 {
        let tokens = self.counts.get(&endpoint);
        tokens.map_or(0, |tokens| tokens.values().sum())
    }
}

pub(super) struct State {
    tokens: Mutex<HashMap<String, Token>>,
    pub keys: Mutex<Keys>,
    pub faults: Mutex<BTreeMap<Endpoint, Fault>>,
    pub calls: Mutex<Calls>,
    pub apps: Mutex<Vec<App>>,
    /// Seconds for which tokens of `/oauth/token` are good.
    pub token_life: Mutex<i64>,
}

impl State {
    pub fn new() -> Result<Self> {
        Ok(Self {
            tokens: Mutex::default(),
            keys: Mutex::new(Keys::new()?),
            faults: Mutex::default(),
            calls: Mutex::default(),
            apps: Mutex::default(),
            token_life: Mutex::new(3600),
        })
    }

    pub fn grant(&self, token: &str, grant: Grant) {
        self.know(token.to_owned(), grant, None);
    }

    fn know(&self, token: String, grant: Grant, key: Option<String>) {
        let expires = now() + grant.lifetime_s.unwrap_or(3600);
        let known = Token {
            grant,
            expires,
            key,
        };
        self.tokens.lock().insert(token, known);
    }

    pub fn forget(&self, token: &str) {
        self.tokens.lock().remove(token);
    }

    pub fn issue(&self, grant: Grant, claims: &Value) -> Result<String> {
        let keys = self.keys.lock();
        let id = keys.newest().0.clone();
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": id });
        let issued = now();
        let mut all = json!({
            "jti": format!("{:016x}", self.tokens.lock().len()),
            "iss": super::ISSUER,
            "aud": ["doppler", "cloud_controller"],
            "sub": "somebody",
            "client_id": "cf",
            "scope": grant.scopes,
            "iat": issued,
            "exp": issued + grant.lifetime_s.unwrap_or(3600),
        });
        for (name, value) in claims.as_object().into_iter().flatten() {
            if value.is_null() {
                all.as_object_mut().map(|all| all.remove(name));
            } else {
                all[name] = value.clone();
            }
        }
        let token = keys.sign(&header, &all)?;
        drop(keys);
        self.know(token.clone(), grant, Some(id));
        Ok(token)
    }

    /// The grant of a token that is good, and when it expires.
    pub fn good(&self, token: &str) -> Option<(Grant, i64)> {
        let tokens = self.tokens.lock();
        let known = tokens.get(token)?;
        let signed = known
            .key
            .as_ref()
            .is_none_or(|key| self.keys.lock().has(key));
        (signed && known.expires > now()).then(|| (known.grant.clone(), known.expires))
    }

    /// Whether the bearer sees this id: an application's, or a service instance's.
    pub fn sees(grant: &Grant, endpoint: Endpoint, id: &str) -> bool {
        let ids = if endpoint == Endpoint::ServiceInstances {
            &grant.instances
        } else {
            let admin = |scope: &String| ADMIN_SCOPES.contains(&scope.as_str());
            if grant.scopes.iter().any(admin) {
                return true;
            }
            &grant.apps
        };
        ids.iter().any(|known| known == "*" || known == id)
    }

    pub fn count(&self, endpoint: Endpoint, token: &str, request: String) {
        let mut calls = self.calls.lock();
        let tokens = calls.counts.entry(endpoint).or_default();
        *tokens.entry(token.to_owned()).or_default() += 1;
        if calls.requests.len() < 10_000 {
            calls.requests.push(request);
        }
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}
