//! [`AccessControl`] by UAA and the Cloud Controller, as a platform has them.
//!
//! UAA says who is an admin, the Cloud Controller which applications a token may see. So that a storm of clients is not
//! one of checks:
//!
//! 1. an application's id is parsed before anybody is asked: what is no GUID reaches nobody;
//! 2. answers are kept for a short while, under a keyed hash of the token; whoever asks what is being asked waits for
//!    that answer;
//! 3. so many requests and no more are under way to a service;
//! 4. a service that does not answer is left alone for a while.
//!
//! With [`TokenCheck::Local`] UAA is not asked about signed tokens at all: they are checked here, with its public keys.
//!
//! Each refusal is one line in the log: the Go programs' line where they have one, by whoever answered, kept or not;
//! else one of ours.
//!
//! What could not be asked is denied: nobody gets in because a service is away. Answers that are kept hold until their
//! time is up, whatever happens to the service.

mod ask;
mod breaker;
mod cache;
mod capi;
mod config;
mod escape;
mod jwt;
mod keys;
pub(crate) mod settings;
#[cfg(test)]
mod tests;
mod uaa;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Uri;
use http::header::HeaderValue;
use loggregator_net::http::client::{Client, Limits as ClientLimits};
use loggregator_net::{ClientTls, Profile, TlsError};
use loggregator_service::Lifecycle;
use loggregator_service::metrics::{Samples, names};
use tracing::{info, warn};

pub use config::{Limits, LocalCheck, PlatformConfig, PlatformError, Secret, TokenCheck};

use super::{AccessControl, Allowed, Credentials, Denied, Verdict};
use ask::Service;
use cache::{Cache, Flight, Key, Keyer};
use capi::{Capi, Sight};
use escape::is_guid;
use jwt::{Good, Refusal};
use keys::Local;
use uaa::{Judged, Standing, Uaa};

/// Redirects of the Cloud Controller that are followed, as the Go program's HTTP client does.
const MAX_REDIRECTS: usize = 10;

/// What is said of a token when UAA says nothing; why is in the log.
const NO_STANDING: &str = "no usable answer of UAA";

/// Asks UAA and the Cloud Controller; see the module's text.
pub struct Platform {
    keyer: Keyer,
    uaa: Arc<Uaa>,
    local: Option<Arc<Local>>,
    log_access: Arc<Capi>,
    service_instances: Option<Arc<Capi>>,
    standings: Cache<Arc<Judged>>,
    sights: Cache<Sight>,
    uaa_tls: Option<Arc<ClientTls>>,
    capi_tls: Option<Arc<ClientTls>>,
}

/// How long the last answer of each service took; zero before the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latencies {
    /// UAA, `/check_token`.
    pub uaa: Duration,
    /// Cloud Controller, `/internal/v4/log_access`.
    pub log_access: Duration,
    /// Cloud Controller, `/v3/service_instances`.
    pub service_instances: Duration,
}

