//! Changing the configuration of a nozzle that runs.

use crate::base::{Planned, plan};
use crate::config::{DestinationConfig, NozzleConfig};
use crate::places::{Place, Returning, connect};
use crate::run::Running;

/// What a change of the configuration did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Destinations that were started anew, at the cursor where they had stopped.
    pub restarted: Vec<String>,
    /// Destinations that noticed nothing.
    pub unchanged: Vec<String>,
}

/// A change is refused; the nozzle runs on as before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the configuration stays as it was: {}", reasons.join("; "))]
pub struct ReloadError {
    /// Everything that stands against it.
    pub reasons: Vec<String>,
    /// Nothing is wrong with the configuration: a nozzle that is started with it takes it over.
    pub restart: bool,
}

impl Running {
    /// Takes a new configuration over. Only destinations whose part of it changed are started anew; they keep their cursors,
    /// and the buffer keeps everything. What cannot change while the nozzle runs (where it reads from, its buffer, which
    /// destinations there are) is refused as a whole, with all the reasons.
    ///
    /// # Errors
    /// The reasons. When a changed destination cannot be started, it is started as it was before; when that cannot be done
    /// either, it is tried again until it can or the next configuration comes. Those that were changed before it stay
    /// changed.
    pub async fn reload(&self, config: NozzleConfig) -> Result<Reloaded, ReloadError> {
        let mut current = self.nozzle.config.lock().await;
        let mut reasons = impossible(&current, &config);
        let mut restart = true;
        let mut planned = Vec::new();
        for destination in &config.destinations {
            match plan(destination, &self.nozzle.kinds) {
                Ok(plan) => planned.push(plan),
                Err(errors) => {
                    restart = false;
                    reasons.push(errors.to_string());
                }
            }
        }
        for plan in &planned {
            if !self.is_asked_for(plan) {
                let name = &plan.config.name;
                reasons.push(format!(
                    "destination {name}: takes more than the subscription asks for"
                ));
            }
        }
        if !reasons.is_empty() {
            return Err(ReloadError { reasons, restart });
        }
        let mut done = Reloaded::default();
        let wanted = planned.into_iter().zip(&config.destinations);
        for (at, (plan, new)) in wanted.enumerate() {
            if same(&current.destinations[at], new) {
                done.unchanged.push(new.name.clone());
            } else {
                self.replace(&current.destinations[at], plan).await?;
                current.destinations[at] = new.clone();
                done.restarted.push(new.name.clone());
            }
        }
        *current = config;
        Ok(done)
    }

    /// Whether what the destination takes is part of what the nozzle asked the dopplers for.
    fn is_asked_for(&self, plan: &Planned) -> bool {
        let kinds = plan.kinds().intersection(self.nozzle.taken);
        let sources = match (&self.nozzle.sources, plan.filter.source_ids()) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(asked), Some(wanted)) => wanted.iter().all(|id| asked.contains(id)),
        };
        sources && kinds.intersection(self.nozzle.wanted) == kinds
    }

    async fn replace(&self, before: &DestinationConfig, after: Planned) -> Result<(), ReloadError> {
        let name = before.name.clone();
        let refuse = |why: String| ReloadError {
            reasons: vec![format!("destination {name}: {why}")],
            restart: false,
        };
        let nozzle = &self.nozzle;
        let mut launched = nozzle.launched.lock().await;
        let Some(place) = launched.remove(&name) else {
            return Err(refuse("is none of this nozzle".to_owned()));
        };
        tracing::info!(
            destination = name,
            "its configuration changed: it is started anew"
        );
        let left = match place {
            Place::Runs(running) if running.leave().await => Ok(()),
            Place::Runs(running) => Err(running),
            Place::Returns(returning) => returning.give_up().await,
        };
        if let Err(busy) = left {
            // It was told to leave, and will. Two must not use one cursor.
            let returning = Returning::begin(nozzle, before.clone(), Some(busy));
            launched.insert(name.clone(), Place::Returns(returning));
            return Err(refuse(
                "did not stop in time; when it has stopped it goes on as before".to_owned(),
            ));
        }
        let failed = match nozzle.base.connect(after).await {
            Ok(connected) => {
                launched.insert(name, Place::Runs(nozzle.base.launch(connected)));
                return Ok(());
            }
            Err(error) => error,
        };
        match connect(nozzle, before).await {
            Ok(connected) => {
                launched.insert(name.clone(), Place::Runs(nozzle.base.launch(connected)));
                Err(refuse(format!("{failed}; it goes on as before")))
            }
            Err(error) => {
                let returning = Returning::begin(nozzle, before.clone(), None);
                launched.insert(name.clone(), Place::Returns(returning));
                Err(refuse(format!(
                    "{failed}; nor as before: {error}; that is tried again, its events wait in the buffer"
                )))
            }
        }
    }
}

/// What stands against a change.
fn impossible(old: &NozzleConfig, new: &NozzleConfig) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut keep = |what: &str, same: bool| {
        if !same {
            reasons.push(format!("{what} cannot change while the nozzle runs"));
        }
    };
    keep("[nozzle]", text(&old.nozzle) == text(&new.nozzle));
    keep("[intake]", text(&old.intake) == text(&new.intake));
    keep("[select]", text(&old.select) == text(&new.select));
    keep("[buffer]", text(&old.buffer) == text(&new.buffer));
    keep(
        "[enrichment]",
        text(&old.enrichment) == text(&new.enrichment),
    );
    let names = |config: &NozzleConfig| -> Vec<String> {
        config.destinations.iter().map(|d| d.name.clone()).collect()
    };
    if names(old) == names(new) {
        for (old, new) in old.destinations.iter().zip(&new.destinations) {
            let backlog = text(&old.backlog) == text(&new.backlog);
            keep(&format!("destination {}: backlog", old.name), backlog);
        }
    } else {
        keep("which destinations there are, and their order,", false);
    }
    reasons
}

/// Whether a destination is configured alike. Where in the file that stands does not count.
fn same(old: &DestinationConfig, new: &DestinationConfig) -> bool {
    let table = |config: &DestinationConfig| config.section.read::<toml::Table>().ok();
    let rest = |config: &DestinationConfig| {
        [
            text(&config.kind),
            text(&config.filter),
            text(&config.batch),
            text(&config.retry),
            text(&config.breaker),
            text(&config.rate),
            text(&config.quota),
            text(&config.dead_letter),
            text(&config.dry_run),
        ]
    };
    table(old) == table(new) && rest(old) == rest(new)
}

/// The debug form: the same for what is configured alike. A secret shows where it is kept, not what it is.
fn text(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}")
}
