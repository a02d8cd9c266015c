//! From text to a checked expression.

use loggregator_envelope::Kind;
use memchr::memmem::Finder;
use regex::bytes::RegexBuilder;

use super::token::{Token, tokens};
use super::{Expr, FilterError, Order, Quantity, TextTest};
use crate::fields::Field;

/// Parentheses and `not`s within each other.
const MAX_DEPTH: usize = 64;
/// Bytes that a compiled regular expression may take.
const MAX_REGEX: usize = 1 << 20;

pub(super) fn parse(text: &str) -> Result<Expr, FilterError> {
    let mut parser = Parser {
        end: text.chars().count() + 1,
        tokens: tokens(text)?,
        next: 0,
        depth: 0,
    };
    if parser.tokens.is_empty() {
        return Err(FilterError {
            at: 1,
            message: "there is no expression; `true` lets everything pass".to_owned(),
        });
    }
    let expr = parser.or()?;
    match parser.peek() {
        None => Ok(expr),
        Some(token) => {
            let message = format!("{} is not expected here; `and` or `or`?", token.shown());
            Err(parser.error(message))
        }
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    end: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    fn place(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |(at, _)| *at)
    }

    fn error(&self, message: impl Into<String>) -> FilterError {
        FilterError {
            at: self.place(),
            message: message.into(),
        }
    }

    fn expected(&self, what: &str) -> FilterError {
        match self.peek() {
            Some(token) => self.error(format!("{what} is expected, not {}", token.shown())),
            None => self.error(format!("{what} is expected")),
        }
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(found)) if found == word);
        self.next += usize::from(found);
        found
    }

    fn take_sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Sign(found)) if *found == sign);
        self.next += usize::from(found);
        found
    }

    fn expect_sign(&mut self, sign: &str) -> Result<(), FilterError> {
        if self.take_sign(sign) {
            return Ok(());
        }
        Err(self.expected(&format!("`{sign}`")))
    }

    fn or(&mut self) -> Result<Expr, FilterError> {
        let mut parts = vec![self.and()?];
        while self.take_word("or") {
            parts.push(self.and()?);
        }
        Ok(one_or(parts, Expr::Or))
    }

    fn and(&mut self) -> Result<Expr, FilterError> {
        let mut parts = vec![self.not()?];
        while self.take_word("and") {
            parts.push(self.not()?);
        }
        Ok(one_or(parts, Expr::And))
    }

    fn not(&mut self) -> Result<Expr, FilterError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(format!("more than {MAX_DEPTH} levels of parentheses")));
        }
        let expr = if self.take_word("not") {
            Expr::Not(Box::new(self.not()?))
        } else if self.take_sign("(") {
            let inside = self.or()?;
            self.expect_sign(")")?;
            inside
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn test(&mut self) -> Result<Expr, FilterError> {
        let Some(Token::Word(word)) = self.peek() else {
            return Err(self.expected("a field"));
        };
        let word = word.clone();
        if word == "true" || word == "false" {
            self.next += 1;
            return Ok(Expr::Const(word == "true"));
        }
        if word == "sample" {
            self.next += 1;
            return self.sample();
        }
        if let Some(quantity) = Quantity::parse(&word) {
            self.next += 1;
            return self.number_test(quantity);
        }
        let field = Field::parse(&word)
            .map_err(|unknown| self.error(format!("{unknown}; numbers are {}", Quantity::LIST)))?;
        self.next += 1;
        self.text_test(field)
    }

    fn sample(&mut self) -> Result<Expr, FilterError> {
        self.expect_sign("(")?;
        let share = match self.peek() {
            Some(Token::Number(share)) if (0.0..=1.0).contains(share) => *share,
            _ => return Err(self.expected("a share between 0 and 1")),
        };
        self.next += 1;
        self.expect_sign(")")?;
        // Exact: the product is at most 2^32.
        Ok(Expr::Sample((share * 4_294_967_296.0) as u64))
    }

    fn number_test(&mut self, quantity: Quantity) -> Result<Expr, FilterError> {
        let (order, negated) = match self.peek() {
            Some(Token::Sign("==")) => (Order::Equal, false),
            Some(Token::Sign("!=")) => (Order::Equal, true),
            Some(Token::Sign("<")) => (Order::Less, false),
            Some(Token::Sign("<=")) => (Order::LessOrEqual, false),
            Some(Token::Sign(">")) => (Order::Greater, false),
            Some(Token::Sign(">=")) => (Order::GreaterOrEqual, false),
            _ => return Err(self.expected("one of ==, !=, <, <=, >, >=")),
        };
        self.next += 1;
        let Some(Token::Number(number)) = self.peek() else {
            return Err(self.expected("a number"));
        };
        let expr = Expr::Number(quantity, order, *number);
        self.next += 1;
        Ok(negate_if(negated, expr))
    }

    fn text_test(&mut self, field: Field) -> Result<Expr, FilterError> {
        let operator = match self.peek() {
            Some(Token::Sign(sign @ ("==" | "!=" | "=~" | "!~"))) => (*sign).to_owned(),
            Some(Token::Sign(sign @ ("<" | "<=" | ">" | ">="))) => {
                return Err(self.error(format!("`{field}` is a text and `{sign}` is for numbers")));
            }
            Some(Token::Word(word))
                if ["in", "contains", "startswith", "endswith"].contains(&word.as_str()) =>
            {
                word.clone()
            }
            _ => return Ok(Expr::Has(field)),
        };
        self.next += 1;
        if operator == "in" {
            let mut values = self.list(&field)?;
            values.sort();
            values.dedup();
            return Ok(Expr::Text(field, TextTest::In(values)));
        }
        let at = self.place();
        let value = self.value(&field, operator == "==" || operator == "!=")?;
        let test = match operator.as_str() {
            "==" | "!=" => TextTest::In(vec![value]),
            "=~" | "!~" => {
                let built = RegexBuilder::new(&value).size_limit(MAX_REGEX).build();
                let error = |error: regex::Error| FilterError {
                    at,
                    message: one_line(&error.to_string()),
                };
                TextTest::Matches(built.map_err(error)?)
            }
            "contains" => TextTest::Contains(Box::new(Finder::new(value.as_bytes()).into_owned())),
            "startswith" => TextTest::StartsWith(value),
            _ => TextTest::EndsWith(value),
        };
        Ok(negate_if(
            operator.starts_with('!'),
            Expr::Text(field, test),
        ))
    }

    fn list(&mut self, field: &Field) -> Result<Vec<String>, FilterError> {
        self.expect_sign("[")?;
        let mut values = Vec::new();
        while !self.take_sign("]") {
            values.push(self.value(field, true)?);
            if !self.take_sign(",") {
                self.expect_sign("]")?;
                break;
            }
        }
        Ok(values)
    }

    /// A text; one that `field` can be equal to, if that is asked.
    fn value(&mut self, field: &Field, whole: bool) -> Result<String, FilterError> {
        let Some(Token::Text(value)) = self.peek() else {
            return Err(self.expected("a text in quotes"));
        };
        let value = value.clone();
        let possible: &[&str] = match field {
            Field::Kind => &KINDS,
            Field::Stream => &["out", "err"],
            _ => &[],
        };
        if whole && !possible.is_empty() && !possible.contains(&value.as_str()) {
            let list = possible.join(", ");
            return Err(self.error(format!("`{field}` is never {value:?}; it is one of {list}")));
        }
        self.next += 1;
        Ok(value)
    }
}

