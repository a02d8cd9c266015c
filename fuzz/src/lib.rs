//! What must hold for any bytes, one function per decoder.

pub mod buffer;
pub mod checks;

/// The one file of the nozzles that is fuzzed, without everything else that they need.
#[path = "../../nozzles/sdk/src/buffer/format.rs"]
pub mod format;
