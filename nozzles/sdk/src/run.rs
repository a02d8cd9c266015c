//! A whole nozzle: intake, buffer, one pipeline per destination.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use loggregator_envelope::KindSet;
use loggregator_service::Lifecycle;
use loggregator_service::admin::{Admin, AdminError, Readiness};
use loggregator_service::ledger::{Report, Source as _};
use loggregator_service::metrics::Metrics;
use tokio::sync::Mutex;

use crate::base::{Base, Planned, plans};
use crate::buffer::{self, Buffer, BufferError};
use crate::config::{BufferConfig, ConfigError, ConfigErrors, NozzleConfig};
use crate::destination::StartError;
use crate::enrich::{CloudController, EnrichError};
use crate::filter::Filter;
use crate::health::Health;
use crate::intake::{self, IntakeError, Upstream};
use crate::kind::Kinds;
use crate::ledger::Ledger;
use crate::observe::observe;
use crate::pages::NozzlePages;
use crate::places::{Nozzle, Place};
use crate::take_in::TakeIn;
use crate::tap::{Tap, TapError};

/// A nozzle cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// Its buffer cannot be used.
    #[error(transparent)]
    Buffer(#[from] BufferError),
    /// Its enrichment cannot be started.
    #[error(transparent)]
    Enrich(#[from] EnrichError),
    /// Its intake cannot be made.
    #[error(transparent)]
    Intake(#[from] IntakeError),
    /// One of its destinations cannot be started.
    #[error(transparent)]
    Destination(#[from] StartError),
    /// Its admin server cannot be started.
    #[error(transparent)]
    Admin(#[from] AdminError),
}

/// A nozzle that runs. Its tasks belong to the lifecycle that it was started with; dropping this stops nothing.
pub struct Running {
    /// Address of its admin server.
    pub admin_addr: Option<std::net::SocketAddr>,
    pub(crate) nozzle: Arc<Nozzle>,
    readiness: Readiness,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("nozzle", &self.nozzle.base.nozzle)
            .field("admin_addr", &self.admin_addr)
            .finish_non_exhaustive()
    }
}

impl Running {
    /// What it received, delivered and lost.
    #[must_use]
    pub fn report(&self) -> Report {
        self.nozzle.base.ledger.report()
    }

    /// Its metrics.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.nozzle.base.metrics
    }

    /// Whether it does its work.
    #[must_use]
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Names of the edges at which [`tap`](Running::tap) can listen: `intake`, and `NAME/in`, `NAME/out`, `NAME/rendered` of
    /// each destination.
    #[must_use]
    pub fn edges(&self) -> Vec<String> {
        self.nozzle.base.ledger.edges()
    }

    /// Listens at an edge to the events for which the filter holds; an empty one holds for all.
    ///
    /// # Errors
    /// When there is no such edge, the filter is none, or too many listen already.
    pub fn tap(&self, edge: &str, filter: &str) -> Result<Tap, TapError> {
        let ledger = &self.nozzle.base.ledger;
        ledger.taps.listen(edge, filter, &ledger.edges())
    }
}

/// Of the time for a stop, what a destination may use: the rest is for those behind it.
const DRAIN_SHARE: f64 = 0.8;
/// What was begun of a nozzle that does not start has so long to end.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Starts a nozzle. `upstream` is the pipeline in the same process, where there is one.
///
/// # Errors
/// See [`Error`]; nothing is left running.
pub async fn start(
    config: NozzleConfig,
    kinds: &Kinds,
    upstream: Option<Arc<dyn Upstream>>,
    lifecycle: &Lifecycle,
) -> Result<Running, Error> {
    let plans = plans(&config.destinations, kinds)?;
    let filter = select_filter(&config)?;
    let taken = filter.as_ref().map_or(KindSet::ALL, Filter::kinds);
    let wanted = plans.iter().map(Planned::kinds);
    let wanted = wanted.fold(KindSet::EMPTY, KindSet::union);
    let wanted = match wanted.intersection(taken) {
        // Filters that hold for nothing; they are told of in the log when they did not for long enough.
        KindSet::EMPTY => KindSet::ALL,
        wanted => wanted,
    };
    let sources: Option<Vec<_>> = plans.iter().map(|plan| plan.filter.source_ids()).collect();
    let selected = filter.as_ref().and_then(Filter::source_ids);
    let sources = sources.map(|sources| sources.concat()).or(selected);
    let name = &config.nozzle.name;
    let request = intake::request(&config.select, name, wanted, sources.as_deref())?;
    intake::check(&config.intake, &request)?;
    let destinations = config.destinations.iter();
    let buffer = Buffer::open(&buffer::Settings {
        store: config.buffer.clone(),
        destinations: destinations.map(|d| (d.name.clone(), d.backlog)).collect(),
    })?;
    // Stages drain in the order in which they are made: the intake, then what empties the buffer, then what that needs.
    let intake_stage = lifecycle.stage("intake");
    let mut base = Base {
        nozzle: config.nozzle.name.clone(),
        metrics: Metrics::new(),
        pipelines: lifecycle.stage("destinations"),
        connections: lifecycle.stage("connections"),
        state: match &config.buffer {
            BufferConfig::Disk(disk) => Some(disk.path.clone()),
            BufferConfig::Memory(_) => None,
        },
        drain: config.nozzle.drain_timeout.0.mul_f64(DRAIN_SHARE),
        directory: None,
        ledger: Arc::new(Ledger::new(&config.nozzle.name, buffer.clone())),
        buffer,
    };
    if let Some(enrichment) = &config.enrichment {
        let (state, connections) = (base.state.as_deref(), &base.connections);
        let names = CloudController::start(enrichment, state, &base.metrics, connections);
        let names = names?;
        base.ledger.directory.set(Arc::clone(&names)).ok();
        base.directory = Some(names);
    }
    observe(&base.metrics, &base.ledger);
    let opening = async {
        let mut connected = Vec::new();
        for planned in plans {
            connected.push(base.connect(planned).await?);
        }
        let intake = intake::open(
            &config.intake,
            request,
            config.nozzle.max_silence.0,
            upstream,
            &base.metrics,
            &intake_stage,
        )
        .await?;
        Ok::<_, Error>((connected, intake))
    };
    let (connected, intake) = match opening.await {
        Ok(opened) => opened,
        Err(error) => {
            intake_stage.shutdown(AT_ONCE).await;
            base.connections.shutdown(AT_ONCE).await;
            return Err(error);
        }
    };
    let launched = connected.into_iter().map(|one| base.launch(one));
    let launched = launched.map(|one| (one.config.name.clone(), Place::Runs(one)));
    let launched = launched.collect();
    let taking = TakeIn {
        intake,
        buffer: base.buffer.clone(),
        ledger: Arc::clone(&base.ledger),
        filter,
        looked_at: 0,
        directory: base.directory.clone(),
    };
    intake_stage.spawn("intake", taking.run(intake_stage.clone()));
    let readiness = watch(&config, &base, lifecycle);
    let admin_addr = match config.nozzle.admin_addr {
        None => None,
        Some(addr) => Some(Admin::start_with_pages(
            addr,
            base.metrics.clone(),
            base.ledger.clone(),
            readiness.clone(),
            lifecycle,
            Arc::new(NozzlePages(Arc::clone(&base.ledger))),
        )?),
    };
    Ok(Running {
        admin_addr,
        readiness,
        nozzle: Arc::new(Nozzle {
            base,
            kinds: kinds.clone(),
            config: Mutex::new(config),
            launched: Mutex::new(launched),
            wanted,
            taken,
            sources,
        }),
    })
}

/// `select.filter`, if there is one.
fn select_filter(config: &NozzleConfig) -> Result<Option<Filter>, ConfigErrors> {
    let Some(text) = &config.select.filter else {
        return Ok(None);
    };
    // The configuration was checked; one that was made otherwise has no file.
    let wrong = |error: crate::filter::FilterError| ConfigErrors {
        file: std::path::PathBuf::from("configuration"),
        errors: vec![ConfigError {
            key: "select.filter".to_owned(),
            place: None,
            width: 0,
            variable: None,
            message: error.to_string(),
        }],
    };
    Ok(Some(Filter::parse(text).map_err(wrong)?))
}

/// Watches over a nozzle, and tells at the end what was left.
fn watch(config: &NozzleConfig, base: &Base, lifecycle: &Lifecycle) -> Readiness {
    let readiness = Readiness::new();
    let health = Health::new(
        Arc::clone(&base.ledger),
        readiness.clone(),
        config.nozzle.max_silence.0,
        config.nozzle.max_stuck.0,
    );
    lifecycle.spawn("health", health.watch(lifecycle.clone()));
    lifecycle.account_at_end(base.ledger.clone());
    // The last stage: everything else has ended when it is told to.
    let last = lifecycle.stage("last words");
    let (ledger, durable, told) = (Arc::clone(&base.ledger), base.state.is_some(), last.token());
    last.spawn("last words", async move {
        told.cancelled().await;
        ledger.buffer.sync().await;
        last_words(&ledger, durable);
    });
    readiness
}

/// What did not arrive. What is lost so also shows in the exit code: the drain of a destination that was not done was cut
/// short.
fn last_words(ledger: &Ledger, durable: bool) {
    let report = ledger.report();
    for line in &report.subscriptions {
        let (destination, events) = (&line.id, line.pending);
        match (events, durable) {
            (0, _) => {}
            (_, true) => tracing::info!(
                destination,
                events,
                "not delivered yet: they are on disk and go on with the next start"
            ),
            (_, false) => tracing::error!(
                destination,
                events,
                "not delivered: they were in memory and are lost"
            ),
        }
    }
}
