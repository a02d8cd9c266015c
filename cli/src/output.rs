//! Standard output, a batch at a time.
//!
//! Lines are collected and written with one lock and one write per batch, so that a busy `tail` costs a system call per
//! batch and a quiet one shows each line at once. A reader that goes away (`| head`) ends the program quietly.

use crate::view::Palette;
use anstream::ColorChoice;
use std::io::{IsTerminal as _, Write as _};

/// When to use colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ColorArg {
    /// On a terminal, unless `NO_COLOR` is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl ColorArg {
    /// The colours for standard output.
    pub fn stdout(self) -> Palette {
        Palette::new(self.decide(anstream::AutoStream::choice(&std::io::stdout())))
    }

    /// The colours for standard error.
    pub fn stderr(self) -> Palette {
        Palette::new(self.decide(anstream::AutoStream::choice(&std::io::stderr())))
    }

    fn decide(self, auto: ColorChoice) -> bool {
        match self {
            Self::Auto => !matches!(auto, ColorChoice::Never),
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// Whether standard output is a terminal.
pub fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Whether standard error is a terminal.
pub fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// The reader of our standard output is gone; the program ends without a word, as `SIGPIPE` would end it.
#[derive(Debug, thiserror::Error)]
#[error("standard output was closed")]
pub struct Closed;

/// Writes all of it to standard output and flushes.
///
/// # Errors
/// [`Closed`] when nobody reads any more; other failures (a full disk) as they are.
pub fn write(bytes: &[u8]) -> anyhow::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Closed.into()),
        Err(error) => Err(anyhow::Error::new(error).context("cannot write to standard output")),
    }
}

/// Writes a line to standard error. What cannot be said there cannot be said at all.
pub fn tell(line: &str) {
    let mut err = std::io::stderr().lock();
    err.write_all(line.as_bytes())
        .and_then(|()| err.write_all(b"\n"))
        .ok();
}
