//! What a client calls back: delivery reports, its log, its errors, its statistics, and for tokens.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use loggregator_nozzle::Reason;
use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{NoCustomPartitioner, ProducerContext};
use tokio::sync::Notify;

use crate::config::OAuth;
use crate::oauth;
use crate::outcome;
use crate::pending::Ticket;
use crate::stats::Stats;

/// What a client and its owner share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// What went wrong last; cleared by the next confirmed record.
    trouble: Mutex<Option<Reason>>,
    /// Whether there is any: a look that costs no lock.
    troubled: AtomicBool,
    /// Told of every report, for who waits for room in the client's queue.
    pub room: Notify,
    /// Told when a client can no longer be used.
    pub fatal: Notify,
    pub stats: Stats,
}

impl Shared {
    /// What went wrong last, if nothing was confirmed since.
    pub(crate) fn trouble(&self) -> Option<Reason> {
        self.trouble.lock().clone()
    }

    fn set_trouble(&self, trouble: Reason) {
        self.stats.error(trouble.code.clone());
        *self.trouble.lock() = Some(trouble);
        self.troubled.store(true, Ordering::Release);
    }

    /// Something arrived.
    pub(crate) fn well(&self) {
        if self.troubled.swap(false, Ordering::AcqRel) {
            *self.trouble.lock() = None;
        }
    }
}

/// The callbacks of one client.
pub(crate) struct Callbacks {
    destination: String,
    oauth: Option<OAuth>,
    shared: Arc<Shared>,
}

impl Callbacks {
    pub(crate) fn new(destination: &str, oauth: Option<OAuth>, shared: Arc<Shared>) -> Callbacks {
        Callbacks {
            destination: destination.to_owned(),
            oauth,
            shared,
        }
    }
}

impl ClientContext for Callbacks {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let destination = self.destination.as_str();
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => {
                tracing::error!(destination, facility, "librdkafka: {message}");
            }
            RDKafkaLogLevel::Warning => {
                tracing::warn!(destination, facility, "librdkafka: {message}");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(destination, facility, "librdkafka: {message}");
            }
            RDKafkaLogLevel::Debug => {
                tracing::debug!(destination, facility, "librdkafka: {message}");
            }
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        if let Err(error) = self.shared.stats.take(statistics) {
            tracing::warn!(destination = self.destination, %error, "statistics of librdkafka cannot be read");
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let KafkaError::Global(Code::PartitionEOF) = error {
            return;
        }
        let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
        tracing::warn!(destination = self.destination, ?code, "kafka: {reason}");
        // That all brokers are down follows from what was told of each of them.
        if code != Code::AllBrokersDown || self.shared.trouble().is_none() {
            let trouble = Reason::new(outcome::of_client(code), reason);
            self.shared.set_trouble(trouble);
        }
        if code == Code::Fatal {
            self.shared.fatal.notify_one();
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let oauth = self.oauth.as_ref().ok_or("no oauth is configured")?;
        oauth::token(oauth).map_err(|error| {
            tracing::warn!(destination = self.destination, %error, "no token");
            self.shared
                .set_trouble(Reason::new(outcome::AUTHENTICATION, error.to_string()));
            error.into()
        })
    }
}

/// The reader of cursors has nothing to say about groups.
impl ConsumerContext for Callbacks {}

impl ProducerContext<NoCustomPartitioner> for Callbacks {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let code = match result {
            Ok(_) => {
                self.shared.well();
                Code::NoError
            }
            Err((error, _)) => error.rdkafka_error_code().unwrap_or(Code::Fail),
        };
        ticket.report(code);
        if code == Code::Fatal {
            self.shared.fatal.notify_one();
        }
        self.shared.room.notify_waiters();
    }
}
