//! Whole pipelines in one process on ephemeral ports, certificates and ledger assertions. For tests only.
