//! One HTTP request, from a timer named `http`.

use std::borrow::Cow;
use std::collections::HashSet;

use foldhash::fast::RandomState;

use super::rollup_key;
use crate::config::{Mapping, Profile};
use crate::tags::{Tags, part};

/// Methods that keep their name (RFC 9110, RFC 5789); any other text a client may send is `other`.
const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];
const OTHER: &str = "other";

/// Tags of which `firehose_exporter` makes labels.
pub(super) const EXPORTER_TAGS: [&str; 10] = [
    "app_id",
    "app_name",
    "organization_id",
    "organization_name",
    "process_id",
    "process_instance_id",
    "process_type",
    "space_id",
    "space_name",
    "instance_id",
];

/// A request as the router saw its client: each routed request once.
#[derive(Debug)]
pub(crate) struct Request<'a, 'b> {
    pub tags: &'a Tags<'b>,
    pub method: &'a str,
    pub scheme: &'a str,
    pub host: Cow<'a, str>,
    pub status: &'a str,
}

impl<'a, 'b> Request<'a, 'b> {
    /// `None` for the router's view of its own request to the app. `hosts` are the values of the label `host` so far.
    pub(crate) fn of(
        map: &Mapping,
        tags: &'a Tags<'b>,
        hosts: &mut HashSet<Box<str>, RandomState>,
    ) -> Option<Request<'a, 'b>> {
        let client = tags
            .get("peer_type")
            .is_some_and(|peer| peer.eq_ignore_ascii_case("client"));
        let (scheme, host) = place(tags.get("uri").unwrap_or_default());
        let mut request = Request {
            tags,
            method: tags.get("method").unwrap_or_default(),
            scheme,
            host: Cow::Borrowed(host),
            status: tags.get("status_code").unwrap_or_default(),
        };
        match map.profile {
            Profile::FirehoseExporter => {
                let router = client && tags.source_id == "gorouter";
                let nameless = is_guid(tags.source_id) && tags.get("app_id").is_none();
                if router || nameless {
                    return None;
                }
            }
            Profile::Clean => {
                if client {
                    return None;
                }
                request.bound(map, hosts);
            }
        }
        Some(request)
    }

    /// Keeps what clients write as they like within bounds.
    fn bound(&mut self, map: &Mapping, hosts: &mut HashSet<Box<str>, RandomState>) {
        if !METHODS.contains(&self.method) {
            self.method = OTHER;
        }
        let code = self.status.as_bytes();
        if !matches!(code, [b'1'..=b'5', second, third] if second.is_ascii_digit() && third.is_ascii_digit())
        {
            self.status = OTHER;
        }
        if self.host.is_empty() {
            return;
        }
        // The tags of a route name its app.
        let named = ["app_id", "app_name"].map(|tag| self.tags.get(tag).is_some());
        let routed = named.contains(&true) || is_guid(self.tags.source_id);
        if !routed {
            // No route has this host: anybody can ask for any.
            self.host = Cow::Borrowed(OTHER);
            return;
        }
        if self.host.bytes().any(|b| b.is_ascii_uppercase()) {
            self.host = Cow::Owned(self.host.to_ascii_lowercase());
        }
        let bare = self
            .host
            .rsplit_once(':')
            .filter(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
        if let Some((bare, _)) = bare {
            let len = bare.len();
            match &mut self.host {
                Cow::Borrowed(host) => *host = &host[..len],
                Cow::Owned(host) => host.truncate(len),
            }
        }
        if !hosts.contains(&*self.host) {
            if hosts.len() < map.max_hosts && self.host.len() <= 253 {
                hosts.insert((*self.host).into());
            } else {
                self.host = Cow::Borrowed(OTHER);
            }
        }
    }

    /// Appends what tells its series apart to a key.
    pub(crate) fn write_key(&self, map: &Mapping, key: &mut Vec<u8>) {
        for text in [self.method, self.scheme, &*self.host, self.status] {
            part(key, text);
        }
        match map.profile {
            Profile::Clean => rollup_key(map, self.tags, key),
            Profile::FirehoseExporter => {
                for name in EXPORTER_TAGS {
                    part(key, self.tags.field(name).unwrap_or_default());
                }
                part(key, self.tags.source_id);
            }
        }
    }

    /// Its id, for exemplars; empty when it has none.
    pub(crate) fn id(&self) -> &'a str {
        self.tags.get("request_id").unwrap_or_default()
    }

    /// Bytes of its answer, where the router knows.
    pub(crate) fn size(&self) -> Option<f64> {
        let size: u64 = self.tags.get("content_length")?.parse().ok()?;
        #[expect(clippy::cast_precision_loss, reason = "as every Prometheus value")]
        Some(size as f64)
    }
}

/// Scheme and host, with its port, of an absolute address.
fn place(uri: &str) -> (&str, &str) {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return ("", "");
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    (scheme, host)
}

/// Whether this is a GUID, as every app's id is.
fn is_guid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        for (uri, expected) in [
            (
                "https://shop.example.com/a?b",
                ("https", "shop.example.com"),
            ),
            ("http://u:p@h:80?x", ("http", "h:80")),
            ("http://h#f", ("http", "h")),
            ("/only/path", ("", "")),
            ("", ("", "")),
        ] {
            assert_eq!(place(uri), expected, "{uri}");
        }
        assert!(is_guid("6f1c7c9e-53a4-4f3e-9f36-0a1b2c3d4e9a"));
        assert!(!is_guid("gorouter"));
    }
}
