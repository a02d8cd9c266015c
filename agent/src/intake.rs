//! The way of every envelope through the agent: source id, tags, totals, then the dopplers' pool.
//!
//! It runs on the task of the connection that received the frame. A frame that needs nothing passes as it is; otherwise
//! each envelope is copied once, with bytes put before and behind it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use loggregator_client::DopplerPool;
use loggregator_envelope::splice::{DefaultTags, Edit, source_id_from_origin};
use loggregator_envelope::{Entry, EnvelopeRef, Flags, Frame, FrameBuilder, Kind};
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::borrow::Cow;

use crate::stats::{Port, Stats, count};
use crate::totals::{Key, Keys, Totals};

/// What all inputs hand their frames to. Shared.
#[derive(Debug)]
pub(crate) struct Intake {
    editor: Editor,
    logs_disabled: bool,
    pub pool: DopplerPool,
    pub stats: Arc<Stats>,
}

impl Intake {
    pub(crate) fn new(
        tags: impl IntoIterator<Item = (String, String)>,
        max_counters: usize,
        logs_disabled: bool,
        pool: DopplerPool,
    ) -> Intake {
        Intake {
            editor: Editor::new(tags, max_counters),
            logs_disabled,
            pool,
            stats: Arc::default(),
        }
    }

    /// Takes a frame from the network. Never waits.
    pub(crate) fn accept(&self, port: Port, frame: Frame) {
        let frame = if port == Port::Grpc && self.logs_disabled {
            self.without_logs(frame)
        } else {
            frame
        };
        if let Some(frame) = self.edit(port, frame) {
            self.pool.send(&frame);
        }
    }

    /// Takes a frame from a source that can be read later: waits for room in the buffer.
    pub(crate) async fn accept_waiting(&self, port: Port, frame: Frame) {
        self.pool.room(frame.bytes().len()).await;
        self.accept(port, frame);
    }

    /// Counters whose totals are kept, and those that were forgotten.
    pub(crate) fn counters(&self) -> (usize, u64) {
        let totals = self.editor.totals.lock();
        (totals.len(), totals.evicted())
    }

    fn edit(&self, port: Port, frame: Frame) -> Option<Frame> {
        if frame.is_empty() {
            return None;
        }
        let stats = self.stats.port(port);
        count(&stats.bytes, frame.bytes().len() as u64);
        let edited = self.editor.edit(frame);
        if edited.mapped > 0 {
            self.stats
                .origin_mappings
                .fetch_add(edited.mapped, Ordering::Relaxed);
        }
        stats.reject("too_large", edited.lost);
        count(&stats.accepted, edited.frame.len() as u64);
        Some(edited.frame)
    }

    fn without_logs(&self, frame: Frame) -> Frame {
        if !frame.index().kinds().contains(Kind::Log) {
            return frame;
        }
        let mut rest = FrameBuilder::new();
        let mut logs = 0;
        for entry in frame.entries() {
            if entry.kind() == Kind::Log {
                logs += 1;
            } else if rest.push_entry(frame.bytes(), entry).is_err() {
                // Not to be expected: the rest is not bigger than the frame it comes from.
                self.stats.port(Port::Grpc).reject("too_large", 1);
            }
        }
        self.stats.port(Port::Grpc).reject("logs_disabled", logs);
        let (bytes, index) = rest.finish();
        Frame::from_parts(bytes, index)
    }
}

/// Rewrites frames.
#[derive(Debug)]
struct Editor {
    tags: Vec<(String, String)>,
    defaults: Option<DefaultTags>,
    keys: Keys,
    totals: Mutex<Totals>,
}

/// A frame after the edit.
struct Edited {
    frame: Frame,
    /// Source ids that were found in a tag.
    mapped: u64,
    /// Envelopes that did not fit any more.
    lost: u64,
}

impl Editor {
    fn new(tags: impl IntoIterator<Item = (String, String)>, max_counters: usize) -> Editor {
        let tags: Vec<_> = tags.into_iter().collect();
        let defaults =
            (!tags.is_empty()).then(|| DefaultTags::new(tags.iter().map(|(k, v)| (k, v))));
        Editor {
            tags,
            defaults,
            keys: Keys::default(),
            totals: Mutex::new(Totals::new(max_counters)),
        }
    }

