//! What people see of envelopes: which of them, and how they look.

mod clock;
mod filter;
mod paint;
mod text;
mod units;

pub use clock::{LocalTime, Stamp};
pub use filter::{Filter, FilterArgs, is_glob, source_set};
pub use paint::{Paint, Palette};
pub use text::Text;
pub use units::{count, thousands, write_bytes};
