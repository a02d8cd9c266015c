//! From a batch of a doppler to what one client gets of it: tags where the client wants them, parts that are not too big.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use loggregator_envelope::splice::{move_to_deprecated_tags, move_to_tags};
use loggregator_envelope::{Flags, Frame, ScanError, split, survey};

/// Envelopes that are looked at together: their index is memory, and a batch of empty ones would have many.
const AT_ONCE: usize = 1 << 16;

/// Whole records of an `EnvelopeBatch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) bytes: Bytes,
    pub(crate) envelopes: u64,
}

/// Where a client wants the tags of its envelopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tags {
    /// In `tags`: a client that set `use_preferred_tags`.
    Preferred,
    /// In `deprecated_tags`.
    Deprecated,
}

impl Tags {
    pub(crate) fn of(use_preferred_tags: bool) -> Self {
        if use_preferred_tags {
            Self::Preferred
        } else {
            Self::Deprecated
        }
    }

    /// What an envelope has when something in it must be moved.
    fn misplaced(self) -> Flags {
        match self {
            Self::Preferred => Flags::HAS_DEPRECATED_TAGS,
            Self::Deprecated => Flags::HAS_TAGS,
        }
    }

    /// Appends the envelope with its tags moved.
    pub(crate) fn moved(self, envelope: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Preferred => move_to_tags(envelope, out),
            Self::Deprecated => move_to_deprecated_tags(envelope, out),
        }
    }
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Formed {
    /// Envelopes that are in the parts.
    pub(crate) envelopes: u64,
    /// Envelopes that were malformed and left out.
    pub(crate) malformed: u64,
}

/// Appends the batch to `parts`, each of at most `budget` bytes unless a single envelope is bigger. Bytes in which nothing
/// has to be moved are shared, not copied, and what is in their fields is not looked at: the doppler has done so.
///
/// # Errors
/// When the batch's own framing is broken; what came before may be in `parts`.
pub(crate) fn form(
    batch: &Bytes,
    tags: Tags,
    budget: usize,
    parts: &mut VecDeque<Part>,
) -> Result<Formed, ScanError> {
    let mut formed = Formed::default();
    if batch.len() <= budget.min(AT_ONCE) {
        one(batch.clone(), tags, budget, parts, &mut formed)?;
    } else {
        for part in split(batch, budget, AT_ONCE)? {
            one(batch.slice_ref(part), tags, budget, parts, &mut formed)?;
        }
    }
    Ok(formed)
}

fn one(
    batch: Bytes,
    tags: Tags,
    budget: usize,
    parts: &mut VecDeque<Part>,
    formed: &mut Formed,
) -> Result<(), ScanError> {
    let survey = survey(&batch, tags.misplaced())?;
    if survey.sound && !survey.found {
        let envelopes = survey.envelopes as u64;
        formed.envelopes += envelopes;
        if envelopes > 0 {
            parts.push_back(Part {
                bytes: batch,
                envelopes,
            });
        }
        return Ok(());
    }
    let parsed = Frame::parse(batch)?;
    let frame = parsed.frame;
    formed.malformed += u64::from(parsed.rejected);
    formed.envelopes += frame.len() as u64;
    if frame.index().flags().contains(tags.misplaced()) {
        rewrite(&frame, tags, budget, parts);
    } else if !frame.is_empty() {
        let envelopes = frame.len() as u64;
        let (bytes, ..) = frame.into_parts();
        parts.push_back(Part { bytes, envelopes });
    }
    Ok(())
}

