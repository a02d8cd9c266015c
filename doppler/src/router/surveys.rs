//! One look at a long backlog for all readers that are behind in the same stretch of it.

use std::ops::Range;
use std::sync::Arc;

use loggregator_envelope::KindSet;
use loggregator_log::Survey;
use parking_lot::Mutex;

/// The latest survey. Looking at a quarter of a gigabyte of index costs milliseconds, and when the machine is
/// overloaded all firehoses fall behind together.
#[derive(Default)]
pub(crate) struct Surveys {
    latest: Mutex<Option<(KindSet, u64, Arc<Survey>)>>,
}

impl Surveys {
    /// A survey of the frames in `stretch`: the latest one if it is about the same stretch, give or take a sixteenth at
    /// either end, else what `make` makes.
    pub(crate) fn of(
        &self,
        kinds: KindSet,
        stretch: Range<u64>,
        make: impl FnOnce() -> Survey,
    ) -> Arc<Survey> {
        let slack = (stretch.end - stretch.start) / 16;
        // Held while one is made: whoever comes meanwhile wants the same.
        let mut latest = self.latest.lock();
        if let Some((of, from, survey)) = &*latest
            && *of == kinds
            && from.abs_diff(stretch.start) <= slack
            && survey.until().abs_diff(stretch.end) <= slack
        {
            return Arc::clone(survey);
        }
        let survey = Arc::new(make());
        *latest = Some((kinds, stretch.start, Arc::clone(&survey)));
        survey
    }
}
