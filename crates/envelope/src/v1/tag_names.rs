//! The v2 tags that mean something in v1.

/// A tag that may become a field of a v1 envelope, one that v1 adds by itself, or any other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Name {
    Other,
    V1Type,
    Origin,
    Deployment,
    Job,
    Index,
    Ip,
    SourceType,
    Source,
    Code,
    PeerType,
    Method,
    RequestId,
    Uri,
    RemoteAddress,
    UserAgent,
    StatusCode,
    ContentLength,
    RoutingInstanceId,
    Forwarded,
    SourceId,
    InstanceId,
}

impl Name {
    /// How many there are, `Other` included.
    pub(super) const COUNT: usize = Name::InstanceId as usize + 1;

    /// Those that become fields of every envelope, and the one that says what it was before.
    pub(super) const OF_ENVELOPES: u32 = Name::V1Type.bit()
        | Name::Origin.bit()
        | Name::Deployment.bit()
        | Name::Job.bit()
        | Name::Index.bit()
        | Name::Ip.bit();

    /// Those that become fields of a request.
    pub(super) const OF_REQUESTS: u32 = Name::PeerType.bit()
        | Name::Method.bit()
        | Name::RequestId.bit()
        | Name::Uri.bit()
        | Name::RemoteAddress.bit()
        | Name::UserAgent.bit()
        | Name::StatusCode.bit()
        | Name::ContentLength.bit()
        | Name::RoutingInstanceId.bit()
        | Name::Forwarded.bit();

    /// A set of names is a sum of these. Other names are in none.
    #[inline]
    pub(super) const fn bit(self) -> u32 {
        match self {
            Name::Other => 0,
            name => 1 << name as u8,
        }
    }

    /// The name of a tag with this key. The length leaves few to compare with, mostly none.
    #[inline]
    pub(super) fn of(key: &[u8]) -> Name {
        let known: &[(&[u8], Name)] = match key.len() {
            2 => &[(b"ip", Name::Ip)],
            3 => &[(b"job", Name::Job), (b"uri", Name::Uri)],
            4 => &[(b"code", Name::Code)],
            5 => &[(b"index", Name::Index)],
            6 => &[
                (b"origin", Name::Origin),
                (b"source", Name::Source),
                (b"method", Name::Method),
            ],
            9 => &[
                (b"__v1_type", Name::V1Type),
                (b"peer_type", Name::PeerType),
                (b"forwarded", Name::Forwarded),
                (b"source_id", Name::SourceId),
            ],
            10 => &[
                (b"deployment", Name::Deployment),
                (b"request_id", Name::RequestId),
                (b"user_agent", Name::UserAgent),
            ],
            11 => &[
                (b"source_type", Name::SourceType),
                (b"status_code", Name::StatusCode),
                (b"instance_id", Name::InstanceId),
            ],
            14 => &[
                (b"remote_address", Name::RemoteAddress),
                (b"content_length", Name::ContentLength),
            ],
            19 => &[(b"routing_instance_id", Name::RoutingInstanceId)],
            _ => &[],
        };
        known
            .iter()
            .find(|(name, _)| *name == key)
            .map_or(Name::Other, |(_, name)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_under_its_length_and_nothing_else_is() {
        let names = [
            ("__v1_type", Name::V1Type),
            ("origin", Name::Origin),
            ("deployment", Name::Deployment),
            ("job", Name::Job),
            ("index", Name::Index),
            ("ip", Name::Ip),
            ("source_type", Name::SourceType),
            ("source", Name::Source),
            ("code", Name::Code),
            ("peer_type", Name::PeerType),
            ("method", Name::Method),
            ("request_id", Name::RequestId),
            ("uri", Name::Uri),
            ("remote_address", Name::RemoteAddress),
            ("user_agent", Name::UserAgent),
            ("status_code", Name::StatusCode),
            ("content_length", Name::ContentLength),
            ("routing_instance_id", Name::RoutingInstanceId),
            ("forwarded", Name::Forwarded),
            ("source_id", Name::SourceId),
            ("instance_id", Name::InstanceId),
        ];
        let mut bits = 0;
        for (text, name) in names {
            assert_eq!(Name::of(text.as_bytes()), name, "{text}");
            let other = format!("{}\0", &text[..text.len() - 1]);
            assert_eq!(Name::of(other.as_bytes()), Name::Other);
            assert_eq!(bits & name.bit(), 0, "{text} has a bit of its own");
            bits |= name.bit();
        }
        assert_eq!(bits.count_ones() as usize, Name::COUNT - 1);
        assert_eq!(Name::of(b""), Name::Other);
        assert_eq!(Name::Other.bit(), 0);
    }
}
