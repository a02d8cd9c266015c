//! Everything on the emitter's machine: ingress, inputs, tags, totals, batches and the way to the dopplers.
