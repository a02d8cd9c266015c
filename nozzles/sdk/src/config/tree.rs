//! A parsed file as a tree in which every key and value knows its place.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;

/// A value with its place.
#[derive(Clone)]
pub(super) struct Node {
    pub span: Range<usize>,
    pub value: Value,
}

/// A value. TOML's dates are texts: nothing here has the type of one.
#[derive(Clone)]
pub(super) enum Value {
    Text(String),
    Integer(i128),
    Float(f64),
    Boolean(bool),
    List(Vec<Node>),
    Table(Table),
}

/// Each key with its own place and its value.
pub(super) type Table = BTreeMap<String, Entry>;

/// The value of a key.
#[derive(Clone)]
pub(super) struct Entry {
    pub key_span: Range<usize>,
    pub node: Node,
}

/// A step from a table or list to what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl Node {
    pub(super) fn new(span: Range<usize>, value: Value) -> Node {
        Node { span, value }
    }

    /// What the parser read, `by` bytes further on.
    ///
    /// # Errors
    /// The place of a number that is none of a machine's.
    pub(super) fn of(parsed: Spanned<DeValue<'_>>, by: usize) -> Result<Node, Range<usize>> {
        let span = parsed.span().start + by..parsed.span().end + by;
        let value = match parsed.into_inner() {
            DeValue::String(text) => Value::Text(text.into_owned()),
            DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
                .map(Value::Integer)
                .map_err(|_| span.clone())?,
            DeValue::Float(number) => {
                let number = number.as_str().parse().map_err(|_| span.clone())?;
                Value::Float(number)
            }
            DeValue::Boolean(value) => Value::Boolean(value),
            DeValue::Datetime(date) => Value::Text(date.to_string()),
            DeValue::Array(items) => Value::List(
                items
                    .into_iter()
                    .map(|item| Node::of(item, by))
                    .collect::<Result<_, _>>()?,
            ),
            DeValue::Table(table) => Value::Table(
                table
                    .into_iter()
                    .map(|(key, value)| {
                        let entry = Entry {
                            key_span: key.span().start + by..key.span().end + by,
                            node: Node::of(value, by)?,
                        };
                        Ok::<_, Range<usize>>((key.into_inner().into_owned(), entry))
                    })
                    .collect::<Result<_, _>>()?,
            ),
        };
        Ok(Node { span, value })
    }

    pub(super) fn table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn list(&self) -> Option<&[Node]> {
        match &self.value {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// What it holds at this key.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        Some(&self.table()?.get(key)?.node)
    }

    /// What a path leads to.
    pub(super) fn at(&self, path: &[Step]) -> Option<&Node> {
        path.iter().try_fold(self, Node::step)
    }

    /// The place of what a path leads to, or of what is nearest around where it should be.
    pub(super) fn place(&self, path: &[Step]) -> Range<usize> {
        let mut node = self;
        for step in path {
            match node.step(step) {
                Some(next) => node = next,
                None => break,
            }
        }
        node.span.clone()
    }

    fn step(&self, step: &Step) -> Option<&Node> {
        match (&self.value, step) {
            (Value::Table(table), Step::Key(key)) => Some(&table.get(key)?.node),
            (Value::List(items), Step::Index(i)) => items.get(*i),
            _ => None,
        }
    }

    fn step_mut(&mut self, step: &Step) -> Option<&mut Node> {
        match (&mut self.value, step) {
            (Value::Table(table), Step::Key(key)) => Some(&mut table.get_mut(key)?.node),
            (Value::List(items), Step::Index(i)) => items.get_mut(*i),
            _ => None,
        }
    }

    /// Takes out what a path leads to; whether there was anything.
    pub(super) fn remove(&mut self, path: &[Step]) -> bool {
        let Some((last, tables)) = path.split_last() else {
            return false;
        };
        let parent = tables.iter().try_fold(self, Node::step_mut);
        match (parent.map(|parent| &mut parent.value), last) {
            (Some(Value::Table(table)), Step::Key(key)) => table.remove(key).is_some(),
            (Some(Value::List(items)), Step::Index(i)) if *i < items.len() => {
                items.remove(*i);
                true
            }
            _ => false,
        }
    }

    /// Puts a value where a path leads, in the place of what is there; whether it leads anywhere.
    pub(super) fn put(&mut self, path: &[Step], node: Node) -> bool {
        let Some((last, tables)) = path.split_last() else {
            *self = node;
            return true;
        };
        let parent = tables.iter().try_fold(self, Node::step_mut);
        match (parent.map(|parent| &mut parent.value), last) {
            (Some(Value::Table(table)), Step::Key(key)) => {
                let key_span = table
                    .get(key)
                    .map_or(node.span.clone(), |entry| entry.key_span.clone());
                table.insert(key.clone(), Entry { key_span, node });
                true
            }
            (Some(Value::List(items)), Step::Index(i)) if *i < items.len() => {
                items[*i] = node;
                true
            }
            _ => false,
        }
    }

    /// Whether it says the same as another one, wherever that stands.
    pub(super) fn same(&self, other: &Node) -> bool {
        match (&self.value, &other.value) {
            (Value::Text(a), Value::Text(b)) => a == b,
            (Value::Integer(a), Value::Integer(b)) => a == b,
            (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
            (Value::Boolean(a), Value::Boolean(b)) => a == b,
            (Value::List(a), Value::List(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b))
            }
            (Value::Table(a), Value::Table(b)) => {
                a.len() == b.len()
                    && a.iter()
                        .zip(b)
                        .all(|((a, this), (b, that))| a == b && this.node.same(&that.node))
            }
            _ => false,
        }
    }
}

/// `a.b[1]` as its steps.
pub(super) fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let (key, indices) = part.split_at(part.find('[').unwrap_or(part.len()));
        if !key.is_empty() {
            steps.push(Step::Key(key.to_owned()));
        }
        let indices = indices.split(['[', ']']);
        steps.extend(indices.filter_map(|index| Some(Step::Index(index.parse().ok()?))));
    }
    steps
}

/// Steps as they are shown: `a.b[1]`, behind what `at` says.
pub(super) fn shown(at: &str, path: &[Step]) -> String {
    let mut text = at.to_owned();
    for step in path {
        match step {
            Step::Key(key) => text = join(&text, key),
            Step::Index(i) => text.push_str(&format!("[{i}]")),
        }
    }
    text
}

/// `a` and `b` as `a.b`.
pub(super) fn join(path: &str, key: &str) -> String {
    match (path.is_empty(), key.is_empty()) {
        (true, _) => key.to_owned(),
        (_, true) => path.to_owned(),
        _ => format!("{path}.{key}"),
    }
}

/// Without values: some are secret.
impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::Table(table) => f.debug_set().entries(table.keys()).finish(),
            _ => f.write_str("_"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_and_written() {
        let path = "a.b_c[1][2].d";
        assert_eq!(
            steps(path),
            [
                Step::Key("a".to_owned()),
                Step::Key("b_c".to_owned()),
                Step::Index(1),
                Step::Index(2),
                Step::Key("d".to_owned())
            ]
        );
        assert_eq!(shown("", &steps(path)), path);
        assert_eq!(shown("x", &steps("y")), "x.y");
    }
}