    /// The frame with everything an agent adds.
    fn edit(&self, frame: Frame) -> Edited {
        let (flags, kinds) = (frame.index().flags(), frame.index().kinds());
        let asked = [Flags::NO_SOURCE_ID, Flags::HAS_DEPRECATED_TAGS]
            .iter()
            .any(|flag| flags.contains(*flag));
        if self.defaults.is_none() && !asked && !kinds.contains(Kind::Counter) {
            return Edited {
                frame,
                mapped: 0,
                lost: 0,
            };
        }
        let totals = self.update_totals(&frame);
        let mut totals = totals.into_iter();
        let (mut mapped, mut lost) = (0, 0);
        let mut edited = FrameBuilder::new();
        for entry in frame.entries() {
            let envelope = frame.envelope(entry);
            let source_id = missing_source(entry, envelope);
            mapped += u64::from(source_id.is_some());
            let edit = Edit {
                defaults: self.defaults.as_ref(),
                source_id,
                copy_deprecated: entry.flags().contains(Flags::HAS_DEPRECATED_TAGS),
                counter_total: if entry.kind() == Kind::Counter {
                    totals.next().flatten()
                } else {
                    None
                },
            };
            let pushed = if edit.is_empty() {
                edited.push_entry(frame.bytes(), entry)
            } else {
                edited.push_edited(frame.bytes(), entry, &edit)
            };
            // A frame of 10 MiB does not grow to 4 GiB by tags; were it to, what is left out is counted.
            lost += u64::from(pushed.is_err());
        }
        let (bytes, index) = edited.finish();
        Edited {
            frame: Frame::from_parts(bytes, index),
            mapped,
            lost,
        }
    }

    /// The new totals of the frame's counters, in order; none where the envelope has the right one already. Takes the
    /// table's lock once.
    fn update_totals(&self, frame: &Frame) -> Vec<Option<u64>> {
        if !frame.index().kinds().contains(Kind::Counter) {
            return Vec::new();
        }
        let received: Vec<(Key, u64, u64)> = frame
            .entries()
            .iter()
            .filter(|entry| entry.kind() == Kind::Counter)
            .map(|entry| self.counter(entry, frame.envelope(entry)))
            .collect();
        let mut totals = self.totals.lock();
        received
            .into_iter()
            .map(|(key, delta, total)| {
                Some(totals.update(key, delta, total)).filter(|new| *new != total)
            })
            .collect()
    }

    /// Key, delta and total of a counter as it will be after the edit.
    fn counter(&self, entry: &Entry, envelope: EnvelopeRef<'_>) -> (Key, u64, u64) {
        let source_id = missing_source(entry, envelope).unwrap_or_else(|| envelope.source_id());
        let mut tags: SmallVec<[(&str, Cow<'_, str>); 24]> = SmallVec::new();
        let mut set = |name, value| match tags.iter_mut().find(|(other, _)| *other == name) {
            Some((_, old)) => *old = value,
            None => tags.push((name, value)),
        };
        self.tags
            .iter()
            .for_each(|(name, value)| set(name.as_str(), Cow::Borrowed(value.as_str())));
        envelope
            .tags()
            .for_each(|(name, value)| set(name, Cow::Borrowed(value)));
        envelope
            .deprecated_tags()
            .for_each(|(name, value)| set(name, value.to_plain_text()));
        let (name, delta, total) = envelope
            .counter()
            .map_or(("", 0, 0), |c| (c.name, c.delta, c.total));
        let tags = tags
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        (
            self.keys.key(source_id.as_bytes(), name.as_bytes(), tags),
            delta,
            total,
        )
    }
}

/// The source id for an envelope that has none.
fn missing_source<'a>(entry: &Entry, envelope: EnvelopeRef<'a>) -> Option<&'a str> {
    entry
        .flags()
        .contains(Flags::NO_SOURCE_ID)
        .then(|| source_id_from_origin(envelope))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use loggregator_client::message;
    use loggregator_proto::v2::{self, EnvelopeBatch, envelope::Message, value::Data};
    use prost::Message as _;

    fn frame(batch: Vec<v2::Envelope>) -> Frame {
        let parsed = Frame::parse(EnvelopeBatch { batch }.encode_to_vec().into()).unwrap();
        assert_eq!(parsed.rejected, 0);
        parsed.frame
    }

    fn editor(tags: &[(&str, &str)]) -> Editor {
        Editor::new(
            tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
            100,
        )
    }

