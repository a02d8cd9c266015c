//! Envelopes as bytes: frame, index, selection, splicing, v1 and v2 conversion, JSON.
