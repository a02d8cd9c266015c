//! The page that Prometheus scrapes, in each of its formats.

pub(crate) mod accept;
pub(crate) mod number;
pub(crate) mod proto;
mod text;

use parking_lot::Mutex;

use self::accept::Format;
use crate::config::Profile;
use crate::profile;
use crate::store::Store;
use crate::store::data::Data;
use crate::store::family::{Head, Kind};

/// Series that are written while the store is locked: what `deliver` waits for at most.
const SERIES_AT_A_TIME: usize = 256;
/// Quantiles of summaries, those of `firehose_exporter`.
pub(crate) const QUANTILES: [f64; 4] = [0.2, 0.5, 0.75, 0.95];

/// A page in the making.
trait Writer {
    /// The next family.
    fn begin(&mut self, head: &Head);
    /// A series of it; `now` is the store's clock, `timestamp` in milliseconds since 1970.
    fn series(&mut self, head: &Head, labels: &str, data: &Data, timestamp: Option<i64>, now: u64);
    /// The end of the family.
    fn end(&mut self);
    /// The end of the page.
    fn finish(self: Box<Self>) -> Vec<u8>;
}

/// Writes the whole page, family after family in the order of their names. A series is shown as it is at one moment; the
/// store is locked for a few hundred series at a time.
pub(crate) fn render(store: &Mutex<Store>, format: Format, now: u64) -> Vec<u8> {
    let (families, own, map) = {
        let store = store.lock();
        let own = match store.map().profile {
            Profile::Clean => Vec::new(),
            Profile::FirehoseExporter => profile::exporter_own(store.map(), &store.counts),
        };
        (store.list(), own, store.map().clone())
    };
    let mut page: Box<dyn Writer> = match format {
        Format::Protobuf => Box::new(proto::Page::default()),
        Format::Text => Box::new(text::Page::new(false)),
        Format::OpenMetrics(_) => Box::new(text::Page::new(true)),
    };
    for index in families {
        let (mut from, mut begun) = (0, None);
        loop {
            let store = store.lock();
            let Some(family) = store.get(index) else {
                break;
            };
            // Should the family be gone and another in its place, that one is shown next time.
            match &begun {
                Some(head) if !std::sync::Arc::ptr_eq(head, &family.head) => break,
                _ => {}
            }
            let to = (from + SERIES_AT_A_TIME).min(family.series.len());
            for series in family.series[from..to].iter().flatten() {
                if series.expired(now, &map) {
                    continue;
                }
                let Some((data, timestamp)) = series.shown(&family.head) else {
                    continue;
                };
                if begun.is_none() {
                    page.begin(&family.head);
                    begun = Some(family.head.clone());
                }
                page.series(&family.head, &series.labels, data, timestamp, now);
            }
            from = to;
            if from == family.series.len() {
                break;
            }
        }
        if begun.is_some() {
            page.end();
        }
    }
    if !own.is_empty() {
        let mut labels = crate::labels::Labels::default();
        labels.add("environment", &map.environment);
        let labels = labels.render();
        for (head, value) in own {
            page.begin(&head);
            page.series(&head, &labels, &number_of(head.kind, value), None, now);
            page.end();
        }
    }
    page.finish()
}

fn number_of(kind: Kind, value: f64) -> Data {
    match kind {
        // Whole numbers by construction.
        Kind::Counter => Data::Counter(value as u64),
        _ => Data::Gauge(value),
    }
}

/// The sample lines of one series, without comments and timestamps; buckets without an observation are left out.
pub(crate) fn lines(head: &Head, labels: &str, data: &Data, now: u64) -> Vec<String> {
    let mut page = Box::new(text::Page::new(false));
    page.series(head, labels, data, None, now);
    let text = String::from_utf8(page.finish()).unwrap_or_default();
    let told = |line: &&str| !(line.contains("_bucket{") && line.ends_with(" 0"));
    text.lines().filter(told).map(str::to_owned).collect()
}
