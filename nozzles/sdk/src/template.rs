//! Texts with fields in them: `cf-{org}-{space}`.
//!
//! `{field}` is replaced by what the event says, `{field|default}` by the default when it says nothing; `{{` and `}}` are
//! the braces themselves.

use crate::event::Event;
use crate::fields::Field;

/// A template that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Field { field: Field, default: String },
}

/// A text that is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}: {message}")]
pub struct TemplateError {
    /// Where, in characters counted from 1.
    pub at: usize,
    /// What is wrong there.
    pub message: String,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// When a brace has no partner or a field does not exist.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut chars = text.chars().enumerate().peekable();
        while let Some((at, c)) = chars.next() {
            let error = |message: String| TemplateError {
                at: at + 1,
                message,
            };
            match c {
                '{' | '}' if chars.next_if(|(_, next)| *next == c).is_some() => literal.push(c),
                '}' => {
                    return Err(error(
                        "`}` has no `{` before it; write `}}` for the brace itself".to_owned(),
                    ));
                }
                '{' => {
                    let mut inside = String::new();
                    loop {
                        match chars.next() {
                            Some((_, '}')) => break,
                            Some((_, c)) => inside.push(c),
                            None => {
                                return Err(error(
                                    "`{` has no `}` behind it; write `{{` for the brace itself"
                                        .to_owned(),
                                ));
                            }
                        }
                    }
                    let (name, default) = inside.split_once('|').unwrap_or((&inside, ""));
                    let field =
                        Field::parse(name.trim()).map_err(|unknown| error(unknown.to_string()))?;
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(Part::Field {
                        field,
                        default: default.to_owned(),
                    });
                }
                c => literal.push(c),
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Template { parts })
    }

    /// What it begins with whatever the event.
    #[must_use]
    pub fn literal_prefix(&self) -> &str {
        match self.parts.first() {
            Some(Part::Literal(text)) => text,
            _ => "",
        }
    }

    /// The fields in it.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        self.parts.iter().filter_map(|part| match part {
            Part::Field { field, .. } => Some(field),
            Part::Literal(_) => None,
        })
    }

    /// The text, if there is no field in it.
    #[must_use]
    pub fn constant(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Appends the text for this event.
    pub fn write(&self, event: &Event, out: &mut String) {
        self.write_with(event, out, |value, out| out.push_str(value));
    }

    /// Appends the text for this event; each field's value goes through `clean`, so that it cannot say more than it should
    /// where the text is used.
    pub fn write_with(&self, event: &Event, out: &mut String, clean: impl Fn(&str, &mut String)) {
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Field { field, default } => match event.field(field) {
                    Some(value) => clean(&value, out),
                    None => out.push_str(default),
                },
            }
        }
    }

    /// The text for this event.
    #[must_use]
    pub fn render(&self, event: &Event) -> String {
        let mut out = String::new();
        self.write(event, &mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use loggregator_client::message;
    use prost::Message as _;

    use super::*;

    fn log(source: &str, line: &'static str, tags: &[(&str, &str)]) -> Event {
        let log = message::log(line).source(source, "0");
        let log = tags
            .iter()
            .fold(log, |log, (name, value)| log.tag(name, value));
        Event::new(0, 0, log.build().encode_to_vec().into())
    }

    #[test]
    fn fields_are_replaced_and_defaults_stand_in() {
        let event = log("web-shop", "hello", &[("organization_name", "acme")]);
        let render = |text: &str| Template::parse(text).unwrap().render(&event);
        assert_eq!(
            render("cf-{org}-{space|none}-{source_id}"),
            "cf-acme-none-web-shop"
        );
        assert_eq!(render("{{{kind}}}"), "{log}");
        assert_eq!(render("{space}"), "");
        assert_eq!(render("plain"), "plain");
        assert_eq!(render("{stream}/{text}"), "out/hello");
    }

    #[test]
    fn values_can_be_cleaned() {
        let event = log("a/b", "x", &[]);
        let template = Template::parse("t/{source_id}").unwrap();
        let mut out = String::new();
        template.write_with(&event, &mut out, |value, out| {
            out.push_str(&value.replace('/', "_"))
        });
        assert_eq!(out, "t/a_b");
        assert_eq!(template.literal_prefix(), "t/");
        assert_eq!(
            template.fields().cloned().collect::<Vec<_>>(),
            [Field::SourceId]
        );
        assert_eq!(template.constant(), None);
        assert_eq!(Template::parse("a").unwrap().constant(), Some("a"));
    }

    #[test]
    fn what_is_no_template_is_refused_with_its_place() {
        let error = |text: &str| Template::parse(text).unwrap_err().to_string();
        assert_eq!(
            error("ab{org"),
            "at character 3: `{` has no `}` behind it; write `{{` for the brace itself"
        );
        assert_eq!(
            error("a}"),
            "at character 2: `}` has no `{` before it; write `}}` for the brace itself"
        );
        assert!(
            error("{orgg}")
                .starts_with("at character 1: `orgg` is no field; there are kind, source_id, ")
        );
    }
}
