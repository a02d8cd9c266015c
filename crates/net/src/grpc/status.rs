//! The status that ends every call, and its form in HTTP/2 trailers.

use std::fmt;

use http::{HeaderMap, HeaderValue};

/// Trailer that carries the numeric code.
pub(super) const GRPC_STATUS: &str = "grpc-status";
/// Trailer that carries the percent-encoded message.
pub(super) const GRPC_MESSAGE: &str = "grpc-message";

/// The seventeen status codes of gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    /// The call succeeded.
    Ok = 0,
    /// The caller gave it up.
    Cancelled = 1,
    /// An error without a better name; also a code that we do not know.
    Unknown = 2,
    /// The request makes no sense whatever the state of the system.
    InvalidArgument = 3,
    /// The call's time ran out.
    DeadlineExceeded = 4,
    /// Something asked for does not exist.
    NotFound = 5,
    /// Something to be created exists already.
    AlreadyExists = 6,
    /// The caller is known and may not do this.
    PermissionDenied = 7,
    /// A limit was reached: a message too large, too many streams.
    ResourceExhausted = 8,
    /// The system is not in the state that the call needs.
    FailedPrecondition = 9,
    /// The call lost against another one.
    Aborted = 10,
    /// Past the valid range.
    OutOfRange = 11,
    /// No such method, or a feature (compression) that is not offered.
    Unimplemented = 12,
    /// The protocol was broken.
    Internal = 13,
    /// The server cannot be reached now; trying again may help.
    Unavailable = 14,
    /// Data is lost or damaged beyond repair.
    DataLoss = 15,
    /// The caller is not known.
    Unauthenticated = 16,
}

impl Code {
    /// The code with this number; [`Code::Unknown`] for a number that gRPC does not define.
    pub fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Ok,
            1 => Self::Cancelled,
            3 => Self::InvalidArgument,
            4 => Self::DeadlineExceeded,
            5 => Self::NotFound,
            6 => Self::AlreadyExists,
            7 => Self::PermissionDenied,
            8 => Self::ResourceExhausted,
            9 => Self::FailedPrecondition,
            10 => Self::Aborted,
            11 => Self::OutOfRange,
            12 => Self::Unimplemented,
            13 => Self::Internal,
            14 => Self::Unavailable,
            15 => Self::DataLoss,
            16 => Self::Unauthenticated,
            _ => Self::Unknown,
        }
    }

    /// The name as gRPC documents write it, e.g. `RESOURCE_EXHAUSTED`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::DataLoss => "DATA_LOSS",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }
}

/// How a call ended: a code and a text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What programs look at.
    pub code: Code,
    /// What people read. Never contains secrets.
    pub message: String,
}

impl Status {
    /// A status of this code and text.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// Success.
    pub fn ok() -> Self {
        Self::new(Code::Ok, "")
    }

    /// `UNAVAILABLE` with this text.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    /// `INTERNAL` with this text.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// `INVALID_ARGUMENT` with this text.
    pub fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// `UNIMPLEMENTED` with this text.
    pub fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(Code::Unimplemented, message)
    }

    /// What the Go servers answer to a request message that does not decode.
    pub fn unmarshal(reason: impl fmt::Display) -> Self {
        Self::internal(format!(
            "grpc: failed to unmarshal the received message: {reason}"
        ))
    }

    /// What the Go servers answer to a path that nobody serves. `services` are the names
    /// (`loggregator.v2.Ingress`) of the services that exist here: for a path in one of them the
    /// method is unknown, otherwise the service is.
    pub fn unknown_method(path: &str, services: &[&str]) -> Self {
        let trimmed = path.strip_prefix('/').unwrap_or(path);
        let Some((service, method)) = trimmed.rsplit_once('/') else {
            return Self::unimplemented(format!("malformed method name: {path:?}"));
        };
        if services.contains(&service) {
            Self::unimplemented(format!("unknown method {method} for service {service}"))
        } else {
            Self::unimplemented(format!("unknown service {service}"))
        }
    }

    pub(super) fn too_large(size: u64, limit: usize) -> Self {
        Self::new(
            Code::ResourceExhausted,
            format!("grpc: received message larger than max ({size} vs. {limit})"),
        )
    }

    pub(super) fn deadline_exceeded() -> Self {
        Self::new(Code::DeadlineExceeded, "context deadline exceeded")
    }

    pub(super) fn draining() -> Self {
        Self::unavailable("the server is shutting down")
    }

    /// Adds `grpc-status` and, when there is a text, `grpc-message`.
    pub(super) fn write_to(&self, headers: &mut HeaderMap) {
        headers.insert(GRPC_STATUS, HeaderValue::from(self.code as u16));
        if self.message.is_empty() {
            return;
        }
        // The encoded form has visible ASCII and spaces only, so this cannot fail; and if it did,
        // the code alone is still a valid status.
        if let Ok(value) = HeaderValue::from_str(&percent_encode(&self.message)) {
            headers.insert(GRPC_MESSAGE, value);
        }
    }

    /// The status in these headers, if there is one.
    pub(super) fn read_from(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(GRPC_STATUS)?;
        let code = value
            .to_str()
            .ok()
            .and_then(|text| text.parse::<u32>().ok())
            .map_or(Code::Unknown, Code::from_number);
        let message = headers
            .get(GRPC_MESSAGE)
            .map(|value| percent_decode(value.as_bytes()))
            .unwrap_or_default();
        Some(Self { code, message })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code.name())?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Status {}

