//! Whether the cluster can be used; for `nozzle check --connect`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use loggregator_nozzle::Reason;
use rdkafka::producer::{Producer as _, ThreadedProducer};

use crate::client;
use crate::config::Config;
use crate::context::{Callbacks, Shared};
use crate::outcome;

/// What a probe may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Asks for the cluster's brokers and topics, and says which of `topics` there are.
///
/// # Errors
/// When no broker answers.
pub(crate) async fn probe(
    config: &Config,
    topics: impl Iterator<Item = &str>,
) -> Result<String, Reason> {
    let wanted: BTreeSet<String> = topics.map(str::to_owned).collect();
    let mut settings = client::settings(config, "loggregator-nozzle-check")?;
    settings.set("statistics.interval.ms", "0");
    let shared = Arc::new(Shared::default());
    let oauth = config.sasl.as_ref().and_then(|sasl| sasl.oauth.clone());
    let callbacks = Callbacks::new("check", oauth, Arc::clone(&shared));
    let failed = |code: &'static str, detail: String| Reason::new(code, detail);
    let asked = tokio::task::spawn_blocking(move || {
        let client: ThreadedProducer<Callbacks> = settings
            .create_with_context(callbacks)
            .map_err(|error| failed(outcome::OTHER, error.to_string()))?;
        match client.client().fetch_metadata(None, TIMEOUT) {
            Ok(metadata) => Ok(tell(&metadata, &wanted)),
            Err(error) => Err(shared
                .trouble()
                .unwrap_or_else(|| failed(outcome::CONNECT, error.to_string()))),
        }
    });
    asked
        .await
        .unwrap_or_else(|error| Err(failed(outcome::OTHER, error.to_string())))
}

fn tell(metadata: &rdkafka::metadata::Metadata, wanted: &BTreeSet<String>) -> String {
    let mut brokers: Vec<String> = metadata
        .brokers()
        .iter()
        .map(|broker| format!("{}:{}", broker.host(), broker.port()))
        .collect();
    brokers.sort();
    let plural = if brokers.len() == 1 { "" } else { "s" };
    let mut text = format!("{} broker{plural} ({})", brokers.len(), brokers.join(", "));
    for name in wanted {
        let topic = metadata.topics().iter().find(|topic| topic.name() == name);
        match topic.map(|topic| topic.partitions().len()) {
            Some(n) if n > 0 => write!(text, "; topic {name}: {n} partitions").ok(),
            _ => write!(text, "; topic {name}: not there yet").ok(),
        };
    }
    text
}
