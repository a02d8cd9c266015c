//! The log: where a doppler keeps what it received until everybody who wants it has read it, or until memory is full.
//!
//! On the data path this crate stands between ingress and egress:
//!
//! ```text
//! ingress ─ scan ─► Log::append ─► ring of slots ─► Cursor::take ─► egress
//!                      │ copies the frame once,        │ shared slices,
//!                      │ wakes who waits               │ no copy
//!                      └ evicts the oldest segment ──► Reader::evicted counts what was not read
//! ```
//!
//! Rules that everything here keeps:
//!
//! * **Appending never waits for a reader.** When memory is full the oldest segment goes, read or not.
//! * **Bounded in bytes**, not in envelopes: segments, indexes, dropsonde forms and memory that slow connections still
//!   hold are all counted ([`Fill`]).
//! * **Every loss has a number.** A slot is never evicted before each [`Reader`] that had not read it was told, with the
//!   slot in hand, so a reader counts exactly what it missed and of which sources ([`Tally`]).
//! * **Lock order**: writer, then ring, then readers. A reader that wants both takes the [`View`] first and its own
//!   lock second. Nothing is locked per envelope.
//!
//! The crate knows nothing of subscriptions, selectors or protocols; those are the doppler's.

mod cursor;
mod log;
mod populate;
mod ring;
mod segment;
mod shed;
mod sync;
mod tally;
mod wait;

pub use cursor::{Cursor, Piece, Position};
pub use log::{Fill, Log, LogConfig, Reader};
pub use ring::{Slot, View};
pub use shed::{ShedPlan, Survey};
pub use tally::{SourceCount, Tally};
pub use wait::{Ticket, WaitList};