/// Copies the frame with the tags moved. It may grow, so it is cut again.
fn rewrite(frame: &Frame, tags: Tags, budget: usize, parts: &mut VecDeque<Part>) {
    let bytes = frame.bytes();
    let mut out = BytesMut::with_capacity(bytes.len() + bytes.len() / 4);
    let mut envelopes = 0;
    let mut body = Vec::new();
    for entry in frame.entries() {
        let start = out.len();
        if entry.flags().contains(tags.misplaced()) {
            body.clear();
            tags.moved(bytes.get(entry.body()).unwrap_or_default(), &mut body);
            record(&mut out, &body);
        } else {
            out.extend_from_slice(bytes.get(entry.record()).unwrap_or_default());
        }
        if out.len() > budget && start > 0 {
            let this = out.split_off(start);
            let bytes = std::mem::replace(&mut out, this).freeze();
            parts.push_back(Part { bytes, envelopes });
            envelopes = 0;
        }
        envelopes += 1;
    }
    if envelopes > 0 {
        let bytes = out.freeze();
        parts.push_back(Part { bytes, envelopes });
    }
}

/// Appends one element of an `EnvelopeBatch`.
pub(crate) fn record(out: &mut BytesMut, envelope: &[u8]) {
    out.reserve(11 + envelope.len());
    out.put_u8(0x0a);
    prost::encoding::encode_varint(envelope.len() as u64, out);
    out.extend_from_slice(envelope);
}

#[cfg(test)]
mod tests {
    use loggregator_proto::v2::value::Data;
    use loggregator_proto::v2::{Envelope, EnvelopeBatch, Value};
    use prost::Message as _;

    use super::*;

    fn envelope(tags: &[(&str, &str)], deprecated: &[(&str, Data)]) -> Envelope {
        Envelope {
            source_id: "s".to_owned(),
            tags: tags
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            deprecated_tags: deprecated
                .iter()
                .map(|(key, data)| {
                    let data = Some(data.clone());
                    ((*key).to_owned(), Value { data })
                })
                .collect(),
            ..Envelope::default()
        }
    }

    fn text(value: &str) -> Data {
        Data::Text(value.to_owned())
    }

    fn bytes(batch: Vec<Envelope>) -> Bytes {
        EnvelopeBatch { batch }.encode_to_vec().into()
    }

    /// The envelopes of the parts, and how many there are in each.
    fn formed(batch: &Bytes, tags: Tags, budget: usize) -> (Vec<Envelope>, Vec<u64>) {
        let mut parts = VecDeque::new();
        let formed = form(batch, tags, budget, &mut parts).unwrap();
        let mut all = Vec::new();
        for part in &parts {
            let batch = EnvelopeBatch::decode(part.bytes.clone()).unwrap().batch;
            assert_eq!(batch.len() as u64, part.envelopes);
            all.extend(batch);
        }
        assert_eq!(formed.envelopes, all.len() as u64);
        (all, parts.iter().map(|part| part.envelopes).collect())
    }

    #[test]
    fn what_needs_no_move_is_passed_on_as_the_bytes_it_came_in() {
        for (tags, batch) in [
            (
                Tags::Preferred,
                bytes(vec![envelope(&[("a", "b")], &[]); 3]),
            ),
            (
                Tags::Deprecated,
                bytes(vec![envelope(&[], &[("a", text("b"))]); 3]),
            ),
            (Tags::Deprecated, bytes(vec![envelope(&[], &[]); 3])),
        ] {
            let mut parts = VecDeque::new();
            form(&batch, tags, 1 << 20, &mut parts).unwrap();
            assert_eq!(parts.len(), 1);
            assert_eq!(parts[0].envelopes, 3);
            assert_eq!(parts[0].bytes.as_ptr(), batch.as_ptr(), "copied");
            assert_eq!(parts[0].bytes, batch);
        }
    }

