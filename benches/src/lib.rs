//! Benches: criterion, the load generator, the floor relay and recorded scenarios.
