//! Names of apps, spaces and organisations for events.

use std::sync::Arc;

use crate::event::{Event, Names};

/// Knows names without ever waiting for them.
pub trait Directory: Send + Sync + 'static {
    /// The names for this event, if they are known now. When they are not, they are asked for in the background, and later
    /// events of the same app will have them.
    fn names(&self, event: &Event) -> Option<Arc<Names>>;
}