    #[test]
    fn deprecated_tags_become_tags_as_the_go_proxy_writes_them() {
        let mixed = envelope(
            &[("same", "new"), ("kept", "k")],
            &[
                ("same", text("old")),
                ("int", Data::Integer(-7)),
                ("dec", Data::Decimal(0.8)),
                ("big", Data::Decimal(1e21)),
                ("small", Data::Decimal(0.000_05)),
            ],
        );
        let plain = envelope(&[("x", "y")], &[]);
        let batch = bytes(vec![plain.clone(), mixed, plain.clone()]);
        let expected = envelope(
            &[
                ("same", "old"),
                ("kept", "k"),
                ("int", "-7"),
                ("dec", "0.8"),
                ("big", "1e+21"),
                ("small", "5e-05"),
            ],
            &[],
        );
        let (all, _) = formed(&batch, Tags::Preferred, 1 << 20);
        assert_eq!(all, [plain.clone(), expected, plain]);
    }

    #[test]
    fn a_deprecated_tag_without_a_value_goes() {
        let mut unset = envelope(&[], &[]);
        unset
            .deprecated_tags
            .insert("a".to_owned(), Value::default());
        let (all, _) = formed(&bytes(vec![unset]), Tags::Preferred, 1 << 20);
        assert_eq!(all, [envelope(&[], &[])]);
    }

    #[test]
    fn tags_become_deprecated_texts_and_override() {
        let mixed = envelope(
            &[("same", "new"), ("a", "b")],
            &[("same", Data::Integer(1)), ("kept", Data::Decimal(0.5))],
        );
        let expected = envelope(
            &[],
            &[
                ("same", text("new")),
                ("a", text("b")),
                ("kept", Data::Decimal(0.5)),
            ],
        );
        let (all, _) = formed(&bytes(vec![mixed]), Tags::Deprecated, 1 << 20);
        assert_eq!(all, [expected]);
    }

    #[test]
    fn a_batch_above_the_budget_is_cut_between_envelopes() {
        let envelopes: Vec<_> = (0..10)
            .map(|i| envelope(&[("n", &format!("{i}")), ("pad", &"x".repeat(100))], &[]))
            .collect();
        let batch = bytes(envelopes.clone());
        let budget = batch.len() / 4;
        for tags in [Tags::Preferred, Tags::Deprecated] {
            let (all, counts) = formed(&batch, tags, budget);
            assert!(counts.len() >= 5, "{counts:?}");
            let mut parts = VecDeque::new();
            form(&batch, tags, budget, &mut parts).unwrap();
            assert!(parts.iter().all(|part| part.bytes.len() <= budget));
            let order: Vec<_> = all
                .iter()
                .map(|one| match one.tags.get("n") {
                    Some(n) => n.clone(),
                    None => match &one.deprecated_tags["n"].data {
                        Some(Data::Text(n)) => n.clone(),
                        other => panic!("{other:?}"),
                    },
                })
                .collect();
            assert_eq!(order.join(""), "0123456789");
        }
    }

    #[test]
    fn an_envelope_above_the_budget_goes_alone() {
        let big = envelope(&[("pad", &"x".repeat(1000))], &[]);
        let small = envelope(&[], &[]);
        let batch = bytes(vec![small.clone(), big, small]);
        let (_, counts) = formed(&batch, Tags::Preferred, 100);
        assert_eq!(counts, [1, 1, 1]);
        let (_, counts) = formed(&batch, Tags::Deprecated, 100);
        assert_eq!(counts, [1, 1, 1]);
    }

    #[test]
    fn a_malformed_envelope_goes_alone_and_a_broken_batch_is_refused() {
        let good = envelope(&[], &[]);
        let mut out = BytesMut::from(&bytes(vec![good.clone()])[..]);
        // A source id of five bytes, of which one is there.
        record(&mut out, b"\x12\x05a");
        record(&mut out, &good.encode_to_vec());
        let mut parts = VecDeque::new();
        let formed = form(&out.freeze(), Tags::Preferred, 1 << 20, &mut parts).unwrap();
        let expected = Formed {
            envelopes: 2,
            malformed: 1,
        };
        assert_eq!(formed, expected);
        let broken = Bytes::from_static(b"\x0a\x7fabc");
        form(&broken, Tags::Preferred, 1 << 20, &mut parts).unwrap_err();
    }
}
