//! Where a request carries its token.

use std::borrow::Cow;
use std::fmt;

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderValue};

use super::Denied;

/// The longest authorisation text, bytes. A longer one is none that UAA issued; it is not kept, and nobody is asked.
const MAX_TEXT: usize = 32 * 1024;

/// The authorisation text of one request: the `Authorization` header or, if that is empty, the first cookie named
/// `authorization`, query-unescaped. Never printed, not even by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(Text);

#[derive(Clone, PartialEq, Eq)]
enum Text {
    None,
    TooLong,
    Is(Vec<u8>),
}

impl Credentials {
    /// Takes the authorisation text out of a request's headers.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        Self(match authorization(headers) {
            Some(text) => Text::of(text.into()),
            None => cookie(headers).map_or(Text::None, Text::of),
        })
    }

    /// Takes the authorisation text out of the `Authorization` header and nothing else: a browser adds cookies to requests
    /// that somebody else's page makes.
    pub fn from_authorization(headers: &HeaderMap) -> Self {
        Self(authorization(headers).map_or(Text::None, |text| Text::of(text.into())))
    }

    /// The whole text, prefix included, as it would be passed on to a service that judges it.
    pub fn text(&self) -> Option<&[u8]> {
        match &self.0 {
            Text::Is(text) => Some(text),
            Text::None | Text::TooLong => None,
        }
    }

    /// Why there is no [`text`](Self::text): the request has none, or one that is too long to be any.
    pub fn missing(&self) -> Denied {
        match self.0 {
            Text::TooLong => Denied::Refused,
            Text::None | Text::Is(_) => Denied::NoToken,
        }
    }

    /// The token for an admin check: only the literal lower-case `bearer ` is taken off. Any other spelling stays part
    /// of the token and so makes it a wrong one, as with the Go traffic controller.
    pub fn admin_token(&self) -> Option<&[u8]> {
        self.text()
            .map(|text| text.strip_prefix(b"bearer ").unwrap_or(text))
    }

    /// The token for an admin check of the HTTP gateway: a leading lower-case `bearer` is taken off, with or without a
    /// blank behind it, and blanks around the rest.
    pub fn gateway_token(&self) -> Option<&[u8]> {
        self.text()
            .map(|text| text.strip_prefix(b"bearer").unwrap_or(text).trim_ascii())
    }

    /// The token for an application check, where the scheme's case does not matter (the Cloud Controller takes both).
    pub fn app_token(&self) -> Option<&[u8]> {
        self.text().map(|text| match text.split_at_checked(7) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token,
            _ => text,
        })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Text::None => "Credentials(none)",
            Text::TooLong => "Credentials(too long)",
            Text::Is(_) => "Credentials(present)",
        })
    }
}

impl Text {
    fn of(text: Cow<'_, [u8]>) -> Self {
        if text.len() > MAX_TEXT {
            Self::TooLong
        } else {
            Self::Is(text.into_owned())
        }
    }
}

/// The header, unless it is empty.
fn authorization(headers: &HeaderMap) -> Option<&[u8]> {
    let header = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    header.filter(|text| !text.is_empty())
}

fn cookie(headers: &HeaderMap) -> Option<Cow<'_, [u8]>> {
    let pairs = headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b';'));
    for pair in pairs {
        let pair = pair.trim_ascii();
        let Some(at) = pair.iter().position(|&byte| byte == b'=') else {
            continue;
        };
        let (name, value) = (&pair[..at], &pair[at + 1..]);
        if name == b"authorization" {
            let unquoted = value
                .strip_prefix(b"\"")
                .and_then(|rest| rest.strip_suffix(b"\""))
                .unwrap_or(value);
            // An invalid escape counts as no token.
            return unescape(unquoted, Plus::Blank).filter(|text| !text.is_empty());
        }
    }
    None
}

/// What a `+` stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plus {
    /// A blank, as in a query string.
    Blank,
    /// Itself, as in a path.
    Literal,
}

