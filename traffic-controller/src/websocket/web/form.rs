//! Form fields by the rules of Go's `Request.ParseForm`, which differ from those of browsers: a `;` makes a form unusable,
//! so does an invalid escape, and the fields of a body come before those of the query.

use http::Method;

use crate::access::{Plus, unescape};

/// The form cannot be used as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unusable;

/// Whether the form's fields are also in the request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum In {
    /// They are in the body and in the query.
    Body,
    /// The body is nothing that is looked at.
    Query,
}

/// Where the fields of a request are, by its method and its `Content-Type`.
///
/// # Errors
/// When the content type of a request that may have fields in its body is no media type.
pub(crate) fn place(method: &Method, content_type: Option<&[u8]>) -> Result<In, Unusable> {
    if ![Method::POST, Method::PUT, Method::PATCH].contains(method) {
        return Ok(In::Query);
    }
    match content_type.filter(|text| !text.is_empty()) {
        Some(text) if media_type(text)? == b"application/x-www-form-urlencoded" => Ok(In::Body),
        _ => Ok(In::Query),
    }
}

/// Names and values, in the order of the request.
#[derive(Debug, Default)]
pub(crate) struct Form(Vec<(Vec<u8>, Vec<u8>)>);

impl Form {
    /// Adds the fields of a body or a query.
    pub(crate) fn add(&mut self, text: &[u8]) -> Result<(), Unusable> {
        for pair in text.split(|&byte| byte == b'&') {
            if pair.contains(&b';') {
                return Err(Unusable);
            }
            if pair.is_empty() {
                continue;
            }
            let equals = pair.iter().position(|&byte| byte == b'=');
            let (name, value) = match equals {
                Some(at) => (&pair[..at], &pair[at + 1..]),
                None => (pair, &[][..]),
            };
            let plain = |text| unescape(text, Plus::Blank).ok_or(Unusable);
            self.0
                .push((plain(name)?.into_owned(), plain(value)?.into_owned()));
        }
        Ok(())
    }

    /// The first value of this name; empty when there is none.
    pub(crate) fn first(&self, name: &str) -> &[u8] {
        self.0
            .iter()
            .find(|(known, _)| known == name.as_bytes())
            .map_or(&[], |(_, value)| value)
    }
}

/// The media type of a `Content-Type`, in lower case, by the rules of Go's `mime.ParseMediaType`.
fn media_type(text: &[u8]) -> Result<Vec<u8>, Unusable> {
    let end = text
        .iter()
        .position(|&byte| byte == b';')
        .unwrap_or(text.len());
    let name = text[..end].trim_ascii().to_ascii_lowercase();
    let (main, rest) = token(&name);
    let well_formed = match rest.split_first() {
        None => !main.is_empty(),
        Some((b'/', sub)) => !main.is_empty() && token(sub).0.len() == sub.len() && !sub.is_empty(),
        Some(_) => false,
    };
    if !well_formed {
        return Err(Unusable);
    }
    let mut known: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut rest = text[end..].trim_ascii_start();
    while !rest.is_empty() {
        if rest.trim_ascii() == b";" {
            break;
        }
        let (key, value, after) = parameter(rest).ok_or(Unusable)?;
        let twice = known
            .iter()
            .any(|(other, first)| *other == key && *first != value);
        if twice {
            return Err(Unusable);
        }
        known.push((key, value));
        rest = after.trim_ascii_start();
    }
    Ok(name)
}

/// `; key=value`, and what follows it.
fn parameter(text: &[u8]) -> Option<(Vec<u8>, Vec<u8>, &[u8])> {
    let (key, rest) = token(text.strip_prefix(b";")?.trim_ascii_start());
    let rest = rest
        .trim_ascii_start()
        .strip_prefix(b"=")?
        .trim_ascii_start();
    let (value, after) = match rest.strip_prefix(b"\"") {
        Some(quoted) => quoted_string(quoted)?,
        None => {
            let (value, after) = token(rest);
            (value.to_vec(), after)
        }
    };
    let usable = !key.is_empty() && after.len() < rest.len();
    usable.then(|| (key.to_ascii_lowercase(), value, after))
}

/// The rest of a quoted string behind its first quote, and what follows it.
fn quoted_string(mut text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    loop {
        match text {
            [b'"', rest @ ..] => return Some((value, rest)),
            // Some clients send paths unescaped: a backslash before what is no special character is itself.
            [b'\\', escaped, rest @ ..] if !is_token(*escaped) => {
                value.push(*escaped);
                text = rest;
            }
            [b'\r' | b'\n', ..] | [] => return None,
            [byte, rest @ ..] => {
                value.push(*byte);
                text = rest;
            }
        }
    }
}

/// The token at the start of a text, and what follows it.
fn token(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|&byte| !is_token(byte));
    text.split_at(end.unwrap_or(text.len()))
}

/// Whether a byte may stand in a token of HTTP.
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_counts_for_three_methods_and_one_media_type() {
        let form = "application/x-www-form-urlencoded";
        for (method, content_type, expected) in [
            (Method::POST, form, Ok(In::Body)),
            (Method::PUT, form, Ok(In::Body)),
            (Method::PATCH, form, Ok(In::Body)),
            (Method::GET, form, Ok(In::Query)),
            (Method::OPTIONS, form, Ok(In::Query)),
            (Method::GET, "/", Ok(In::Query)),
            (
                Method::POST,
                "Application/X-WWW-Form-Urlencoded; charset=UTF-8",
                Ok(In::Body),
            ),
            (
                Method::POST,
                " application/x-www-form-urlencoded ; a=\"b; c\\\"\" ; d = e ;",
                Ok(In::Body),
            ),
            (
                Method::POST,
                "multipart/form-data; boundary=x",
                Ok(In::Query),
            ),
            (Method::POST, "text", Ok(In::Query)),
            (Method::POST, "", Ok(In::Query)),
            (Method::POST, "/", Err(Unusable)),
            (Method::POST, "text/", Err(Unusable)),
            (Method::POST, "text/plain/x", Err(Unusable)),
            (Method::POST, ";", Err(Unusable)),
            (Method::POST, "text/plain; a", Err(Unusable)),
            (Method::POST, "text/plain; a=", Err(Unusable)),
            (Method::POST, "text/plain; =b", Err(Unusable)),
            (Method::POST, "text/plain; a=\"b", Err(Unusable)),
            (Method::POST, "text/plain; a=b; A=c", Err(Unusable)),
            (Method::POST, "text/plain; a=b; a=b", Ok(In::Query)),
        ] {
            let found = place(&method, Some(content_type.as_bytes()));
            assert_eq!(found, expected, "{method} {content_type}");
        }
        assert_eq!(place(&Method::POST, None), Ok(In::Query));
    }

    #[test]
    fn fields_are_unescaped_and_the_first_counts() {
        let mut form = Form::default();
        form.add(b"a=1+2%2B&&b&=x&a=3").unwrap();
        form.add(b"c=4&a=5&%62b=6").unwrap();
        let first = |name| form.first(name);
        assert_eq!(
            [first("a"), first("b"), first("c"), first("bb"), first("d")],
            [&b"1 2+"[..], b"", b"4", b"6", b""]
        );
        for bad in [&b"a=%zz"[..], b"%4=1", b"a=1;b=2", b"a=1&b=%"] {
            assert_eq!(Form::default().add(bad), Err(Unusable));
        }
    }
}
