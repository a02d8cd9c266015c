//! Where the destinations of a nozzle stand: each runs, or it could be started neither as a new configuration wants it nor as it
//! was. Then its events wait in the buffer, and it is tried again until it starts or the next configuration takes its place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use loggregator_envelope::KindSet;
use loggregator_net::Backoff;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::base::{Base, Connected, Launched, plan};
use crate::config::{DestinationConfig, NozzleConfig};
use crate::kind::Kinds;

/// The first wait between two attempts, and the longest.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// What is needed to change a nozzle that runs.
pub(crate) struct Nozzle {
    pub base: Base,
    pub kinds: Kinds,
    pub config: Mutex<NozzleConfig>,
    pub launched: Mutex<BTreeMap<String, Place>>,
    /// The kinds of envelopes that are asked for.
    pub wanted: KindSet,
    /// The kinds for which `select.filter` can hold.
    pub taken: KindSet,
    /// The sources that are asked for; all without.
    pub sources: Option<Vec<String>>,
}

/// Where a destination stands.
#[derive(Debug)]
pub(crate) enum Place {
    /// It runs.
    Runs(Launched),
    /// It does not, and is tried again.
    Returns(Returning),
}

/// A destination that does not run and is to.
#[derive(Debug)]
pub(crate) struct Returning {
    stop: CancellationToken,
    /// Its task has ended.
    over: CancellationToken,
    /// The one that did not stop in time. Two must not use one cursor.
    before: Option<Launched>,
}

impl Returning {
    /// Starts the destination when the one `before` it has ended, as often as it takes.
    pub(crate) fn begin(
        nozzle: &Arc<Nozzle>,
        config: DestinationConfig,
        before: Option<Launched>,
    ) -> Returning {
        let ended = before.as_ref().map(Launched::ended);
        let stop = nozzle.base.pipelines.token().child_token();
        let over = CancellationToken::new();
        let (nozzle, stopped, told) = (Arc::clone(nozzle), stop.clone(), over.clone());
        let name = format!("return of destination {}", config.name);
        nozzle.base.pipelines.clone().spawn(name, async move {
            let _told = told.drop_guard();
            if let Some(ended) = ended {
                tokio::select! {
                    () = ended.cancelled() => {}
                    () = stopped.cancelled() => return,
                }
            }
            come_back(&nozzle, &config, &stopped).await;
        });
        Returning { stop, over, before }
    }

    /// Gives it up. Nothing uses its cursor any more, unless the one before it still does, which is then the answer.
    pub(crate) async fn give_up(self) -> Result<(), Launched> {
        self.stop.cancel();
        self.over.cancelled().await;
        match self.before {
            Some(before) if !before.leave().await => Err(before),
            _ => Ok(()),
        }
    }
}

async fn come_back(nozzle: &Arc<Nozzle>, config: &DestinationConfig, stop: &CancellationToken) {
    let destination = config.name.as_str();
    let mut backoff = Backoff::new(FIRST, LONGEST);
    loop {
        match connect(nozzle, config).await {
            Ok(connected) => {
                // Who gives it up may hold the lock and wait for this.
                let mut launched = tokio::select! {
                    launched = nozzle.launched.lock() => launched,
                    () = stop.cancelled() => return connected.give_up().await,
                };
                let runs = Place::Runs(nozzle.base.launch(connected));
                launched.insert(config.name.clone(), runs);
                tracing::info!(destination, "it runs again, as before");
                return;
            }
            Err(error) => {
                let wait = backoff.next_delay();
                tracing::error!(
                    destination,
                    ?wait,
                    "it does not run, its events wait in the buffer; it is tried again: {error}"
                );
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = stop.cancelled() => return,
                }
            }
        }
    }
}

/// Starts the destination that this configures, without giving it anything yet.
pub(crate) async fn connect(
    nozzle: &Nozzle,
    config: &DestinationConfig,
) -> Result<Connected, String> {
    let planned = plan(config, &nozzle.kinds).map_err(|errors| errors.to_string())?;
    let connected = nozzle.base.connect(planned).await;
    connected.map_err(|error| error.to_string())
}
