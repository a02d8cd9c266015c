//! The tests in a configuration: `[[test]]`, an envelope and what should become of it.
//!
//! An envelope goes the way that it goes in a nozzle that runs: past `[select]`, past what each destination's kind accepts and
//! its filter lets pass, and is rendered by the code that delivers. Nothing is sent.

use std::fmt;
use std::sync::Arc;

use crate::config::{
    ConfigErrors, DestinationConfig, Expect, NozzleConfig, SelectConfig, TestCase,
};
use crate::destination::Reason;
use crate::event::{Event, Names};
use crate::filter::Filter;
use crate::kind::{Kinds, Plan, Rendered};

/// What became of one test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseReport {
    /// Its name.
    pub name: String,
    /// What was not as expected; empty when it passed.
    pub failures: Vec<Failure>,
}

impl CaseReport {
    /// Whether all was as expected.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

/// What was not as expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// At which destination.
    pub destination: String,
    /// What about it: `body`, `fields.topic`, `rejected`, or nothing for the event as a whole.
    pub what: String,
    /// What should have been, a line each; empty for nothing.
    pub expected: Vec<String>,
    /// What was, a line each.
    pub found: Vec<String>,
}

impl fmt::Display for Failure {
    /// As a difference: what was expected with `-`, what was found with `+`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.destination)?;
        if !self.what.is_empty() {
            write!(f, ": {}", self.what)?;
        }
        let same = |line: &String| self.expected.contains(line) && self.found.contains(line);
        for line in &self.expected {
            write!(f, "\n  {} {line}", if same(line) { ' ' } else { '-' })?;
        }
        for line in self.found.iter().filter(|line| !same(line)) {
            write!(f, "\n  + {line}")?;
        }
        Ok(())
    }
}

/// Runs all tests of a configuration.
///
/// # Errors
/// When the configuration itself is wrong.
pub fn run_tests(config: &NozzleConfig, kinds: &Kinds) -> Result<Vec<CaseReport>, ConfigErrors> {
    let ways = config
        .destinations
        .iter()
        .map(|destination| Way::new(destination, kinds))
        .collect::<Result<Vec<_>, _>>()?;
    let select = Selected::new(&config.select);
    Ok(config
        .tests
        .iter()
        .map(|case| run(case, &select, &ways))
        .collect())
}

/// `[select]`, applied to one event.
struct Selected<'a> {
    config: &'a SelectConfig,
    filter: Filter,
}

impl<'a> Selected<'a> {
    fn new(config: &'a SelectConfig) -> Selected<'a> {
        let filter = config.filter.as_deref().map(Filter::parse);
        Selected {
            config,
            // It was checked when the file was read.
            filter: filter.and_then(Result::ok).unwrap_or_default(),
        }
    }

    fn takes(&self, event: &Event) -> bool {
        let envelope = event.envelope();
        let one_of =
            |list: &[String], value: &str| list.is_empty() || list.iter().any(|it| it == value);
        one_of(&self.config.kinds, envelope.kind().name())
            && one_of(&self.config.source_ids, envelope.source_id())
            && self.filter.matches(event)
    }
}

/// The way to one destination.
struct Way<'a> {
    config: &'a DestinationConfig,
    plan: Box<dyn Plan>,
    filter: Filter,
}

