//! Named, supervised tasks; one ordered drain with a deadline.
//!
//! Every task of a program belongs to a [`Lifecycle`]. A task that panics or ends with an error is logged with its
//! name and stops the process in an orderly way (the first such fault is remembered, see [`Lifecycle::fault`]); a task
//! whose restart is known to help is started again with backoff ([`Lifecycle::spawn_restarting`]). Ending with `Ok` is
//! never a fault: connections come and go.
//!
//! Two tokens tell tasks to end, and they mean different things:
//! - [`Lifecycle::token`]: stop accepting work, finish what you have;
//! - [`Lifecycle::cut`]: the deadline has passed, or the operator asked twice; drop what you have.
//!
//! A program that holds several stages gives each its own [`Lifecycle::stage`]. [`Lifecycle::shutdown`] drains the
//! stages one after the other in the order in which they were made, so that an upstream stage can hand on what it
//! buffers before the next one stops, all under one deadline.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use std::time::Duration;
//! use loggregator_service::Lifecycle;
//!
//! let lifecycle = Lifecycle::new();
//! let stop = lifecycle.token();
//! lifecycle.spawn("accept loop", async move {
//!     stop.cancelled().await;
//!     Ok::<(), std::io::Error>(())
//! });
//! let report = lifecycle.shutdown(Duration::from_secs(5)).await;
//! assert!(report.finished());
//! # });
//! ```

mod outcome;
mod restart;
mod signals;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ledger;
pub(crate) use outcome::chain;
use outcome::guarded;
pub use outcome::{DrainReport, Fault, StopReason, TaskOutput};
pub use restart::RestartPolicy;

/// Exit code after a task failed (`EX_SOFTWARE` of `sysexits.h`).
pub const EXIT_FAULT: u8 = 70;
/// Exit code after a drain that was cut short: something buffered was lost (`EX_TEMPFAIL`).
pub const EXIT_DRAIN_CUT: u8 = 75;

/// Time that every stage has to end, even when the ones before it used up the deadline.
const LEAST_TIME: Duration = Duration::from_millis(250);
/// How long aborted tasks have to drop what they hold before the drain goes on without them.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// Owner of a program's (or stage's) tasks. Clones are the same owner.
#[derive(Clone)]
pub struct Lifecycle {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    parent: Option<Lifecycle>,
    stop: CancellationToken,
    cut: CancellationToken,
    ended: CancellationToken,
    tracker: TaskTracker,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next_task: u64,
    tasks: BTreeMap<u64, Task>,
    stages: Vec<Lifecycle>,
    /// Whose last words are logged.
    accounts: Vec<Arc<dyn ledger::Source>>,
    reason: Option<StopReason>,
    restarts: BTreeMap<String, u64>,
}

struct Task {
    name: Cow<'static, str>,
    /// Set right after the task was spawned.
    abort: Option<AbortHandle>,
}

// === impl Lifecycle ===

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifecycle")
            .field("name", &self.inner.name)
            .field("tasks", &self.tasks())
            .finish()
    }
}

