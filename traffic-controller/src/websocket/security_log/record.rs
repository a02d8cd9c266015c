//! One line of the security event log, in the form and with the escaping of the Go traffic controller. What the client wrote
//! is bounded, cannot forge a line or a field of it, and the token that `/set-cookie` is sent does not stand in it.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::str::Utf8Chunk;
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::HeaderName;
use http::{HeaderMap, Request};

use crate::access::{Plus, unescape};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-vcap-request-id");

/// Bytes of a path with its query that a line shows, three times.
const PATH_BYTES: usize = 8 * 1024;

/// Bytes of each of the other fields that the client writes.
const FIELD_BYTES: usize = 256;

/// Ends a field that is longer.
const CUT: &[u8] = b"...";

/// The parameter of `/set-cookie` whose value may be a token.
const SECRET_PARAMETER: &[u8] = b"CookieValue";

/// Stands for its value.
const HIDDEN: &[u8] = b"[hidden]";

/// Where the requests go to, as the log tells it.
#[derive(Debug, Clone)]
pub(super) struct Destination {
    /// The address of this machine that was configured for the log.
    pub(super) ip: String,
    /// The port that was configured, 0 for a free one.
    pub(super) port: u16,
}

/// The line of one request, its end included.
pub(super) fn line<B>(
    request: &Request<B>,
    peer: SocketAddr,
    destination: &Destination,
    now: SystemTime,
) -> Vec<u8> {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let method = escaped(request.method().as_str().as_bytes(), FIELD_BYTES);
    let path = escaped(&path(request), PATH_BYTES);
    let id = escaped(header(request.headers(), &REQUEST_ID), FIELD_BYTES);
    let (source, port) = source(request.headers(), peer);
    let source = escaped(source.as_bytes(), FIELD_BYTES);
    let port = escaped(port.as_bytes(), FIELD_BYTES);
    let mut line = Vec::with_capacity(320 + 3 * path.len());
    for part in [
        b"CEF:0|cloud_foundry|loggregator_trafficcontroller|1.0|",
        &method[..],
        b" ",
        &path,
        b"|",
        &method,
        b" ",
        &path,
        b"|0|rt=",
        since.as_millis().to_string().as_bytes(),
        b" cs1Label=userAuthenticationMechanism cs1=oauth-access-token cs2Label=vcapRequestId cs2=",
        &id,
        b" request=",
        &path,
        b" requestMethod=",
        &method,
        b" src=",
        &source,
        b" spt=",
        &port,
        b" dst=",
        &escaped(destination.ip.as_bytes(), FIELD_BYTES),
        b" dpt=",
        destination.port.to_string().as_bytes(),
        b"\n",
    ] {
        line.extend_from_slice(part);
    }
    line
}

/// The decoded path and, if there is one, the query as it came but for a cookie's value.
fn path<B>(request: &Request<B>) -> Vec<u8> {
    let uri = request.uri();
    let path = uri.path().as_bytes();
    let mut text = unescape(path, Plus::Literal)
        .unwrap_or(Cow::Borrowed(path))
        .into_owned();
    if let Some(query) = uri.query() {
        for (index, parameter) in query.as_bytes().split(|&byte| byte == b'&').enumerate() {
            text.push(if index == 0 { b'?' } else { b'&' });
            let end = parameter.iter().position(|&byte| byte == b'=');
            let (name, value) = parameter.split_at(end.map_or(parameter.len(), |end| end + 1));
            text.extend_from_slice(name);
            text.extend_from_slice(if is_secret(name) { HIDDEN } else { value });
        }
    }
    text
}

/// Whether a parameter of this name, its `=` included, has a token for its value. On whatever path: a request for
/// `//set-cookie` is one that will come again.
fn is_secret(name: &[u8]) -> bool {
    let name = name.strip_suffix(b"=").unwrap_or_default();
    unescape(name, Plus::Blank).is_some_and(|name| *name == *SECRET_PARAMETER)
}

