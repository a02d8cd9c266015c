//! A destination that is scraped.

use std::sync::Arc;
use std::time::Duration;

use loggregator_net::http::{Server, Settings};
use loggregator_net::{Profile as TlsProfile, ServerTls, TlsError, TlsFiles};
use loggregator_nozzle::{Batch, Context, Delivery, Destination, Outcome, StartError};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Semaphore;

use crate::clock::{Clock, unix_millis};
use crate::config::{Config, Mapping, Profile, ServeTls};
use crate::metrics;
use crate::serve::{Page, ScrapeCounts, Served};
use crate::store::{Folded, Store};
use crate::{Pages, reason};

/// After so many events a scrape that waits for the store gets it.
const EVENTS_AT_A_TIME: usize = 128;
/// How often the exporter's rollups change.
const TICK_MS: i64 = 10_000;
/// How often certificate files are looked at.
const TLS_CHECK: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Scraped {
    store: Arc<Mutex<Store>>,
    clock: Clock,
    map: Arc<Mapping>,
}

/// Binds the page and starts what belongs to it.
pub(crate) fn start(
    config: &Config,
    map: &Arc<Mapping>,
    pages: &Pages,
    context: &Context,
) -> Result<Scraped, StartError> {
    let failed = |what: String, source: Box<dyn std::error::Error + Send + Sync>| StartError {
        destination: context.name.clone(),
        what,
        source: Some(source),
    };
    let addr = config.listen_addr();
    let tls =
        match &config.tls {
            None => None,
            Some(files) => Some(server_tls(files).map_err(|error| {
                failed("cannot use the files of `tls`".to_owned(), error.into())
            })?),
        };
    let server = Server::bind(addr)
        .map_err(|error| failed(format!("cannot listen on {addr}"), error.into()))?;
    let addr = server.local_addr();
    pages.bound(&context.name, addr);
    tracing::info!(destination = context.name, %addr, path = config.path, "metrics page");

    let scraped = Scraped {
        store: Arc::new(Mutex::new(Store::new(Arc::clone(map)))),
        clock: Clock::new(),
        map: Arc::clone(map),
    };
    let counts = Arc::new(ScrapeCounts::default());
    metrics::collect(context, &scraped.store, Some(&counts), None);
    let page = Page {
        store: Arc::clone(&scraped.store),
        clock: scraped.clock,
        path: config.path.clone(),
        profile: config.profile,
        auth: config.auth.clone(),
        scrapes: Arc::new(Semaphore::new(config.max_scrapes)),
        counts,
    };
    let settings = Settings {
        max_connections: config.max_connections,
        // As the exporter's server.
        header_timeout: Duration::from_secs(10),
        drain_timeout: Duration::from_secs(1),
        ..Settings::default()
    };
    let (lifecycle, name) = (&context.lifecycle, &context.name);
    if let Some(tls) = &tls {
        let watch = Arc::clone(tls).watch(TLS_CHECK, lifecycle.token());
        lifecycle.spawn(format!("{name} certificates"), watch);
    }
    let serve = server.serve(
        tls,
        Arc::new(Served(Arc::new(page))),
        settings,
        lifecycle.token(),
    );
    lifecycle.spawn(format!("{name} page"), serve);
    lifecycle.spawn(format!("{name} expiry"), {
        let (store, clock, stop) = (Arc::clone(&scraped.store), scraped.clock, lifecycle.token());
        let every = sweep_interval(map);
        async move {
            while stop
                .run_until_cancelled(tokio::time::sleep(every))
                .await
                .is_some()
            {
                store.lock().sweep(clock.now(), |_, _| {});
            }
        }
    });
    if map.profile == Profile::FirehoseExporter {
        lifecycle.spawn(format!("{name} ticks"), {
            let (store, stop) = (Arc::clone(&scraped.store), lifecycle.token());
            async move {
                loop {
                    let left = TICK_MS - unix_millis().rem_euclid(TICK_MS);
                    let wait = Duration::from_millis(left.unsigned_abs());
                    let slept = stop.run_until_cancelled(tokio::time::sleep(wait)).await;
                    if slept.is_none() {
                        return;
                    }
                    let now = unix_millis();
                    store.lock().tick(now - now.rem_euclid(TICK_MS));
                }
            }
        });
    }
    Ok(scraped)
}

fn server_tls(files: &ServeTls) -> Result<Arc<ServerTls>, TlsError> {
    match &files.client_ca_file {
        None => ServerTls::server_only(&files.cert_file, &files.key_file, TlsProfile::Http2),
        Some(ca) => {
            let files = TlsFiles {
                ca: ca.clone(),
                cert: files.cert_file.clone(),
                key: files.key_file.clone(),
            };
            ServerTls::mutual(&files, TlsProfile::Http2)
        }
    }
}

/// How often series are looked through for those whose time is up. They are not shown in between either.
pub(crate) fn sweep_interval(map: &Mapping) -> Duration {
    Duration::from_millis((map.expire_ms / 10).clamp(100, 30_000))
}

/// Folds a batch into the store, and tells what could not be taken.
pub(crate) fn fold(
    mut store: MutexGuard<'_, Store>,
    map: &Mapping,
    batch: &Batch,
    now: u64,
) -> Delivery {
    let mut outcomes = Vec::new();
    for (i, event) in batch.events().iter().enumerate() {
        if i % EVENTS_AT_A_TIME == EVENTS_AT_A_TIME - 1 {
            MutexGuard::bump(&mut store);
        }
        match store.fold(event, now) {
            Folded::Taken if outcomes.is_empty() => {}
            Folded::Taken => outcomes.push(Outcome::Delivered),
            Folded::Refused(refusal) => {
                if outcomes.is_empty() {
                    outcomes = vec![Outcome::Delivered; i];
                }
                outcomes.push(Outcome::Rejected(reason(refusal, map)));
            }
        }
    }
    if outcomes.is_empty() {
        Delivery::All
    } else {
        Delivery::Each(outcomes)
    }
}

impl Destination for Scraped {
    async fn deliver(&self, batch: &Batch) -> Delivery {
        fold(self.store.lock(), &self.map, batch, self.clock.now())
    }
}
