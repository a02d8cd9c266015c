//! Who sends how much: top talkers by lines and by bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use loggregator_envelope::{Frame, Kind};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::event::{Event, Names};
use crate::top::{Slot, Top};

/// Sources that are counted at a time; the biggest are always among them.
const PLACES: usize = 1000;
/// Sources in the answer of `/talkers`.
const LISTED: usize = 100;
/// Sources in the metrics.
pub(crate) const IN_METRICS: usize = 20;

/// Counts since the start of everything that came in.
#[derive(Debug)]
pub(crate) struct Talkers {
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    lines: Top,
    bytes: Top,
    all_lines: u64,
    all_bytes: u64,
}

impl Talkers {
    pub(crate) fn new() -> Talkers {
        Talkers {
            counts: Mutex::new(Counts {
                lines: Top::new(PLACES),
                bytes: Top::new(PLACES),
                all_lines: 0,
                all_bytes: 0,
            }),
        }
    }

    /// Counts a frame: lines are log envelopes, bytes those of all envelopes.
    pub(crate) fn count(&self, frame: &Frame) {
        let mut counts = self.counts.lock();
        for entry in frame.entries() {
            let source_id = frame.source_id(entry);
            let event = || Event::new(0, 0, frame.bytes().slice(entry.body()));
            let bytes = entry.body().len() as u64;
            counts.all_bytes += bytes;
            let slot = counts.bytes.add(entry.source_hash, source_id, bytes);
            slot.learn(event);
            if entry.kind() == Kind::Log {
                counts.all_lines += 1;
                let slot = counts.lines.add(entry.source_hash, source_id, 1);
                slot.learn(event);
            }
        }
    }

    /// Names of the app of a source, if it is among those that are counted and its envelopes tell.
    pub(crate) fn names(&self, source_id: &str) -> Option<Arc<Names>> {
        self.counts.lock().bytes.names(source_id)
    }

    /// The biggest by lines, and by bytes.
    pub(crate) fn biggest(&self, most: usize) -> (Vec<Slot>, Vec<Slot>) {
        let counts = self.counts.lock();
        (counts.lines.biggest(most), counts.bytes.biggest(most))
    }

    /// The answer of `/talkers`.
    pub(crate) fn report(&self) -> Value {
        let (lines, bytes) = self.biggest(PLACES);
        let (all_lines, all_bytes) = {
            let counts = self.counts.lock();
            (counts.all_lines, counts.all_bytes)
        };
        json!({
            "lines": { "total": all_lines, "sources": list(&lines), "spaces": sums(&lines, 2), "orgs": sums(&lines, 1) },
            "bytes": { "total": all_bytes, "sources": list(&bytes), "spaces": sums(&bytes, 2), "orgs": sums(&bytes, 1) },
        })
    }
}

fn list(slots: &[Slot]) -> Vec<Value> {
    let listed = slots.iter().take(LISTED);
    listed
        .map(|slot| {
            let [app, space, org] = slot.names();
            json!({
                "source_id": slot.source_id,
                "app": app,
                "space": space,
                "org": org,
                "count": slot.count,
                // The count is too large by this at most.
                "over": slot.over,
            })
        })
        .collect()
}

/// Sums per organisation (`depth` 1) or space (2), of the sources that are counted and whose names are known.
fn sums(slots: &[Slot], depth: usize) -> Vec<Value> {
    let mut sums: BTreeMap<Vec<&str>, u64> = BTreeMap::new();
    for slot in slots {
        let [_, space, org] = slot.names();
        if !org.is_empty() {
            *sums.entry([org, space][..depth].to_vec()).or_default() += slot.count;
        }
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    sums.truncate(LISTED);
    let name = |at: &[&str]| at.join("/");
    let sums = sums.into_iter();
    sums.map(|(at, count)| json!({ "name": name(&at), "count": count }))
        .collect()
}

#[cfg(test)]
mod tests {
    use loggregator_envelope::FrameBuilder;
    use loggregator_proto::v2;

    use super::*;

    fn frame(lines: &[(&str, &str)]) -> Frame {
        let mut builder = FrameBuilder::new();
        for (source_id, text) in lines {
            let tags = [
                ("app_name", *source_id),
                ("space_name", "dev"),
                ("organization_name", "acme"),
            ];
            let line = v2::Envelope {
                source_id: (*source_id).to_owned(),
                tags: tags.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
                message: Some(v2::envelope::Message::Log(v2::Log {
                    payload: text.as_bytes().to_vec().into(),
                    r#type: 0,
                })),
                ..v2::Envelope::default()
            };
            builder.push_message(&line).unwrap();
        }
        let (bytes, index) = builder.finish();
        Frame::from_parts(bytes, index)
    }

    #[test]
    fn the_loudest_by_lines_need_not_be_the_loudest_by_bytes() {
        let talkers = Talkers::new();
        let long = "x".repeat(1000);
        talkers.count(&frame(&[("a", "1"), ("a", "2"), ("a", "3")]));
        talkers.count(&frame(&[("b", &long), ("b", &long)]));
        let report = talkers.report();
        assert_eq!(report["lines"]["total"], 5);
        assert_eq!(
            report["lines"]["sources"][0],
            json!({"source_id": "a", "app": "a", "space": "dev", "org": "acme", "count": 3, "over": 0})
        );
        assert_eq!(report["bytes"]["sources"][0]["source_id"], "b");
        assert_eq!(
            report["lines"]["spaces"],
            json!([{"name": "acme/dev", "count": 5}])
        );
        assert_eq!(
            report["lines"]["orgs"],
            json!([{"name": "acme", "count": 5}])
        );
    }
}
