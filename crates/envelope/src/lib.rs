//! Envelopes as bytes: frame, index, selection, splicing, v1 and v2 conversion, JSON.
//!
//! A doppler receives an `EnvelopeBatch`, keeps it, and sends it on; it hardly ever needs to know what is inside. So
//! nothing here decodes a batch into values. [`scan()`] goes over the bytes once, checks them, and notes for every
//! envelope where it lies, its source id, and its [`Kind`]; bytes and index together are a [`Frame`]. Whoever wants to
//! know more of one envelope reads it through [`EnvelopeRef`]; whoever wants another frame of the same envelopes joins
//! records ([`select`]) or edits them where they lie ([`splice`]). Old readers get the [`v1`] form, made once for
//! all of them, and people get [`json`].
//!
//! The rules of the bytes are those of protobuf as the Go runtime applies them: the last occurrence of a field counts,
//! unknown fields stay, the order of fields does not matter.

mod frame;
mod hash;
mod index;
pub mod json;
mod kind;
mod notice;
mod number;
mod outline;
mod scan;
pub mod select;
pub mod splice;
pub mod v1;
mod view;
mod wire;

pub use frame::{Frame, Parsed};
pub use hash::source_hash;
pub use index::{Entry, Index};
pub use kind::{Flags, Kind, KindSet};
pub use notice::Notice;
pub use outline::Outline;
pub use scan::{Scan, ScanError, Survey, scan, split, survey};
pub use select::FrameBuilder;
pub use v1::{AppId, V1Builder, V1Entry, V1Error, V1Frame};
pub use view::{CounterRef, EnvelopeRef, EventRef, LogRef, MetricRef, TagValue, TimerRef};
pub use wire::Fault;
