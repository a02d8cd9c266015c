//! Asking again whether a stream's reader may still read.

use std::sync::Arc;

use crate::access::{AccessControl, Allowed, Credentials, Denied};

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
    pub(crate) async fn ask(&self) -> Result<Allowed, Denied> {
        self.access.sources(&self.source_ids, &self.who).await
    }
}
