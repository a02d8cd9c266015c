//! How tasks end, and what is told about it.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::task::Poll;
use std::time::Duration;

/// Why a program stops. The first reason wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// A signal asked for it.
    Signal(&'static str),
    /// The program itself did: it has done its work.
    Requested,
    /// A task failed.
    Fault(Fault),
}

/// A task that ended with an error or panicked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("task {task} failed: {cause}")]
pub struct Fault {
    /// Name of the task, with its stage before it.
    pub task: String,
    /// Its error with all causes, or its panic message.
    pub cause: String,
}

/// What came of a drain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DrainReport {
    /// Names of the tasks that had not ended when the time was up, with their stage; they were aborted.
    pub unfinished: Vec<String>,
    /// How long the drain took.
    pub took: Duration,
}

/// What a task may return: nothing, or a result whose error is a fault.
pub trait TaskOutput: Send + 'static {
    /// The error as a boxed one.
    ///
    /// # Errors
    /// The task's own error.
    fn into_result(self) -> Result<(), Box<dyn Error + Send + Sync>>;
}

/// Runs a task's future to its end; a panic is an error with the panic's message.
pub(super) async fn guarded<F>(future: F) -> Result<(), String>
where
    F: Future,
    F::Output: TaskOutput,
{
    let mut future = Box::pin(future);
    std::future::poll_fn(|cx| {
        match std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => {
                Poll::Ready(output.into_result().map_err(|error| chain(&*error)))
            }
            Err(panic) => Poll::Ready(Err(format!("panicked: {}", panic_message(&*panic)))),
        }
    })
    .await
}

/// An error and its causes, joined with colons; a cause that its error's own text repeats is told once.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.ends_with(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        cause = error.source();
    }
    text
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}

// === impl TaskOutput ===

impl TaskOutput for () {
    fn into_result(self) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(())
    }
}

impl<E> TaskOutput for Result<(), E>
where
    E: Into<Box<dyn Error + Send + Sync>> + Send + 'static,
{
    fn into_result(self) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.map_err(Into::into)
    }
}

// === impl DrainReport, StopReason ===

impl DrainReport {
    /// Whether every task ended by itself.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.unfinished.is_empty()
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(name) => write!(f, "received {name}"),
            Self::Requested => f.write_str("stop requested"),
            Self::Fault(fault) => fault.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Layer {
        #[error("listen on 127.0.0.1:1")]
        Silent(#[source] std::io::Error),
        #[error("listen: {0}")]
        Repeating(#[source] std::io::Error),
    }

    #[test]
    fn causes_are_told_once() {
        let cause = || std::io::Error::other("in use");
        assert_eq!(
            chain(&Layer::Silent(cause())),
            "listen on 127.0.0.1:1: in use"
        );
        assert_eq!(chain(&Layer::Repeating(cause())), "listen: in use");
    }
}
