//! Kinds of destinations: `syslog`, `kafka`, …. A program lists the kinds that it knows in [`Kinds`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use loggregator_envelope::KindSet;

use crate::config::{ConfigErrors, Section};
use crate::destination::{BoxFuture, Context, DynDestination, Reason, StartError};
use crate::event::Event;

/// A kind of destination. In a configuration it is the sub-table of a `[[destination]]` that has its name.
pub trait Kind: Send + Sync + 'static {
    /// Its name: `syslog`.
    fn name(&self) -> &'static str;

    /// What it does, in one line, for `--help`.
    fn about(&self) -> &'static str;

    /// A complete `[[destination]]` with comments, for `nozzle example` and the documentation.
    fn example(&self) -> &'static str;

    /// Reads its section and checks it without touching the network. All errors at once.
    ///
    /// # Errors
    /// What is wrong with the section, with the places in the file.
    fn plan(&self, section: &Section) -> Result<Box<dyn Plan>, ConfigErrors>;
}

/// A destination that is configured and not started.
pub trait Plan: Send + Sync + fmt::Debug {
    /// What it promises, in one or two sentences: what is confirmed before the cursor moves, and what may be lost or come
    /// twice when. Shown by `nozzle check` and in the ledger.
    fn guarantee(&self) -> String;

    /// What is good for it where the configuration is silent.
    fn limits(&self) -> Limits;

    /// The kinds of envelopes that it can do something with. Others are not even looked at; they count as filtered.
    fn accepts(&self) -> KindSet {
        KindSet::ALL
    }

    /// What is allowed and probably not meant, as pairs of a key of its section and a sentence; shown by `nozzle check` and at
    /// the start.
    fn warnings(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// How long one delivery may take by its own limits. `retry.timeout` should be longer: a delivery that the framework gives
    /// up in the middle goes again as a whole. `nozzle check` warns of it. `None` where that does no harm.
    fn longest_delivery(&self) -> Option<Duration> {
        None
    }

    /// What it would send for this event; for tests in the configuration, `tap` and dry runs. Must be what `deliver` does,
    /// by calling the same code.
    ///
    /// # Errors
    /// Why the event would be rejected.
    fn render(&self, event: &Event) -> Result<Vec<Rendered>, Reason>;

    /// Starts it. It should not fail because the other side is away: that is for `deliver` to find out and tell.
    fn start(&self, context: Context)
    -> BoxFuture<'_, Result<Arc<dyn DynDestination>, StartError>>;

    /// Connects as `start` would and says whether the other side can be used; for `nozzle check --connect`. The default
    /// says that there is nothing to connect to.
    fn probe(&self) -> BoxFuture<'_, Result<String, Reason>> {
        Box::pin(async { Ok("nothing to connect to".to_owned()) })
    }
}

/// What is good for a destination where the configuration is silent, and what it cannot exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Events of a batch.
    pub batch_events: usize,
    /// Bytes of envelopes in a batch; a single bigger event goes alone.
    pub batch_bytes: usize,
    /// How long a batch that is not full waits for more.
    pub linger: Duration,
    /// Batches on their way at a time. Above 1 the destination keeps the order of events itself, or does not promise any.
    pub in_flight: usize,
}

impl Default for Limits {
    /// 1,000 events, 1 MiB, 50 ms, 1.
    fn default() -> Self {
        Limits {
            batch_events: 1000,
            batch_bytes: 1 << 20,
            linger: Duration::from_millis(50),
            in_flight: 1,
        }
    }
}

/// One thing that a destination sends: a syslog message, a Kafka record, a sample.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rendered {
    /// What stands beside the body, such as `topic` and `key`.
    pub fields: Vec<(&'static str, String)>,
    /// The bytes themselves.
    pub body: Bytes,
}

/// The kinds that a program knows.
#[derive(Clone, Default)]
pub struct Kinds {
    kinds: Vec<Arc<dyn Kind>>,
}

impl Kinds {
    /// None.
    #[must_use]
    pub fn new() -> Kinds {
        Kinds::default()
    }

    /// These and one more.
    #[must_use]
    pub fn with(mut self, kind: impl Kind) -> Kinds {
        self.kinds.push(Arc::new(kind));
        self
    }

    /// These and one that is a [`Simple`](crate::Simple) destination.
    #[must_use]
    pub fn with_simple<S: crate::Simple>(self) -> Kinds {
        self.with(crate::simple::SimpleKind::<S>::new())
    }

    /// The kind of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Kind>> {
        self.kinds.iter().find(|kind| kind.name() == name)
    }

    /// All of them, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Kind>> {
        self.kinds.iter()
    }
}

impl fmt::Debug for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.kinds.iter().map(|kind| kind.name()))
            .finish()
    }
}
