//! The task that asks the Cloud Controller, and writes what it says into the cache.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use loggregator_net::http::client::{Client, ClientError, Limits};
use loggregator_net::{Backoff, Profile};
use loggregator_service::Lifecycle;
use loggregator_service::metrics::{Metrics, Samples, names};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::cache::{Cache, Told, now};
use super::capi::{self, MOST_IDS, Page};
use super::limit::Limiter;
use super::{EnrichError, snapshot};
use crate::config::EnrichmentConfig;
use crate::intake::oauth::{Token, Tokens};
use crate::intake::{IntakeError, address};

/// How often ids that were missed are asked for.
const GATHER: Duration = Duration::from_millis(200);
/// How often names are written to disk.
const SAVE: Duration = Duration::from_secs(60);

/// A request by its purpose; the metrics' label `call`.
#[derive(Clone, Copy)]
enum Call {
    All,
    Some,
}

/// What the worker counts.
#[derive(Debug, Default)]
struct Counts {
    /// By call; ok, failed, limited.
    requests: [[AtomicU64; 3]; 2],
    saved: AtomicU64,
    not_saved: AtomicU64,
    /// When the Cloud Controller last answered, in seconds since 1970.
    answered: AtomicU64,
}

/// Why an answer is none.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("the nozzle stops")]
    Stopping,
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the Cloud Controller asks for fewer requests")]
    Limited,
    #[error("the Cloud Controller answered {0}")]
    Status(u16),
    #[error("the Cloud Controller's answer cannot be read: {0}")]
    Answer(#[from] serde_json::Error),
}

pub(super) struct Worker {
    cache: Arc<Cache>,
    asker: Asker,
    refresh: Duration,
    folder: Option<PathBuf>,
    counts: Arc<Counts>,
}

/// Makes requests, no more than it may.
struct Asker {
    client: Client,
    url: String,
    tokens: Tokens,
    labels: bool,
    annotations: bool,
    limiter: Limiter,
    counts: Arc<Counts>,
}

impl Worker {
    pub(super) fn new(
        config: &EnrichmentConfig,
        url: String,
        folder: Option<&Path>,
        cache: Arc<Cache>,
        lifecycle: &Lifecycle,
    ) -> Result<Worker, EnrichError> {
        let tls = address::tls(
            config.ca_file.as_ref(),
            config.skip_verify,
            Profile::Http,
            lifecycle,
        )
        .map_err(|source| IntakeError::Tls {
            key: "enrichment.ca_file".to_owned(),
            source,
        })?;
        let limits = Limits {
            max_body: capi::MAX_ANSWER,
            ..Limits::default()
        };
        let counts = Arc::<Counts>::default();
        let asker = Asker {
            client: Client {
                tls: Some(tls),
                server_name: None,
                limits,
            },
            url,
            tokens: Tokens::start(&config.oauth, "enrichment.oauth", lifecycle)?,
            labels: config.labels,
            annotations: config.annotations,
            limiter: Limiter::new(config.requests_per_second),
            counts: Arc::clone(&counts),
        };
        let worker = Worker {
            cache,
            asker,
            refresh: config.refresh.0,
            folder: folder.map(Path::to_owned),
            counts,
        };
        worker.load();
        Ok(worker)
    }

    fn load(&self) {
        let Some(folder) = &self.folder else { return };
        match snapshot::load(folder) {
            Ok(Some(snapshot)) => {
                tracing::info!(
                    apps = snapshot.apps.len(),
                    "names of an earlier run are known"
                );
                self.counts
                    .answered
                    .store(snapshot.answered.min(now()), Relaxed);
                self.cache.restore(snapshot.apps);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "names of an earlier run cannot be read")
            }
        }
    }

    pub(super) fn publish(&self, metrics: &Metrics) {
        let (cache, counts) = (Arc::clone(&self.cache), Arc::clone(&self.counts));
        let tokens = self.asker.tokens.clone();
        metrics.collect(move |samples| {
            sample_cache(&cache, samples);
            counts.sample(samples);
            tokens.sample("names", samples);
        });
    }

    /// Works until told to stop, then saves once more.
    pub(super) async fn run(self, stop: CancellationToken) {
        let Worker {
            cache,
            mut asker,
            refresh,
            folder,
            counts,
        } = self;
        let keeping = keep(&cache, folder.as_deref(), &counts);
        // A request is a large future.
        let asking = Box::pin(ask(&cache, &mut asker, refresh));
        stop.run_until_cancelled(async { tokio::join!(keeping, asking) })
            .await;
        if let Some(folder) = &folder {
            save(&cache, folder, &counts).await;
        }
    }
}

