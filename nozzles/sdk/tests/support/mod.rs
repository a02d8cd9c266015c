//! A destination that does as it is told, and its peer.

pub mod nozzle;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use loggregator_nozzle::compliance::{Behaviour, Peer};
use loggregator_nozzle::config::{ConfigErrors, Section};
use loggregator_nozzle::{
    Batch, BoxFuture, Context, Delivery, Destination, DynDestination, Event, Kind, Limits, Outcome,
    Plan, Reason, Rendered, StartError,
};
use parking_lot::Mutex;
use serde::Deserialize;
use tempfile::TempDir;

/// The peers that there are: a destination finds its own by number.
static PEERS: LazyLock<Mutex<HashMap<u64, Arc<Script>>>> = LazyLock::new(Mutex::default);
static NEXT: AtomicU64 = AtomicU64::new(0);

struct Script {
    behaviour: Mutex<Behaviour>,
    received: Mutex<Vec<Rendered>>,
}

pub struct Scripted {
    id: u64,
    in_flight: usize,
    script: Arc<Script>,
    scratch: TempDir,
}

impl Scripted {
    pub fn new(in_flight: usize) -> Scripted {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let script = Arc::new(Script {
            behaviour: Mutex::new(Behaviour::Healthy),
            received: Mutex::default(),
        });
        PEERS.lock().insert(id, Arc::clone(&script));
        Scripted {
            id,
            in_flight,
            script,
            scratch: tempfile::tempdir().unwrap(),
        }
    }
}

impl Peer for Scripted {
    fn config(&self) -> String {
        format!("id = {}\nin_flight = {}", self.id, self.in_flight)
    }

    fn scratch(&self) -> PathBuf {
        self.scratch.path().to_owned()
    }

    fn ordered(&self) -> bool {
        self.in_flight == 1
    }

    async fn behave(&self, how: Behaviour) {
        *self.script.behaviour.lock() = how;
    }

    async fn received(&self) -> Vec<Rendered> {
        self.script.received.lock().clone()
    }
}

#[derive(Debug, Clone, Copy)]
pub struct ScriptedKind;

#[derive(Debug, Clone, Deserialize)]
struct Config {
    id: u64,
    in_flight: usize,
    /// Where an earlier process stopped.
    resume: Option<u64>,
    /// A file without which it does not start.
    needs: Option<PathBuf>,
}

impl Kind for ScriptedKind {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn about(&self) -> &'static str {
        "does as it is told"
    }

    fn example(&self) -> &'static str {
        ""
    }

    fn plan(&self, section: &Section) -> Result<Box<dyn Plan>, ConfigErrors> {
        Ok(Box::new(section.read::<Config>()?))
    }
}

impl Plan for Config {
    fn guarantee(&self) -> String {
        "none".to_owned()
    }

    fn limits(&self) -> Limits {
        Limits {
            in_flight: self.in_flight,
            ..Limits::default()
        }
    }

    fn render(&self, event: &Event) -> Result<Vec<Rendered>, Reason> {
        let line = event.envelope().log().unwrap();
        Ok(vec![Rendered {
            fields: vec![("source", event.envelope().source_id().to_owned())],
            body: line.payload.to_vec().into(),
        }])
    }

    fn start(
        &self,
        context: Context,
    ) -> BoxFuture<'_, Result<Arc<dyn DynDestination>, StartError>> {
        if let Some(file) = self.needs.as_ref().filter(|file| !file.exists()) {
            let error = StartError {
                destination: context.name,
                what: format!("needs {}", file.display()),
                source: None,
            };
            return Box::pin(async move { Err(error) });
        }
        let destination: Arc<dyn DynDestination> = Arc::new(ScriptedDestination {
            plan: self.clone(),
            script: PEERS.lock()[&self.id].clone(),
        });
        Box::pin(async move { Ok(destination) })
    }
}

struct ScriptedDestination {
    plan: Config,
    script: Arc<Script>,
}

impl ScriptedDestination {
    fn take(&self, events: &[Event]) {
        let rendered = events.iter().flat_map(|e| self.plan.render(e).unwrap());
        self.script.received.lock().extend(rendered);
    }

    /// What it does next; a count of failures goes down.
    fn behaviour(&self) -> Behaviour {
        let mut behaviour = self.script.behaviour.lock();
        let now = behaviour.clone();
        let less = |n: u32| n.checked_sub(1).filter(|n| *n > 0);
        match now {
            Behaviour::Fail(n) => {
                *behaviour = less(n).map_or(Behaviour::Healthy, Behaviour::Fail);
            }
            Behaviour::Partial(n) => {
                *behaviour = less(n).map_or(Behaviour::Healthy, Behaviour::Partial);
            }
            _ => {}
        }
        now
    }
}

/// The poison that has it panic, once.
pub const PANIC: &str = "panic";

impl Destination for ScriptedDestination {
    async fn resume(&self) -> Option<u64> {
        self.plan.resume
    }

    async fn deliver(&self, batch: &Batch) -> Delivery {
        let events = batch.events();
        let retry = |code: &'static str| Delivery::Retry {
            why: Reason::new(code, ""),
            after: None,
        };
        match self.behaviour() {
            Behaviour::Healthy => self.take(events),
            Behaviour::Away => return retry("connect"),
            Behaviour::Fail(_) => return retry("status_503"),
            Behaviour::Partial(_) => {
                let half = events.len() / 2;
                self.take(&events[..half]);
                let outcome = |at| match at < half {
                    true => Outcome::Delivered,
                    false => Outcome::Retry(Reason::new("busy", "")),
                };
                return Delivery::Each((0..events.len()).map(outcome).collect());
            }
            Behaviour::Slow(time) => {
                self.take(events);
                tokio::time::sleep(time).await;
            }
            Behaviour::Poison(text) if text == PANIC => {
                *self.script.behaviour.lock() = Behaviour::Healthy;
                panic!("as I was told");
            }
            Behaviour::Poison(text) => {
                let poisoned = |event: &Event| {
                    let log = event.envelope().log().unwrap();
                    String::from_utf8_lossy(log.payload).contains(&text)
                };
                if events.iter().any(poisoned) {
                    return Delivery::Refused(Reason::new("poisoned", text));
                }
                self.take(events);
            }
        }
        Delivery::All
    }
}
