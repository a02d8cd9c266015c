//! The nozzle for anything that takes events over HTTP: one request per batch, or per event.
//!
//! URL and headers are templates. Events that lead to different requests are grouped; order holds within each group. What
//! an answer means stands at [`answers::judge`].

mod config;
mod request;

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
        Limits::default()
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

    /// What became of each event of a group. One that is refused as a whole is sent event by event.
    async fn post_each(&self, group: &Group<'_>) -> Vec<Outcome> {
        let count = group.events.len();
        let (refused, too_large) = match self.post(group).await {
            Delivery::All => return vec![Outcome::Delivered; count],
            Delivery::Each(outcomes) => return outcomes,
            Delivery::Retry { why, .. } => return vec![Outcome::Retry(why); count],
            Delivery::Refused(why) => (why, false),
            Delivery::TooLarge(why) => (why, true),
        };
        match count {
            0 | 1 if too_large => vec![Outcome::Oversize(refused)],
            0 | 1 => vec![Outcome::Rejected(refused)],
            _ => {
                let mut outcomes = Vec::with_capacity(count);
                for at in 0..count {
                    outcomes.extend(Box::pin(self.post_each(&group.only(at))).await);
                }
                outcomes
            }
        }
    }
}

impl Destination for Http {
    async fn deliver(&self, batch: &Batch) -> Delivery {
        let (groups, rejected) = groups(&self.settings, batch.events());
        if let ([group], true) = (groups.as_slice(), rejected.is_empty()) {
            return self.post(group).await;
        }
        let lost = Reason::new("not_sent", "");
        let mut outcomes = vec![Outcome::Retry(lost); batch.len()];
        for (at, why) in rejected {
            outcomes[at] = Outcome::Rejected(why);
        }
        for group in &groups {
            let each = self.post_each(group).await;
            for (at, outcome) in group.places.iter().zip(each) {
                outcomes[*at] = outcome;
            }
        }
        Delivery::Each(outcomes)
    }
}
