//! One line of the security event log, in the form and with the escaping of the Go traffic controller.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::HeaderName;
use http::{HeaderMap, Request};

use crate::access::{Plus, unescape};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-vcap-request-id");

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
    let method = escaped(request.method().as_str().as_bytes());
    let path = escaped(&path(request));
    let id = escaped(header(request.headers(), &REQUEST_ID));
    let (source, port) = source(request.headers(), peer);
    let (source, port) = (escaped(source.as_bytes()), escaped(port.as_bytes()));
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
        &escaped(destination.ip.as_bytes()),
        b" dpt=",
        destination.port.to_string().as_bytes(),
        b"\n",
    ] {
        line.extend_from_slice(part);
    }
    line
}

/// The decoded path and, if there is one, the query as it came.
fn path<B>(request: &Request<B>) -> Vec<u8> {
    let uri = request.uri();
    let path = uri.path().as_bytes();
    let mut text = unescape(path, Plus::Literal)
        .unwrap_or(Cow::Borrowed(path))
        .into_owned();
    if let Some(query) = uri.query() {
        text.push(b'?');
        text.extend_from_slice(query.as_bytes());
    }
    text
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

/// Escapes as Go's HTML templates do. What would break the line is percent-encoded again: the Go traffic controller writes
/// it as it is, so that a request can forge lines.
fn escaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for &byte in text {
        match byte {
            b'&' => out.extend_from_slice(b"&amp;"),
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'"' => out.extend_from_slice(b"&#34;"),
            b'\'' => out.extend_from_slice(b"&#39;"),
            b'+' => out.extend_from_slice(b"&#43;"),
            0..0x20 | 0x7f => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            other => out.push(other),
        }
    }
    out
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
            "CEF:0|cloud_foundry|loggregator_trafficcontroller|1.0|GET /firehose/a b?filter-type=logs|\
             GET /firehose/a b?filter-type=logs|0|rt=1795293671306 cs1Label=userAuthenticationMechanism \
             cs1=oauth-access-token cs2Label=vcapRequestId cs2=id-1 request=/firehose/a b?filter-type=logs \
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
