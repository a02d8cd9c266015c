//! From events to requests.

use std::io::Write as _;

use base64::Engine as _;
use bytes::Bytes;
use flate2::write::GzEncoder;
use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT,
};
use http::{Method, Request, Uri};
use loggregator_nozzle::format::Format;
use loggregator_nozzle::{Event, Reason};

use crate::config::{Auth, Body, Compression, Settings};

/// Where an event goes, and with which headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub uri: Uri,
    pub headers: Vec<HeaderValue>,
}

/// Events that go together.
pub(crate) struct Group<'a> {
    target: Target,
    pub events: Vec<&'a Event>,
    /// Where they are in the batch.
    pub places: Vec<usize>,
}

impl<'a> Group<'a> {
    /// One event of it.
    pub fn only(&self, at: usize) -> Group<'a> {
        Group {
            target: self.target.clone(),
            events: vec![self.events[at]],
            places: vec![self.places[at]],
        }
    }
}

/// The groups of a batch in the order of their first events, and the events that no request can be made for.
pub(crate) fn groups<'a>(
    settings: &Settings,
    events: &'a [Event],
) -> (Vec<Group<'a>>, Vec<(usize, Reason)>) {
    let (mut groups, mut rejected): (Vec<Group<'_>>, _) = (Vec::new(), Vec::new());
    let fixed = settings.fixed();
    for (at, event) in events.iter().enumerate() {
        // Without a field in the templates all events have the target of the first.
        let known = if fixed { groups.last_mut() } else { None };
        let known = match known.filter(|_| !settings.single) {
            Some(group) => Some(group),
            None => match settings.target(event) {
                Err(why) => {
                    rejected.push((at, why));
                    continue;
                }
                Ok(target) => {
                    let same = groups.iter().rposition(|group| group.target == target);
                    if same.is_none() || settings.single {
                        groups.push(Group {
                            target,
                            events: Vec::new(),
                            places: Vec::new(),
                        });
                        groups.last_mut()
                    } else {
                        same.map(|at| &mut groups[at])
                    }
                }
            },
        };
        if let Some(group) = known {
            group.events.push(event);
            group.places.push(at);
        }
    }
    (groups, rejected)
}

impl Settings {
    /// Where an event goes. Values in the URL are percent-encoded, so that they say no more than they should.
    ///
    /// # Errors
    /// `invalid_url`, `invalid_header`: what the templates make of this event is none.
    pub fn target(&self, event: &Event) -> Result<Target, Reason> {
        let mut url = String::new();
        self.url.write_with(event, &mut url, |value, out| {
            for byte in value.bytes() {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    out.push(char::from(byte));
                } else {
                    out.push_str(&format!("%{byte:02X}"));
                }
            }
        });
        let uri = url
            .parse()
            .map_err(|error| Reason::new("invalid_url", format!("{error}")))?;
        let value =
            |(name, template): &(http::HeaderName, loggregator_nozzle::template::Template)| {
                HeaderValue::from_str(&template.render(event))
                    .map_err(|error| Reason::new("invalid_header", format!("{name}: {error}")))
            };
        let headers = self.headers.iter().map(value).collect::<Result<_, _>>()?;
        Ok(Target { uri, headers })
    }

    /// The request for a group.
    ///
    /// # Errors
    /// `secret`: a token or a password cannot be had.
    pub fn request(&self, group: &Group<'_>) -> Result<Request<Bytes>, Reason> {
        let body = self.body.of(&group.events, self.single);
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = group.target.uri.clone();
        self.common(request.headers_mut())?;
        let headers = request.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static(self.body.content_type()),
        );
        for ((name, _), value) in self.headers.iter().zip(&group.target.headers) {
            headers.insert(name, value.clone());
        }
        *request.body_mut() = match self.compression {
            Compression::None => body.into(),
            Compression::Gzip => {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                gzip(&body).map_err(|error| Reason::new("compression", error.to_string()))?
            }
        };
        Ok(request)
    }

    /// A request that only asks whether somebody is there, if the URL is known beforehand.
    ///
    /// # Errors
    /// As [`Settings::request`].
    pub fn probe(&self) -> Result<Option<Request<Bytes>>, Reason> {
        let Some(url) = self.url.constant() else {
            return Ok(None);
        };
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = Method::HEAD;
        *request.uri_mut() = url
            .parse()
            .map_err(|error| Reason::new("invalid_url", format!("{error}")))?;
        self.common(request.headers_mut())?;
        Ok(Some(request))
    }

    fn common(&self, headers: &mut HeaderMap) -> Result<(), Reason> {
        let agent = concat!("loggregator/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        let secret = |error: &dyn std::fmt::Display| Reason::new("secret", error.to_string());
        let text = match &self.auth {
            Auth::None => return Ok(()),
            Auth::Bearer(token) => format!("Bearer {}", token.read().map_err(|e| secret(&e))?),
            Auth::Basic(user, password) => {
                let pair = format!("{user}:{}", password.read().map_err(|e| secret(&e))?);
                format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(pair))
            }
        };
        let mut value = HeaderValue::try_from(text).map_err(|error| secret(&error))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
        Ok(())
    }
}

fn gzip(body: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(
        Vec::with_capacity(body.len() / 4),
        flate2::Compression::fast(),
    );
    encoder.write_all(body)?;
    Ok(encoder.finish()?.into())
}

impl Body {
    fn content_type(self) -> &'static str {
        match self {
            Body::Json => "application/json",
            Body::Ndjson => "application/x-ndjson",
            Body::Text => "text/plain; charset=utf-8",
            Body::Protobuf => "application/x-protobuf",
        }
    }

    /// The body of these events; `single`: of one event alone.
    pub(crate) fn of(self, events: &[&Event], single: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(events.len() * 512);
        if self == Body::Json && !single {
            out.push(b'[');
        }
        for (at, event) in events.iter().enumerate() {
            match self {
                Body::Json => {
                    if at > 0 {
                        out.push(b',');
                    }
                    Format::Json.write(&mut out, event);
                }
                Body::Ndjson | Body::Text => {
                    let format = if self == Body::Text {
                        Format::Text
                    } else {
                        Format::Json
                    };
                    format.write(&mut out, event);
                    out.push(b'\n');
                }
                Body::Protobuf => {
                    // Field 1 of `EnvelopeBatch`, length-delimited.
                    out.push(0x0a);
                    let mut len = event.body().len();
                    while len >= 0x80 {
                        out.push((len & 0x7f) as u8 | 0x80);
                        len >>= 7;
                    }
                    out.push(len as u8);
                    out.extend_from_slice(event.body());
                }
            }
        }
        if self == Body::Json && !single {
            out.push(b']');
        }
        out
    }
}
