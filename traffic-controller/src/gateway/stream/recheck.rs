//! Asking again whether a stream's reader may still read.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use crate::access::{AccessControl, Allowed, Credentials, Denied};

/// From one answer to the next question at least, whatever the answer says.
const LEAST: Duration = Duration::from_millis(100);

/// What was asked when the stream began, to be asked again.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// Who judges.
    pub(crate) access: Arc<dyn AccessControl>,
    /// Who reads.
    pub(crate) who: Arc<Credentials>,
    /// What is read; none is everything.
    pub(crate) source_ids: Arc<[String]>,
}

impl Question {
    /// Asks.
    pub(crate) async fn ask(self) -> Result<Allowed, Denied> {
        self.access.sources(&self.source_ids, &self.who).await
    }
}

/// Asks when the last answer says that it is time.
pub(crate) struct Recheck {
    question: Question,
    state: State,
}

type Asking = Pin<Box<dyn Future<Output = Result<Allowed, Denied>> + Send>>;

enum State {
    /// Once was enough.
    Never,
    /// The last answer holds until then.
    Later(Pin<Box<Sleep>>),
    /// Being asked.
    Now(Asking),
}

impl Recheck {
    /// `allowed` was the first answer.
    pub(crate) fn new(question: Question, allowed: Allowed) -> Self {
        Self {
            question,
            state: State::after(allowed),
        }
    }

    /// Ready when the reader may read no more.
    pub(crate) fn poll_denied(&mut self, cx: &mut Context<'_>) -> Poll<Denied> {
        loop {
            self.state = match &mut self.state {
                State::Never => return Poll::Pending,
                State::Later(time) => {
                    std::task::ready!(time.as_mut().poll(cx));
                    State::Now(Box::pin(self.question.clone().ask()))
                }
                State::Now(asking) => match std::task::ready!(asking.as_mut().poll(cx)) {
                    Ok(allowed) => State::after(allowed),
                    Err(denied) => return Poll::Ready(denied),
                },
            }
        }
    }
}

impl State {
    fn after(allowed: Allowed) -> Self {
        match allowed.recheck_after {
            None => Self::Never,
            Some(time) => Self::Later(Box::pin(sleep(time.max(LEAST)))),
        }
    }
}
