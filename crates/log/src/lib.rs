//! The byte-bounded in-memory log of frames and its cursors.