impl Platform {
    /// Reads the certificates and makes everything ready. Nobody is asked yet. Certificates are looked at each
    /// `reload_interval`, as tasks of `lifecycle`, and so are checks.
    ///
    /// # Errors
    /// When an address or a file cannot be used.
    pub fn start(
        config: &PlatformConfig,
        reload_interval: Duration,
        lifecycle: &Lifecycle,
    ) -> Result<Arc<Self>, PlatformError> {
        let uaa_base = base("UAA", &config.uaa_url)?;
        let capi_base = base("the Cloud Controller", &config.capi_url)?;
        let external = config.capi_external_url.as_deref();
        let external = external
            .map(|url| base("the external Cloud Controller", url))
            .transpose()?;
        let uaa_tls = uaa_tls(config)?;
        let capi_tls = capi_tls(config)?;
        for (task, tls) in [
            ("UAA certificates", &uaa_tls),
            ("Cloud Controller certificates", &capi_tls),
        ] {
            if let Some(tls) = tls {
                let watch = Arc::clone(tls).watch(reload_interval, lifecycle.token());
                lifecycle.spawn(task, watch);
            }
        }
        require_tls("UAA", &uaa_base, uaa_tls.as_ref())?;
        require_tls("the Cloud Controller", &capi_base, capi_tls.as_ref())?;
        if let Some(external) = &external {
            require_tls("the external Cloud Controller", external, capi_tls.as_ref())?;
        }

        let limits = &config.limits;
        let uaa_client = Client {
            tls: uaa_tls.clone(),
            server_name: None,
            limits: ClientLimits::default(),
        };
        let capi_client = Client {
            tls: capi_tls.clone(),
            server_name: Some(config.capi_server_name.clone()).filter(|name| !name.is_empty()),
            limits: ClientLimits {
                max_redirects: MAX_REDIRECTS,
                ..ClientLimits::default()
            },
        };
        let capi = |target, base: &str, path: &str, client: Client| {
            let service = Service::new(target, client, limits);
            Arc::new(Capi::new(service, format!("{base}{path}"), limits))
        };
        let wrong = |service| PlatformError::Url { service };
        let check_token: Uri = format!("{uaa_base}/check_token")
            .parse()
            .map_err(|_| wrong("UAA"))?;
        let token_keys: Uri = format!("{uaa_base}/token_keys")
            .parse()
            .map_err(|_| wrong("UAA"))?;
        let local = match &config.tokens {
            TokenCheck::Remote => None,
            TokenCheck::Local(check) if check.issuer.is_empty() => {
                return Err(PlatformError::NoIssuer);
            }
            TokenCheck::Local(check) => {
                let service = Service::new("token_keys", uaa_client.clone(), limits);
                Some(Local::start(check, service, token_keys, lifecycle))
            }
        };
        let uaa = Uaa::new(
            Service::new("uaa", uaa_client, limits),
            check_token,
            &config.uaa_client,
            &config.uaa_secret,
            limits,
        );
        Ok(Arc::new(Self {
            keyer: Keyer::new().ok_or(PlatformError::NoRandom)?,
            uaa: Arc::new(uaa.ok_or_else(|| wrong("UAA"))?),
            local,
            log_access: capi(
                "capi_log_access",
                &capi_base,
                "/internal/v4/log_access/",
                capi_client.clone(),
            ),
            service_instances: external.map(|base| {
                capi(
                    "capi_service_instances",
                    &base,
                    "/v3/service_instances/",
                    capi_client,
                )
            }),
            standings: Cache::new(limits.max_cached, lifecycle),
            sights: Cache::new(limits.max_cached, lifecycle),
            uaa_tls,
            capi_tls,
        }))
    }

    /// How long the last answers took.
    pub fn latencies(&self) -> Latencies {
        let service_instances = self.service_instances.as_ref();
        Latencies {
            uaa: self.uaa.service.last_latency(),
            log_access: self.log_access.service.last_latency(),
            service_instances: service_instances
                .map_or(Duration::ZERO, |capi| capi.service.last_latency()),
        }
    }

    /// Adds the metrics of the checks.
    pub fn collect(&self, samples: &mut Samples) {
        self.uaa.service.collect(samples);
        self.log_access.service.collect(samples);
        if let Some(local) = &self.local {
            local.collect(samples);
        }
        if let Some(capi) = &self.service_instances {
            capi.service.collect(samples);
        }
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        for (cache, counts, entries) in [
            ("tokens", self.standings.counts(), self.standings.len()),
            ("sources", self.sights.counts(), self.sights.len()),
        ] {
            for (outcome, count) in [
                ("hit", &counts.hits),
                ("joined", &counts.joined),
                ("miss", &counts.misses),
                ("refused", &counts.crowded),
            ] {
                let labels = [("cache", cache), ("outcome", outcome)];
                samples.counter(&names::ACCESS_CACHE_LOOKUPS, &labels, read(count));
            }
            let cache = [("cache", cache)];
            samples.counter(&names::ACCESS_CACHE_EVICTED, &cache, read(&counts.evicted));
            samples.gauge_count(&names::ACCESS_CACHE_ENTRIES, &cache, entries as u64);
        }
        for (role, tls) in [("uaa", &self.uaa_tls), ("capi", &self.capi_tls)] {
            if let Some(tls) = tls {
                let role = [("role", role)];
                samples.counter(&names::TLS_RELOADS, &role, tls.reloads());
                samples.counter(&names::TLS_RELOAD_FAILURES, &role, tls.reload_failures());
            }
        }
    }

    /// What the token itself says, where signed tokens are checked here and this is one; else nothing.
    async fn local(&self, token: Option<&[u8]>) -> Result<Option<Good>, Refusal> {
        let (Some(local), Some(token)) = (&self.local, token) else {
            return Ok(None);
        };
        let judged = local.judge(token).await.transpose();
        match &judged {
            Err(refusal @ Refusal::NoKeys) => warn!("Error getting auth data: {refusal}"),
            Err(refusal) => info!("Error getting auth data: {refusal}"),
            Ok(_) => {}
        }
        judged
    }

