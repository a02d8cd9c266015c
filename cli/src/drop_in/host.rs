//! Runs a program that stands in for a Go one, from its command line to its exit code.

use super::command_line::{self, Asked};
use super::faults::{Fault, Faults};
use super::go_env::{Program, Values};
use super::{pprof, report};
use crate::limits;
use loggregator_service::config::{Env, ProcessEnv};
use loggregator_service::lifecycle::StopReason;
use loggregator_service::{Lifecycle, logging};
use std::future::Future;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;
use time::OffsetDateTime;
use time::macros::format_description;

/// Exit code when the process cannot have what every process needs.
const EXIT_FAILED: u8 = 1;

/// Lines that one place in the code may log in 10 s unless `LOG_BURST` says otherwise. The Go programs know no limit, and one
/// place logs a line for each doppler.
const BURST: u32 = 200;

/// One of the programs.
pub trait DropIn {
    /// Its table.
    const PROGRAM: Program;
    /// The settings of our stage.
    type Config: Send;

    /// Makes the stage's settings of the variables, and checks the files that they name. Everything that is wrong goes to
    /// `faults`; then the result is not used.
    fn read(values: &Values<'_>, faults: &mut Faults) -> Self::Config;

    /// Worker threads; `None`: one per processor.
    fn workers(_: &Self::Config) -> Option<NonZeroUsize> {
        None
    }

    /// How long a stop may take.
    fn drain(config: &Self::Config) -> Duration;

    /// Starts the stage, and logs what the Go program logs until its port is open.
    fn start(
        config: Self::Config,
        lifecycle: &Lifecycle,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Logs what the Go program logs when it is told to stop.
    fn stopping() {}
}

/// The program, from its arguments and its environment.
pub fn main<P: DropIn>() -> ExitCode {
    let program = &P::PROGRAM;
    match command_line::read(program, std::env::args().skip(1)) {
        Asked::Run => {}
        Asked::Print(text) => {
            return match std::io::stdout().write_all(text.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::from(EXIT_FAILED),
            };
        }
        Asked::Refused(exit, text) => {
            say(&format!("{text}\n"));
            return ExitCode::from(exit);
        }
    }
    limits::raise_open_files();
    let env = ProcessEnv;
    let mut faults = Faults::new(program);
    let values = Values::read(program, &env, &mut faults);
    let config = P::read(&values, &mut faults);
    let pprof_port = values.port32(program.pprof_port, &mut faults, pprof::fault);
    let log = log_config(program, &values, &mut faults);
    if let Some(exit) = faults.exit() {
        return refuse(&faults, exit, &log);
    }
    say(&report::render(program, &values));
    match logging::init(&log) {
        Ok(_guard) => run::<P>(config, pprof_port),
        Err(error) => {
            say(&format!("{error}\n"));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// The form of the log lines, and what is logged.
fn log_config(program: &Program, values: &Values<'_>, faults: &mut Faults) -> logging::Config {
    let known = command_line::log_settings();
    let shown = LogVariables(values.env(), &known);
    let mut log = logging::Config::from_env(&shown).unwrap_or_else(|errors| {
        for error in errors.0 {
            faults.config(error);
        }
        logging::Config::default()
    });
    if values.env().get("LOG_BURST").is_none() {
        log.burst = BURST;
    }
    log.format = if values.flag("USE_RFC339") {
        logging::Format::GoRfc3339
    } else if program.seconds_only {
        logging::Format::GoSeconds
    } else {
        logging::Format::Go
    };
    log
}

/// The variables of the process log alone.
struct LogVariables<'a>(&'a dyn Env, &'a [loggregator_service::config::Setting]);

impl Env for LogVariables<'_> {
    fn get(&self, name: &str) -> Option<std::ffi::OsString> {
        let known = self.1.iter().any(|setting| setting.name == name);
        known.then(|| self.0.get(name)).flatten()
    }
}

/// Tells everything that is wrong: what the Go program finds before it knows the form of its lines in the form of Go's
/// standard logger, the rest in the chosen one.
fn refuse(faults: &Faults, exit: u8, log: &logging::Config) -> ExitCode {
    let (early, late): (Vec<&Fault>, Vec<&Fault>) =
        faults.found().iter().partition(|fault| fault.early);
    for fault in early {
        say(&format!("{} {}\n", seconds(), fault.text));
    }
    match logging::init(log) {
        Ok(_guard) => late
            .iter()
            .for_each(|fault| tracing::error!("{}", fault.text)),
        Err(_) => late
            .iter()
            .for_each(|fault| say(&format!("{} {}\n", seconds(), fault.text))),
    }
    ExitCode::from(exit)
}

/// Local time as Go's standard logger writes it.
fn seconds() -> String {
    let now = OffsetDateTime::now_local().unwrap_or_else(|_| OffsetDateTime::now_utc());
    let form = format_description!("[year]/[month]/[day] [hour]:[minute]:[second]");
    now.format(form).unwrap_or_default()
}

fn run<P: DropIn>(config: P::Config, pprof_port: u16) -> ExitCode {
    match crate::runtime(P::workers(&config).map(NonZeroUsize::get)) {
        Ok(runtime) => runtime.block_on(serve::<P>(config, pprof_port)),
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

async fn serve<P: DropIn>(config: P::Config, pprof_port: u16) -> ExitCode {
    let lifecycle = Lifecycle::new();
    if let Err(error) = lifecycle.watch_signals() {
        tracing::error!("cannot watch for signals: {error}");
        return ExitCode::from(EXIT_FAILED);
    }
    let drain = P::drain(&config);
    let started = async {
        let profiler = pprof::bind(pprof_port)?;
        P::start(config, &lifecycle).await?;
        pprof::start(profiler, &lifecycle);
        Ok(())
    };
    if let Err(Fault { text, exit, .. }) = started.await {
        tracing::error!("{text}");
        lifecycle.shutdown(Duration::ZERO).await;
        return ExitCode::from(exit);
    }
    if matches!(lifecycle.stopped().await, StopReason::Signal(_)) {
        P::stopping();
    }
    lifecycle.run(drain).await
}

/// Writes to standard error; where that is gone there is nobody to tell.
fn say(text: &str) {
    std::io::stderr().write_all(text.as_bytes()).ok();
}
