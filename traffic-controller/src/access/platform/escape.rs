//! Percent encoding, and what an application's id looks like.

use std::fmt::Write as _;

/// What stands for a blank.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Blank {
    /// `+`, in a form.
    Plus,
    /// `%20`, in a path.
    Percent,
}

/// Leaves letters, digits, `-`, `_`, `.` and `~`; everything else becomes `%XX`.
pub(super) fn escape(text: &[u8], blank: Blank) -> String {
    let mut escaped = String::with_capacity(text.len());
    for &byte in text {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte));
            }
            b' ' if blank == Blank::Plus => escaped.push('+'),
            // Writing to a string cannot fail.
            other => drop(write!(escaped, "%{other:02X}")),
        }
    }
    escaped
}

/// Whether this is a GUID: 8-4-4-4-12 hex digits in either case, and nothing else.
pub(super) fn is_guid(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 36
        && bytes.iter().enumerate().all(|(i, byte)| match i {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unreserved_characters_stay() {
        let text = "aZ0-_.~ /%&+=?é".as_bytes();
        assert_eq!(
            escape(text, Blank::Plus),
            "aZ0-_.~+%2F%25%26%2B%3D%3F%C3%A9"
        );
        assert_eq!(escape(b"a b", Blank::Percent), "a%20b");
    }

    #[test]
    fn guids_and_what_is_none() {
        assert!(is_guid("efe5c422-e8a7-42c2-a52b-98bffd8d6a07"));
        assert!(is_guid("EFE5C422-E8A7-42C2-A52B-98BFFD8D6A07"));
        for text in [
            "",
            "efe5c422e8a742c2a52b98bffd8d6a07",
            "efe5c422-e8a7-42c2-a52b-98bffd8d6a0",
            "efe5c422-e8a7-42c2-a52b-98bffd8d6a077",
            "efe5c422-e8a7-42c2-a52b-98bffd8d6a0g",
            "efe5c422-e8a7-42c2-a52b-98bffd8d6a07\n",
            "efe5c422-e8a7-42c2-a52b-/../../info/",
            "{fe5c422-e8a7-42c2-a52b-98bffd8d6a0}",
            "éfe5c42-e8a7-42c2-a52b-98bffd8d6a07",
        ] {
            assert!(!is_guid(text), "{text:?}");
        }
    }
}
