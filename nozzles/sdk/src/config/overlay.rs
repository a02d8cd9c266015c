//! Variables of the environment that replace keys of the file.
//!
//! `NOZZLE__INTAKE__RLP__ADDRS` is the key `intake.rlp.addrs`: two underscores part the names, and capitals stand for small
//! letters. A destination is found by its name, with underscores for hyphens and dots:
//! `NOZZLE__DESTINATION__SIEM__SYSLOG__URL`. The value is a value of TOML, or, where a text is wanted, the text as it stands.

use std::ops::Range;

use super::document::parse_value;
use super::errors::ConfigError;
use super::read::{error, not_one_of};
use super::source::Source;
use super::tree::{Entry, Node, Table, Value};

/// What the names of such variables begin with.
pub const ENV_PREFIX: &str = "NOZZLE__";

/// The variables of this process that begin with [`ENV_PREFIX`]. One that is no Unicode is read with its odd bytes replaced.
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .map(|(name, value)| {
            let text = |os: std::ffi::OsString| os.to_string_lossy().into_owned();
            (text(name), text(value))
        })
        .filter(|(name, _)| name.starts_with(ENV_PREFIX))
        .collect()
}

/// Puts the variables into the tree; those that have no place in it are errors.
pub(super) fn apply(
    source: &mut Source,
    root: &mut Node,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Vec<ConfigError> {
    let mut wrong = Vec::new();
    let mut variables: Vec<_> = variables
        .into_iter()
        .filter(|(name, _)| name.starts_with(ENV_PREFIX))
        .collect();
    // The environment has no order; errors and a variable inside another one's table should have one.
    variables.sort();
    for (name, text) in variables {
        let span = source.add(&name, &text);
        if let Err(message) = put(root, &name[ENV_PREFIX.len()..], &text, &span) {
            wrong.push(error(source, "", &span, message));
        }
    }
    wrong
}

fn put(root: &mut Node, name: &str, text: &str, span: &Range<usize>) -> Result<(), String> {
    let mut names: Vec<&str> = name.split("__").collect();
    if names.iter().any(|name| name.is_empty()) {
        return Err("names no key; write NOZZLE__TABLE__KEY".to_owned());
    }
    let value = value(text, span);
    let mut node = root;
    if names[0] == "DESTINATION" {
        if names.len() < 3 {
            return Err(
                "names no key of a destination; write NOZZLE__DESTINATION__NAME__KEY".to_owned(),
            );
        }
        node = destination(node, names[1])?;
        names.drain(..2);
    } else if names[0] == "TEST" {
        return Err("tests are not changed by variables".to_owned());
    }
    let Some((last, tables)) = names.split_last() else {
        return Err("names no key".to_owned());
    };
    for name in tables {
        let Value::Table(table) = &mut node.value else {
            return Err("stands inside a value that is no table".to_owned());
        };
        let key = existing(table, name);
        let entry = table.entry(key).or_insert_with(|| Entry {
            key_span: span.clone(),
            node: Node::new(span.clone(), Value::Table(Table::new())),
        });
        node = &mut entry.node;
    }
    let Value::Table(table) = &mut node.value else {
        return Err("stands inside a value that is no table".to_owned());
    };
    let entry = Entry {
        key_span: span.clone(),
        node: value,
    };
    table.insert(existing(table, last), entry);
    Ok(())
}

/// The key of a table that a name in capitals stands for; in small letters where there is none yet.
fn existing(table: &Table, name: &str) -> String {
    let known = table.keys().find(|key| in_capitals(key) == name);
    known.map_or_else(|| name.to_lowercase(), String::clone)
}

fn in_capitals(name: &str) -> String {
    name.to_uppercase().replace(['-', '.'], "_")
}

fn destination<'a>(root: &'a mut Node, name: &str) -> Result<&'a mut Node, String> {
    let destinations = match &mut root.value {
        Value::Table(table) => table.get_mut("destination").map(|it| &mut it.node.value),
        _ => None,
    };
    let Some(Value::List(destinations)) = destinations else {
        return Err("there is no destination".to_owned());
    };
    let names: Vec<String> = destinations
        .iter()
        .map(|node| in_capitals(node.get("name").and_then(Node::text).unwrap_or_default()))
        .collect();
    match names.iter().position(|known| known == name) {
        Some(at) => Ok(&mut destinations[at]),
        None => {
            let known: Vec<&str> = names.iter().map(String::as_str).collect();
            Err(format!("no such destination: {}", not_one_of(name, &known)))
        }
    }
}

/// The value that a text stands for, in the place of the variable.
fn value(text: &str, span: &Range<usize>) -> Node {
    match parse_value(text, span.start) {
        Some(node) => Node::new(span.clone(), node.value),
        None => Node::new(span.clone(), Value::Text(text.to_owned())),
    }
}