/// Looks at the clock, forgets what has expired, and saves what is new.
async fn keep(cache: &Cache, folder: Option<&Path>, counts: &Counts) {
    let mut second = interval(Duration::from_secs(1));
    let mut saved = (Instant::now(), counts.answered.load(Relaxed));
    loop {
        second.tick().await;
        cache.set_clock(now());
        if saved.0.elapsed() < SAVE {
            continue;
        }
        cache.expire();
        let answered = counts.answered.load(Relaxed);
        if let Some(folder) = folder
            && answered != saved.1
        {
            save(cache, folder, counts).await;
        }
        saved = (Instant::now(), answered);
    }
}

async fn save(cache: &Cache, folder: &Path, counts: &Counts) {
    let (apps, answered, into) = (
        cache.all(),
        counts.answered.load(Relaxed),
        folder.to_owned(),
    );
    if answered == 0 {
        return; // nothing was ever learnt
    }
    let saving = tokio::task::spawn_blocking(move || snapshot::save(&into, answered, &apps));
    match saving.await {
        Ok(Ok(())) => drop(counts.saved.fetch_add(1, Relaxed)),
        Ok(Err(error)) => {
            counts.not_saved.fetch_add(1, Relaxed);
            tracing::warn!(folder = %folder.display(), %error, "names cannot be saved");
        }
        Err(_) => drop(counts.not_saved.fetch_add(1, Relaxed)),
    }
}

/// Asks for all apps at the start and before what is known gets stale, and for missing ones as they are missed.
async fn ask(cache: &Cache, asker: &mut Asker, refresh: Duration) {
    let mut gather = interval(GATHER);
    gather.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut backoff =
        Backoff::new(Duration::from_secs(1), Duration::from_secs(60)).with_shape(2.0, 0.2);
    let age = Duration::from_secs(now().saturating_sub(asker.counts.answered.load(Relaxed)));
    // What an earlier run knew is good for a while.
    let mut all_at = Instant::now() + vary(refresh).saturating_sub(age);
    loop {
        gather.tick().await;
        let done = if Instant::now() >= all_at {
            let done = all_apps(cache, asker).await;
            if done.is_ok() {
                all_at = Instant::now() + vary(refresh);
            }
            done
        } else {
            some_apps(cache, asker).await
        };
        match done {
            Ok(()) => backoff.reset(),
            Err(AskError::Stopping) => return,
            // The limiter knows how long to wait.
            Err(AskError::Limited) => {}
            Err(error) => {
                let retry_in = backoff.next_delay();
                tracing::warn!(%error, ?retry_in, "names cannot be asked for; those that are known stay");
                sleep(retry_in).await;
            }
        }
    }
}

/// Between seven and nine tenths of a time, so that many nozzles do not come together.
fn vary(time: Duration) -> Duration {
    time.mul_f64(0.7 + 0.2 * fastrand::f64())
}

/// All apps, page by page.
async fn all_apps(cache: &Cache, asker: &mut Asker) -> Result<(), AskError> {
    let mut path = Some(capi::all_apps());
    let mut apps = 0;
    while let Some(next) = path {
        let page = asker.ask(Call::All, &next).await?;
        apps += page.apps.len();
        // A list that runs in a circle is not followed for ever.
        path = page
            .next
            .filter(|following| *following != next && !page.apps.is_empty());
        cache.learn_if_room(
            page.apps
                .into_iter()
                .map(|(id, names)| (id, Told::Names(names)))
                .collect(),
        );
    }
    tracing::debug!(apps, "all apps were asked for");
    Ok(())
}

