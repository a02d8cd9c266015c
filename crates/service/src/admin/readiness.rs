//! Whether a component can do its work, and if not, why.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// The conditions under which a component is ready: all that were added, met. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    /// Name of each condition, and what is missing; `None` when it is met.
    conditions: Arc<Mutex<BTreeMap<String, Option<String>>>>,
}

/// One condition; belongs to the task that knows whether it holds.
#[derive(Debug, Clone)]
pub struct Condition {
    readiness: Readiness,
    name: String,
}

impl Readiness {
    /// Ready as long as no condition is added.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition, not met so far. A name that exists already stands for the same condition.
    #[must_use]
    pub fn condition(&self, name: &str) -> Condition {
        self.conditions
            .lock()
            .entry(name.to_owned())
            .or_insert_with(|| Some("starting".to_owned()));
        Condition {
            readiness: self.clone(),
            name: name.to_owned(),
        }
    }

    /// Whether all conditions are met.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.conditions.lock().values().all(Option::is_none)
    }

    /// What is missing, as `condition: reason`, sorted; empty when ready.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let conditions = self.conditions.lock();
        let missing = conditions
            .iter()
            .filter_map(|(name, reason)| Some((name, reason.as_ref()?)));
        missing
            .map(|(name, reason)| format!("{name}: {reason}"))
            .collect()
    }
}

impl Condition {
    /// The condition is met.
    pub fn ready(&self) {
        self.set(None);
    }

    /// The condition is not met, or no longer. `reason` is shown to operators: no secrets.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    fn set(&self, reason: Option<String>) {
        self.readiness
            .conditions
            .lock()
            .insert(self.name.clone(), reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_that_every_condition_is_met() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let (grpc, dopplers) = (
            readiness.condition("grpc listener"),
            readiness.condition("dopplers"),
        );
        assert_eq!(
            readiness.reasons(),
            ["dopplers: starting", "grpc listener: starting"]
        );
        grpc.ready();
        dopplers.not_ready("none of 2 is connected");
        assert_eq!(readiness.reasons(), ["dopplers: none of 2 is connected"]);
        assert!(!readiness.is_ready());
        dopplers.ready();
        assert!(readiness.is_ready());
        // Asking again does not reset what is known.
        let _same = readiness.condition("dopplers");
        assert!(readiness.is_ready());
    }
}
