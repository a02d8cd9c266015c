//! The rate limit per place in the code.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};

/// Counts lines per call site and window. There are as many sites as `info!`, `warn!` and `error!` in the program.
pub(super) struct RateLimit {
    burst: u32,
    window_ms: u64,
    epoch: Instant,
    sites: RwLock<HashMap<Identifier, Arc<Site>>>,
    suppressed: AtomicU64,
    /// Millisecond of the last look for sites that went quiet with lines left out.
    swept: Mutex<u64>,
}

struct Site {
    place: String,
    /// Number of the window that `lines` belongs to.
    window: AtomicU64,
    lines: AtomicU32,
    /// Lines left out and not told yet.
    untold: AtomicU64,
}

impl RateLimit {
    pub(super) fn new(burst: u32, window: Duration) -> Self {
        Self {
            burst,
            window_ms: u64::try_from(window.as_millis()).unwrap_or(u64::MAX).max(1),
            epoch: Instant::now(),
            sites: RwLock::default(),
            suppressed: AtomicU64::new(0),
            swept: Mutex::new(0),
        }
    }

    pub(super) fn suppressed(&self) -> u64 {
        self.suppressed.load(Ordering::Relaxed)
    }

    /// Whether the line may be written; counts it either way.
    fn admit(&self, metadata: &'static Metadata<'static>, now_ms: u64) -> bool {
        if *metadata.level() > Level::INFO {
            return true;
        }
        let site = self.site(metadata);
        let window = now_ms / self.window_ms;
        // Two threads that meet at a window's start may both reset; a few lines too many are no harm.
        if site.window.swap(window, Ordering::Relaxed) != window {
            site.lines.store(0, Ordering::Relaxed);
        }
        if site.lines.fetch_add(1, Ordering::Relaxed) < self.burst {
            return true;
        }
        site.untold.fetch_add(1, Ordering::Relaxed);
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        false
    }

    fn site(&self, metadata: &'static Metadata<'static>) -> Arc<Site> {
        let id = metadata.callsite();
        if let Some(site) = self.sites.read().get(&id) {
            return Arc::clone(site);
        }
        let place = match (metadata.file(), metadata.line()) {
            (Some(file), Some(line)) => format!("{} ({file}:{line})", metadata.target()),
            _ => metadata.target().to_owned(),
        };
        let fresh = Site {
            place,
            window: AtomicU64::new(0),
            lines: AtomicU32::new(0),
            untold: AtomicU64::new(0),
        };
        Arc::clone(
            self.sites
                .write()
                .entry(id)
                .or_insert_with(|| Arc::new(fresh)),
        )
    }

    /// Lines left out in earlier windows and not told before: place and number. Looks once per window.
    pub(super) fn untold(&self) -> Vec<(String, u64)> {
        self.untold_at(self.now_ms())
    }

    fn untold_at(&self, now_ms: u64) -> Vec<(String, u64)> {
        let window = now_ms / self.window_ms;
        let Some(mut swept) = self.swept.try_lock() else {
            return Vec::new();
        };
        if *swept == window {
            return Vec::new();
        }
        *swept = window;
        let sites = self.sites.read();
        let mut told: Vec<(String, u64)> = sites
            .values()
            .map(|site| (site.place.clone(), site.untold.swap(0, Ordering::Relaxed)))
            .filter(|(_, lines)| *lines > 0)
            .collect();
        told.sort();
        told
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The limit as a filter of the layer that writes lines.
pub(super) struct Admit(pub(super) Arc<RateLimit>);

impl<S: Subscriber> Filter<S> for Admit {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.0.admit(event.metadata(), self.0.now_ms())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Metadata of a real call site.
    fn site(level: Level) -> &'static Metadata<'static> {
        let span = if level == Level::WARN {
            tracing::span!(Level::WARN, "warn")
        } else {
            tracing::span!(Level::DEBUG, "debug")
        };
        span.metadata().unwrap()
    }

    fn with_subscriber<T>(f: impl FnOnce() -> T) -> T {
        tracing::subscriber::with_default(tracing_subscriber::registry(), f)
    }

    #[test]
    fn a_place_is_silenced_for_the_rest_of_its_window_and_counted() {
        with_subscriber(|| {
            let limit = RateLimit::new(2, Duration::from_secs(10));
            let warn = site(Level::WARN);
            let admitted: Vec<bool> = (0..5).map(|n| limit.admit(warn, n)).collect();
            assert_eq!(admitted, [true, true, false, false, false]);
            assert_eq!(limit.suppressed(), 3);
            assert!(limit.admit(warn, 10_000), "a new window");
        });
    }

    #[test]
    fn what_was_left_out_is_told_once_after_the_window() {
        with_subscriber(|| {
            let limit = RateLimit::new(1, Duration::from_secs(10));
            let warn = site(Level::WARN);
            for n in 0..4 {
                limit.admit(warn, n);
            }
            assert!(
                limit.untold_at(9_999).is_empty(),
                "the window is still open"
            );
            let told = limit.untold_at(10_000);
            assert_eq!(told.len(), 1);
            assert_eq!(told[0].1, 3);
            assert!(told[0].0.contains("rate.rs:"), "{told:?}");
            assert!(limit.untold_at(20_000).is_empty());
        });
    }

    #[test]
    fn a_place_that_never_goes_quiet_is_told_about_too() {
        with_subscriber(|| {
            let limit = RateLimit::new(1, Duration::from_secs(10));
            let warn = site(Level::WARN);
            for n in 0..3 {
                limit.admit(warn, n);
            }
            assert!(
                limit.admit(warn, 10_000),
                "the first line of the next window, before anybody looks"
            );
            assert_eq!(limit.untold_at(10_000)[0].1, 2);
        });
    }

    #[test]
    fn debug_is_not_limited() {
        with_subscriber(|| {
            let limit = RateLimit::new(1, Duration::from_secs(10));
            assert!((0..100).all(|n| limit.admit(site(Level::DEBUG), n)));
            assert_eq!(limit.suppressed(), 0);
        });
    }
}
