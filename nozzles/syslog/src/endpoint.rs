//! Where messages go: an address with the way to it.

use std::fmt;

use http::Uri;

/// How messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// `syslog://`: TCP (RFC 6587).
    Tcp,
    /// `syslog-tls://`: TLS (RFC 5425).
    Tls,
    /// `syslog-udp://`: one datagram per message (RFC 5426).
    Udp,
    /// `https://`: one request per message.
    Https,
    /// `https-batch://`: requests of many messages.
    HttpsBatch,
}

/// One place to send to.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub transport: Transport,
    /// Name or address, without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
    /// Where to post to, for the HTTPS transports. May hold a secret in its query.
    pub uri: Option<Uri>,
    /// User and password for the HTTPS transports, as they stand in the URL.
    pub user: Option<String>,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {self}", self.transport)
    }
}

impl Endpoint {
    /// Reads a URL. Ports may be left out: 514, for TLS 6514, for HTTPS 443.
    ///
    /// # Errors
    /// What is wrong with it, without its user information and query.
    pub fn parse(url: &str) -> Result<Endpoint, String> {
        let uri: Uri = url.parse().map_err(|error| format!("not a URL: {error}"))?;
        let (transport, port) = match uri.scheme_str() {
            Some("syslog") => (Transport::Tcp, 514),
            Some("syslog-tls") => (Transport::Tls, 6514),
            Some("syslog-udp") => (Transport::Udp, 514),
            Some("https") => (Transport::Https, 443),
            Some("https-batch") => (Transport::HttpsBatch, 443),
            Some("http") => {
                return Err("`http` is not spoken; use `https` or `https-batch`".to_owned());
            }
            scheme => {
                return Err(format!(
                    "`{}` is no transport; there are syslog, syslog-tls, syslog-udp, https, https-batch",
                    scheme.unwrap_or_default()
                ));
            }
        };
        let authority = uri.authority().ok_or("no host")?;
        let host = authority.host();
        let bare = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        if bare.is_empty() {
            return Err("no host".to_owned());
        }
        let (user, place) = match authority.as_str().rsplit_once('@') {
            None => (None, authority.as_str()),
            Some((user, place)) => (Some(user.to_owned()), place),
        };
        let port = match place.strip_prefix(host).unwrap_or_default() {
            "" => port,
            given => {
                let given = given.trim_start_matches(':');
                let number = given.parse().ok().filter(|port| *port != 0);
                number.ok_or_else(|| format!("`{given}` is no port"))?
            }
        };
        let https = matches!(transport, Transport::Https | Transport::HttpsBatch);
        if !https && user.is_some() {
            return Err("a user and a password are for https only".to_owned());
        }
        if !https && (uri.query().is_some() || !matches!(uri.path(), "" | "/")) {
            return Err(
                "no path and no query belong here; settings have keys of their own".to_owned(),
            );
        }
        let target = || {
            let path = uri.path_and_query().map_or("/", |path| path.as_str());
            format!("https://{host}:{port}{path}").parse()
        };
        Ok(Endpoint {
            transport,
            uri: if https {
                Some(target().map_err(|error: http::uri::InvalidUri| error.to_string())?)
            } else {
                None
            },
            host: bare,
            port,
            user,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_ports_of_their_transports() {
        for (url, transport, shown) in [
            ("syslog://a", Transport::Tcp, "a:514"),
            ("syslog://a:1/", Transport::Tcp, "a:1"),
            ("syslog-tls://a.b", Transport::Tls, "a.b:6514"),
            ("syslog-tls://[::1]:6515", Transport::Tls, "[::1]:6515"),
            ("syslog-udp://10.0.0.1", Transport::Udp, "10.0.0.1:514"),
            ("https://u:p@a/x?y=z", Transport::Https, "a:443"),
            ("https-batch://a:8443/x", Transport::HttpsBatch, "a:8443"),
        ] {
            let endpoint = Endpoint::parse(url).unwrap();
            assert_eq!(
                (endpoint.transport, endpoint.to_string()),
                (transport, shown.to_owned())
            );
        }
        let https = Endpoint::parse("https-batch://u:p%40ss@a/x?y=z").unwrap();
        assert_eq!(https.user.as_deref(), Some("u:p%40ss"));
        assert_eq!(https.uri.unwrap().to_string(), "https://a:443/x?y=z");
    }

    #[test]
    fn what_is_wrong_is_named_without_secrets() {
        for (url, message) in [
            (
                "http://a",
                "`http` is not spoken; use `https` or `https-batch`",
            ),
            (
                "tcp://a",
                "`tcp` is no transport; there are syslog, syslog-tls, syslog-udp, https, https-batch",
            ),
            ("syslog://a:0", "`0` is no port"),
            ("syslog://a:99999", "`99999` is no port"),
            ("syslog://u:p@a", "a user and a password are for https only"),
            (
                "syslog://a/?drain-type=all",
                "no path and no query belong here; settings have keys of their own",
            ),
        ] {
            assert_eq!(Endpoint::parse(url).unwrap_err(), message, "{url}");
        }
        assert!(Endpoint::parse("a:514").is_err());
    }
}
