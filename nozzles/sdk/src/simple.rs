//! A kind of destination in one `impl`, for nozzles that have no more to say than what they send.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use loggregator_envelope::KindSet;
use serde::de::DeserializeOwned;

use crate::config::{ConfigErrors, Section};
use crate::destination::{BoxFuture, Context, Destination, DynDestination, Reason, StartError};
use crate::event::Event;
use crate::kind::{Kind, Limits, Plan, Rendered};

/// Why a destination could not be started.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A destination that is a [`Kind`] by itself; see [`Kinds::with_simple`](crate::Kinds::with_simple).
pub trait Simple: Destination + Sized {
    /// Name of the kind.
    const NAME: &'static str;
    /// What it does, in one line.
    const ABOUT: &'static str;
    /// What it promises, see [`Plan::guarantee`].
    const GUARANTEE: &'static str;
    /// Its settings. They should refuse unknown fields.
    type Config: DeserializeOwned + fmt::Debug + Clone + Send + Sync + 'static;

    /// Starts it, see [`Plan::start`].
    ///
    /// # Errors
    /// Whatever keeps it from starting.
    fn start(
        config: Self::Config,
        context: Context,
    ) -> impl Future<Output = Result<Self, Error>> + Send;

    /// The bytes it sends for an event, see [`Plan::render`].
    ///
    /// # Errors
    /// Why it would reject the event.
    fn render(config: &Self::Config, event: &Event) -> Result<Vec<u8>, Reason>;

    /// The kinds of envelopes that it can do something with.
    #[must_use]
    fn accepts() -> KindSet {
        KindSet::ALL
    }

    /// What is good for it where the configuration is silent.
    #[must_use]
    fn limits() -> Limits {
        Limits::default()
    }
}

/// The kind of a [`Simple`] destination.
pub(crate) struct SimpleKind<S>(PhantomData<fn() -> S>);

impl<S> SimpleKind<S> {
    pub(crate) fn new() -> SimpleKind<S> {
        SimpleKind(PhantomData)
    }
}

struct SimplePlan<S: Simple> {
    config: S::Config,
}

impl<S: Simple> fmt::Debug for SimplePlan<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config.fmt(f)
    }
}

impl<S: Simple> Kind for SimpleKind<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn about(&self) -> &'static str {
        S::ABOUT
    }

    fn example(&self) -> &'static str {
        ""
    }

    fn plan(&self, section: &Section) -> Result<Box<dyn Plan>, ConfigErrors> {
        let config = section.read()?;
        Ok(Box::new(SimplePlan::<S> { config }))
    }
}

impl<S: Simple> Plan for SimplePlan<S> {
    fn guarantee(&self) -> String {
        S::GUARANTEE.to_owned()
    }

    fn limits(&self) -> Limits {
        S::limits()
    }

    fn accepts(&self) -> KindSet {
        S::accepts()
    }

    fn render(&self, event: &Event) -> Result<Vec<Rendered>, Reason> {
        let body = S::render(&self.config, event)?;
        Ok(vec![Rendered {
            fields: Vec::new(),
            body: body.into(),
        }])
    }

    fn start(
        &self,
        context: Context,
    ) -> BoxFuture<'_, Result<Arc<dyn DynDestination>, StartError>> {
        let destination = context.name.clone();
        let starting = S::start(self.config.clone(), context);
        Box::pin(async move {
            match starting.await {
                Ok(started) => Ok(Arc::new(started) as Arc<dyn DynDestination>),
                Err(source) => Err(StartError {
                    destination,
                    what: format!("{} did not start", S::NAME),
                    source: Some(source),
                }),
            }
        })
    }
}