const KINDS: [&str; 5] = [
    Kind::Log.name(),
    Kind::Counter.name(),
    Kind::Gauge.name(),
    Kind::Timer.name(),
    Kind::Event.name(),
];

impl Quantity {
    const LIST: &'static str = "duration_ms, delta, total, value, bytes";

    fn parse(word: &str) -> Option<Quantity> {
        Some(match word {
            "duration_ms" => Quantity::DurationMs,
            "delta" => Quantity::Delta,
            "total" => Quantity::Total,
            "value" => Quantity::Value,
            "bytes" => Quantity::Bytes,
            _ => return None,
        })
    }
}

fn one_or(mut parts: Vec<Expr>, many: fn(Vec<Expr>) -> Expr) -> Expr {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            many(parts)
        }
        None => Expr::Const(true),
    }
}

fn negate_if(negated: bool, expr: Expr) -> Expr {
    if negated {
        Expr::Not(Box::new(expr))
    } else {
        expr
    }
}

/// The last line of a message that draws: it says what is wrong.
fn one_line(message: &str) -> String {
    let last = message.lines().rev().find(|line| !line.trim().is_empty());
    let last = last.unwrap_or(message).trim();
    format!(
        "not a regular expression: {}",
        last.strip_prefix("error: ").unwrap_or(last)
    )
}
