//! Everything that keeps a program from starting, found before a port is bound, told with the Go program's words.

use super::go_env::Program;
use loggregator_net::TlsError;
use std::io;

/// One thing that keeps the program from starting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The Go program's text.
    pub text: String,
    /// The exit code that the Go program ends with.
    pub exit: u8,
    /// Whether the Go program finds it before it knows the form of its log lines.
    pub early: bool,
}

/// All of them, in the order in which the Go program looks. It would only tell the first, and end with its code; so do we
/// end with the first one's code.
#[derive(Debug)]
pub struct Faults {
    prefix: &'static str,
    exit: u8,
    found: Vec<Fault>,
}

impl Fault {
    /// One that the Go program finds while it starts, after its configuration was read.
    pub fn late(exit: u8, text: String) -> Self {
        Self {
            text,
            exit,
            early: false,
        }
    }
}

impl Faults {
    /// None yet, for this program.
    pub fn new(program: &Program) -> Self {
        Self {
            prefix: program.config_error,
            exit: program.config_exit,
            found: Vec::new(),
        }
    }

    /// A configuration error.
    pub fn config(&mut self, text: impl std::fmt::Display) {
        self.found.push(Fault {
            text: format!("{}: {text}", self.prefix),
            exit: self.exit,
            early: true,
        });
    }

    /// Any other fault.
    pub fn push(&mut self, fault: Fault) {
        self.found.push(fault);
    }

    /// Notes what is wrong with TLS material; `wrap` says how the program puts it.
    pub fn tls<T>(&mut self, made: Result<T, TlsError>, wrap: impl FnOnce(String) -> Fault) {
        if let Err(error) = made {
            self.push(wrap(tls_text(&error)));
        }
    }

    /// What was found.
    pub fn found(&self) -> &[Fault] {
        &self.found
    }

    /// The exit code, `None` when the program may start.
    pub fn exit(&self) -> Option<u8> {
        self.found.first().map(|fault| fault.exit)
    }
}

/// What is wrong with TLS material, as the Go programs say it.
pub fn tls_text(error: &TlsError) -> String {
    match error {
        TlsError::OpenKeypair { path, source } => {
            format!(
                "failed to load keypair: open {}: {}",
                path.display(),
                io_text(source)
            )
        }
        TlsError::OpenCa { path, source } => format!(
            "failed to read certificate(s) at path {:?}: open {}: {}",
            path.display().to_string(),
            path.display(),
            io_text(source)
        ),
        other => other.to_string(),
    }
}

/// What the operating system says, as Go says it: `no such file or directory`.
pub fn io_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address already in use".to_owned(),
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => {
            let text = error.to_string();
            let text = text.split(" (os error").next().unwrap_or_default();
            let mut letters = text.chars();
            letters
                .next()
                .map(|first| first.to_lowercase().chain(letters).collect())
                .unwrap_or_default()
        }
    }
}

/// A port that cannot be listened on, as Go says it.
pub fn listen_text(address: &str, error: &io::Error) -> String {
    format!("listen tcp {address}: bind: {}", io_text(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_read_as_go_s() {
        let missing = std::fs::read("/nowhere/at/all").unwrap_err();
        assert_eq!(io_text(&missing), "no such file or directory");
        let taken = io::Error::from(io::ErrorKind::AddrInUse);
        assert_eq!(
            listen_text(":8082", &taken),
            "listen tcp :8082: bind: address already in use"
        );
    }
}
