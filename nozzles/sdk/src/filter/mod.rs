//! Filters: typed expressions over an event, checked when the configuration is loaded.
//!
//! ```text
//! kind == "log" and org in ["acme", "globex"] and not text =~ "(?i)debug"
//! source_type startswith "APP" or (job == "router" and name contains "latency")
//! kind == "timer" and duration_ms > 500
//! sample(0.1)
//! ```
//!
//! | | |
//! | --- | --- |
//! | texts | every [`Field`]; `==`, `!=`, `=~`, `!~` (a regular expression somewhere in it), `contains`, `startswith`, `endswith`, `in [...]` |
//! | numbers | `duration_ms` of timers, `delta` and `total` of counters, `value` of gauges (any of them), `bytes` of the envelope; `==`, `!=`, `<`, `<=`, `>`, `>=` |
//! | alone | a field: the event says something there; `true`, `false`; `sample(0.1)`: one event in ten, always the same ones |
//! | together | `not`, `and`, `or` in this order of strength, parentheses |
//!
//! A comparison with something that the event does not have is false; `!=` and `!~` are the opposite of `==` and `=~`, so
//! they are true then. An expression cannot fail: whatever is wrong with it is found when it is read.

mod eval;
mod narrow;
mod parse;
mod token;

use loggregator_envelope::KindSet;
use regex::bytes::Regex;

use crate::event::Event;
use crate::fields::Field;

/// A filter that was checked.
#[derive(Debug, Clone)]
pub struct Filter {
    expr: Expr,
}

/// An expression that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}: {message}")]
pub struct FilterError {
    /// Where in the expression, in characters counted from 1.
    pub at: usize,
    /// What is wrong there.
    pub message: String,
}

#[derive(Debug, Clone)]
enum Expr {
    Const(bool),
    Not(Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Has(Field),
    Text(Field, TextTest),
    Number(Quantity, Order, f64),
    /// Of the 2^32 values of a hash those below.
    Sample(u64),
}

#[derive(Debug, Clone)]
enum TextTest {
    /// Sorted.
    In(Vec<String>),
    Matches(Regex),
    Contains(Box<memchr::memmem::Finder<'static>>),
    StartsWith(String),
    EndsWith(String),
}

/// A number that an event may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantity {
    DurationMs,
    Delta,
    Total,
    Value,
    Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Filter {
    /// The filter that lets everything pass.
    #[must_use]
    pub fn everything() -> Filter {
        Filter {
            expr: Expr::Const(true),
        }
    }

    /// Reads an expression.
    ///
    /// # Errors
    /// When it is none, names a field that there is not, or compares what cannot be compared.
    pub fn parse(text: &str) -> Result<Filter, FilterError> {
        parse::parse(text).map(|expr| Filter { expr })
    }

    /// Whether it lets everything pass.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        matches!(self.expr, Expr::Const(true))
    }

    /// Whether it holds for this event.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        self.expr.holds(event)
    }

    /// The kinds of envelopes for which it can hold at all. None: it never holds.
    #[must_use]
    pub fn kinds(&self) -> KindSet {
        self.expr.kinds().holds
    }

    /// The source ids for which alone it can hold, if it says so.
    #[must_use]
    pub fn source_ids(&self) -> Option<Vec<String>> {
        self.expr.source_ids()
    }
}

impl Default for Filter {
    fn default() -> Self {
        Filter::everything()
    }
}

#[cfg(test)]
mod tests;
