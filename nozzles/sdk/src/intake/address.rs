//! Addresses of other services, TLS for them, and where a token may be sent.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use loggregator_net::{ClientTls, Profile, TlsError};
use loggregator_service::Lifecycle;

/// How often certificate files are looked at.
const RELOAD: Duration = Duration::from_secs(30);

/// Checks an address and returns it without a slash at its end. It is `plain` or `secure` (`http`, `https`), a host and maybe
/// a port. What is sent there holds a secret, so that it must be secure, or on this machine, if `secret`.
///
/// # Errors
/// What is wrong with it; never with what may be a password in it.
pub(crate) fn check(
    url: &str,
    (plain, secure): (&str, &str),
    secret: bool,
) -> Result<String, String> {
    let form = format!("must look like {secure}://host:port");
    let uri: Uri = url.parse().map_err(|_| form.clone())?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(form);
    };
    if authority.as_str().contains('@') {
        return Err("must not hold a user or password".to_owned());
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(format!("{form}, without a path"));
    }
    if scheme != plain && scheme != secure || authority.host().is_empty() {
        return Err(form);
    }
    if secret && !keeps_secrets(&uri) {
        return Err(format!(
            "must begin with {secure}://, or the token could be read on its way"
        ));
    }
    Ok(format!("{scheme}://{authority}"))
}

/// Whether a secret may be sent to this address: with TLS (`https`, `wss`), or within this machine.
#[must_use]
pub fn keeps_secrets(uri: &Uri) -> bool {
    matches!(uri.scheme_str(), Some("https" | "wss")) || uri.host().is_some_and(is_this_machine)
}

fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|addr| addr.is_loopback())
}

/// TLS as the configuration wants it: with these authorities, with those of the system, or unverified. Files are followed.
///
/// # Errors
/// When the authorities cannot be used.
pub(crate) fn tls(
    ca_file: Option<&PathBuf>,
    skip_verify: bool,
    profile: Profile,
    lifecycle: &Lifecycle,
) -> Result<Arc<ClientTls>, TlsError> {
    let tls = match ca_file {
        _ if skip_verify => return ClientTls::unverified(None, profile),
        None => return ClientTls::system(profile),
        Some(ca) => ClientTls::ca_only_with(ca, profile)?,
    };
    let watch = ClientTls::watch(Arc::clone(&tls), RELOAD, lifecycle.token());
    lifecycle.spawn("certificate authorities", watch);
    Ok(tls)
}

/// Appends a value to a query or a form: everything but what RFC 3986 leaves unreserved is percent-encoded.
pub(crate) fn escape(out: &mut String, value: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

/// Pairs as a query or a form.
pub(crate) fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        escape(&mut out, value);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_and_secrets_are_not_sent_in_the_clear() {
        let http = ("http", "https");
        for (url, expected) in [
            (
                "https://log-stream.example.com",
                Ok("https://log-stream.example.com"),
            ),
            (
                "https://log-stream.example.com:443/",
                Ok("https://log-stream.example.com:443"),
            ),
            ("http://127.0.0.1:8088", Ok("http://127.0.0.1:8088")),
            ("http://[::1]:8088", Ok("http://[::1]:8088")),
            ("http://localhost", Ok("http://localhost")),
            (
                "http://example.com",
                Err("must begin with https://, or the token could be read on its way"),
            ),
            (
                "https://bob:secret@example.com",
                Err("must not hold a user or password"),
            ),
            (
                "https://example.com/v2",
                Err("must look like https://host:port, without a path"),
            ),
            (
                "https://example.com?a",
                Err("must look like https://host:port, without a path"),
            ),
            ("wss://example.com", Err("must look like https://host:port")),
            ("example.com:443", Err("must look like https://host:port")),
            ("", Err("must look like https://host:port")),
        ] {
            let checked = check(url, http, true);
            assert_eq!(
                checked.as_deref().map_err(String::as_str),
                expected,
                "{url}"
            );
        }
        assert!(check("http://example.com", http, false).is_ok());
        assert!(check("ws://example.com", ("ws", "wss"), false).is_ok());
    }

    #[test]
    fn values_are_escaped() {
        let form = pairs([("grant_type", "password"), ("password", "a b&c=d+é%")]);
        assert_eq!(
            form,
            "grant_type=password&password=a%20b%26c%3Dd%2B%C3%A9%25"
        );
        assert_eq!(pairs([]), "");
    }
}