impl Status {
    /// The status as Go programs write it into their logs: `rpc error: code = Unavailable desc = …`.
    pub fn go(&self) -> impl fmt::Display + '_ {
        GoStatus(self)
    }
}

struct GoStatus<'a>(&'a Status);

impl fmt::Display for GoStatus<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rpc error: code = ")?;
        match self.0.code {
            Code::Ok => f.write_str("OK")?,
            Code::Cancelled => f.write_str("Canceled")?,
            other => {
                for word in other.name().split('_') {
                    let (first, rest) = word.split_at(1);
                    write!(f, "{first}{}", rest.to_ascii_lowercase())?;
                }
            }
        }
        write!(f, " desc = {}", self.0.message)
    }
}

/// The gRPC encoding of a status text: bytes outside `0x20..=0x7e`, and `%`, become `%XX`.
fn percent_encode(text: &str) -> String {
    const HEX: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (0x20..=0x7e).contains(&byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        }
    }
    out
}

/// Undoes [`percent_encode`]. What is not a valid escape stays as it is; what is then not UTF-8 is
/// replaced.
fn percent_decode(bytes: &[u8]) -> String {
    let nibble = |byte: &u8| char::from(*byte).to_digit(16);
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        if let (b'%', [high, low, ..]) = (first, tail)
            && let (Some(high), Some(low)) = (nibble(high), nibble(low))
            && let Ok(byte) = u8::try_from(high * 16 + low)
        {
            out.push(byte);
            rest = &tail[2..];
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_the_trailers() {
        for text in [
            "",
            "EOF",
            "100 % of \"it\"",
            "zwei\nZeilen\tÄöü €",
            "%41 stays",
        ] {
            let mut headers = HeaderMap::new();
            let status = Status::new(Code::Unknown, text);
            status.write_to(&mut headers);
            assert_eq!(Status::read_from(&headers), Some(status));
        }
    }

    #[test]
    fn go_programs_write_it_so() {
        for (code, expected) in [
            (Code::Ok, "rpc error: code = OK desc = x"),
            (Code::Cancelled, "rpc error: code = Canceled desc = x"),
            (Code::Unavailable, "rpc error: code = Unavailable desc = x"),
            (
                Code::ResourceExhausted,
                "rpc error: code = ResourceExhausted desc = x",
            ),
        ] {
            assert_eq!(Status::new(code, "x").go().to_string(), expected);
        }
    }

    #[test]
    fn sloppy_escapes_are_kept_and_bad_utf8_is_replaced() {
        assert_eq!(percent_decode(b"%"), "%");
        assert_eq!(percent_decode(b"%4"), "%4");
        assert_eq!(percent_decode(b"%zz1"), "%zz1");
        assert_eq!(percent_decode(b"%c3%a4"), "ä");
        assert_eq!(percent_decode(b"%ff"), "\u{fffd}");
    }

    #[test]
    fn codes_have_the_numbers_of_the_protocol() {
        for number in 0..=16 {
            assert_eq!(Code::from_number(number) as u32, number);
        }
        assert_eq!(Code::from_number(17), Code::Unknown);
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_STATUS, HeaderValue::from_static("pancake"));
        assert_eq!(
            Status::read_from(&headers).map(|status| status.code),
            Some(Code::Unknown)
        );
    }

    #[test]
    fn unknown_methods_are_named_as_go_names_them() {
        let services = ["plumbing.Doppler"];
        let text = |path| Status::unknown_method(path, &services).message;
        assert_eq!(
            text("/plumbing.Doppler/RecentLogs"),
            "unknown method RecentLogs for service plumbing.Doppler"
        );
        assert_eq!(
            text("/grpc.health.v1.Health/Check"),
            "unknown service grpc.health.v1.Health"
        );
        assert_eq!(text("nothing"), "malformed method name: \"nothing\"");
    }
}
