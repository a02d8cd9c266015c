//! The WebSocket handshake (RFC 6455, section 4.2), checked in the order in which the Go traffic controller checks it.
//!
//! No subprotocol and no extension is ever agreed to, and every origin is welcome.

use base64::Engine;
use base64::alphabet;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use http::header::{CONNECTION, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, Method, Version};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Why a request is not granted the upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A header is missing or wrong, or the connection cannot be upgraded (HTTP/2, HTTP/1.0).
    NotAHandshake,
    /// The upgrade headers are there, but the method is not GET.
    Method,
}

/// As lenient as Go's decoder: the unused bits of the last character are not looked at.
const KEY: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// Checks the request and returns the value for `Sec-WebSocket-Accept`.
pub(crate) fn check(
    method: &Method,
    version: Version,
    headers: &HeaderMap,
) -> Result<String, Refusal> {
    let upgrade = version == Version::HTTP_11
        && names(headers, &CONNECTION, "upgrade")
        && names(headers, &UPGRADE, "websocket");
    if !upgrade {
        return Err(Refusal::NotAHandshake);
    }
    if method != Method::GET {
        return Err(Refusal::Method);
    }
    if !names(headers, &SEC_WEBSOCKET_VERSION, "13") {
        return Err(Refusal::NotAHandshake);
    }
    let key = headers
        .get(SEC_WEBSOCKET_KEY)
        .map(|key| key.as_bytes().trim_ascii())
        .unwrap_or_default();
    match KEY.decode(key) {
        Ok(nonce) if nonce.len() == 16 => Ok(derive_accept_key(key)),
        _ => Err(Refusal::NotAHandshake),
    }
}

/// Does one of the header's comma-separated lists hold this word, whatever its case?
fn names(headers: &HeaderMap, header: &HeaderName, word: &str) -> bool {
    let lists = headers
        .get_all(header)
        .iter()
        .filter_map(|list| list.to_str().ok());
    lists
        .flat_map(|list| list.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 4] = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn verdict(
        method: Method,
        version: Version,
        change: &[(&str, &str)],
    ) -> Result<String, Refusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in GOOD.iter().chain(change) {
            headers.insert(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        check(&method, version, &headers)
    }

    #[test]
    fn the_example_of_rfc_6455() {
        assert_eq!(
            verdict(Method::GET, Version::HTTP_11, &[]),
            Ok("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned())
        );
    }

    #[test]
    fn sloppy_but_good() {
        let sloppy = [
            ("connection", "keep-alive, upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "8, 13"),
        ];
        for change in sloppy {
            assert!(
                verdict(Method::GET, Version::HTTP_11, &[change]).is_ok(),
                "{change:?}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let bad = Err(Refusal::NotAHandshake);
        for change in [
            ("connection", "close"),
            ("upgrade", "h2c"),
            ("sec-websocket-version", "12"),
            ("sec-websocket-key", ""),
            ("sec-websocket-key", "c2hvcnQ="),
            ("sec-websocket-key", "not base64 at all!"),
        ] {
            assert_eq!(
                verdict(Method::GET, Version::HTTP_11, &[change]),
                bad,
                "{change:?}"
            );
        }
        assert_eq!(verdict(Method::GET, Version::HTTP_2, &[]), bad);
        assert_eq!(verdict(Method::GET, Version::HTTP_10, &[]), bad);
        assert_eq!(
            verdict(Method::POST, Version::HTTP_11, &[]),
            Err(Refusal::Method)
        );
        assert_eq!(
            verdict(Method::POST, Version::HTTP_11, &[("upgrade", "x")]),
            bad
        );
    }
}
