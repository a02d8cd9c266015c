//! The nozzle for anything that takes events over HTTP: one request per batch, or per event.
//!
//! URL and headers are templates. Events that lead to different requests are grouped; order holds within each group. What
//! an answer means stands at [`answers::judge`].

mod config;
mod request;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use loggregator_net::http::client::Kept;
use loggregator_nozzle::config::{ConfigErrors, Section};
use loggregator_nozzle::{
    Batch, BoxFuture, Context, Delivery, Destination, DynDestination, Event, Kind, Limits, Outcome,
    Plan, Reason, Rendered, StartError, answers,
};
use tokio::time::Instant;

pub use config::{Body, Compression};

use config::Settings;
use request::{Group, groups};

/// The kind `http`.
#[derive(Debug, Clone, Copy)]
pub struct HttpKind;

/// How often certificates are looked at for changes.
const RELOAD: Duration = Duration::from_secs(10);

impl Kind for HttpKind {
    fn name(&self) -> &'static str {
        "http"
    }

    fn about(&self) -> &'static str {
        "anything that takes events over HTTP: JSON, lines of JSON, text, protobuf"
    }

    fn example(&self) -> &'static str {
        include_str!("example.toml")
    }

    fn plan(&self, section: &Section) -> Result<Box<dyn Plan>, ConfigErrors> {
        Ok(Box::new(HttpPlan(Settings::read(section)?)))
    }
}

#[derive(Debug)]
struct HttpPlan(Settings);

impl Plan for HttpPlan {
    fn guarantee(&self) -> String {
        "At least once: an event counts as delivered when the server answered its request with a 2xx status; a request \
        whose answer was lost goes again. In order per source while one batch is on its way at a time, which is the default."
            .to_owned()
    }

    fn limits(&self) -> Limits {
        let limits = Limits::default();
        Limits {
            // Requests one after the other: what a batch takes must end well before `retry.timeout`.
            batch_events: if self.0.single {
                100
            } else {
                limits.batch_events
            },
            ..limits
        }
    }

    fn longest_delivery(&self) -> Option<Duration> {
        let settings = &self.0;
        let one = settings.fixed() && !settings.single;
        let before = if one {
            Duration::ZERO
        } else {
            answers::LONGEST_POSTING
        };
        Some(before + settings.timeout)
    }

    fn render(&self, event: &Event) -> Result<Vec<Rendered>, Reason> {
        let target = self.0.target(event)?;
        Ok(vec![Rendered {
            fields: vec![("url", target.uri.to_string())],
            body: self.0.body.of(&[event], true).into(),
        }])
    }

    fn start(
        &self,
        context: Context,
    ) -> BoxFuture<'_, Result<Arc<dyn DynDestination>, StartError>> {
        Box::pin(async move {
            let settings = self.0.clone();
            if let Some(tls) = &settings.client.tls {
                let watch = Arc::clone(tls).watch(RELOAD, context.lifecycle.token());
                let name = format!("certificates of {}", context.name);
                context.lifecycle.spawn(name, watch);
            }
            let destination: Arc<dyn DynDestination> = Arc::new(Http {
                client: Kept::new(settings.client.clone()),
                settings,
            });
            Ok(destination)
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<String, Reason>> {
        Box::pin(async move {
            let Some(request) = self.0.probe()? else {
                return Ok("the URL depends on the event".to_owned());
            };
            let deadline = Instant::now() + self.0.timeout;
            match self.0.client.send(request, deadline).await {
                Ok(answer) => Ok(format!("answers with status {}", answer.status)),
                Err(error) => Err(Reason::new("connect", error.to_string())),
            }
        })
    }
}

struct Http {
    settings: Settings,
    client: Kept,
}

impl Http {
    async fn post(&self, group: &Group<'_>) -> Delivery {
        let request = match self.settings.request(group) {
            Ok(request) => request,
            Err(why) => return Delivery::Retry { why, after: None },
        };
        let deadline = Instant::now() + self.settings.timeout;
        let answer = self.client.send(request, deadline).await;
        answers::judge(&answer, group.events.len())
    }
}

impl Destination for Http {
    async fn deliver(&self, batch: &Batch) -> Delivery {
        let (groups, rejected) = groups(&self.settings, batch.events());
        if let ([group], true) = (groups.as_slice(), rejected.is_empty()) {
            return self.post(group).await;
        }
        let begun = Instant::now();
        let mut decided: Vec<Option<Outcome>> = vec![None; batch.len()];
        for (at, why) in rejected {
            decided[at] = Some(Outcome::Rejected(why));
        }
        let mut left = VecDeque::from(groups);
        let (mut why_left, mut pause) = (Reason::new("not_sent", ""), None);
        while let Some(group) = left.pop_front() {
            let any = decided.iter().any(Option::is_some);
            if any && begun.elapsed() >= answers::LONGEST_POSTING {
                why_left = answers::out_of_time();
                break;
            }
            let count = group.events.len();
            let outcomes = match self.post(&group).await {
                Delivery::All => vec![Outcome::Delivered; count],
                Delivery::Each(each) | Delivery::Paused { each, .. } => each,
                // Nobody is there: for none of them.
                Delivery::Retry { why, .. } if !any && answers::unreachable(&why) => {
                    return Delivery::retry(why);
                }
                Delivery::Retry { why, after } => {
                    // What follows must not overtake it.
                    left.clear();
                    (why_left, pause) = (why.clone(), after);
                    vec![Outcome::again(why, after); count]
                }
                Delivery::Refused(_) | Delivery::TooLarge(_) if count > 1 => {
                    // Refused as a whole: event by event.
                    for at in (0..count).rev() {
                        left.push_front(group.only(at));
                    }
                    continue;
                }
                Delivery::Refused(why) => vec![Outcome::Rejected(why)],
                Delivery::TooLarge(why) => vec![Outcome::Oversize(why)],
            };
            for (at, outcome) in group.places.iter().zip(outcomes) {
                decided[*at] = Some(outcome);
            }
        }
        let outcome =
            |decided: Option<Outcome>| decided.unwrap_or_else(|| Outcome::Later(why_left.clone()));
        Delivery::each(decided.into_iter().map(outcome).collect(), pause)
    }
}
