//! From the text of a file, and the variables around it, to a configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check;
use super::errors::ConfigErrors;
use super::model::{
    Backlog, BatchConfig, BreakerConfig, BufferConfig, DeadLetterConfig, DestinationConfig,
    EnrichmentConfig, InProcessIntake, IntakeConfig, NozzleConfig, NozzleSection, QuotaConfig,
    RateConfig, RetryConfig, SelectConfig, TestCase,
};
use super::overlay;
use super::read::{Problems, list, nearest, not_one_of, read, unknown_key};
use super::section::{Section, finish};
use super::source::{FILE, NOWHERE, Source};
use super::tree::{Entry, Node, Table, Value, join, steps};
use crate::kind::Kinds;

/// The tables of a file.
const TABLES: [&str; 7] = [
    "nozzle",
    "intake",
    "select",
    "buffer",
    "enrichment",
    "destination",
    "test",
];
const INTAKES: [&str; 4] = ["rlp", "websocket", "gateway", "in_process"];
const BUFFERS: [&str; 2] = ["memory", "disk"];
/// What every destination may have beside the table of its kind.
const COMMON: [&str; 10] = [
    "name",
    "filter",
    "batch",
    "backlog",
    "retry",
    "breaker",
    "rate",
    "quota",
    "dead_letter",
    "dry_run",
];

/// Reads configurations.
#[derive(Debug, Clone, Default)]
pub struct Loader<'a> {
    kinds: Option<&'a Kinds>,
    variables: Vec<(String, String)>,
    state_dir: Option<PathBuf>,
}

impl<'a> Loader<'a> {
    /// Reads configurations whose destinations are of these kinds.
    #[must_use]
    pub fn new(kinds: &'a Kinds) -> Loader<'a> {
        Loader {
            kinds: Some(kinds),
            ..Loader::default()
        }
    }

    /// Has variables of the environment replace keys: those that begin with [`ENV_PREFIX`](super::ENV_PREFIX), others are
    /// not looked at.
    #[must_use]
    pub fn variables(self, variables: impl IntoIterator<Item = (String, String)>) -> Loader<'a> {
        Loader {
            variables: variables.into_iter().collect(),
            ..self
        }
    }

    /// A folder for the state of nozzles that say nothing of theirs: where there is no `[buffer]`, or a `[buffer.disk]` without
    /// a path, the buffer is on disk in `DIR/NAME`.
    #[must_use]
    pub fn state_dir(self, dir: impl Into<PathBuf>) -> Loader<'a> {
        Loader {
            state_dir: Some(dir.into()),
            ..self
        }
    }

    /// Reads a configuration from its text; `file` is for errors.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn load(&self, file: &Path, text: &str) -> Result<NozzleConfig, ConfigErrors> {
        let mut root = parse(&Arc::new(Source::new(file, text)), text)?;
        let mut source = Source::new(file, text);
        let wrong = overlay::apply(&mut source, &mut root, self.variables.iter().cloned());
        if let Some(dir) = &self.state_dir {
            keep_in(dir, &mut root);
        }
        let source = Arc::new(source);
        let mut problems = Problems::new(&source);
        problems.found = wrong;
        let parts = Parts::read(&mut problems, &root, self.kinds);
        check::all(&mut problems, &root, &parts);
        if problems.found.is_empty()
            && let Some(config) = parts.finish()
        {
            return Ok(config);
        }
        Err(finish(&source, problems.found))
    }
}

impl NozzleConfig {
    /// Reads a configuration from its text; `file` is for errors. What the kinds of destinations read by themselves is not
    /// looked at.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(file: &Path, text: &str) -> Result<NozzleConfig, ConfigErrors> {
        Loader::default().load(file, text)
    }

    /// Reads a configuration from its text and the variables of the environment; see [`Loader`].
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn load(
        file: &Path,
        text: &str,
        variables: impl IntoIterator<Item = (String, String)>,
        kinds: &Kinds,
    ) -> Result<NozzleConfig, ConfigErrors> {
        Loader::new(kinds).variables(variables).load(file, text)
    }
}

/// Puts `buffer.disk.path` in where a buffer has no place.
fn keep_in(dir: &Path, root: &mut Node) {
    let name = root.get("nozzle").and_then(|nozzle| nozzle.get("name"));
    let Some(name) = name.and_then(Node::text) else {
        return;
    };
    let path = dir.join(name).to_string_lossy().into_owned();
    let table = |key: &str, node| {
        let entry = Entry {
            key_span: NOWHERE,
            node,
        };
        Node::new(NOWHERE, Value::Table([(key.to_owned(), entry)].into()))
    };
    let path = Node::new(NOWHERE, Value::Text(path));
    if root.get("buffer").is_none() {
        root.put(&steps("buffer"), table("disk", table("path", path)));
    } else if let Some(disk) = root.at(&steps("buffer.disk"))
        && disk.get("path").is_none()
    {
        root.put(&steps("buffer.disk.path"), path);
    }
}

