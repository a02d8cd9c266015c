//! A tree as a source of values for serde, with errors that know what they are about.

use std::fmt;
use std::ops::Range;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::tree::{Entry, Node, Step, Value};

/// Why a value could not be read.
#[derive(Debug)]
pub(super) struct Failure {
    pub why: Why,
    /// What it is about; `None` until that is known.
    pub span: Option<Range<usize>>,
    /// From the value that was to be read to what it is about.
    pub path: Vec<Step>,
}

/// See [`Failure`].
#[derive(Debug)]
pub(super) enum Why {
    UnknownKey {
        name: String,
        known: &'static [&'static str],
    },
    UnknownWord {
        word: String,
        known: &'static [&'static str],
    },
    /// The path leads to the table in which it should be.
    Missing(&'static str),
    Wrong {
        found: String,
        expected: String,
    },
    Other(String),
}

impl Failure {
    fn new(why: Why) -> Failure {
        Failure {
            why,
            span: None,
            path: Vec::new(),
        }
    }

    /// It is about what stands there, unless something more exact is known.
    fn or_at(mut self, span: &Range<usize>) -> Failure {
        self.span.get_or_insert_with(|| span.clone());
        self
    }

    fn under(mut self, step: Step) -> Failure {
        self.path.insert(0, step);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.why)
    }
}

impl std::error::Error for Failure {}

impl de::Error for Failure {
    fn custom<T: fmt::Display>(message: T) -> Failure {
        Failure::new(Why::Other(message.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Failure {
        Failure::invalid_value(found, expected)
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Failure {
        let found = match found {
            Unexpected::Str(text) => format!("the text {text:?}"),
            Unexpected::Signed(number) => format!("the number {number}"),
            Unexpected::Unsigned(number) => format!("the number {number}"),
            Unexpected::Float(number) => format!("the number {number}"),
            Unexpected::Bool(value) => value.to_string(),
            Unexpected::Map => "a table".to_owned(),
            Unexpected::Seq => "a list".to_owned(),
            other => other.to_string(),
        };
        Failure::new(Why::Wrong {
            found,
            expected: in_words(&expected.to_string()),
        })
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Failure {
        Failure::new(Why::Wrong {
            found: format!("{length} of them"),
            expected: in_words(&expected.to_string()),
        })
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Failure {
        Failure::new(Why::UnknownKey {
            name: name.to_owned(),
            known,
        })
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> Failure {
        Failure::new(Why::UnknownWord {
            word: word.to_owned(),
            known,
        })
    }

    fn missing_field(name: &'static str) -> Failure {
        Failure::new(Why::Missing(name))
    }
}

/// What Rust calls its types, as people do who write a configuration.
fn in_words(expected: &str) -> String {
    let words = match expected {
        "a string" | "path string" | "a character" => "a text",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "a table",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number, not below 0",
        "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "socket address" => "an address such as \"127.0.0.1:14830\"",
        name if name.starts_with("struct ") => "a table",
        other => other,
    };
    words.to_owned()
}

/// Reads a node.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub &'a Node);

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let read = match &self.0.value {
            Value::Text(text) => visitor.visit_str(text),
            Value::Integer(number) => match (i64::try_from(*number), u64::try_from(*number)) {
                (Ok(number), _) => visitor.visit_i64(number),
                (_, Ok(number)) => visitor.visit_u64(number),
                _ => visitor.visit_i128(*number),
            },
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(value) => visitor.visit_bool(*value),
            Value::List(items) => visitor.visit_seq(Items {
                rest: items.iter().enumerate(),
            }),
            Value::Table(table) => visitor.visit_map(Entries {
                rest: table.iter(),
                value: None,
            }),
        };
        read.map_err(|failure| failure.or_at(&self.0.span))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor
            .visit_some(self)
            .map_err(|failure| failure.or_at(&self.0.span))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor
            .visit_newtype_struct(self)
            .map_err(|failure| failure.or_at(&self.0.span))
    }

    /// A word, or a table whose one key is the word.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let read = match &self.0.value {
            Value::Text(text) => {
                let word: StrDeserializer<'_, Failure> = text.as_str().into_deserializer();
                visitor.visit_enum(word)
            }
            Value::Table(table) => match table.iter().next() {
                Some((key, entry)) if table.len() == 1 => visitor.visit_enum(Choice { key, entry }),
                _ => Err(de::Error::custom("exactly one table must stand here")),
            },
            _ => Err(Failure::new(Why::Wrong {
                found: "something else".to_owned(),
                expected: "a text or a table".to_owned(),
            })),
        };
        read.map_err(|failure| failure.or_at(&self.0.span))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

struct Items<'a> {
    rest: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Failure> {
        let Some((i, item)) = self.rest.next() else {
            return Ok(None);
        };
        let read = seed.deserialize(Reader(item)).map(Some);
        read.map_err(|failure| failure.or_at(&item.span).under(Step::Index(i)))
    }
}

struct Entries<'a> {
    rest: std::collections::btree_map::Iter<'a, String, Entry>,
    value: Option<(&'a String, &'a Entry)>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Failure> {
        self.value = self.rest.next();
        let Some((key, entry)) = self.value else {
            return Ok(None);
        };
        read_key(seed, key, entry).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        let Some((key, entry)) = self.value.take() else {
            return Err(de::Error::custom("a value without a key"));
        };
        let read = seed.deserialize(Reader(&entry.node));
        read.map_err(|failure| {
            let failure = failure.or_at(&entry.node.span);
            failure.under(Step::Key(key.clone()))
        })
    }
}

fn read_key<'de, K: DeserializeSeed<'de>>(
    seed: K,
    key: &str,
    entry: &Entry,
) -> Result<K::Value, Failure> {
    let name: StrDeserializer<'_, Failure> = key.into_deserializer();
    seed.deserialize(name).map_err(|failure| {
        let failure = failure.or_at(&entry.key_span);
        failure.under(Step::Key(key.to_owned()))
    })
}

struct Choice<'a> {
    key: &'a str,
    entry: &'a Entry,
}

impl<'de> EnumAccess<'de> for Choice<'_> {
    type Error = Failure;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Failure> {
        let variant = read_key(seed, self.key, self.entry)?;
        Ok((variant, self))
    }
}

impl Choice<'_> {
    fn inside(&self, failure: Failure) -> Failure {
        let failure = failure.or_at(&self.entry.node.span);
        failure.under(Step::Key(self.key.to_owned()))
    }
}

impl<'de> VariantAccess<'de> for Choice<'_> {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        match self.entry.node.table() {
            Some(table) if table.is_empty() => Ok(()),
            _ => Err(self.inside(de::Error::custom("must be an empty table"))),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Failure> {
        let read = seed.deserialize(Reader(&self.entry.node));
        read.map_err(|failure| self.inside(failure))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Failure> {
        let read = Reader(&self.entry.node).deserialize_any(visitor);
        read.map_err(|failure| self.inside(failure))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let read = Reader(&self.entry.node).deserialize_any(visitor);
        read.map_err(|failure| self.inside(failure))
    }
}