    /// What UAA says of this token, now or a short while ago.
    async fn standing(&self, token: &[u8]) -> Standing {
        let key = self.keyer.key(&[b"uaa", token]);
        let check = |flight: Arc<Flight>| {
            let (uaa, token) = (Arc::clone(&self.uaa), token.to_vec());
            async move { uaa.check(&flight, &token).await }
        };
        let judged = match self.standings.get(key, check).await {
            Ok(judged) => judged,
            Err(why) => Arc::new(Judged::failed(why.to_string())),
        };
        judged.log();
        judged.standing
    }

    /// What the Cloud Controller says of this id, now or a short while ago.
    async fn sight(&self, capi: &Arc<Capi>, key: Key, id: &str, text: HeaderValue) -> Sight {
        let check = |flight: Arc<Flight>| {
            let (capi, id) = (Arc::clone(capi), id.to_owned());
            async move { capi.check(&flight, &id, text).await }
        };
        let sight = match self.sights.get(key, check).await {
            Ok(sight) => sight,
            Err(why) => Sight::NoAnswer(why.to_string().into()),
        };
        sight.log(id);
        sight
    }

    async fn judge_firehose(&self, who: &Credentials) -> Result<Allowed, Denied> {
        let token = who.admin_token().ok_or_else(|| told(who.missing()))?;
        let refused = |refusal| denied(refusal, Denied::Refused);
        match self.local(Some(token)).await.map_err(refused)? {
            None => {}
            Some(good) if good.firehose => return Ok(until(Some(good))),
            Some(_) => return Err(told(Denied::Refused)),
        }
        match self.standing(token).await {
            Standing::Good { firehose: true, .. } => Ok(Allowed::default()),
            Standing::Good { .. } => Err(told(Denied::Refused)),
            Standing::NotGood => Err(Denied::Refused),
            Standing::Unknown => Err(Denied::Unavailable(NO_STANDING.to_owned())),
        }
    }

    async fn judge_app(&self, app_id: &str, who: &Credentials) -> Result<Allowed, Denied> {
        if !is_guid(app_id) {
            return Err(told(Denied::NotAnAppId));
        }
        let Some(text) = who.text() else {
            let missing = who.missing();
            info!("Error: {missing}");
            return Err(missing);
        };
        let header = header(text).ok_or_else(|| told(Denied::Refused))?;
        let refused = |refusal| denied(refusal, Denied::Refused);
        let good = self.local(who.app_token()).await.map_err(refused)?;
        let key = self.log_access_key(app_id, text);
        match self.sight(&self.log_access, key, app_id, header).await {
            Sight::Allowed => Ok(until(good)),
            Sight::Status(401) => Err(Denied::Refused),
            Sight::Status(403 | 404) => Err(Denied::NotFound),
            other => Err(other.unavailable()),
        }
    }

    async fn judge_sources(&self, ids: &[String], who: &Credentials) -> Result<Allowed, Denied> {
        let no_token = || told(who.missing());
        let text = who.text().ok_or_else(no_token)?;
        let token = who.gateway_token().ok_or_else(no_token)?;
        let refused = |refusal| denied(refusal, Denied::NotFound);
        // What is wrong with the token, if something is, has its line by now.
        let mut not_found: fn(Denied) -> Denied = told;
        let (admin, mut good) = match self.local(Some(token)).await.map_err(refused)? {
            Some(good) => (good.firehose || good.logs_admin, Some(good)),
            None => match self.standing(token).await {
                Standing::Good {
                    firehose,
                    logs_admin,
                } => (firehose || logs_admin, None),
                Standing::NotGood => {
                    not_found = |why| why;
                    (false, None)
                }
                Standing::Unknown => return Err(Denied::Unavailable(NO_STANDING.to_owned())),
            },
        };
        if admin {
            return Ok(until(good));
        }
        if good.is_none() {
            // No admin because of how it is spelt (`Bearer`), which the Cloud Controller takes: it is checked as well.
            good = self.local(who.app_token()).await.map_err(refused)?;
        }
        let header = header(text).ok_or_else(|| not_found(Denied::NotFound))?;
        if ids.is_empty() {
            return Err(not_found(Denied::NotFound));
        }
        for id in ids {
            if !is_guid(id) {
                return Err(not_found(Denied::NotFound));
            }
            self.sees(id, text, &header).await?;
        }
        Ok(until(good))
    }

