//! Words, texts, numbers and signs of an expression.

use super::FilterError;

/// A piece of an expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A word: field, operator, `true`, ….
    Word(String),
    /// `"…"` or `'…'`; `\\n`, `\\r`, `\\t`, `\\\\` and the escaped quote are what they usually are; other backslashes stay, for regular expressions.
    Text(String),
    Number(f64),
    /// `==`, `(`, `,`, ….
    Sign(&'static str),
}

impl Token {
    /// As it is told in an error.
    pub(super) fn shown(&self) -> String {
        match self {
            Token::Word(word) => format!("`{word}`"),
            Token::Text(text) => format!("the text {text:?}"),
            Token::Number(number) => format!("the number {number}"),
            Token::Sign(sign) => format!("`{sign}`"),
        }
    }
}

const SIGNS: [&str; 14] = [
    "==", "!=", "=~", "!~", "<=", ">=", "<", ">", "(", ")", "[", "]", ",", "=",
];

/// Splits an expression; each token with its place, in characters counted from 1.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, FilterError> {
    let mut tokens = Vec::new();
    let chars: Vec<char> = text.chars().collect();
    let mut at = 0;
    while at < chars.len() {
        let place = at + 1;
        let error = |message: String| FilterError { at: place, message };
        let c = chars[at];
        let token = if c.is_whitespace() {
            at += 1;
            continue;
        } else if c == '"' || c == '\'' {
            let Some((text, end)) = quoted(&chars, at) else {
                return Err(error("the text that begins here does not end".to_owned()));
            };
            at = end;
            Token::Text(text)
        } else if let Some(sign) = SIGNS.iter().find(|sign| starts_with(&chars[at..], sign)) {
            at += sign.len();
            if *sign == "=" {
                return Err(error("write `==` to compare".to_owned()));
            }
            Token::Sign(sign)
        } else if c.is_ascii_digit() || c == '-' || c == '+' {
            let number = take(&chars, &mut at, |c| {
                c.is_ascii_alphanumeric() || "+-._".contains(c)
            });
            let plain = number.replace('_', "");
            match plain.parse::<f64>() {
                Ok(value) if value.is_finite() => Token::Number(value),
                _ => return Err(error(format!("`{number}` is no number"))),
            }
        } else if c.is_alphanumeric() || c == '_' {
            Token::Word(take(&chars, &mut at, |c| {
                c.is_alphanumeric() || "_.-/".contains(c)
            }))
        } else {
            return Err(error(format!("`{c}` is not expected here")));
        };
        tokens.push((place, token));
    }
    Ok(tokens)
}

fn starts_with(chars: &[char], sign: &str) -> bool {
    sign.chars()
        .enumerate()
        .all(|(i, c)| chars.get(i) == Some(&c))
}

fn take(chars: &[char], at: &mut usize, belongs: impl Fn(char) -> bool) -> String {
    let word: String = chars[*at..]
        .iter()
        .copied()
        .take_while(|c| belongs(*c))
        .collect();
    *at += word.chars().count();
    word
}

/// The text that begins at `start` and the place behind it.
fn quoted(chars: &[char], start: usize) -> Option<(String, usize)> {
    let quote = chars[start];
    let mut text = String::new();
    let mut at = start + 1;
    loop {
        match *chars.get(at)? {
            c if c == quote => return Some((text, at + 1)),
            '\\' => {
                at += 1;
                match *chars.get(at)? {
                    'n' => text.push('\n'),
                    'r' => text.push('\r'),
                    't' => text.push('\t'),
                    c if c == quote || c == '\\' => text.push(c),
                    // Regular expressions are full of backslashes: others stay as they are.
                    c => text.extend(['\\', c]),
                }
            }
            c => text.push(c),
        }
        at += 1;
    }
}
