//! A whole nozzle: intake, buffer, one pipeline per destination.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use loggregator_envelope::Frame;
use loggregator_service::Lifecycle;
use loggregator_service::admin::{Admin, AdminError, Readiness};
use loggregator_service::ledger::{Ingress, Report, Source, Subscription};
use loggregator_service::metrics::Metrics;
use parking_lot::Mutex;

use crate::buffer::{self, Buffer, BufferError};
use crate::config::{ConfigErrors, NozzleConfig};
use crate::destination::{Context, StartError};
use crate::filter::Filter;
use crate::intake::{self, Intake, IntakeError, Upstream};
use crate::kind::Kinds;
use crate::pipeline::{Pipeline, Shared};

/// A nozzle cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// Its buffer cannot be used.
    #[error(transparent)]
    Buffer(#[from] BufferError),
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
    let metrics = Metrics::new();
    let destinations = config.destinations.iter();
    let buffer = Buffer::open(&buffer::Settings {
        store: config.buffer.clone(),
        destinations: destinations.map(|d| (d.name.clone(), d.backlog)).collect(),
    })?;
    // Stages drain in the order in which they are made: first the intake, then what empties the buffer.
    let intake_stage = lifecycle.stage("intake");
    let egress_stage = lifecycle.stage("destinations");
    let request = intake::request(&config.select, &config.nozzle.name)?;
    let mut ledger = Ledger {
        nozzle: config.nozzle.name.clone(),
        ingress: Mutex::default(),
        buffer: buffer.clone(),
        destinations: Vec::new(),
    };
    for destination in config.destinations {
        let kind = kinds.get(&destination.kind).ok_or_else(|| {
            destination.section.error(
                "",
                format!("`{}` is no kind of destination", destination.kind),
            )
        })?;
        let plan = kind.plan(&destination.section)?;
        let filter = match &destination.filter {
            None => Filter::everything(),
            Some(text) => Filter::parse(text)
                .map_err(|error| destination.section.error("filter", error.to_string()))?,
        };
        let context = Context {
            nozzle: config.nozzle.name.clone(),
            name: destination.name.clone(),
            metrics: metrics.clone(),
            lifecycle: egress_stage.clone(),
            buffer_id: buffer.id().to_owned(),
            state_dir: None,
        };
        let running = plan.start(context).await?;
        let Some(cursor) = buffer.cursor(&destination.name) else {
            continue;
        };
        let shared = Arc::new(Shared::default());
        ledger.destinations.push((
            destination.name.clone(),
            destination.kind.clone(),
            Arc::clone(&shared),
        ));
        let name = format!("destination {}", destination.name);
        let pipeline = Pipeline {
            config: destination,
            plan,
            filter,
            directory: None,
            destination: running,
            cursor,
            shared,
        };
        egress_stage.spawn(name, pipeline.run(egress_stage.clone()));
    }
    let ledger = Arc::new(ledger);
    let intake = intake::open(&config.intake, request, upstream, &intake_stage).await?;
    intake_stage.spawn(
        "intake",
        take_in(intake, buffer, Arc::clone(&ledger), intake_stage.clone()),
    );
    let admin_addr = match config.nozzle.admin_addr {
        Some(addr) => Some(Admin::start(
            addr,
            metrics,
            ledger.clone(),
            Readiness::default(),
            lifecycle,
        )?),
        None => None,
    };
    Ok(Running { admin_addr, ledger })
}

async fn take_in(
    mut intake: Box<dyn Intake>,
    buffer: Buffer,
    ledger: Arc<Ledger>,
    lifecycle: Lifecycle,
) {
    let stop = lifecycle.token();
    while let Some(Some(batch)) = stop
        .run_until_cancelled(poll_fn(|cx| intake.poll_next(cx)))
        .await
    {
        match Frame::parse(batch) {
            Ok(parsed) => {
                let appended = buffer.append(&parsed.frame, now()).await;
                let mut ingress = ledger.ingress.lock();
                ingress.received += u64::from(parsed.rejected) + parsed.frame.len() as u64;
                ingress.accepted += appended.accepted;
                if parsed.rejected > 0 {
                    *ingress.rejected.entry("malformed".to_owned()).or_default() +=
                        u64::from(parsed.rejected);
                }
                if appended.refused > 0 {
                    *ingress.rejected.entry(appended.why.to_owned()).or_default() +=
                        appended.refused;
                }
            }
            Err(_) => {
                let mut ingress = ledger.ingress.lock();
                ingress.received += 1;
                *ingress.rejected.entry("malformed".to_owned()).or_default() += 1;
            }
        }
    }
    buffer.close();
}

/// Nanoseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    })
}

#[derive(Debug)]
struct Ledger {
    nozzle: String,
    ingress: Mutex<Ingress>,
    buffer: Buffer,
    destinations: Vec<(String, String, Arc<Shared>)>,
}

impl Source for Ledger {
    fn report(&self) -> Report {
        let next = self.buffer.report().next;
        let subscription = |(name, kind, shared): &(String, String, Arc<Shared>)| {
            let account = shared.account.lock().clone();
            Subscription {
                id: name.clone(),
                selector: "all".to_owned(),
                api: kind.clone(),
                open: true,
                received: next,
                delivered: account.delivered,
                pending: next - account.total().min(next),
                dropped: account.dropped,
                ..Subscription::default()
            }
        };
        Report {
            component: "nozzle".to_owned(),
            instance: self.nozzle.clone(),
            ingress: self.ingress.lock().clone(),
            subscriptions: self.destinations.iter().map(subscription).collect(),
            log: None,
        }
    }
}
