//! Exit codes: what a script may rely on. The table in `loggregator --help` says the same.

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// What was asked was done.
    Done = 0,
    /// It ran, and the answer is no: the ledger does not balance, not everything was accepted or delivered, or an
    /// error that has no code of its own.
    Negative = 1,
    /// The command line is wrong (clap's own code).
    Usage = 2,
    /// Nothing answers: no running pipeline, connection refused, wrong certificate.
    Unreachable = 3,
    /// It answers, and refuses us: token or client certificate.
    Denied = 4,
    /// Ended by Ctrl-C or SIGTERM, as shells count it.
    Interrupted = 130,
}

/// For `--help`.
pub const TABLE: &str = "\
Exit codes:
    0  what was asked was done
    1  it ran and the answer is no (ledger out of balance, lines not accepted or not delivered), or another error
    2  wrong command line
    3  nothing answers: no running pipeline, connection refused, certificate not trusted
    4  access denied: token or client certificate refused
  130  ended by Ctrl-C or SIGTERM (`up` drains instead, and ends with 0 or 1)
The components (`agent`, `doppler`, `traffic-controller`, `rlp`, `rlp-gateway`) end with 0 after an orderly stop, 64 for unusable settings,
70 when a part of them failed, 75 when the drain was cut short.";

/// Marks an error with the exit code that it means; anything unmarked ends with [`Exit::Negative`].
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Coded {
    /// The code.
    pub exit: Exit,
    /// What went wrong and what to do about it.
    pub message: String,
}

impl Coded {
    /// An error whose code a script can see.
    pub fn error(exit: Exit, message: impl Into<String>) -> anyhow::Error {
        Self {
            exit,
            message: message.into(),
        }
        .into()
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The code that an error means.
pub fn of(error: &anyhow::Error) -> Exit {
    use crate::state::StateError;
    if let Some(coded) = error.downcast_ref::<Coded>() {
        return coded.exit;
    }
    match error.downcast_ref::<StateError>() {
        Some(
            StateError::NotRunning { .. } | StateError::Ended { .. } | StateError::NotReady { .. },
        ) => Exit::Unreachable,
        _ => Exit::Negative,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_pipeline_is_told_apart_from_other_failures() {
        let missing = crate::state::StateError::NotRunning { dir: "/x".into() };
        assert_eq!(of(&missing.into()), Exit::Unreachable);
        assert_eq!(of(&anyhow::anyhow!("other")), Exit::Negative);
        let wrapped = Coded::error(Exit::Denied, "no").context("while connecting");
        assert_eq!(of(&wrapped), Exit::Denied);
    }

    #[test]
    fn the_help_names_every_code() {
        for exit in [
            Exit::Done,
            Exit::Negative,
            Exit::Usage,
            Exit::Unreachable,
            Exit::Denied,
            Exit::Interrupted,
        ] {
            assert!(
                TABLE
                    .lines()
                    .any(|line| line.trim_start().starts_with(&format!("{} ", exit as u8))),
                "{exit:?}"
            );
        }
    }
}
