//! What the admin server of a nozzle serves besides: `/talkers`, `/destinations`, `/edges`, `/tap`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use loggregator_service::admin::{Lines, Page, Pages};
use serde_json::{Value, json};

use crate::ledger::Ledger;
use crate::tap::{INTAKE, Tap};

/// Answers from the ledger.
pub(crate) struct NozzlePages(pub Arc<Ledger>);

impl Pages for NozzlePages {
    fn page(&self, path: &str, query: &str) -> Option<Page> {
        Some(match path {
            "/talkers" => Page::Json(self.0.talkers.report()),
            "/destinations" => Page::Json(destinations(&self.0)),
            "/edges" => Page::Json(json!({ "edges": self.0.edges() })),
            "/tap" => tap(&self.0, query),
            _ => return None,
        })
    }
}

/// How each destination is, and what it promises.
fn destinations(ledger: &Ledger) -> Value {
    let buffer = ledger.buffer.report();
    let lines = ledger.lines.read();
    let each = lines.iter().map(|line| {
        let state = &line.state;
        let breaker = ["closed", "half-open", "open"].get(usize::from(state.breaker()));
        json!({
            "name": line.name,
            "kind": line.kind,
            "filter": line.filter,
            "guarantee": line.guarantee,
            "pending": line.standing(&buffer).pending,
            "in_flight": state.in_flight.load(Relaxed),
            "concurrency_limit": state.limit.load(Relaxed),
            "breaker": breaker,
            "trouble": state.trouble(),
        })
    });
    json!({ "destinations": each.collect::<Vec<_>>() })
}

/// `edge=…&filter=…`
fn tap(ledger: &Ledger, query: &str) -> Page {
    let (mut edge, mut filter) = (INTAKE.to_owned(), String::new());
    for (key, value) in parameters(query) {
        match key.as_str() {
            "edge" => edge = value,
            "filter" => filter = value,
            _ => return Page::BadRequest(format!("`{key}` is neither `edge` nor `filter`")),
        }
    }
    match ledger.taps.listen(&edge, &filter, &ledger.edges()) {
        Ok(tap) => Page::Lines(Box::new(tap)),
        Err(error) => Page::BadRequest(error.to_string()),
    }
}

impl Lines for Tap {
    fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<Option<String>> {
        self.poll_next(cx)
    }
}

/// The parameters of a query, as a browser or `curl --data-urlencode` writes them.
fn parameters(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key), decoded(value))
    })
}

fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let hex: Vec<u8> = bytes.clone().take(2).collect();
                let hex = std::str::from_utf8(&hex).ok();
                match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                    Some(byte) => {
                        bytes.nth(1);
                        byte
                    }
                    None => b'%',
                }
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded() {
        let all: Vec<_> =
            parameters("edge=siem%2Fin&filter=text+%3D%3D+%22a%26b%22&x&%zz=1%").collect();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            all,
            [
                pair("edge", "siem/in"),
                pair("filter", "text == \"a&b\""),
                pair("x", ""),
                pair("%zz", "1%"),
            ]
        );
    }
}
