//! Which topic a record goes to.
//!
//! A name is made from a template, so it can hold what apps and their operators choose. Three things keep that harmless: a
//! template begins with text of its own, so that no app can write to another one's topic; characters that no topic may have
//! become `_`; and the number of different topics is bounded.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use loggregator_envelope::Kind;
use loggregator_nozzle::Reason;
use loggregator_nozzle::template::Template;
use parking_lot::Mutex;

use crate::config::Config;
use crate::subject::Subject;

/// Longest name of a topic (Kafka's `Topic.MAX_NAME_LENGTH`).
const MAX_NAME: usize = 249;

/// Code of an event whose template gave no name that a topic may have, where there is no fallback topic.
pub(crate) const ILLEGAL_TOPIC: &str = "illegal_topic";
/// Code of an event whose topic would be one too many, where there is no fallback topic.
pub(crate) const TOO_MANY_TOPICS: &str = "too_many_topics";

/// The templates of a configuration.
#[derive(Debug)]
pub(crate) struct Topics {
    all: Option<Template>,
    log: Option<Template>,
    counter: Option<Template>,
    gauge: Option<Template>,
    timer: Option<Template>,
    event: Option<Template>,
    fallback: Option<String>,
}

impl Topics {
    /// Reads the templates; what is wrong with them goes to `wrong`, with its key.
    pub(crate) fn new(config: &Config, wrong: &mut Vec<(String, String)>) -> Topics {
        let mut template = |key: &str, text: &str| match parse(text) {
            Ok(template) => Some(template),
            Err(message) => {
                wrong.push((key.to_owned(), message));
                None
            }
        };
        let all = template("topic", &config.topic);
        let mut of = |kind: &str, text: &Option<String>| {
            template(&format!("topics.{kind}"), text.as_deref()?)
        };
        let topics = &config.topics;
        let found = Topics {
            all,
            log: of("log", &topics.log),
            counter: of("counter", &topics.counter),
            gauge: of("gauge", &topics.gauge),
            timer: of("timer", &topics.timer),
            event: of("event", &topics.event),
            fallback: config.fallback_topic.clone(),
        };
        for (key, name) in [
            ("fallback_topic", config.fallback_topic.as_deref()),
            ("cursor_topic", Some(config.cursor_topic.as_str())),
        ] {
            if let Some(Err(message)) = name.map(legal) {
                wrong.push((key.to_owned(), message));
            }
        }
        if config.max_topics == 0 {
            wrong.push(("max_topics".to_owned(), "must be at least 1".to_owned()));
        }
        found
    }

    /// Name of the event's topic.
    ///
    /// # Errors
    /// When no legal name came of the template and there is no fallback.
    pub(crate) fn of(&self, subject: &Subject<'_>) -> Result<Cow<'_, str>, Reason> {
        let template = match subject.outline.kind {
            Kind::Log => &self.log,
            Kind::Counter => &self.counter,
            Kind::Gauge => &self.gauge,
            Kind::Timer => &self.timer,
            Kind::Event => &self.event,
            Kind::None => &None,
        };
        let template = template.as_ref().or(self.all.as_ref());
        if let Some(name) = template.and_then(Template::constant) {
            return Ok(Cow::Borrowed(name));
        }
        let mut name = String::with_capacity(64);
        if let Some(template) = template {
            template.write_with(subject.event, &mut name, clean);
        }
        match legal(&name) {
            Ok(()) => Ok(Cow::Owned(name)),
            Err(message) => match &self.fallback {
                Some(fallback) => Ok(Cow::Borrowed(fallback)),
                None => Err(Reason::new(ILLEGAL_TOPIC, message)),
            },
        }
    }

    /// The names in it that are the same for every event.
    pub(crate) fn constants(&self) -> impl Iterator<Item = &str> {
        let templates = [
            &self.all,
            &self.log,
            &self.counter,
            &self.gauge,
            &self.timer,
            &self.event,
        ];
        let names = templates
            .into_iter()
            .flatten()
            .filter_map(Template::constant);
        names.chain(self.fallback.as_deref())
    }
}

fn parse(text: &str) -> Result<Template, String> {
    let template = Template::parse(text).map_err(|error| error.to_string())?;
    match template.constant() {
        Some(name) => legal(name)?,
        None => {
            let prefix = template.literal_prefix();
            if prefix.is_empty() {
                return Err(format!(
                    "`{text}` must begin with fixed text, so that no app can choose a topic as it likes: `cf-{text}`"
                ));
            }
            if let Some(c) = prefix.chars().find(|c| !allowed(*c)) {
                return Err(format!("`{text}`: no topic may have {c:?} in its name"));
            }
        }
    }
    Ok(template)
}

fn allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// Whether Kafka allows a topic of this name.
fn legal(name: &str) -> Result<(), String> {
    if name.is_empty() || name == "." || name == ".." {
        Err(format!("`{name}` is no name of a topic"))
    } else if name.len() > MAX_NAME {
        Err(format!(
            "the name of a topic has at most {MAX_NAME} characters, `{name}` has {}",
            name.len()
        ))
    } else if let Some(c) = name.chars().find(|c| !allowed(*c)) {
        Err(format!("`{name}`: no topic may have {c:?} in its name"))
    } else {
        Ok(())
    }
}

fn clean(value: &str, out: &mut String) {
    out.extend(value.chars().map(|c| if allowed(c) { c } else { '_' }));
}

/// A topic that records went to.
#[derive(Debug)]
pub(crate) struct Topic {
    /// Its name.
    pub name: String,
    /// Records that its brokers have confirmed.
    pub delivered: AtomicU64,
}

/// The topics that records went to, at most so many.
#[derive(Debug)]
pub(crate) struct Known {
    most: usize,
    fallback: Option<String>,
    topics: Mutex<HashMap<String, Arc<Topic>>>,
    /// Events whose topic would have been one too many.
    pub overflow: AtomicU64,
}

impl Known {
    pub(crate) fn new(config: &Config) -> Known {
        Known {
            most: config.max_topics,
            fallback: config.fallback_topic.clone(),
            topics: Mutex::default(),
            overflow: AtomicU64::new(0),
        }
    }

    /// The topic of this name, or the one that takes its place.
    ///
    /// # Errors
    /// When there are too many, and there is no fallback.
    pub(crate) fn admit(&self, name: &str) -> Result<Arc<Topic>, Reason> {
        let mut topics = self.topics.lock();
        if let Some(topic) = topics.get(name) {
            return Ok(Arc::clone(topic));
        }
        let name = if topics.len() < self.most {
            name
        } else {
            self.overflow.fetch_add(1, Ordering::Relaxed);
            match &self.fallback {
                Some(fallback) => fallback,
                None => {
                    let detail = format!(
                        "`{name}` would be one more than the {} topics that max_topics allows",
                        self.most
                    );
                    return Err(Reason::new(TOO_MANY_TOPICS, detail));
                }
            }
        };
        let topic = topics.entry(name.to_owned()).or_insert_with(|| {
            Arc::new(Topic {
                name: name.to_owned(),
                delivered: AtomicU64::new(0),
            })
        });
        Ok(Arc::clone(topic))
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        self.topics.lock().values().cloned().collect()
    }
}