/// What became of an event at one destination.
enum Became {
    /// It is not for this destination, because of this.
    LeftOut(&'static str),
    Sent(Vec<Rendered>),
    Rejected(Reason),
}

impl<'a> Way<'a> {
    fn new(config: &'a DestinationConfig, kinds: &Kinds) -> Result<Way<'a>, ConfigErrors> {
        let kind = kinds.get(&config.kind).ok_or_else(|| {
            let message = format!("`{}` is no kind of destination", config.kind);
            config.section.error("", message)
        })?;
        let filter = config.filter.as_deref().map(Filter::parse);
        Ok(Way {
            plan: kind.plan(&config.section)?,
            filter: filter.and_then(Result::ok).unwrap_or_default(),
            config,
        })
    }

    fn send(&self, event: &Event) -> Became {
        if !self.plan.accepts().contains(event.envelope().kind()) {
            return Became::LeftOut("left out: it does not take this kind of envelope");
        }
        if !self.filter.matches(event) {
            return Became::LeftOut("left out by its filter");
        }
        match self.plan.render(event) {
            Ok(rendered) => Became::Sent(rendered),
            Err(reason) => Became::Rejected(reason),
        }
    }
}

fn run(case: &TestCase, select: &Selected<'_>, ways: &[Way<'_>]) -> CaseReport {
    let mut report = CaseReport {
        name: case.name.clone(),
        failures: Vec::new(),
    };
    // It was encoded once when the file was read.
    let Ok(body) = case.envelope.encode() else {
        return report;
    };
    let event = Event::new(1, 0, body);
    let received = event.envelope().timestamp();
    let event = Event::new(1, received, event.body().clone()).with_names(names(case));
    let taken = select.takes(&event);
    for way in ways {
        let became = if taken {
            way.send(&event)
        } else {
            Became::LeftOut("left out by [select]")
        };
        let expect = case
            .expect
            .iter()
            .find(|expect| expect.destination == way.config.name);
        compare(&way.config.name, expect, became, &mut report.failures);
    }
    report
}

fn names(case: &TestCase) -> Option<Arc<Names>> {
    let name = |key: &str| case.names.get(key).cloned().unwrap_or_default();
    (!case.names.is_empty()).then(|| {
        Arc::new(Names {
            app: name("app"),
            space_id: name("space_id"),
            space: name("space"),
            org_id: name("org_id"),
            org: name("org"),
            ..Names::default()
        })
    })
}

fn compare(
    destination: &str,
    expect: Option<&Expect>,
    became: Became,
    failures: &mut Vec<Failure>,
) {
    let mut failed = |what: &str, expected: Vec<String>, found: Vec<String>| {
        failures.push(Failure {
            destination: destination.to_owned(),
            what: what.to_owned(),
            expected,
            found,
        });
    };
    let nothing = || vec!["nothing: no [[test.expect]] names it".to_owned()];
    let rejected = |code: &str| vec![format!("rejected: {code}")];
    match (expect, became) {
        (None, Became::LeftOut(_)) => {}
        (None, Became::Sent(rendered)) => failed("", nothing(), bodies(&rendered)),
        (None, Became::Rejected(reason)) => failed("", nothing(), rejected(&reason.to_string())),
        (Some(expect), Became::LeftOut(why)) => {
            let expected = match (&expect.body, &expect.rejected) {
                (Some(body), _) => body.clone(),
                (None, Some(code)) => rejected(code),
                (None, None) => vec!["something is sent".to_owned()],
            };
            failed("", expected, vec![why.to_owned()]);
        }
        (Some(expect), Became::Rejected(reason)) => {
            if expect.rejected.as_deref() != Some(&*reason.code) {
                let expected = match (&expect.rejected, &expect.body) {
                    (Some(code), _) => rejected(code),
                    (None, Some(body)) => body.clone(),
                    (None, None) => vec!["something is sent".to_owned()],
                };
                failed("rejected", expected, rejected(&reason.to_string()));
            }
        }
        (Some(expect), Became::Sent(rendered)) => {
            if let Some(code) = &expect.rejected {
                return failed("rejected", rejected(code), bodies(&rendered));
            }
            if let Some(body) = &expect.body
                && *body != bodies(&rendered)
            {
                failed("body", body.clone(), bodies(&rendered));
            }
            for (name, value) in &expect.fields {
                let found: Vec<String> = rendered
                    .iter()
                    .flat_map(|one| &one.fields)
                    .filter(|(field, _)| field == name)
                    .map(|(_, value)| value.clone())
                    .collect();
                if !found.contains(value) {
                    failed(&format!("fields.{name}"), vec![value.clone()], found);
                }
            }
        }
    }
}

fn bodies(rendered: &[Rendered]) -> Vec<String> {
    rendered
        .iter()
        .map(|one| String::from_utf8_lossy(&one.body).into_owned())
        .collect()
}