    fn edit(editor: &Editor, batch: Vec<v2::Envelope>) -> Vec<v2::Envelope> {
        let edited = editor.edit(frame(batch)).frame;
        // What we say about the frame is what a receiver finds.
        let again = Frame::parse(edited.bytes().clone()).unwrap();
        assert_eq!(again.rejected, 0);
        assert_eq!(again.frame.index(), edited.index());
        EnvelopeBatch::decode(edited.bytes().clone()).unwrap().batch
    }

    fn deprecated(envelope: &mut v2::Envelope, name: &str, data: Option<Data>) {
        envelope
            .deprecated_tags
            .insert(name.to_owned(), v2::Value { data });
    }

    #[test]
    fn a_frame_that_needs_nothing_is_not_touched() {
        let frame = frame(vec![
            message::log("x").source("a", "0").tag("k", "v").build(),
        ]);
        let before = frame.bytes().as_ptr();
        let after = editor(&[]).edit(frame).frame;
        assert_eq!(after.bytes().as_ptr(), before);
    }

    #[test]
    fn tags_are_added_only_where_absent() {
        let editor = editor(&[("deployment", "cf"), ("job", "router")]);
        let own = message::log("x")
            .source("a", "0")
            .tag("deployment", "")
            .tag("other", "o")
            .build();
        let none = message::event("t", "b").source("a", "0").build();
        let batch = edit(&editor, vec![own, none]);
        let tags = |e: &v2::Envelope| -> Vec<String> {
            e.tags.iter().map(|(k, v)| format!("{k}={v}")).collect()
        };
        assert_eq!(tags(&batch[0]), ["deployment=", "job=router", "other=o"]);
        assert_eq!(tags(&batch[1]), ["deployment=cf", "job=router"]);
    }

    #[test]
    fn deprecated_tags_are_copied_and_override() {
        let mut envelope = message::log("x").source("a", "0").tag("t", "old").build();
        deprecated(&mut envelope, "t", Some(Data::Text("new".to_owned())));
        deprecated(&mut envelope, "i", Some(Data::Integer(-7)));
        deprecated(&mut envelope, "d", Some(Data::Decimal(2.5)));
        deprecated(&mut envelope, "n", None);
        let batch = edit(&editor(&[("i", "default")]), vec![envelope]);
        let tags: Vec<_> = batch[0]
            .tags
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        assert_eq!(tags, ["d=2.5", "i=-7", "n=", "t=new"]);
        assert_eq!(batch[0].deprecated_tags.len(), 4, "they travel on");
    }

    #[test]
    fn an_empty_source_id_is_filled_from_the_origin() {
        let mut old = message::log("x").build();
        deprecated(&mut old, "origin", Some(Data::Text("gorouter".to_owned())));
        let batch = vec![
            message::log("x").tag("origin", "diego").build(),
            old,
            message::log("x").build(),
        ];
        let editor = editor(&[]);
        assert_eq!(editor.edit(frame(batch.clone())).mapped, 2);
        let batch = edit(&editor, batch);
        let sources: Vec<&str> = batch.iter().map(|e| e.source_id.as_str()).collect();
        assert_eq!(sources, ["diego", "gorouter", ""]);
        assert_eq!(batch[0].tags["origin"], "diego", "the tag stays");
    }

    #[test]
    fn totals_are_kept_per_name_source_and_effective_tags() {
        let editor = editor(&[("job", "router")]);
        let c = |delta| message::counter("requests", delta).source("a", "0");
        let batch = edit(
            &editor,
            vec![
                c(5).build(),
                c(1).tag("path", "/").build(),
                c(3).source("a", "1").tag("job", "router").build(), // the same by its tags; the instance is not asked
                message::log("between").source("a", "0").build(),
                c(2).source("b", "0").build(),
                message::counter_total("requests", 100)
                    .source("a", "0")
                    .build(),
                c(1).build(),
            ],
        );
        let totals: Vec<(u64, u64)> = batch
            .iter()
            .filter_map(|e| match &e.message {
                Some(Message::Counter(c)) => Some((c.delta, c.total)),
                _ => None,
            })
            .collect();
        assert_eq!(totals, [(5, 5), (1, 1), (3, 8), (2, 2), (0, 100), (1, 101)]);
        assert_eq!(editor.totals.lock().len(), 3);
    }
}
