//! Making and starting the destinations of a nozzle.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use loggregator_envelope::KindSet;
use loggregator_service::metrics::Metrics;
use loggregator_service::{Lifecycle, RestartPolicy};
use tokio_util::sync::CancellationToken;

use crate::buffer::Buffer;
use crate::config::{ConfigErrors, DestinationConfig};
use crate::dead_letter::{DeadLetters, folder_name};
use crate::destination::{Context, DynDestination, StartError};
use crate::dry_run::DryRun;
use crate::enrich::Directory;
use crate::filter::Filter;
use crate::kind::{Kinds, Plan};
use crate::ledger::{Ledger, Line};
use crate::pipeline::{self, Setup, Sizes, state::State};

/// A destination that was read and checked.
pub(crate) struct Planned {
    pub config: DestinationConfig,
    pub plan: Arc<dyn Plan>,
    pub filter: Filter,
}

impl Planned {
    /// The kinds of envelopes of which any can reach it.
    pub(crate) fn kinds(&self) -> KindSet {
        self.plan.accepts().intersection(self.filter.kinds())
    }
}

/// Reads all destinations; their errors are told all at once.
pub(crate) fn plans(
    configs: &[DestinationConfig],
    kinds: &Kinds,
) -> Result<Vec<Planned>, ConfigErrors> {
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

/// Reads a destination.
pub(crate) fn plan(config: &DestinationConfig, kinds: &Kinds) -> Result<Planned, ConfigErrors> {
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
pub(crate) struct Base {
    pub nozzle: String,
    pub metrics: Metrics,
    /// Stages drain in the order in which they are made: what empties the buffer before what that needs.
    pub pipelines: Lifecycle,
    pub connections: Lifecycle,
    /// The nozzle's folder, where it keeps its buffer on disk.
    pub state: Option<PathBuf>,
    pub drain: Duration,
    pub directory: Option<Arc<dyn Directory>>,
    pub buffer: Buffer,
    pub ledger: Arc<Ledger>,
}

/// A destination that runs.
#[derive(Debug)]
pub(crate) struct Launched {
    pub config: DestinationConfig,
    leave: CancellationToken,
    ended: CancellationToken,
    connections: Lifecycle,
}

/// A destination that is started, and gets nothing yet.
pub(crate) struct Connected {
    setup: Setup,
    connections: Lifecycle,
}

/// How long a destination may take to leave what it does.
const LEAVE: Duration = Duration::from_secs(10);

/// How long what was begun of a destination that does not start may take to end.
const GIVE_UP: Duration = Duration::from_secs(1);

impl Connected {
    /// Ends what was started.
    pub(crate) async fn give_up(self) {
        self.setup.destination.close().await;
        self.connections.shutdown(GIVE_UP).await;
    }
}

impl Base {
    /// Starts a destination, without giving it anything yet.
    pub(crate) async fn connect(&self, planned: Planned) -> Result<Connected, StartError> {
        let Planned {
            config,
            plan,
            filter,
        } = planned;
        let name = config.name.clone();
        let failed = |what: &str, source: Box<dyn std::error::Error + Send + Sync>| StartError {
            destination: name.clone(),
            what: what.to_owned(),
            source: Some(source),
        };
        let state_dir = self.state.as_deref().map(|state| own_folder(state, &name));
        if let Some(folder) = &state_dir {
            std::fs::create_dir_all(folder)
                .map_err(|source| failed("cannot make its folder", source.into()))?;
        }
        let max_bytes = config.dead_letter.max_bytes.0;
        let dead_letters = DeadLetters::open(&name, self.state.as_deref(), max_bytes)
            .map_err(|source| failed("cannot keep dead letters", source.into()))?;
        let sizes = Sizes::new(&self.metrics, &name)
            .map_err(|source| failed("cannot be measured", source.into()))?;
        let connections = self.connections.stage(&name);
        let destination: Arc<dyn DynDestination> = if config.dry_run {
            Arc::new(DryRun::new(&name, Arc::clone(&plan)))
        } else {
            let started = plan.start(Context {
                nozzle: self.nozzle.clone(),
                name: name.clone(),
                metrics: self.metrics.clone(),
                lifecycle: connections.clone(),
                buffer: self.buffer.identity().clone(),
                state_dir,
            });
            match started.await {
                Ok(destination) => destination,
                Err(error) => {
                    // What it had begun must not stand in the way of the next attempt.
                    connections.shutdown(GIVE_UP).await;
                    return Err(error);
                }
            }
        };
        let setup = Setup {
            nozzle: self.nozzle.clone(),
            dead_letters: Arc::new(dead_letters),
            plan,
            filter,
            directory: self.directory.clone(),
            destination,
            state: Arc::new(State::new()),
            ledger: Arc::clone(&self.ledger),
            sizes,
            durable: self.state.is_some(),
            stop: self.pipelines.token(),
            leave: CancellationToken::new(),
            ended: CancellationToken::new(),
            drain: self.drain,
            config,
        };
        Ok(Connected { setup, connections })
    }

    /// Begins to deliver.
    pub(crate) fn launch(&self, connected: Connected) -> Launched {
        let Connected { setup, connections } = connected;
        let config = setup.config.clone();
        let line = Line {
            name: config.name.clone(),
            kind: config.kind.clone(),
            filter: config.filter.clone(),
            guarantee: setup.plan.guarantee(),
            state: Arc::clone(&setup.state),
            dead_letters: Arc::clone(&setup.dead_letters),
        };
        // Before its task is there to say so.
        if let Some(cursor) = self.buffer.cursor(&config.name) {
            setup.state.settle(cursor.birth(), &cursor.start().1);
        }
        self.ledger.set_line(line);
        let launched = Launched {
            leave: setup.leave.clone(),
            ended: setup.ended.clone(),
            connections,
            config,
        };
        let name = format!("destination {}", launched.config.name);
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
        launched
    }
}

impl Launched {
    /// Cancelled when the destination uses its cursor no more.
    pub(crate) fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// Has the destination leave its cursor, at what it has confirmed. Whether it did in time.
    pub(crate) async fn leave(&self) -> bool {
        self.leave.cancel();
        let left = tokio::time::timeout(LEAVE, self.ended.cancelled()).await;
        self.connections.shutdown(LEAVE).await;
        left.is_ok()
    }
}

/// Where a destination keeps state of its own.
fn own_folder(state: &Path, destination: &str) -> PathBuf {
    state.join("destinations").join(folder_name(destination))
}
