//! The protocol definitions of the pipeline and the types generated from them.
