//! In-band notices of loss, turned into a line for people.
//!
//! A doppler that had to leave out envelopes of a subscription says so in the stream itself: on v2 with a counter
//! `dropped` of its own, with the reason and as far as known the source as tags; on v1 with the counter
//! `TruncatingBuffer.DroppedMessages`, which existing clients know.

use crate::view::count;
use loggregator_envelope::EnvelopeRef;

/// Something was lost on the way to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// How many envelopes.
    pub envelopes: u64,
    /// Of which source, if the notice names one.
    source: Option<String>,
    /// Why, in the doppler's word.
    reason: Option<String>,
}

impl Loss {
    /// The notice in this envelope, if it is one. A doppler's ordinary metrics are none: they have no reason.
    pub fn of(envelope: &EnvelopeRef<'_>) -> Option<Self> {
        let counter = envelope.counter()?;
        let tag = |name: &str| {
            envelope
                .tag(name)
                .filter(|value| !value.is_empty())
                .map(|value| value.into_owned())
        };
        match counter.name {
            "dropped" => {
                let reason = Some(tag("reason")?);
                let egress = tag("direction").as_deref() == Some("egress");
                egress.then(|| Self {
                    envelopes: counter.delta,
                    source: tag("dropped_source_id"),
                    reason,
                })
            }
            "TruncatingBuffer.DroppedMessages" => Some(Self {
                envelopes: counter.delta,
                source: tag("app_id"),
                reason: tag("reason"),
            }),
            _ => None,
        }
    }

    /// The line.
    pub fn line(&self) -> String {
        let of = self
            .source
            .as_deref()
            .map(|source| format!(" of {source}"))
            .unwrap_or_default();
        let why = match self.reason.as_deref() {
            Some("slow_consumer") => ": this reader was too slow".to_owned(),
            Some(reason) => format!(" ({reason})"),
            None => String::new(),
        };
        let were = if self.envelopes == 1 { "was" } else { "were" };
        format!(
            "{}{of} {were} lost before this point{why}",
            count(self.envelopes, "envelope")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loggregator_client::message::{self, EnvelopeBuilder};
    use prost::Message as _;

    fn loss(builder: EnvelopeBuilder) -> Option<Loss> {
        Loss::of(&EnvelopeRef::new(&builder.build().encode_to_vec()))
    }

    fn notice() -> EnvelopeBuilder {
        message::counter("dropped", 1234)
            .source("doppler", "")
            .tag("origin", "loggregator.doppler")
            .tag("direction", "egress")
            .tag("reason", "lapped")
    }

    #[test]
    fn a_notice_becomes_a_line_with_the_number() {
        assert_eq!(
            loss(notice()).unwrap().line(),
            "1,234 envelopes were lost before this point (lapped)"
        );
        let slow = loss(notice().tag("reason", "slow_consumer")).unwrap();
        assert!(
            slow.line()
                .ends_with("before this point: this reader was too slow")
        );
        let named = loss(notice().tag("dropped_source_id", "web-shop")).unwrap();
        assert_eq!(
            named.line(),
            "1,234 envelopes of web-shop were lost before this point (lapped)"
        );
        let v1 = message::counter("TruncatingBuffer.DroppedMessages", 1)
            .tag("origin", "doppler")
            .tag("app_id", "a");
        assert_eq!(
            loss(v1).unwrap().line(),
            "1 envelope of a was lost before this point"
        );
    }

    #[test]
    fn ordinary_metrics_are_no_notice() {
        let metric = message::counter("dropped", 5)
            .tag("direction", "egress")
            .tag("origin", "loggregator.doppler");
        assert_eq!(loss(metric), None);
        assert_eq!(
            loss(message::counter("requests", 5).tag("reason", "x")),
            None
        );
        assert_eq!(loss(message::log("dropped")), None);
    }
}