/// The tree of a text.
pub(super) fn parse(source: &Arc<Source>, text: &str) -> Result<Node, ConfigErrors> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut problems = Problems::new(source);
    let mut last_line = None;
    for error in errors {
        // A text that ends too early has its error behind the last character.
        let span = error.span().unwrap_or(text.len()..text.len());
        let line = source.place(&span).at.map(|(line, _)| line);
        // What is wrong once confuses the rest of its line.
        if line.is_none() || line != last_line {
            problems.add("", &span, error.message());
        }
        last_line = line;
    }
    if problems.found.is_empty() {
        let table = Spanned::new(0..0, DeValue::Table(table.into_inner()));
        match Node::of(table, 0) {
            Ok(node) => return Ok(Node::new(FILE, node.value)),
            Err(span) => problems.add("", &span, "too large a number"),
        }
    }
    Err(finish(source, problems.found))
}

/// The value of a text that stands at `at`, if it is one of TOML.
pub(super) fn parse_value(text: &str, at: usize) -> Option<Node> {
    Node::of(DeValue::parse(text).ok()?, at).ok()
}

/// A configuration of which some parts could not be read.
#[derive(Default)]
pub(super) struct Parts {
    pub nozzle: Option<NozzleSection>,
    pub intake: Option<IntakeConfig>,
    pub select: Option<SelectConfig>,
    pub buffer: Option<BufferConfig>,
    pub enrichment: Option<EnrichmentConfig>,
    pub destinations: Vec<Option<DestinationConfig>>,
    pub tests: Vec<Option<TestCase>>,
}

impl Parts {
    fn read(problems: &mut Problems<'_>, root: &Node, kinds: Option<&Kinds>) -> Parts {
        for (key, entry) in root.table().into_iter().flatten() {
            if !TABLES.contains(&key.as_str()) {
                problems.add(key, &entry.key_span, unknown_key(key, &TABLES));
            }
        }
        let nozzle = match root.get("nozzle") {
            Some(node) => read(problems, "nozzle", node),
            None => {
                problems.add("nozzle.name", &FILE, "is missing: [nozzle] needs a name");
                None
            }
        };
        Parts {
            nozzle,
            intake: match root.get("intake") {
                Some(node) => read_choice(problems, "intake", node, &INTAKES),
                None => Some(IntakeConfig::InProcess(InProcessIntake {})),
            },
            select: read_or_default(problems, root, "select"),
            buffer: match root.get("buffer") {
                Some(node) => read_choice(problems, "buffer", node, &BUFFERS),
                None => Some(BufferConfig::default()),
            },
            enrichment: root
                .get("enrichment")
                .and_then(|node| read(problems, "enrichment", node)),
            destinations: items(problems, root, "destination")
                .iter()
                .enumerate()
                .map(|(i, node)| destination(problems, i, node, kinds))
                .collect(),
            tests: items(problems, root, "test")
                .iter()
                .enumerate()
                .map(|(i, node)| read(problems, &format!("test[{i}]"), node))
                .collect(),
        }
    }

    fn finish(self) -> Option<NozzleConfig> {
        Some(NozzleConfig {
            nozzle: self.nozzle?,
            intake: self.intake?,
            select: self.select?,
            buffer: self.buffer?,
            enrichment: self.enrichment,
            destinations: self.destinations.into_iter().collect::<Option<_>>()?,
            tests: self.tests.into_iter().collect::<Option<_>>()?,
        })
    }
}

fn read_or_default<T: DeserializeOwned + Default>(
    problems: &mut Problems<'_>,
    root: &Node,
    key: &str,
) -> Option<T> {
    match root.get(key) {
        Some(node) => read(problems, key, node),
        None => Some(T::default()),
    }
}

/// A table in which exactly one of several tables stands.
fn read_choice<T: DeserializeOwned>(
    problems: &mut Problems<'_>,
    at: &str,
    node: &Node,
    known: &[&str],
) -> Option<T> {
    let before = problems.found.len();
    let Some(table) = node.table() else {
        problems.add(
            at,
            &node.span,
            format!("must be a table: {}", headers(at, known)),
        );
        return None;
    };
    for (key, entry) in table {
        if !known.contains(&key.as_str()) {
            problems.add(join(at, key), &entry.key_span, unknown_key(key, known));
        }
    }
    if problems.found.len() > before {
        return None;
    }
    let mut there: Vec<_> = table.iter().collect();
    there.sort_by_key(|(_, entry)| entry.node.span.start);
    match &there[..] {
        [] => {
            let message = format!("needs one of {}", headers(at, known));
            problems.add(at, &node.span, message);
            None
        }
        [_] => read(problems, at, node),
        [(first, _), (second, entry), ..] => {
            let message = format!("there is a [{at}.{first}] already; only one may stand here");
            problems.add(join(at, second), &entry.node.span, message);
            None
        }
    }
}

