//! The nozzle for syslog: RFC 5424 over TCP, TLS, UDP and HTTPS, byte for byte as the platform's own agents write it.
//!
//! ```text
//! deliver ──► Formatter ──► Page ──► Link ──► Connection ──► receiver
//! a batch     messages      frames   order,   TCP or TLS,
//!                                    confirm  what is acknowledged
//! ```
//!
//! - [`format`](Format) says what a message looks like, `framing` how messages are told apart.
//! - Syslog has no acknowledgement. What the receiver's operating system has acknowledged, and what then stayed
//!   unbroken for `settle`, counts as delivered; everything else goes again after a break, in order.
//! - An event that has no form in the chosen format goes to the dead letters with the reason, and its neighbours are
//!   delivered: `oversize`, `invalid_utf8`, `invalid_tag`, `invalid_source_id`, `invalid_instance_id`, `invalid_hostname`,
//!   `no_v1_form`. Settings say what else may become of it.
//! - With `oversize = "split"` a log is sent as several messages with the same header, each with an element
//!   `[part@47450 n="1" of="3"]` before the others.

mod config;
mod connection;
mod counts;
mod endpoint;
mod format;
mod gate;
mod https;
mod link;
mod outstanding;
mod page;
mod stream;
#[cfg(test)]
mod testing;
mod udp;

use std::sync::Arc;
use std::time::Duration;

use loggregator_nozzle::config::{ConfigErrors, Section};
use loggregator_nozzle::{
    BoxFuture, Context, DynDestination, Event, Kind, Limits, Plan, Reason, Rendered, StartError,
    answers,
};

pub use config::Endpoints;
pub use format::{Format, InvalidName, InvalidUtf8, LineBreaks, Oversize};
pub use page::Framing;

use config::Settings;
use connection::Connection;
use endpoint::Transport;
use format::Formatter;
use page::{Page, Prefix};

/// The kind `syslog`.
#[derive(Debug, Clone, Copy)]
pub struct SyslogKind;

impl Kind for SyslogKind {
    fn name(&self) -> &'static str {
        "syslog"
    }

    fn about(&self) -> &'static str {
        "syslog receivers over TCP, TLS, UDP or HTTPS: RFC 5424, RFC 3164, or the JSON of firehose-to-syslog"
    }

    fn example(&self) -> &'static str {
        include_str!("example.toml")
    }

    fn plan(&self, section: &Section) -> Result<Box<dyn Plan>, ConfigErrors> {
        Ok(Box::new(SyslogPlan(Settings::read(section)?)))
    }
}

#[derive(Debug)]
struct SyslogPlan(Settings);

impl Plan for SyslogPlan {
    fn guarantee(&self) -> String {
        let settle = self.0.connection.settle;
        match self.0.transport {
            Transport::Udp => "at most once: an event counts as delivered when the operating system has taken its \
                datagrams; what the network or the receiver drops is lost"
                .to_owned(),
            Transport::Https | Transport::HttpsBatch => {
                "at least once, in order per source: an event counts as delivered when the server answered its request with \
                a 2xx status; a request whose answer was lost goes again"
                    .to_owned()
            }
            _ => format!(
                "at least once, in order per source: an event counts as delivered when the receiver's system has \
                acknowledged it and the connection then stood for {settle:?}; what was not confirmed goes again after a break \
                and may come twice. Lost is what a receiver that dies had acknowledged more than {settle:?} before and not \
                yet stored"
            ),
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            batch_events: match self.0.transport {
                // Requests one after the other: what a batch takes must end well before `retry.timeout`.
                Transport::Https => 100,
                // A confirmation takes `settle`, however much it confirms: few and large batches.
                _ => 4000,
            },
            batch_bytes: 1 << 20,
            linger: Duration::from_millis(50),
            in_flight: match self.0.transport {
                Transport::Tcp | Transport::Tls => 32,
                _ => 1,
            },
        }
    }

    fn longest_delivery(&self) -> Option<Duration> {
        let connection = &self.0.connection;
        let request = connection.connect_timeout + connection.write_timeout;
        match self.0.transport {
            Transport::Https => Some(answers::LONGEST_POSTING + request),
            Transport::HttpsBatch => Some(request),
            Transport::Tcp | Transport::Tls => Some(request + connection.settle),
            Transport::Udp => None,
        }
    }

    fn render(&self, event: &Event) -> Result<Vec<Rendered>, Reason> {
        let settings = &self.0;
        let mut page = Page::new(Prefix::None);
        Formatter::new(settings.format, settings.policy.clone()).write(event, &mut page)?;
        let rendered = page.messages().map(|message| Rendered {
            fields: Vec::new(),
            body: message.to_vec().into(),
        });
        Ok(rendered.collect())
    }

    fn start(
        &self,
        context: Context,
    ) -> BoxFuture<'_, Result<Arc<dyn DynDestination>, StartError>> {
        Box::pin(async move {
            let settings = self.0.clone();
            if let Some(tls) = &settings.tls {
                let watch = Arc::clone(&tls.client).watch(RELOAD, context.lifecycle.token());
                let name = format!("certificates of {}", context.name);
                context.lifecycle.spawn(name, watch);
            }
            let destination: Arc<dyn DynDestination> = match settings.transport {
                Transport::Udp => Arc::new(udp::Udp::new(settings, &context)),
                Transport::Https | Transport::HttpsBatch => {
                    Arc::new(https::Https::new(settings, &context))
                }
                _ => Arc::new(stream::Stream::start(settings, &context)),
            };
            Ok(destination)
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<String, Reason>> {
        Box::pin(probe(&self.0))
    }
}

/// How often certificates are looked at for changes.
const RELOAD: Duration = Duration::from_secs(10);

/// How long a receiver has to refuse a connection that it has taken: with TLS 1.3 it sees the client's certificate only then.
const REFUSAL: Duration = Duration::from_millis(300);

async fn probe(settings: &Settings) -> Result<String, Reason> {
    let mut found = Vec::new();
    for endpoint in &settings.endpoints {
        if settings.transport == Transport::Udp {
            let socket = udp::open(endpoint).await;
            socket.map_err(|error| Reason::new("connect", format!("{endpoint}: {error}")))?;
            found.push(format!(
                "{endpoint}: has an address; whether it listens cannot be known"
            ));
            continue;
        }
        if let Some(found_there) = https::probe(settings, endpoint).await? {
            found.push(found_there);
            continue;
        }
        let opened = Connection::open(endpoint, settings.tls.as_ref(), &settings.connection).await;
        let mut connection =
            opened.map_err(|error| Reason::new(error.code(), error.to_string()))?;
        if let Ok(error) = tokio::time::timeout(REFUSAL, connection.closed()).await {
            return Err(Reason::new("refused", format!("{endpoint}: {error}")));
        }
        found.push(format!("{endpoint}: {}", connection.protocol()));
        connection.goodbye().await;
    }
    Ok(found.join("; "))
}