/// Undoes percent encoding; `None` when a `%` is not followed by two hex digits.
pub(crate) fn unescape(text: &[u8], plus: Plus) -> Option<Cow<'_, [u8]>> {
    if !text.iter().any(|&byte| byte == b'%' || byte == b'+') {
        return Some(Cow::Borrowed(text));
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        plain.push(match byte {
            b'%' => {
                let (digits, tail) = tail.split_first_chunk::<2>()?;
                rest = tail;
                (hex(digits[0])? << 4) | hex(digits[1])?
            }
            b'+' if plus == Plus::Blank => b' ',
            other => other,
        });
    }
    Some(Cow::Owned(plain))
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(headers: &[(&'static str, &str)]) -> Credentials {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        Credentials::from_headers(&map)
    }

    #[test]
    fn the_header_wins_over_the_cookie_unless_it_is_empty() {
        let both = from(&[
            ("authorization", "bearer head"),
            ("cookie", "authorization=bearer+cook"),
        ]);
        assert_eq!(both.admin_token(), Some(&b"head"[..]));
        let empty = from(&[
            ("authorization", ""),
            ("cookie", "authorization=bearer+cook"),
        ]);
        assert_eq!(empty.admin_token(), Some(&b"cook"[..]));
        assert_eq!(from(&[]).text(), None);
        assert_eq!(from(&[("authorization", "")]).text(), None);
    }

    #[test]
    fn where_only_the_header_counts_a_cookie_does_not() {
        let only = |headers: &[(&'static str, &str)]| {
            let map = headers
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
            Credentials::from_authorization(&map.collect())
        };
        let cookie = ("cookie", "authorization=bearer+cook");
        assert_eq!(only(&[cookie]).text(), None);
        assert_eq!(only(&[("authorization", ""), cookie]).text(), None);
        let both = only(&[("authorization", "bearer head"), cookie]);
        assert_eq!(both.text(), Some(&b"bearer head"[..]));
    }

    #[test]
    fn cookies_are_found_by_exact_name_first_one_first_and_unescaped() {
        let second_line = from(&[
            ("cookie", "Authorization=no; a=b"),
            (
                "cookie",
                "x=y;authorization=bearer%20t%2B; authorization=other",
            ),
        ]);
        assert_eq!(second_line.text(), Some(&b"bearer t+"[..]));
        assert_eq!(from(&[("cookie", "authorization=bearer%2")]).text(), None);
        assert_eq!(
            from(&[("cookie", "authorization=bearer%zz; authorization=good")]).text(),
            None
        );
        assert_eq!(
            from(&[("cookie", "authorization=\"bearer t\"")]).text(),
            Some(&b"bearer t"[..])
        );
    }

    #[test]
    fn only_the_lower_case_prefix_is_taken_off_for_admins() {
        assert_eq!(
            from(&[("authorization", "Bearer t")]).admin_token(),
            Some(&b"Bearer t"[..])
        );
        assert_eq!(
            from(&[("authorization", "Bearer t")]).app_token(),
            Some(&b"t"[..])
        );
        assert_eq!(from(&[("authorization", "t")]).app_token(), Some(&b"t"[..]));
        assert_eq!(
            from(&[("authorization", "t")]).admin_token(),
            Some(&b"t"[..])
        );
    }

    #[test]
    fn what_is_too_long_is_not_kept_and_no_token_is_another_thing() {
        let longest = "a".repeat(MAX_TEXT);
        let longer = format!("{longest}a");
        for (name, prefix) in [("authorization", ""), ("cookie", "authorization=")] {
            let kept = from(&[(name, &format!("{prefix}{longest}"))]);
            assert_eq!(kept.text(), Some(longest.as_bytes()));
            let long = from(&[(name, &format!("{prefix}{longer}"))]);
            assert_eq!((long.text(), long.missing()), (None, Denied::Refused));
            assert_eq!((long.admin_token(), long.gateway_token()), (None, None));
        }
        // The cookie does not stand in for a header that is there.
        let both = from(&[("authorization", &longer), ("cookie", "authorization=a")]);
        assert_eq!(both.text(), None);
        assert_eq!(from(&[]).missing(), Denied::NoToken);
    }

    #[test]
    fn debug_does_not_show_the_token() {
        assert_eq!(
            format!("{:?}", from(&[("authorization", "bearer s3cret")])),
            "Credentials(present)"
        );
    }
}