fn headers(at: &str, known: &[&str]) -> String {
    let headers: Vec<String> = known.iter().map(|key| format!("[{at}.{key}]")).collect();
    headers.join(", ")
}

/// The tables of `[[key]]`.
fn items<'a>(problems: &mut Problems<'_>, root: &'a Node, key: &str) -> &'a [Node] {
    match root.get(key) {
        None => &[],
        Some(node) => node.list().unwrap_or_else(|| {
            let message = format!("write [[{key}]]: there may be several");
            problems.add(key, &node.span, message);
            &[]
        }),
    }
}

/// What all kinds of destinations have in common.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Common {
    name: String,
    filter: Option<String>,
    #[serde(default)]
    batch: BatchConfig,
    #[serde(default)]
    backlog: Backlog,
    #[serde(default)]
    retry: RetryConfig,
    #[serde(default)]
    breaker: BreakerConfig,
    #[serde(default)]
    rate: RateConfig,
    quota: Option<QuotaConfig>,
    #[serde(default)]
    dead_letter: DeadLetterConfig,
    #[serde(default)]
    dry_run: bool,
}

/// How a destination is called in errors: by its name, if it has one.
pub(super) fn destination_key(node: &Node, i: usize) -> String {
    match node.get("name").and_then(Node::text) {
        Some(name) => format!("destination.{name}"),
        None => format!("destination[{i}]"),
    }
}

fn destination(
    problems: &mut Problems<'_>,
    i: usize,
    node: &Node,
    kinds: Option<&Kinds>,
) -> Option<DestinationConfig> {
    let at = destination_key(node, i);
    let Some(table) = node.table() else {
        problems.add(at, &node.span, "must be a table");
        return None;
    };
    let (common, others): (Table, Table) = table
        .clone()
        .into_iter()
        .partition(|(key, _)| COMMON.contains(&key.as_str()));
    let common = Node::new(node.span.clone(), Value::Table(common));
    let common: Option<Common> = read(problems, &at, &common);
    let (kind, node) = kind(problems, &at, &node.span, others, kinds)?;
    let section = Section::new(Arc::clone(problems.source), join(&at, &kind), node);
    if let Some(kind) = kinds.and_then(|kinds| kinds.get(&kind))
        && let Err(errors) = kind.plan(&section)
    {
        problems.found.extend(errors.errors);
    }
    let common = common?;
    Some(DestinationConfig {
        name: common.name,
        kind,
        section,
        filter: common.filter,
        batch: common.batch,
        backlog: common.backlog,
        retry: common.retry,
        breaker: common.breaker,
        rate: common.rate,
        quota: common.quota,
        dead_letter: common.dead_letter,
        dry_run: common.dry_run,
    })
}

/// The one table that belongs to a kind. Keys that cannot be one are unknown.
fn kind(
    problems: &mut Problems<'_>,
    at: &str,
    span: &std::ops::Range<usize>,
    others: Table,
    kinds: Option<&Kinds>,
) -> Option<(String, Node)> {
    let known: Vec<&str> = kinds
        .into_iter()
        .flat_map(Kinds::iter)
        .map(|kind| kind.name())
        .collect();
    let mut tables = Vec::new();
    let mut others: Vec<_> = others.into_iter().collect();
    others.sort_by_key(|(_, entry)| entry.key_span.start);
    let mut strange = false;
    for (key, entry) in others {
        let is_kind = known.contains(&key.as_str());
        if is_kind || (kinds.is_none() && entry.node.table().is_some()) {
            tables.push((key, entry));
            continue;
        }
        strange = true;
        let all: Vec<&str> = COMMON.iter().chain(&known).copied().collect();
        let message = match nearest(&key, &all) {
            Some(near) => format!("unknown key; did you mean `{near}`?"),
            None if entry.node.table().is_some() && !known.is_empty() => {
                format!("no such kind of destination: {}", not_one_of(&key, &known))
            }
            None => unknown_key(&key, &all),
        };
        problems.add(join(at, &key), &entry.key_span, message);
    }
    let mut tables = tables.into_iter();
    match (tables.next(), tables.next()) {
        (Some((kind, entry)), None) => Some((kind, entry.node)),
        (None, _) => {
            // A misspelt one is not missing too.
            if !strange {
                let example = known.first().unwrap_or(&"file");
                let message = format!(
                    "needs the table of a kind, such as [destination.{example}]{}",
                    if known.is_empty() {
                        String::new()
                    } else {
                        format!("; kinds are {}", list(&known))
                    }
                );
                problems.add(at, span, message);
            }
            None
        }
        (Some((first, _)), Some((second, entry))) => {
            let message = format!(
                "this destination is of the kind `{first}` already; each [[destination]] has one"
            );
            problems.add(join(at, &second), &entry.node.span, message);
            None
        }
    }
}
