//! A whole nozzle: intake, buffer, one pipeline per destination.

use std::sync::Arc;

use loggregator_envelope::KindSet;
use loggregator_service::admin::{Admin, AdminError, Readiness};
use loggregator_service::ledger::{Report, Source as _};
use loggregator_service::metrics::Metrics;
use loggregator_service::{Lifecycle, RestartPolicy};
use tokio_util::sync::CancellationToken;

use crate::buffer::{self, Buffer, BufferError};
use crate::config::{BufferConfig, ConfigErrors, DestinationConfig, NozzleConfig};
use crate::dead_letter::DeadLetters;
use crate::destination::{Context, DynDestination, StartError};
use crate::enrich::{CloudController, Directory, EnrichError};
use crate::filter::Filter;
use crate::intake::{self, IntakeError, Upstream};
use crate::kind::{Kinds, Plan};
use crate::ledger::{Ledger, Line};
use crate::pipeline::{self, Setup, state::State};
use crate::take_in::take_in;

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

/// A nozzle that runs. Its tasks belong to the lifecycle that it was started with.
#[derive(Debug)]
pub struct Running {
    /// Address of its admin server.
    pub admin_addr: Option<std::net::SocketAddr>,
    ledger: Arc<Ledger>,
}

impl Running {
    /// What it received, delivered and lost.
    #[must_use]
    pub fn report(&self) -> Report {
        self.ledger.report()
    }
}

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
    let wanted = plans.iter().map(Planned::kinds);
    let wanted = match wanted.fold(KindSet::EMPTY, KindSet::union) {
        // Filters that hold for nothing; they are told of in the log when they did not for long enough.
        KindSet::EMPTY => KindSet::ALL,
        wanted => wanted,
    };
    let sources: Option<Vec<_>> = plans.iter().map(|plan| plan.filter.source_ids()).collect();
    let sources = sources.map(|sources| sources.concat());
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
        durable: matches!(config.buffer, BufferConfig::Disk(_)),
        drain: config.nozzle.drain_timeout.0.mul_f64(DRAIN_SHARE),
        directory: None,
        ledger: Arc::new(Ledger::new(&config.nozzle.name, buffer.clone())),
        buffer,
    };
    if let Some(enrichment) = &config.enrichment {
        let state_dir = match &config.buffer {
            BufferConfig::Disk(disk) => Some(disk.path.as_path()),
            BufferConfig::Memory(_) => None,
        };
        let names = CloudController::start(enrichment, state_dir, &base.metrics, &base.connections);
        base.directory = Some(names?);
    }
    let mut setups = Vec::new();
    for planned in plans {
        setups.push(base.connect(planned).await?);
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
    for setup in setups {
        base.launch(setup);
    }
    intake_stage.spawn(
        "intake",
        take_in(
            intake,
            base.buffer.clone(),
            Arc::clone(&base.ledger),
            intake_stage.clone(),
        ),
    );
    let admin_addr = match config.nozzle.admin_addr {
        Some(addr) => Some(Admin::start(
            addr,
            base.metrics.clone(),
            base.ledger.clone(),
            Readiness::default(),
            lifecycle,
        )?),
        None => None,
    };
    Ok(Running {
        admin_addr,
        ledger: base.ledger,
    })
}

/// Of the time for a stop, what a destination may use: the rest is for those behind it.
const DRAIN_SHARE: f64 = 0.8;

/// A destination that was read and checked.
struct Planned {
    config: DestinationConfig,
    plan: Arc<dyn Plan>,
    filter: Filter,
}

impl Planned {
    fn kinds(&self) -> KindSet {
        self.plan.accepts().intersection(self.filter.kinds())
    }
}

/// Reads all destinations; their errors are told all at once.
fn plans(configs: &[DestinationConfig], kinds: &Kinds) -> Result<Vec<Planned>, ConfigErrors> {
    let mut plans = Vec::new();
    let mut wrong: Option<ConfigErrors> = None;
    for config in configs {
        match plan(config, kinds) {
            Ok(planned) => plans.push(planned),
            Err(errors) => match &mut wrong {
                None => wrong = Some(errors),
                Some(wrong) => wrong.errors.extend(errors.errors),
            },
        }
    }
    match wrong {
        None => Ok(plans),
        Some(wrong) => Err(wrong),
    }
}

fn plan(config: &DestinationConfig, kinds: &Kinds) -> Result<Planned, ConfigErrors> {
    let section = &config.section;
    let kind = kinds
        .get(&config.kind)
        .ok_or_else(|| section.error("", format!("`{}` is no kind of destination", config.kind)))?;
    let filter = match &config.filter {
        None => Filter::everything(),
        Some(text) => {
            Filter::parse(text).map_err(|error| section.error("filter", error.to_string()))?
        }
    };
    Ok(Planned {
        config: config.clone(),
        plan: kind.plan(section)?.into(),
        filter,
    })
}

/// What all destinations of a nozzle share.
struct Base {
    nozzle: String,
    metrics: Metrics,
    pipelines: Lifecycle,
    connections: Lifecycle,
    durable: bool,
    drain: std::time::Duration,
    directory: Option<Arc<dyn Directory>>,
    buffer: Buffer,
    ledger: Arc<Ledger>,
}

impl Base {
    /// Starts a destination, without giving it anything yet.
    async fn connect(&self, planned: Planned) -> Result<Setup, StartError> {
        let Planned {
            config,
            plan,
            filter,
        } = planned;
        let connections = self.connections.stage(&config.name);
        let destination: Arc<dyn DynDestination> = plan
            .start(Context {
                nozzle: self.nozzle.clone(),
                name: config.name.clone(),
                metrics: self.metrics.clone(),
                lifecycle: connections,
                buffer_id: self.buffer.id().to_owned(),
                state_dir: None,
            })
            .await?;
        Ok(Setup {
            nozzle: self.nozzle.clone(),
            dead_letters: Arc::new(DeadLetters::new(&config.name)),
            plan,
            filter,
            directory: self.directory.clone(),
            destination,
            state: Arc::new(State::new()),
            durable: self.durable,
            stop: self.pipelines.token(),
            leave: CancellationToken::new(),
            drain: self.drain,
            config,
        })
    }

    /// Begins to deliver.
    fn launch(&self, setup: Setup) {
        let config = &setup.config;
        self.ledger.lines.write().push(Line {
            name: config.name.clone(),
            kind: config.kind.clone(),
            selector: config.filter.clone().unwrap_or_else(|| "all".to_owned()),
            state: Arc::clone(&setup.state),
        });
        let name = format!("destination {}", config.name);
        let (setup, buffer) = (Arc::new(setup), self.buffer.clone());
        self.pipelines
            .spawn_restarting(name, RestartPolicy::default(), move || {
                let (setup, buffer) = (Arc::clone(&setup), buffer.clone());
                async move {
                    match buffer.cursor(&setup.config.name) {
                        Some(cursor) => pipeline::run(setup, cursor).await,
                        None => tracing::error!(
                            destination = setup.config.name,
                            "the buffer has no cursor of this name"
                        ),
                    }
                }
            });
    }
}
