//! Whether an expression holds for an event.

use loggregator_envelope::Kind;

use super::{Expr, Order, Quantity, TextTest};
use crate::event::Event;
use crate::fields::Field;

impl Expr {
    pub(super) fn holds(&self, event: &Event) -> bool {
        match self {
            Expr::Const(value) => *value,
            Expr::Not(inside) => !inside.holds(event),
            Expr::And(parts) => parts.iter().all(|part| part.holds(event)),
            Expr::Or(parts) => parts.iter().any(|part| part.holds(event)),
            Expr::Has(field) => event.field(field).is_some(),
            Expr::Text(field, test) => text_holds(event, field, test),
            Expr::Number(quantity, order, bound) => number_holds(event, *quantity, *order, *bound),
            Expr::Sample(below) => sampled(event.seq) < *below,
        }
    }
}

fn text_holds(event: &Event, field: &Field, test: &TextTest) -> bool {
    let envelope = event.envelope();
    match field {
        // The line may be anything, and may be long.
        Field::Text if envelope.kind() == Kind::Log => {
            envelope.log().is_some_and(|log| test.holds(log.payload))
        }
        Field::Name if envelope.kind() == Kind::Gauge => envelope
            .gauge()
            .any(|metric| test.holds(metric.name.as_bytes())),
        _ => event
            .field(field)
            .is_some_and(|value| test.holds(value.as_bytes())),
    }
}

impl TextTest {
    fn holds(&self, value: &[u8]) -> bool {
        match self {
            TextTest::In(values) => values
                .binary_search_by(|candidate| candidate.as_bytes().cmp(value))
                .is_ok(),
            TextTest::Matches(regex) => regex.is_match(value),
            TextTest::Contains(finder) => finder.find(value).is_some(),
            TextTest::StartsWith(prefix) => value.starts_with(prefix.as_bytes()),
            TextTest::EndsWith(suffix) => value.ends_with(suffix.as_bytes()),
        }
    }
}

fn number_holds(event: &Event, quantity: Quantity, order: Order, bound: f64) -> bool {
    let envelope = event.envelope();
    let holds = |value: f64| match order {
        Order::Equal => value == bound,
        Order::Less => value < bound,
        Order::LessOrEqual => value <= bound,
        Order::Greater => value > bound,
        Order::GreaterOrEqual => value >= bound,
    };
    match quantity {
        Quantity::DurationMs => envelope
            .timer()
            .is_some_and(|timer| holds(timer.stop.wrapping_sub(timer.start) as f64 / 1e6)),
        Quantity::Delta => envelope.counter().is_some_and(|c| holds(c.delta as f64)),
        Quantity::Total => envelope.counter().is_some_and(|c| holds(c.total as f64)),
        Quantity::Value => envelope.gauge().any(|metric| holds(metric.value)),
        Quantity::Bytes => holds(event.body().len() as f64),
    }
}

/// A value below 2^32 made of an event's number: the same at every attempt and after a restart, and different for its
/// neighbours (the finaliser of MurmurHash3, public domain constants).
fn sampled(seq: u64) -> u64 {
    let mut hash = seq ^ (seq >> 33);
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (hash ^ (hash >> 33)) >> 32
}