/// Host and port of whoever asks: what a proxy says or, without one, the connection's other end. A text without a colon is
/// a host without a port.
fn source(headers: &HeaderMap, peer: SocketAddr) -> (String, String) {
    let forwarded = header(headers, &FORWARDED_FOR);
    if forwarded.is_empty() {
        return (
            peer.ip().to_canonical().to_string(),
            peer.port().to_string(),
        );
    }
    let first = forwarded
        .split(|&byte| byte == b',')
        .next()
        .unwrap_or_default();
    let first = String::from_utf8_lossy(first);
    if !first.contains(':') {
        return (first.into_owned(), String::new());
    }
    match split_host_port(&first) {
        Some((host, port)) => (host.to_owned(), port.to_owned()),
        None => {
            tracing::error!("access handler : address {first:?} is no host with a port");
            (String::new(), String::new())
        }
    }
}

/// `host:port` or `[host]:port`, neither of which is looked at any further.
fn split_host_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    (!host.contains(['[', ']']) && !port.contains(['[', ']'])).then_some((host, port))
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a [u8] {
    headers.get(name).map_or(&[], |value| value.as_bytes())
}

/// Escapes as Go's HTML templates do, up to so many bytes. What would break the line, or end a field of it, is
/// percent-encoded again: the Go traffic controller writes it as it is, so that a request can forge lines and fields.
fn escaped(text: &[u8], limit: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len().min(limit));
    for character in text.utf8_chunks().flat_map(characters) {
        let before = out.len();
        for &byte in character {
            match byte {
                b'&' => out.extend_from_slice(b"&amp;"),
                b'<' => out.extend_from_slice(b"&lt;"),
                b'>' => out.extend_from_slice(b"&gt;"),
                b'"' => out.extend_from_slice(b"&#34;"),
                b'\'' => out.extend_from_slice(b"&#39;"),
                b'+' => out.extend_from_slice(b"&#43;"),
                0..=b' ' | b'|' | b'\\' | 0x7f => {
                    out.extend_from_slice(format!("%{byte:02X}").as_bytes());
                }
                other => out.push(other),
            }
        }
        if out.len() > limit {
            out.truncate(before);
            out.extend_from_slice(CUT);
            break;
        }
    }
    out
}

