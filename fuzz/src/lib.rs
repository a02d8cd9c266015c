//! What must hold for any bytes, one function per decoder.

pub mod checks;