impl Lifecycle {
    /// A lifecycle without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::with(String::new(), None, CancellationToken::new())
    }

    fn with(name: String, parent: Option<Lifecycle>, cut: CancellationToken) -> Self {
        let inner = Inner {
            name,
            parent,
            stop: CancellationToken::new(),
            cut,
            ended: CancellationToken::new(),
            tracker: TaskTracker::new(),
            state: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// A part of this lifecycle with its own stop token, drained in the order of creation.
    ///
    /// A fault in it is a fault of the whole. It can be shut down alone.
    #[must_use]
    pub fn stage(&self, name: &str) -> Self {
        let name = if self.inner.name.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.inner.name)
        };
        let stage = Self::with(name, Some(self.clone()), self.inner.cut.child_token());
        self.inner.state.lock().stages.push(stage.clone());
        stage
    }

    /// Cancelled when this lifecycle is to stop: accept nothing new, finish what there is.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.inner.stop.clone()
    }

    /// Cancelled when the time for finishing is up.
    #[must_use]
    pub fn cut(&self) -> CancellationToken {
        self.inner.cut.clone()
    }

    /// Cancelled when [`Lifecycle::shutdown`] is done with all tasks; for what must outlive them, such as the admin
    /// server.
    #[must_use]
    pub fn ended(&self) -> CancellationToken {
        self.inner.ended.clone()
    }

    /// Starts a task. If it panics or returns an error, that is logged and stops the process.
    pub fn spawn<F>(&self, name: impl Into<Cow<'static, str>>, future: F)
    where
        F: Future + Send + 'static,
        F::Output: TaskOutput,
    {
        let name = name.into();
        let lifecycle = self.clone();
        let task = name.clone();
        self.track(name, async move {
            if let Err(cause) = guarded(future).await {
                lifecycle.fail(&task, cause);
            }
        });
    }

    /// Starts a task made by `make`, and starts it again with backoff when it panics or returns an error.
    ///
    /// It is not restarted after `Ok`, nor once the lifecycle is stopping.
    pub fn spawn_restarting<M, F>(
        &self,
        name: impl Into<Cow<'static, str>>,
        policy: RestartPolicy,
        make: M,
    ) where
        M: FnMut() -> F + Send + 'static,
        F: Future + Send + 'static,
        F::Output: TaskOutput,
    {
        let name = name.into();
        let lifecycle = self.clone();
        let task = name.clone();
        self.track(name, async move {
            if let Err(cause) = restart::run(&lifecycle, &task, policy, make).await {
                lifecycle.fail(&task, cause);
            }
        });
    }

    /// Has the [last words](ledger::Report::last_words) of this ledger logged when all tasks have ended.
    pub fn account_at_end(&self, ledger: Arc<dyn ledger::Source>) {
        self.inner.state.lock().accounts.push(ledger);
    }

    /// Asks the whole program to stop: [`Lifecycle::stopped`] returns and the tasks of the outermost lifecycle are
    /// told. The stages are told in their order by [`Lifecycle::shutdown`].
    pub fn stop(&self, reason: StopReason) {
        let root = self.root();
        root.inner.state.lock().reason.get_or_insert(reason);
        root.inner.stop.cancel();
    }

    /// Waits until a stop is asked for: by a signal, by [`Lifecycle::stop`] or by a fault.
    pub async fn stopped(&self) -> StopReason {
        let root = self.root();
        root.inner.stop.cancelled().await;
        root.inner
            .state
            .lock()
            .reason
            .clone()
            .unwrap_or(StopReason::Requested)
    }

    /// The first fault of any task, if there was one.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        match &self.root().inner.state.lock().reason {
            Some(StopReason::Fault(fault)) => Some(fault.clone()),
            _ => None,
        }
    }

    /// Names of the tasks that run now, those of the stages included.
    #[must_use]
    pub fn tasks(&self) -> Vec<String> {
        let (mut names, stages) = {
            let state = self.inner.state.lock();
            let names: Vec<String> = state
                .tasks
                .values()
                .map(|task| self.full_name(&task.name))
                .collect();
            (names, state.stages.clone())
        };
        names.extend(stages.iter().flat_map(Self::tasks));
        names
    }

    /// How often each restarting task was restarted, by name.
    #[must_use]
    pub fn restarts(&self) -> BTreeMap<String, u64> {
        let (mut restarts, stages) = {
            let state = self.inner.state.lock();
            (state.restarts.clone(), state.stages.clone())
        };
        for stage in &stages {
            restarts.extend(stage.restarts());
        }
        restarts
    }

    /// Drains: the stages one after the other, then this lifecycle's own tasks. What has not ended after `deadline`
    /// (or when [`Lifecycle::cut`] is cancelled before) is aborted and named in the report. A stage whose turn comes
    /// only then still has a quarter of a second.
    pub async fn shutdown(&self, deadline: Duration) -> DrainReport {
        let started = Instant::now();
        let unfinished = self.drain_all(started + deadline).await;
        if let Some(parent) = &self.inner.parent {
            parent
                .inner
                .state
                .lock()
                .stages
                .retain(|stage| !Arc::ptr_eq(&stage.inner, &self.inner));
        }
        DrainReport {
            unfinished,
            took: started.elapsed(),
        }
    }

    /// Handles SIGTERM and SIGINT: the first asks for a stop, a second one cuts the drain short.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn watch_signals(&self) -> std::io::Result<()> {
        signals::watch(&self.root())
    }

    /// The end of a program: waits for the reason to stop, drains, logs how it went and says how to exit.
    ///
    /// 0 after an orderly stop, [`EXIT_FAULT`] after a fault, [`EXIT_DRAIN_CUT`] when the drain was cut short.
    pub async fn run(&self, deadline: Duration) -> ExitCode {
        let reason = self.stopped().await;
        tracing::info!(%reason, deadline_s = deadline.as_secs_f64(), "draining");
        let report = self.shutdown(deadline).await;
        let took_ms = u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX);
        if report.finished() {
            tracing::info!(took_ms, "drained");
        } else {
            tracing::error!(
                took_ms,
                unfinished = report.unfinished.join(", "),
                "drain was cut short"
            );
        }
        match (reason, report.finished()) {
            (StopReason::Fault(_), _) => ExitCode::from(EXIT_FAULT),
            (_, false) => ExitCode::from(EXIT_DRAIN_CUT),
            (_, true) => ExitCode::SUCCESS,
        }
    }

    fn root(&self) -> Lifecycle {
        let mut here = self;
        while let Some(parent) = &here.inner.parent {
            here = parent;
        }
        here.clone()
    }

    fn full_name(&self, task: &str) -> String {
        if self.inner.name.is_empty() {
            task.to_owned()
        } else {
            format!("{}/{task}", self.inner.name)
        }
    }

    fn fail(&self, task: &str, cause: String) {
        let fault = Fault {
            task: self.full_name(task),
            cause,
        };
        tracing::error!(task = fault.task, cause = fault.cause, "task failed");
        self.stop(StopReason::Fault(fault));
    }

    fn restarted(&self, task: &str) {
        *self
            .inner
            .state
            .lock()
            .restarts
            .entry(self.full_name(task))
            .or_default() += 1;
    }

    /// Runs `body` as a tracked task that is listed by name while it runs.
    fn track(&self, name: Cow<'static, str>, body: impl Future<Output = ()> + Send + 'static) {
        let id = {
            let mut state = self.inner.state.lock();
            state.next_task += 1;
            let id = state.next_task;
            state.tasks.insert(id, Task { name, abort: None });
            id
        };
        let entry = Entry {
            lifecycle: self.clone(),
            id,
        };
        // Not under the lock: a runtime that is shutting down drops the task, and its entry, at once.
        let handle = self.inner.tracker.spawn(async move {
            let _entry = entry;
            body.await;
        });
        if let Some(task) = self.inner.state.lock().tasks.get_mut(&id) {
            task.abort = Some(handle.abort_handle());
        }
    }

    /// Drains the stages in order, then the own tasks; names those that had to be aborted.
    fn drain_all(&self, until: Instant) -> Pin<Box<dyn Future<Output = Vec<String>> + Send + '_>> {
        Box::pin(async move {
            let mut unfinished = Vec::new();
            let stages = std::mem::take(&mut self.inner.state.lock().stages);
            for stage in stages {
                unfinished.extend(stage.drain_all(until).await);
            }
            unfinished.extend(self.drain_own(until).await);
            unfinished
        })
    }

    async fn drain_own(&self, until: Instant) -> Vec<String> {
        let told = Instant::now();
        self.inner.stop.cancel();
        self.inner.tracker.close();
        let time_is_up = async {
            tokio::select! {
                () = self.inner.cut.cancelled() => {}
                () = tokio::time::sleep_until(until) => {}
            }
            tokio::time::sleep_until(told + LEAST_TIME).await;
        };
        let finished = tokio::select! {
            biased;
            () = self.inner.tracker.wait() => true,
            () = time_is_up => false,
        };
        let unfinished = if finished {
            Vec::new()
        } else {
            self.abort().await
        };
        let accounts = std::mem::take(&mut self.inner.state.lock().accounts);
        for account in accounts {
            for line in account.report().last_words() {
                tracing::info!("{line}");
            }
        }
        self.inner.ended.cancel();
        unfinished
    }

    /// Aborts what still runs and gives it a moment to close what it holds.
    async fn abort(&self) -> Vec<String> {
        self.inner.cut.cancel();
        let (names, handles): (Vec<_>, Vec<_>) = {
            let state = self.inner.state.lock();
            state
                .tasks
                .values()
                .map(|task| (self.full_name(&task.name), task.abort.clone()))
                .unzip()
        };
        handles.iter().flatten().for_each(AbortHandle::abort);
        if tokio::time::timeout(ABORT_GRACE, self.inner.tracker.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                tasks = self.tasks().join(", "),
                "tasks do not yield and were left behind"
            );
        }
        names
    }
}

/// Takes a task out of the table when it ends, however it ends.
struct Entry {
    lifecycle: Lifecycle,
    id: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.lifecycle.inner.state.lock().tasks.remove(&self.id);
    }
}

#[cfg(test)]
mod tests;
