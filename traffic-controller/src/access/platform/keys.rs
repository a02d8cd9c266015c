//! UAA's public keys: fetched, refreshed, and for a while trusted while UAA is away.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use loggregator_net::http::client::Answer;
use loggregator_service::Lifecycle;
use loggregator_service::metrics::{Samples, names};
use serde::Deserialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::ask::{Outcome, Service};
use super::cache::{Cache, Flight, Key};
use super::config::LocalCheck;
use super::jwt::{Good, Jwt, PublicKey, Refusal};
use super::uaa::now;

/// Keys taken from one answer, at most.
const MAX_KEYS: usize = 100;

/// There is one question only: what are the keys?
const THE_QUESTION: Key = [0; 32];

/// Checks signed tokens without asking anybody, as long as the keys are known.
pub(super) struct Local {
    check: LocalCheck,
    source: Arc<Source>,
    /// Keeps the last attempt, good or bad, for as long as none may follow.
    attempts: Cache<()>,
    accepted: AtomicU64,
    refused: AtomicU64,
}

struct Source {
    service: Service,
    uri: Uri,
    set: ArcSwapOption<KeySet>,
    refetch_floor: Duration,
}

struct KeySet {
    keys: HashMap<String, Arc<PublicKey>>,
    fetched: Instant,
}

#[derive(Deserialize)]
struct Published {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    #[serde(default)]
    kty: String,
    #[serde(default)]
    kid: String,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default, rename = "use")]
    usage: Option<String>,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
}