    /// Whether the bearer may see an application or a service instance of this id.
    async fn sees(&self, id: &str, text: &[u8], header: &HeaderValue) -> Result<(), Denied> {
        let key = self.log_access_key(id, text);
        let app = self.sight(&self.log_access, key, id, header.clone()).await;
        match app {
            Sight::Allowed => return Ok(()),
            // No second try where there was no answer.
            Sight::NoAnswer(_) => return Err(app.unavailable()),
            Sight::Status(_) => {}
        }
        let instance = match &self.service_instances {
            Some(capi) => {
                let key = self.keyer.key(&[b"service_instances", id.as_bytes(), text]);
                self.sight(capi, key, id, header.clone()).await
            }
            None => app.clone(),
        };
        if instance == Sight::Allowed {
            return Ok(());
        }
        let unknown = [app, instance].into_iter().find(|sight| !sight.is_no());
        Err(unknown.map_or(Denied::NotFound, |sight| sight.unavailable()))
    }

    fn log_access_key(&self, id: &str, text: &[u8]) -> Key {
        self.keyer.key(&[b"log_access", id.as_bytes(), text])
    }
}

impl AccessControl for Platform {
    fn logs_refusals(&self) -> bool {
        true
    }

    /// UAA's question: is `doppler.firehose` among the token's scopes?
    fn firehose<'a>(&'a self, who: &'a Credentials) -> Verdict<'a> {
        Box::pin(self.judge_firehose(who))
    }

    /// The Cloud Controller's question, about a GUID only.
    fn app_stream<'a>(&'a self, app_id: &'a str, who: &'a Credentials) -> Verdict<'a> {
        Box::pin(self.judge_app(app_id, who))
    }

    /// An admin (`doppler.firehose` or `logs.admin`) may read everything, others every id that the Cloud Controller
    /// shows them.
    fn sources<'a>(&'a self, source_ids: &'a [String], who: &'a Credentials) -> Verdict<'a> {
        Box::pin(self.judge_sources(source_ids, who))
    }
}

impl fmt::Debug for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Platform").finish_non_exhaustive()
    }
}

/// The refusal of a token that was to be checked here: without keys nothing can be said about it, else the answer is no.
fn denied(refusal: Refusal, no: Denied) -> Denied {
    match refusal {
        Refusal::NoKeys => Denied::Unavailable(refusal.to_string()),
        _ => no,
    }
}

/// A refusal that the Go programs do not log, logged.
fn told(why: Denied) -> Denied {
    info!("access denied: {why}");
    why
}

/// Allowed, for as long as a token holds that was checked here. What others judged is not asked again: the Go programs
/// never do.
fn until(good: Option<Good>) -> Allowed {
    Allowed {
        recheck_after: good.map(|good| good.holds_for),
    }
}

/// The authorization as a header that is never shown; `None` if it cannot be one.
fn header(text: &[u8]) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_bytes(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Whether this can be the base address of a service, such as `https://uaa.service.cf.internal:8443`.
#[must_use]
pub fn is_base_address(url: &str) -> bool {
    base("", url).is_ok()
}

/// A base address without a slash at its end.
fn base(service: &'static str, url: &str) -> Result<String, PlatformError> {
    let url = url.trim_end_matches('/');
    let wrong = || PlatformError::Url { service };
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let usable = matches!(uri.scheme_str(), Some("http" | "https"))
        && uri.host().is_some_and(|host| !host.is_empty())
        && uri.query().is_none();
    if usable {
        Ok(url.to_owned())
    } else {
        Err(wrong())
    }
}

fn require_tls(
    service: &'static str,
    base: &str,
    tls: Option<&Arc<ClientTls>>,
) -> Result<(), PlatformError> {
    if base.starts_with("https:") && tls.is_none() {
        return Err(PlatformError::NoTls { service });
    }
    Ok(())
}

fn uaa_tls(config: &PlatformConfig) -> Result<Option<Arc<ClientTls>>, PlatformError> {
    let tls = if config.skip_verify {
        ClientTls::unverified(None, Profile::Http)
    } else if is_set(&config.uaa_ca) {
        ClientTls::ca_only(&config.uaa_ca)
    } else {
        return Ok(None);
    };
    tls.map(Some).map_err(unusable("UAA"))
}

fn capi_tls(config: &PlatformConfig) -> Result<Option<Arc<ClientTls>>, PlatformError> {
    let files = &config.capi_tls;
    let identity = is_set(&files.cert) && is_set(&files.key);
    let tls = if config.skip_verify {
        let identity = identity.then_some((&*files.cert, &*files.key));
        ClientTls::unverified(identity, Profile::Http)
    } else if identity && is_set(&files.ca) {
        ClientTls::mutual_with(files, Profile::Http)
    } else {
        return Ok(None);
    };
    tls.map(Some).map_err(unusable("the Cloud Controller"))
}

fn is_set(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

fn unusable(service: &'static str) -> impl Fn(TlsError) -> PlatformError {
    move |source| PlatformError::Tls { service, source }
}
