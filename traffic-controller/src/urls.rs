//! Paths and query strings, read as the Go programs read them.

use std::borrow::Cow;

use crate::access::{Plus, unescape};

/// The decoded path without empty, `.` and `..` segments; a trailing slash is kept.
pub(crate) fn clean(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in path.split(|&byte| byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    let mut clean = Vec::with_capacity(path.len() + 1);
    for segment in &kept {
        clean.push(b'/');
        clean.extend_from_slice(segment);
    }
    if clean.is_empty() || path.ends_with(b"/") {
        clean.push(b'/');
    }
    clean
}

/// Where a request for the path that was cleaned is sent: percent-encoded, with the query as it came.
pub(crate) fn location(clean: &[u8], query: Option<&str>) -> String {
    let mut location = escape(clean);
    if let Some(query) = query {
        location.push('?');
        location.push_str(query);
    }
    location
}

/// Percent encoding of a path for a `Location` header.
fn escape(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for &byte in path {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => text.push(byte as char),
            b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'='
            | b'@' => {
                text.push(byte as char);
            }
            other => {
                text.push('%');
                for digit in [other >> 4, other & 15] {
                    text.push(
                        char::from_digit(u32::from(digit), 16)
                            .unwrap_or('0')
                            .to_ascii_uppercase(),
                    );
                }
            }
        }
    }
    text
}

/// The name and the value of each pair of a query, decoded. A pair that is empty, contains a semicolon or an invalid escape
/// is left out whole; a name without `=` has the empty value.
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.contains(';'))
        .filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((
                unescape(name.as_bytes(), Plus::Blank)?,
                unescape(value.as_bytes(), Plus::Blank)?,
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_those_that_go_sees() {
        let text = |query| -> Vec<(String, String)> {
            let text = |bytes: Cow<'_, [u8]>| String::from_utf8(bytes.into_owned()).unwrap();
            pairs(query)
                .map(|(name, value)| (text(name), text(value)))
                .collect()
        };
        let of = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        assert_eq!(text(""), of(&[]));
        assert_eq!(text("&&"), of(&[]));
        assert_eq!(text("log"), of(&[("log", "")]));
        assert_eq!(text("="), of(&[("", "")]));
        assert_eq!(
            text("a=b=c&d+e=f%20g%2b&a="),
            of(&[("a", "b=c"), ("d e", "f g+"), ("a", "")])
        );
        assert_eq!(
            text("log;counter&a=b;c&x=%zz&%4=y&z=%&ok=1"),
            of(&[("ok", "1")])
        );
    }
}