/// Those apps that are missing.
async fn some_apps(cache: &Cache, asker: &mut Asker) -> Result<(), AskError> {
    let ids = cache.take_wanted(MOST_IDS);
    if ids.is_empty() {
        return Ok(());
    }
    match asker.ask(Call::Some, &capi::some_apps(&ids)).await {
        Ok(page) => {
            let mut told: Vec<_> = page
                .apps
                .into_iter()
                .map(|(id, names)| (id, Told::Names(names)))
                .collect();
            let known: std::collections::HashSet<u128> = told.iter().map(|(id, _)| *id).collect();
            told.extend(
                ids.into_iter()
                    .filter(|id| !known.contains(id))
                    .map(|id| (id, Told::Unknown)),
            );
            cache.learn(told);
            Ok(())
        }
        Err(error) => {
            cache.want_again(&ids);
            Err(error)
        }
    }
}

impl Asker {
    async fn ask(&mut self, call: Call, path: &str) -> Result<Page, AskError> {
        let token = self.tokens.get().await.ok_or(AskError::Stopping)?;
        self.limiter.take().await;
        let asked = self.ask_once(path, &token).await;
        let outcome = match &asked {
            Ok(_) => 0,
            Err(AskError::Limited) => 2,
            Err(_) => 1,
        };
        self.counts.requests[call as usize][outcome].fetch_add(1, Relaxed);
        if asked.is_ok() {
            self.counts.answered.store(now(), Relaxed);
        }
        asked
    }

    async fn ask_once(&mut self, path: &str, token: &Token) -> Result<Page, AskError> {
        let answer = capi::ask(&self.client, &self.url, path, token.authorization()).await?;
        let status = answer.status.as_u16();
        if self.limiter.heed(status, &answer.headers) {
            return Err(AskError::Limited);
        }
        match status {
            200 => Ok(capi::read(&answer.body, self.labels, self.annotations)?),
            401 => {
                self.tokens.refused(token);
                Err(AskError::Status(401))
            }
            other => Err(AskError::Status(other)),
        }
    }
}

impl Counts {
    fn sample(&self, samples: &mut Samples) {
        for (call, counts) in ["all", "some"].into_iter().zip(&self.requests) {
            for (outcome, count) in ["ok", "failed", "limited"].into_iter().zip(counts) {
                let labels = [("call", call), ("outcome", outcome)];
                samples.counter(&names::NOZZLE_NAMES_REQUESTS, &labels, count.load(Relaxed));
            }
        }
        for (outcome, count) in [("ok", &self.saved), ("failed", &self.not_saved)] {
            let labels = [("outcome", outcome)];
            samples.counter(&names::NOZZLE_NAMES_SNAPSHOTS, &labels, count.load(Relaxed));
        }
        let answered = self.answered.load(Relaxed);
        if answered > 0 {
            let age = now().saturating_sub(answered);
            samples.gauge_count(&names::NOZZLE_NAMES_AGE, &[], age);
        }
    }
}

fn sample_cache(cache: &Cache, samples: &mut Samples) {
    let counts = &cache.counts;
    for (outcome, count) in [
        ("hit", &counts.hits),
        ("stale", &counts.stale),
        ("negative", &counts.negative),
        ("miss", &counts.misses),
        ("tags", &counts.tags),
    ] {
        let labels = [("outcome", outcome)];
        samples.counter(&names::NOZZLE_NAMES_LOOKUPS, &labels, count.load(Relaxed));
    }
    let (known, unknown) = cache.known();
    samples.gauge_count(&names::NOZZLE_NAMES_KNOWN, &[], known as u64);
    samples.gauge_count(&names::NOZZLE_NAMES_UNKNOWN, &[], unknown as u64);
    samples.gauge_count(&names::NOZZLE_NAMES_WAITING, &[], cache.waiting() as u64);
    samples.counter(
        &names::NOZZLE_NAMES_REFUSED,
        &[],
        counts.refused.load(Relaxed),
    );
    samples.counter(
        &names::NOZZLE_NAMES_EVICTED,
        &[],
        counts.evicted.load(Relaxed),
    );
    samples.counter(
        &names::NOZZLE_NAMES_EXPIRED,
        &[],
        counts.expired.load(Relaxed),
    );
}
