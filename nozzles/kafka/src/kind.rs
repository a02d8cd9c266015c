//! The kind `kafka`.

use std::sync::Arc;
use std::time::Duration;

use loggregator_envelope::KindSet;
use loggregator_nozzle::config::{ConfigErrors, Section};
use loggregator_nozzle::{
    BoxFuture, BufferIdentity, Context, DynDestination, Event, Kind, Limits, Outcome, Plan, Reason,
    Rendered, StartError,
};

use crate::config::{Config, Guarantee};
use crate::context::Shared;
use crate::producer::{Common, Producer};
use crate::record::{Identity, Mapping, Room};
use crate::subject::Subject;
use crate::topic::Known;
use crate::transaction::Transactions;
use crate::{client, probe, stats};

/// The kind `kafka`.
#[derive(Debug, Clone, Copy)]
pub struct KafkaKind;

const EXAMPLE: &str = include_str!("example.toml");

impl Kind for KafkaKind {
    fn name(&self) -> &'static str {
        "kafka"
    }

    fn about(&self) -> &'static str {
        "topics of Apache Kafka, at least once or exactly once"
    }

    fn example(&self) -> &'static str {
        EXAMPLE
    }

    fn plan(&self, section: &Section) -> Result<Box<dyn Plan>, ConfigErrors> {
        let config: Config = section.read()?;
        let mut wrong = Vec::new();
        client::check(&config, &mut wrong);
        let mapping = Mapping::new(&config, &mut wrong);
        let errors = wrong
            .into_iter()
            .map(|(key, message)| section.error(&key, message));
        let errors = errors.reduce(|mut all, next| {
            all.errors.extend(next.errors);
            all
        });
        match errors {
            Some(errors) => Err(errors),
            None => Ok(Box::new(KafkaPlan { config, mapping })),
        }
    }
}

#[derive(Debug)]
struct KafkaPlan {
    config: Config,
    mapping: Mapping,
}

impl Plan for KafkaPlan {
    fn guarantee(&self) -> String {
        match self.config.delivery {
            Guarantee::AtLeastOnce => {
                "at least once from the buffer on, in order per key: an event counts as delivered when all in-sync \
                 replicas have it; events that were not confirmed come twice after a crash of the nozzle or a fatal error of \
                 the client"
            }
            Guarantee::ExactlyOnce => {
                "exactly once from the buffer on, in order per key, for readers with isolation.level=read_committed: \
                 events and the place in the buffer are committed in one transaction"
            }
        }
        .to_owned()
    }

    fn warnings(&self) -> Vec<(String, String)> {
        client::warnings(&self.config)
    }

    fn limits(&self) -> Limits {
        match self.config.delivery {
            // The client itself makes batches; these only have to keep it busy.
            Guarantee::AtLeastOnce => Limits {
                batch_events: 2000,
                batch_bytes: 1 << 20,
                linger: Duration::from_millis(5),
                in_flight: 8,
            },
            // A transaction costs two round trips, and there is one at a time.
            Guarantee::ExactlyOnce => Limits {
                batch_events: 20_000,
                batch_bytes: 8 << 20,
                linger: Duration::from_millis(100),
                in_flight: 1,
            },
        }
    }

    fn accepts(&self) -> KindSet {
        self.mapping.accepts()
    }

    fn render(&self, event: &Event) -> Result<Vec<Rendered>, Reason> {
        let identity = Identity::new("nozzle", BufferIdentity::new("buffer"));
        let mut room = Room::default();
        let subject = Subject::new(event);
        let content = self.mapping.content(&subject, &identity, &mut room);
        let (key, values) = content.map_err(|outcome| match outcome {
            Outcome::Rejected(why)
            | Outcome::Oversize(why)
            | Outcome::Retry(why)
            | Outcome::Later(why) => why,
            Outcome::Delivered => Reason::new("delivered", ""),
        })?;
        let topic = self.mapping.topics.of(&subject)?;
        let record = |part: usize| {
            let mut fields = vec![("topic", topic.clone().into_owned())];
            if let Some(key) = &key {
                fields.push(("key", key.clone().into_owned()));
            }
            fields.push(("timestamp", Mapping::timestamp(&subject).to_string()));
            self.mapping
                .headers(&subject, &identity, part, |name, value| {
                    fields.push((name, value.to_owned()));
                });
            Rendered {
                fields,
                body: values.get(part).to_vec().into(),
            }
        };
        Ok((0..values.len()).map(record).collect())
    }

    fn start(
        &self,
        context: Context,
    ) -> BoxFuture<'_, Result<Arc<dyn DynDestination>, StartError>> {
        Box::pin(async move {
            let name = context.name.clone();
            let shared = Arc::new(Shared::default());
            let known = Arc::new(Known::new(&self.config));
            stats::publish(&context.metrics, &name, &shared, &known);
            let common = Common {
                config: self.config.clone(),
                // It was read without a fault once.
                mapping: Mapping::new(&self.config, &mut Vec::new()),
                identity: Identity::new(&context.nozzle, context.buffer),
                known,
                shared,
                nozzle: context.nozzle,
                name: context.name,
            };
            let failed = |why: Reason| StartError {
                destination: name.clone(),
                what: format!("no client of Kafka: {why}"),
                source: None,
            };
            let destination: Arc<dyn DynDestination> = match self.config.delivery {
                Guarantee::AtLeastOnce => {
                    Arc::new(Producer::start(common, &context.lifecycle).map_err(failed)?)
                }
                Guarantee::ExactlyOnce => Arc::new(Transactions::new(common)),
            };
            Ok(destination)
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<String, Reason>> {
        Box::pin(probe::probe(&self.config, self.mapping.topics.constants()))
    }
}