/// The bytes of each character; what is no UTF-8 is one each.
fn characters<'a>(chunk: Utf8Chunk<'a>) -> impl Iterator<Item = &'a [u8]> {
    let valid = chunk.valid();
    let starts = valid.char_indices();
    let valid = starts.map(|(start, one)| &valid.as_bytes()[start..start + one.len_utf8()]);
    valid.chain(chunk.invalid().chunks(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn of(method: &str, target: &str, headers: &[(&str, &str)], peer: &str) -> String {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let destination = Destination {
            ip: "10.0.0.9".to_owned(),
            port: 0,
        };
        let now = UNIX_EPOCH + Duration::from_millis(1_795_293_671_306);
        let line = line(
            &request.body(()).unwrap(),
            peer.parse().unwrap(),
            &destination,
            now,
        );
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn the_whole_line() {
        let headers = [("x-vcap-request-id", "id-1"), ("authorization", "bearer x")];
        assert_eq!(
            of(
                "GET",
                "/firehose/a%20b?filter-type=logs",
                &headers,
                "10.1.2.3:4567"
            ),
            "CEF:0|cloud_foundry|loggregator_trafficcontroller|1.0|GET /firehose/a%20b?filter-type=logs|\
             GET /firehose/a%20b?filter-type=logs|0|rt=1795293671306 cs1Label=userAuthenticationMechanism \
             cs1=oauth-access-token cs2Label=vcapRequestId cs2=id-1 request=/firehose/a%20b?filter-type=logs \
             requestMethod=GET src=10.1.2.3 spt=4567 dst=10.0.0.9 dpt=0\n"
        );
    }

    #[test]
    fn special_characters_are_escaped_as_in_html_and_no_line_can_be_forged() {
        let line = of(
            "GET",
            "/a+b&c%3Cd%3E%22'%0ACEF:0%00%C3%A9?e=%0A+&f",
            &[],
            "[::1]:1",
        );
        let path = "/a&#43;b&amp;c&lt;d&gt;&#34;&#39;%0ACEF:0%00é?e=%0A&#43;&amp;f";
        assert!(
            line.contains(&format!("|1.0|GET {path}|GET {path}|0|")),
            "{line}"
        );
        assert!(
            line.contains(&format!(" request={path} requestMethod")),
            "{line}"
        );
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn no_field_can_be_forged() {
        let headers = [
            ("x-vcap-request-id", "id src=6.6.6.6"),
            ("x-forwarded-for", "1.2.3.4 dst=6.6.6.6|,9.9.9.9"),
        ];
        let line = of(
            "GET",
            "/a%20src=6.6.6.6%7C10%7C%5C?b|c\\",
            &headers,
            "10.1.2.3:4",
        );
        let path = "/a%20src=6.6.6.6%7C10%7C%5C?b%7Cc%5C";
        assert!(
            line.contains(&format!("|1.0|GET {path}|GET {path}|0|rt=")),
            "{line}"
        );
        assert!(
            line.contains(&format!(
                " cs2=id%20src=6.6.6.6 request={path} requestMethod=GET \
                 src=1.2.3.4%20dst=6.6.6.6%7C spt= dst=10.0.0.9 "
            )),
            "{line}"
        );
    }

    #[test]
    fn a_cookies_value_is_hidden() {
        for (target, shown) in [
            (
                "/set-cookie?CookieName=authorization&CookieValue=bearer%20s3cret",
                "/set-cookie?CookieName=authorization&amp;CookieValue=[hidden]",
            ),
            (
                "//set-cookie?Cookie%56alue=s3cret&CookieName=a=b&&c",
                "//set-cookie?Cookie%56alue=[hidden]&amp;CookieName=a=b&amp;&amp;c",
            ),
            (
                "/set-cookie?CookieValue=s3cret=&CookieValue=s3cret",
                "/set-cookie?CookieValue=[hidden]&amp;CookieValue=[hidden]",
            ),
            ("/a?CookieValue&=b&?", "/a?CookieValue&amp;=b&amp;?"),
        ] {
            let line = of("GET", target, &[], "10.1.2.3:4");
            assert!(
                line.contains(&format!(" request={shown} requestMethod")),
                "{line}"
            );
            assert!(!line.contains("s3cret"), "{line}");
        }
    }

    #[test]
    fn long_fields_are_cut_between_two_characters() {
        let id = "i".repeat(FIELD_BYTES);
        let longer = format!("{id}i");
        let target = format!(
            "/{}?{}",
            "%C3%A9".repeat(PATH_BYTES / 2 - 2),
            "&".repeat(99)
        );
        let path = format!("/{}?...", "é".repeat(PATH_BYTES / 2 - 2));
        let line = of(
            "GET",
            &target,
            &[("x-vcap-request-id", &id), ("x-forwarded-for", &longer)],
            "10.1.2.3:4",
        );
        assert!(
            line.contains(&format!(" cs2={id} request={path} requestMethod")),
            "{line}"
        );
        assert!(line.contains(&format!(" src={id}... spt= ")), "{line}");
        let method = "M".repeat(10_000);
        let target = format!("/{}", "'".repeat(60_000));
        let line = of(&method, &target, &[], "10.1.2.3:4");
        assert!(line.len() < 4 * PATH_BYTES, "{}", line.len());
    }

    #[test]
    fn who_asked() {
        for (forwarded, peer, expected) in [
            ("", "10.1.2.3:4567", "src=10.1.2.3 spt=4567 dst"),
            ("", "[::ffff:10.1.2.3]:4567", "src=10.1.2.3 spt=4567 dst"),
            ("", "[fe80::1]:9", "src=fe80::1 spt=9 dst"),
            ("1.2.3.4", "9.9.9.9:9", "src=1.2.3.4 spt= dst"),
            ("1.2.3.4:80, 5.6.7.8", "9.9.9.9:9", "src=1.2.3.4 spt=80 dst"),
            ("1.2.3.4, 5.6.7.8:90", "9.9.9.9:9", "src=1.2.3.4 spt= dst"),
            ("[fe80::1]:80", "9.9.9.9:9", "src=fe80::1 spt=80 dst"),
            ("fe80::1", "9.9.9.9:9", "src= spt= dst"),
            ("[fe80::1]", "9.9.9.9:9", "src= spt= dst"),
            ("a<b:1", "9.9.9.9:9", "src=a&lt;b spt=1 dst"),
        ] {
            let headers = [("x-forwarded-for", forwarded)];
            let line = of(
                "GET",
                "/",
                &headers[usize::from(forwarded.is_empty())..],
                peer,
            );
            assert!(line.contains(expected), "{forwarded}: {line}");
        }
    }
}
