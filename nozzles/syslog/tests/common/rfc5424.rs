//! A strict reader of RFC 5424, written from the RFC and from nothing else.

use std::collections::BTreeMap;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub priority: u32,
    pub timestamp: String,
    pub hostname: Option<String>,
    pub app_name: Option<String>,
    pub proc_id: Option<String>,
    pub msg_id: Option<String>,
    /// Elements with their parameters, in order.
    pub data: Vec<(String, Vec<(String, String)>)>,
    pub text: Vec<u8>,
}

impl Message {
    /// The parameters of an element.
    pub fn element(&self, id: &str) -> Option<BTreeMap<&str, &str>> {
        let (_, params) = self.data.iter().find(|(found, _)| found == id)?;
        Some(
            params
                .iter()
                .map(|(k, v)| (k.as_str(), v.as_str()))
                .collect(),
        )
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

type Read<T> = Result<T, String>;

impl<'a> Reader<'a> {
    fn expect(&mut self, text: &str) -> Read<()> {
        self.rest = self.rest.strip_prefix(text.as_bytes()).ok_or_else(|| {
            format!(
                "{text:?} expected at {:?}",
                String::from_utf8_lossy(self.rest)
            )
        })?;
        Ok(())
    }

    fn until(&mut self, stop: impl Fn(u8) -> bool) -> &'a [u8] {
        let at = self
            .rest
            .iter()
            .position(|b| stop(*b))
            .unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(at);
        self.rest = rest;
        taken
    }

    /// A field of the header: 1 to `max` characters of printable ASCII; `-` is none.
    fn field(&mut self, what: &str, max: usize) -> Read<Option<String>> {
        let text = self.until(|b| b == b' ');
        if text.is_empty() || text.len() > max || !text.iter().all(|b| (33..=126).contains(b)) {
            return Err(format!("{what}: {:?}", String::from_utf8_lossy(text)));
        }
        self.expect(" ")?;
        let text = String::from_utf8(text.to_vec()).unwrap();
        Ok((text != "-").then_some(text))
    }

    fn name(&mut self, longest: usize) -> Read<String> {
        let text = self.until(|b| matches!(b, b'=' | b' ' | b']' | b'"'));
        if text.is_empty() || text.len() > longest || !text.iter().all(|b| (33..=126).contains(b)) {
            return Err(format!("name {:?}", String::from_utf8_lossy(text)));
        }
        Ok(String::from_utf8(text.to_vec()).unwrap())
    }

    fn value(&mut self) -> Read<String> {
        let mut value = Vec::new();
        loop {
            value.extend_from_slice(self.until(|b| matches!(b, b'"' | b'\\' | b']')));
            match self.rest {
                [b'"', ..] => break,
                [b'\\', escaped @ (b'"' | b'\\' | b']'), rest @ ..] => {
                    value.push(*escaped);
                    self.rest = rest;
                }
                [b'\\', rest @ ..] => {
                    value.push(b'\\');
                    self.rest = rest;
                }
                _ => return Err("a value with an unescaped ] or without an end".to_owned()),
            }
        }
        String::from_utf8(value).map_err(|error| error.to_string())
    }

    fn element(&mut self, longest: usize) -> Read<(String, Vec<(String, String)>)> {
        self.expect("[")?;
        let id = self.name(32)?;
        let mut params = Vec::new();
        while self.rest.first() != Some(&b']') {
            self.expect(" ")?;
            let name = self.name(longest)?;
            self.expect("=\"")?;
            params.push((name, self.value()?));
            self.expect("\"")?;
        }
        self.expect("]")?;
        Ok((id, params))
    }
}

/// Reads a message. Names of parameters may have `longest` characters, 32 by the RFC.
pub fn parse(message: &[u8], longest: usize) -> Read<Message> {
    let mut reader = Reader { rest: message };
    reader.expect("<")?;
    let priority = String::from_utf8_lossy(reader.until(|b| b == b'>')).into_owned();
    let priority = priority.parse().map_err(|_| format!("PRI {priority:?}"))?;
    if priority > 191 {
        return Err(format!("PRI {priority}"));
    }
    reader.expect(">1 ")?;
    let timestamp = reader.field("TIMESTAMP", 32)?.ok_or("no TIMESTAMP")?;
    check_time(&timestamp)?;
    let hostname = reader.field("HOSTNAME", 255)?;
    let app_name = reader.field("APP-NAME", 48)?;
    let proc_id = reader.field("PROCID", 128)?;
    let msg_id = reader.field("MSGID", 32)?;
    let mut data = Vec::new();
    if reader.rest.first() == Some(&b'-') {
        reader.expect("-")?;
    } else {
        while reader.rest.first() == Some(&b'[') {
            data.push(reader.element(longest)?);
        }
        if data.is_empty() {
            return Err("no STRUCTURED-DATA".to_owned());
        }
    }
    if !reader.rest.is_empty() {
        reader.expect(" ")?;
    }
    Ok(Message {
        priority,
        timestamp,
        hostname,
        app_name,
        proc_id,
        msg_id,
        data,
        text: reader.rest.to_vec(),
    })
}

/// `YYYY-MM-DDThh:mm:ss[.d{1,6}](Z|±hh:mm)`
fn check_time(text: &str) -> Read<()> {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    let rest = shape
        .strip_prefix("0000-00-00T00:00:00")
        .ok_or_else(|| format!("TIMESTAMP {text:?}"))?;
    let digits = rest.strip_prefix('.').map_or(Ok(rest), |fraction| {
        let rest = fraction.trim_start_matches('0');
        match fraction.len() - rest.len() {
            1..=6 => Ok(rest),
            _ => Err(format!("TIMESTAMP {text:?}")),
        }
    });
    // The zone's digits look like the fraction's, but a sign stands between.
    match digits? {
        "Z" | "+00:00" | "-00:00" => Ok(()),
        _ => Err(format!("TIMESTAMP {text:?}")),
    }
}

/// Takes apart a stream of octet-counted messages; what is left is the beginning of one.
pub fn unframe(mut stream: &[u8]) -> Read<(Vec<&[u8]>, &[u8])> {
    let mut messages = Vec::new();
    loop {
        let Some(space) = stream.iter().position(|b| *b == b' ') else {
            return Ok((messages, stream));
        };
        let len = std::str::from_utf8(&stream[..space])
            .ok()
            .filter(|digits| !digits.starts_with('0'));
        let len: usize = len
            .and_then(|digits| digits.parse().ok())
            .ok_or("no length")?;
        let Some(message) = stream.get(space + 1..space + 1 + len) else {
            return Ok((messages, stream));
        };
        messages.push(message);
        stream = &stream[space + 1 + len..];
    }
}
