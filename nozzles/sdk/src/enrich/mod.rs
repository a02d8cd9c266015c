//! Names of apps, spaces and organisations for events.
//!
//! ```text
//! event ──► Directory::names ──► cache: known, stale, unknown to the Cloud Controller ──► names, or none
//!                                  │ ids that are missing or stale, each noted once
//!                                  ▼
//!                       one task: all apps at the start and now and then, some by id every 200 ms
//!                                  │
//!                                  └─► a snapshot on disk every minute
//! ```
//!
//! Looking up never waits: not for the network, not for a lock, not for the task. What is not known now is missing from this
//! event and there for a later one.

mod cache;
mod capi;
mod guid;
mod limit;
mod snapshot;
mod worker;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use loggregator_service::Lifecycle;
use loggregator_service::metrics::Metrics;

use crate::config::EnrichmentConfig;
use crate::event::{Event, Names};
use crate::intake::{IntakeError, address, oauth};

use self::cache::Cache;
use self::worker::Worker;

/// Knows names without ever waiting for them.
pub trait Directory: Send + Sync + 'static {
    /// The names for this event, if they are known now. When they are not, they are asked for in the background, and later
    /// events of the same app will have them.
    fn names(&self, event: &Event) -> Option<Arc<Names>>;
}

/// Enrichment cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnrichError {
    /// An address, certificate or token source cannot be used.
    #[error(transparent)]
    Service(#[from] IntakeError),
}

const KEY: &str = "enrichment";

/// Checks what can be checked without touching a file or the network.
///
/// # Errors
/// See [`EnrichError`].
pub fn check(config: &EnrichmentConfig) -> Result<(), EnrichError> {
    url(config)?;
    oauth::check(&config.oauth, "enrichment.oauth")?;
    Ok(())
}

fn url(config: &EnrichmentConfig) -> Result<String, EnrichError> {
    address::check(&config.url, ("http", "https"), true).map_err(|reason| {
        let key = format!("{KEY}.url");
        EnrichError::Service(IntakeError::Address { key, reason })
    })
}

/// Names from the Cloud Controller.
#[derive(Debug)]
pub struct CloudController {
    cache: Arc<Cache>,
    /// Whether more is wanted than tags can hold.
    beyond_tags: bool,
}

impl CloudController {
    /// Loads the last snapshot from `state_dir`, if there are both, and begins to ask. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// See [`EnrichError`]; that the Cloud Controller is away is none.
    pub fn start(
        config: &EnrichmentConfig,
        state_dir: Option<&Path>,
        metrics: &Metrics,
        lifecycle: &Lifecycle,
    ) -> Result<Arc<dyn Directory>, EnrichError> {
        check(config)?;
        let cache = Arc::new(Cache::new(
            config.max_apps,
            config.refresh.0,
            config.expire.0,
        ));
        let worker = Worker::new(
            config,
            url(config)?,
            state_dir,
            Arc::clone(&cache),
            lifecycle,
        )?;
        worker.publish(metrics);
        lifecycle.spawn("names", worker.run(lifecycle.token()));
        let beyond_tags = config.labels || config.annotations;
        Ok(Arc::new(CloudController { cache, beyond_tags }))
    }
}

impl Directory for CloudController {
    fn names(&self, event: &Event) -> Option<Arc<Names>> {
        let envelope = event.envelope();
        let id =
            guid::parse(envelope.source_id()).or_else(|| guid::parse(&envelope.tag("app_id")?));
        let Some(id) = id else {
            self.cache.counts.tags.fetch_add(1, Relaxed);
            return None;
        };
        self.cache.names(id, || {
            let has = |name| envelope.tag(name).is_some_and(|value| !value.is_empty());
            self.beyond_tags || !(has("app_name") && has("space_name") && has("organization_name"))
        })
    }
}