impl Local {
    /// Asks for the keys now and on, as a task of `lifecycle`.
    pub fn start(
        check: &LocalCheck,
        service: Service,
        uri: Uri,
        lifecycle: &Lifecycle,
    ) -> Arc<Self> {
        let local = Arc::new(Self {
            check: check.clone(),
            source: Arc::new(Source {
                service,
                uri,
                set: ArcSwapOption::empty(),
                refetch_floor: check.refetch_floor,
            }),
            attempts: Cache::new(1, lifecycle),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        let refresh = Arc::clone(&local).refresh(lifecycle.token());
        lifecycle.spawn("token keys", refresh);
        local
    }

    /// Judges a signed token; `None` when it is none.
    pub async fn judge(&self, token: &[u8]) -> Option<Result<Good, Refusal>> {
        let jwt = Jwt::parse(token)?;
        let judged = self.verify(&jwt).await;
        let count = if judged.is_ok() {
            &self.accepted
        } else {
            &self.refused
        };
        count.fetch_add(1, Ordering::Relaxed);
        Some(judged)
    }

    async fn verify(&self, jwt: &Jwt<'_>) -> Result<Good, Refusal> {
        jwt.check_header()?;
        jwt.check_expiry(&self.check, now())?;
        let key = match self.key(jwt.key_id()) {
            Ok(key) => key,
            // New keys may be out, unless that was asked a moment ago.
            Err(_) => {
                self.fetch().await;
                self.key(jwt.key_id())?
            }
        };
        jwt.verify(&key, &self.check, now())
    }

    /// The key of this id; a token without an id means the only one.
    fn key(&self, id: Option<&str>) -> Result<Arc<PublicKey>, Refusal> {
        let set = self.source.set.load();
        let set = set.as_ref().ok_or(Refusal::NoKeys)?;
        if set.fetched.elapsed() > self.check.keys_hold_for {
            return Err(Refusal::NoKeys);
        }
        let key = match id {
            Some(id) => set.keys.get(id),
            None if set.keys.len() == 1 => set.keys.values().next(),
            None => None,
        };
        key.cloned().ok_or(Refusal::UnknownKey)
    }

    /// Fetches the keys, unless that was tried a moment ago; whoever comes meanwhile waits for the same answer.
    async fn fetch(&self) {
        let fetch = |flight: Arc<Flight>| {
            let source = Arc::clone(&self.source);
            async move {
                source.fetch(&flight).await;
                ((), Some(source.refetch_floor))
            }
        };
        // Without an answer the keys are those of before.
        self.attempts.get(THE_QUESTION, fetch).await.ok();
    }

    async fn refresh(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let before = self.fetched();
            if stop.run_until_cancelled(self.fetch()).await.is_none() {
                return;
            }
            let pause = if self.fetched() == before {
                self.check.refetch_floor.min(self.check.key_refresh)
            } else {
                self.check.key_refresh
            };
            let pause = tokio::time::sleep(pause.max(Duration::from_millis(100)));
            if stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }

    fn fetched(&self) -> Option<Instant> {
        self.source.set.load().as_ref().map(|set| set.fetched)
    }

    /// Adds the metrics of local checks.
    pub fn collect(&self, samples: &mut Samples) {
        self.source.service.collect(samples);
        for (outcome, count) in [("accepted", &self.accepted), ("refused", &self.refused)] {
            let count = count.load(Ordering::Relaxed);
            samples.counter(&names::ACCESS_LOCAL_CHECKS, &[("outcome", outcome)], count);
        }
        let set = self.source.set.load();
        let keys = set.as_ref().map_or(0, |set| set.keys.len());
        samples.gauge_count(&names::ACCESS_KEYS, &[], keys as u64);
        if let Some(set) = set.as_ref() {
            let age = set.fetched.elapsed().as_secs_f64();
            samples.gauge(&names::ACCESS_KEY_AGE, &[], age);
        }
    }
}

impl Source {
    async fn fetch(&self, flight: &Flight) {
        let mut question = Request::new(Bytes::new());
        *question.uri_mut() = self.uri.clone();
        let judge = |answer: &Answer| match usable(answer) {
            Some(keys) => (Outcome::Allowed, Some(keys)),
            None => (Outcome::Failed, None),
        };
        match self.service.ask(flight, || question, judge).await {
            Ok(Some(keys)) => {
                let ids = |set: &KeySet| set.keys.keys().cloned().collect::<Vec<_>>();
                let set = KeySet {
                    keys,
                    fetched: Instant::now(),
                };
                let before = self.set.swap(Some(Arc::new(set)));
                let changed = match (before.as_deref(), self.set.load().as_deref()) {
                    (Some(before), Some(now)) => {
                        before.keys.len() != now.keys.len()
                            || ids(before).iter().any(|id| !now.keys.contains_key(id))
                    }
                    _ => true,
                };
                if changed {
                    info!("token keys of UAA taken over");
                }
            }
            Ok(None) => warn!("token keys not usable: UAA's answer has none, those of before stay"),
            Err(error) => warn!("token keys not fetched, those of before stay: {error}"),
        }
    }
}

/// The RSA keys for signatures in an answer; `None` when there are none.
fn usable(answer: &Answer) -> Option<HashMap<String, Arc<PublicKey>>> {
    if answer.status != StatusCode::OK {
        return None;
    }
    let published: Published = serde_json::from_slice(&answer.body).ok()?;
    let rsa = published
        .keys
        .into_iter()
        .filter(|key| key.kty == "RSA" && key.usage.as_deref().is_none_or(|usage| usage == "sig"));
    let keys: HashMap<_, _> = rsa
        .take(MAX_KEYS)
        .filter_map(|key| {
            let public = PublicKey::new(&key.n, &key.e, key.alg)?;
            Some((key.kid, Arc::new(public)))
        })
        .collect();
    (!keys.is_empty()).then_some(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(status: u16, body: &str) -> Option<Vec<String>> {
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: http::HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        usable(&answer).map(|keys| {
            let mut ids: Vec<_> = keys.into_keys().collect();
            ids.sort();
            ids
        })
    }

    #[test]
    fn only_rsa_keys_for_signatures_are_taken() {
        let body = r#"{"keys":[
            {"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB","alg":"RS256","use":"sig","value":"-----BEGIN"},
            {"kty":"RSA","kid":"b","n":"AQAB=","e":"AQAB"},
            {"kty":"RSA","kid":"enc","n":"AQAB","e":"AQAB","use":"enc"},
            {"kty":"RSA","kid":"odd","n":"!","e":"AQAB"},
            {"kty":"MAC","kid":"mac","value":"secret","alg":"HS256"},
            {"kty":"oct","kid":"oct","k":"c2VjcmV0"}
        ]}"#;
        assert_eq!(ids(200, body), Some(vec!["a".to_owned(), "b".to_owned()]));
        for (status, body) in [
            (500, body),
            (200, "<html>"),
            (200, r#"{"keys":[]}"#),
            (200, r#"{"keys":[{"kty":"MAC","kid":"mac","value":"s"}]}"#),
        ] {
            assert_eq!(ids(status, body), None, "{status} {body}");
        }
    }
}
