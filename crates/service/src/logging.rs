//! Process logs: `tracing` to standard error.
//!
//! Library code uses `tracing` and nothing else. A program calls [`init`] once, keeps the returned [`Guard`] until its
//! end (dropping it writes out what is queued), and may change the filter while it runs through [`control`].
//!
//! - Lines go through a bounded queue to a thread of their own, so that a terminal or pipe that does not read cannot
//!   stop the data plane; what does not fit is counted ([`Control::dropped`]).
//! - A place in the code that logs more than [`Config::burst`] lines in [`Config::window`] is silenced for the rest of
//!   the window and the lines left out are counted, in the log itself and in [`Control::suppressed`]. `debug` and
//!   `trace` are not limited: whoever turns them on wants them.

mod format;
mod rate;
mod writer;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Registry, fmt};

pub use format::Format;
pub use writer::Guard;

use crate::config::{Env, Errors, Reader, Setting};
use rate::RateLimit;

/// How to log.
#[derive(Debug, Clone)]
pub struct Config {
    /// Shape of a line.
    pub format: Format,
    /// What to log, in the syntax of `tracing_subscriber::EnvFilter`: `info`, `warn,doppler=debug`.
    pub filter: String,
    /// Lines that one place in the code may log per window.
    pub burst: u32,
    /// The window.
    pub window: Duration,
}

impl Config {
    /// Reads [`SETTINGS`].
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn from_env(env: &dyn Env) -> Result<Self, Errors> {
        let mut reader = Reader::new(env, SETTINGS);
        let config = Self {
            filter: reader.value("LOG_LEVEL"),
            format: reader.value("LOG_FORMAT"),
            burst: reader.value("LOG_BURST"),
            ..Self::default()
        };
        if let Err(error) = parse_filter(&config.filter) {
            reader.reject("LOG_LEVEL", &crate::lifecycle::chain(&error));
        }
        reader.finish(config)
    }
}

impl Default for Config {
    /// Text at level `info`; 20 lines per place in 10 s.
    fn default() -> Self {
        Self {
            format: Format::Text { color: false },
            filter: "info".into(),
            burst: 20,
            window: Duration::from_secs(10),
        }
    }
}

/// The settings of the process log, the same for every program.
pub const SETTINGS: &[Setting] = &[
    Setting::new(
        "LOG_LEVEL",
        "info",
        "What to log: a level (error, warn, info, debug, trace), or levels per target such as `info,doppler=debug`. \
         Can be changed while the program runs by POST /log-level.",
    ).takes("LEVEL"),
    Setting::new(
        "LOG_FORMAT",
        "text",
        "Shape of a log line: `text`, `json`, `go` (local time and message, as the platform's Go programs), `go-seconds` \
         or `go-rfc3339`.",
    ).takes("FORMAT"),
    Setting::new(
        "LOG_BURST",
        "20",
        "Lines that one place in the code may log in 10 s; more are left out and counted. `debug` and `trace` are not \
         limited.",
    ),
];

/// Logging could not be set up, or a filter not be set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter cannot be understood.
    #[error("log filter {filter:?}")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// The process already has a subscriber.
    #[error("logging is already set up")]
    AlreadySet(#[source] TryInitError),
    /// The subscriber is gone.
    #[error("the log filter cannot be replaced")]
    Reload(#[source] reload::Error),
    /// The thread that writes could not be started.
    #[error("log writer thread")]
    Thread(#[source] std::io::Error),
}

/// The process's log, while it runs.
#[derive(Clone)]
pub struct Control {
    filter: reload::Handle<EnvFilter, Registry>,
    rate: Arc<RateLimit>,
    queue: writer::Queue,
}

static CONTROL: OnceLock<Control> = OnceLock::new();

/// Sets up logging for this process. Keep the guard until the end of `main`.
///
/// # Errors
/// When the filter cannot be understood or the process already logs.
pub fn init(config: &Config) -> Result<Guard, Error> {
    let (filter, handle) = reload::Layer::new(parse_filter(&config.filter)?);
    let rate = Arc::new(RateLimit::new(config.burst, config.window));
    // Before the writer's thread: the local time zone can only be asked for while there is one thread.
    let form = format::Lines::new(config.format, Arc::clone(&rate));
    let (queue, guard) = writer::start(std::io::stderr()).map_err(Error::Thread)?;
    tracing_subscriber::registry()
        .with(filter)
        .with(lines(form, config, queue.clone(), Arc::clone(&rate)))
        .try_init()
        .map_err(Error::AlreadySet)?;
    CONTROL
        .set(Control {
            filter: handle,
            rate,
            queue,
        })
        .ok();
    Ok(guard)
}

/// The log of this process; `None` before [`init`].
#[must_use]
pub fn control() -> Option<&'static Control> {
    CONTROL.get()
}

impl Control {
    /// Replaces the filter.
    ///
    /// # Errors
    /// When it cannot be understood.
    pub fn set_filter(&self, filter: &str) -> Result<(), Error> {
        self.filter
            .reload(parse_filter(filter)?)
            .map_err(Error::Reload)
    }

    /// The filter in effect.
    #[must_use]
    pub fn filter(&self) -> String {
        self.filter
            .with_current(ToString::to_string)
            .unwrap_or_default()
    }

    /// Lines left out by the rate limit so far.
    #[must_use]
    pub fn suppressed(&self) -> u64 {
        self.rate.suppressed()
    }

    /// Lines lost so far because standard error did not take them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }
}

/// The layer that formats, limits and writes.
fn lines<S>(
    form: format::Lines,
    config: &Config,
    queue: writer::Queue,
    rate: Arc<RateLimit>,
) -> impl tracing_subscriber::Layer<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    fmt::layer()
        .with_writer(queue)
        .event_format(form)
        .with_ansi(matches!(config.format, Format::Text { color: true }))
        .with_filter(rate::Admit(rate))
}

fn parse_filter(filter: &str) -> Result<EnvFilter, Error> {
    EnvFilter::builder()
        .parse(filter)
        .map_err(|source| Error::Filter {
            filter: filter.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests;
