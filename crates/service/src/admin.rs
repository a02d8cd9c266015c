//! The admin server: how an operator looks at one component.
//!
//! Plain HTTP/1.1, meant for the loopback interface. It runs on its own thread with its own runtime, so that it
//! answers while the data plane is busy, and goes on until the drain has ended.
//!
//! | route | answer |
//! | --- | --- |
//! | `GET /metrics` | Prometheus text |
//! | `GET /healthz` | `200 ok` while the process lives |
//! | `GET /readyz` | `200` or `503`, JSON with the reasons |
//! | `GET /ledger` | the component's [`ledger::Report`](crate::ledger::Report) as JSON |
//! | `GET /version` | program, version and component as JSON |
//! | `GET /tasks` | names of the running tasks as JSON |
//! | `GET /log-level` | the log filter in effect |
//! | `POST /log-level` | sets it; body: a filter such as `info,doppler=debug` |
//!
//! A component may have [`Pages`] of its own besides.
//!
//! The only request that changes anything is `POST /log-level`; it is refused when it comes from a browser page (an
//! `Origin` header) and on listeners that are not on loopback. Everything is bounded: connections, request head, body
//! and time.

mod page;
mod readiness;
mod routes;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use page::{Lines, Page, Pages};
pub use readiness::{Condition, Readiness};

use crate::Lifecycle;
use crate::ledger::Source;
use crate::metrics::{Metrics, names};
use routes::Routes;

/// Largest request head.
const MAX_HEAD: usize = 16 * 1024;
/// Pause after an accept error such as "too many open files".
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What one client, or all together, may take up.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Most connections at a time; further ones are closed at once and counted.
    connections: usize,
    /// How long a client may take to send a request head, idle time between requests included.
    head: Duration,
    /// How long a connection may last in all; ends clients that do not read their answers.
    connection: Duration,
}

const LIMITS: Limits = Limits {
    connections: 64,
    head: Duration::from_secs(30),
    connection: Duration::from_secs(600),
};

/// What the admin server serves. [`Admin::start`] is the whole interface.
#[derive(Debug)]
pub struct Admin;

/// The admin server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address cannot be listened on.
    #[error("admin server on {addr}")]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// Its thread or runtime could not be made.
    #[error("admin server thread")]
    Thread(#[source] io::Error),
}

impl Admin {
    /// Binds `addr` and serves on a thread of its own until the lifecycle has ended. Returns the bound address.
    ///
    /// # Errors
    /// When the address cannot be bound or the thread not be started.
    pub fn start(
        addr: SocketAddr,
        metrics: Metrics,
        ledger: Arc<dyn Source>,
        readiness: Readiness,
        lifecycle: &Lifecycle,
    ) -> Result<SocketAddr, AdminError> {
        let pages = Arc::new(());
        Self::start_with_pages(addr, metrics, ledger, readiness, lifecycle, pages)
    }

    /// As [`start`](Admin::start), with pages of the component's own.
    ///
    /// # Errors
    /// As [`start`](Admin::start).
    pub fn start_with_pages(
        addr: SocketAddr,
        metrics: Metrics,
        ledger: Arc<dyn Source>,
        readiness: Readiness,
        lifecycle: &Lifecycle,
        pages: Arc<dyn Pages>,
    ) -> Result<SocketAddr, AdminError> {
        Self::start_with(LIMITS, addr, metrics, ledger, readiness, lifecycle, pages)
    }

    fn start_with(
        limits: Limits,
        addr: SocketAddr,
        metrics: Metrics,
        ledger: Arc<dyn Source>,
        readiness: Readiness,
        lifecycle: &Lifecycle,
        pages: Arc<dyn Pages>,
    ) -> Result<SocketAddr, AdminError> {
        let bind = |source| AdminError::Bind { addr, source };
        let listener = TcpListener::bind(addr).map_err(bind)?;
        listener.set_nonblocking(true).map_err(bind)?;
        let bound = listener.local_addr().map_err(bind)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(AdminError::Thread)?;
        observe(&metrics, &readiness, lifecycle);
        let routes = Arc::new(Routes {
            metrics: metrics.clone(),
            ledger,
            readiness,
            lifecycle: lifecycle.clone(),
            pages,
            loopback: bound.ip().is_loopback(),
        });
        let ended = lifecycle.ended();
        std::thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    if let Err(error) = serve(listener, routes, &metrics, limits, ended).await {
                        tracing::error!(%error, "admin server failed");
                    }
                });
            })
            .map_err(AdminError::Thread)?;
        Ok(bound)
    }
}

/// Adds the metrics about the component as a whole.
fn observe(metrics: &Metrics, readiness: &Readiness, lifecycle: &Lifecycle) {
    let (readiness, lifecycle) = (readiness.clone(), lifecycle.clone());
    metrics.collect(move |samples| {
        let ready = readiness.reasons().is_empty() && !lifecycle.token().is_cancelled();
        samples.gauge(&names::READY, &[], f64::from(u8::from(ready)));
        for (task, restarts) in lifecycle.restarts() {
            samples.counter(&names::TASK_RESTARTS, &[("task", &task)], restarts);
        }
        if let Some(log) = crate::logging::control() {
            samples.counter(&names::LOG_LINES_SUPPRESSED, &[], log.suppressed());
            samples.counter(&names::LOG_LINES_DROPPED, &[], log.dropped());
        }
    });
}

async fn serve(
    listener: TcpListener,
    routes: Arc<Routes>,
    metrics: &Metrics,
    limits: Limits,
    ended: CancellationToken,
) -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let refused = metrics.counter(&names::ADMIN_REFUSED, &[])?;
    let permits = Arc::new(Semaphore::new(limits.connections));
    loop {
        let stream = tokio::select! {
            () = ended.cancelled() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "admin server cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            refused.inc();
            continue;
        };
        let routes = Arc::clone(&routes);
        tokio::spawn(async move {
            let _permit = permit;
            connection(stream, routes, limits).await;
        });
    }
}

async fn connection(stream: tokio::net::TcpStream, routes: Arc<Routes>, limits: Limits) {
    let service = service_fn(move |request| {
        let routes = Arc::clone(&routes);
        async move { Ok::<_, std::convert::Infallible>(routes.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(limits.connection, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "admin connection"),
        Err(_) => tracing::debug!("admin connection took too long and was closed"),
    }
}

#[cfg(test)]
mod tests;
