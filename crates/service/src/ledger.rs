//! The ledger: what came in, what went out, what was lost and why.
//!
//! Each hop counts per subscription and per reason. At rest every subscription satisfies
//! `received == delivered + Σ filtered + Σ dropped + Σ dead-lettered + pending`, of which only a nozzle's destinations have
//! all five; [`Subscription::balanced`] checks it and tests assert it after every fault they inject. A [`Report`] is a snapshot: it travels as JSON (`GET /ledger`) and is shown as a table
//! ([`render`]).
//!
//! "Delivered" means that the connection took the last byte of the envelope; what is still on its way is `pending`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod table;

pub use table::{human_bytes, render};

/// One component's ledger at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// `agent`, `doppler`, `traffic-controller`, `nozzle`, ….
    pub component: String,
    /// Address under which this instance is known, `host:port`.
    pub instance: String,
    /// What arrived at this component.
    pub ingress: Ingress,
    /// Everybody it sends to.
    pub subscriptions: Vec<Subscription>,
    /// How full its log (a doppler's) or buffer (an agent's) is, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<LogFill>,
    /// What the components before a nozzle told it that they lost of its subscription, by their origin. It never arrived,
    /// so it is no part of `ingress`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub lost_upstream: BTreeMap<String, u64>,
}

/// What arrived at a component.
///
/// `received == accepted + Σ rejected`. `dropped` counts accepted envelopes that were lost before any reader could
/// concern them, for example in an agent's full buffer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ingress {
    /// Envelopes that arrived, well-formed or not.
    pub received: u64,
    /// Envelopes taken over.
    pub accepted: u64,
    /// Envelopes refused, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Accepted envelopes lost inside this component, by reason.
    pub dropped: BTreeMap<String, u64>,
}

/// One reader of a component: a subscription of a doppler, a client of a traffic controller, an agent's doppler, a
/// destination of a nozzle.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subscription {
    /// Subscription or shard id; empty when the reader gave none.
    pub id: String,
    /// Address of the reader.
    pub peer: String,
    /// What it asked for, in words.
    pub selector: String,
    /// `v1`, `v2`, `websocket` or `forward`; of a nozzle's destination its kind.
    pub api: String,
    /// Whether the reader is connected. A named subscription stays in the ledger for its grace period.
    pub open: bool,
    /// Envelopes that matched the selector and fell to this reader.
    pub received: u64,
    /// Envelopes whose last byte was taken by the connection.
    pub delivered: u64,
    /// Envelopes lost, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Envelopes matched and neither delivered nor lost yet.
    pub pending: u64,
    /// Envelopes that a nozzle left out on purpose, by the rule that did.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub filtered: BTreeMap<String, u64>,
    /// Envelopes that a nozzle's destination refused for good, by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dead_lettered: BTreeMap<String, u64>,
    /// Of `received`, what came from each upstream component, by its address, where there are several. Beside what an
    /// agent handed to a doppler that died, this says what was lost with it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub from: BTreeMap<String, u64>,
    /// Which sources lost how much; bounded, the biggest losers first. May add up to less than `dropped`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lost_sources: Vec<SourceLoss>,
}

/// Loss of one source in one subscription.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceLoss {
    /// The source id.
    pub source_id: String,
    /// Envelopes of it that were lost.
    pub dropped: u64,
    /// Name of the app, where it is known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub app: String,
    /// Name of its space, where it is known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub space: String,
    /// Name of its organisation, where it is known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub org: String,
}

/// Fill of a byte-bounded log or buffer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogFill {
    /// Bytes held.
    pub bytes: u64,
    /// Bytes it may hold.
    pub limit: u64,
    /// Frames held.
    pub frames: u64,
    /// Envelopes held.
    pub envelopes: u64,
    /// Age of the oldest frame in milliseconds; 0 when empty.
    pub oldest_age_ms: u64,
}

/// Subscriptions that have a line of their own in the [last words](Report::last_words).
const MOST_LAST_WORDS: usize = 32;

/// Something that can say what it received, delivered and lost.
pub trait Source: Send + Sync {
    /// A snapshot. Called from the admin thread; must not block for long.
    fn report(&self) -> Report;
}

impl Report {
    /// Whether ingress and every subscription balance.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.ingress.balanced() && self.subscriptions.iter().all(Subscription::balanced)
    }

    /// What a component leaves behind in the process log when it stops, because its ledger goes with it: the sums in one
    /// line, and a line for each subscription with an id, 32 of them at most.
    #[must_use]
    pub fn last_words(&self) -> Vec<String> {
        let whose = format!("final account of {} {}", self.component, self.instance);
        let of = |count: fn(&Subscription) -> u64| {
            let counts = self.subscriptions.iter().map(count);
            counts.fold(0, u64::saturating_add)
        };
        let mut lines = vec![format!(
            "{whose}: received {}, accepted {}, rejected {}, lost {}; subscriptions {}, delivered {}, dropped {}, pending {}",
            self.ingress.received,
            self.ingress.accepted,
            self.ingress.rejected_total(),
            self.ingress.dropped_total(),
            self.subscriptions.len(),
            of(|row| row.delivered),
            of(Subscription::dropped_total),
            of(|row| row.pending),
        )];
        let named = self.subscriptions.iter().filter(|row| !row.id.is_empty());
        lines.extend(named.take(MOST_LAST_WORDS).map(|row| {
            // Only a nozzle's destinations have these.
            let nozzle = match (row.filtered_total(), row.dead_lettered_total()) {
                (0, 0) => String::new(),
                (filtered, dead) => format!("filtered {filtered}, dead-lettered {dead}, "),
            };
            format!(
                "{whose}, subscription {:?}: received {}, delivered {}, {nozzle}dropped {}, pending {}",
                row.id,
                row.received,
                row.delivered,
                row.dropped_total(),
                row.pending
            )
        }));
        lines
    }
}

impl Ingress {
    /// Sum of all rejections.
    #[must_use]
    pub fn rejected_total(&self) -> u64 {
        sum(&self.rejected)
    }

    /// Sum of all losses.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        sum(&self.dropped)
    }

    /// `received == accepted + Σ rejected`
    #[must_use]
    pub fn balanced(&self) -> bool {
        u128::from(self.received) == u128::from(self.accepted) + wide_sum(&self.rejected)
    }
}

impl Subscription {
    /// Sum of all losses.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        sum(&self.dropped)
    }

    /// Sum of all that was left out on purpose.
    #[must_use]
    pub fn filtered_total(&self) -> u64 {
        sum(&self.filtered)
    }

    /// Sum of all that was refused for good.
    #[must_use]
    pub fn dead_lettered_total(&self) -> u64 {
        sum(&self.dead_lettered)
    }

    /// `received == delivered + Σ filtered + Σ dropped + Σ dead-lettered + pending`
    #[must_use]
    pub fn balanced(&self) -> bool {
        u128::from(self.received)
            == u128::from(self.delivered)
                + u128::from(self.pending)
                + wide_sum(&self.filtered)
                + wide_sum(&self.dropped)
                + wide_sum(&self.dead_lettered)
    }
}

fn sum(counts: &BTreeMap<String, u64>) -> u64 {
    counts.values().fold(0, |sum, n| sum.saturating_add(*n))
}

fn wide_sum(counts: &BTreeMap<String, u64>) -> u128 {
    counts.values().map(|n| u128::from(*n)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription() -> Subscription {
        Subscription {
            id: "nozzle".into(),
            peer: "10.0.0.7:4000".into(),
            selector: "all".into(),
            api: "v2".into(),
            open: true,
            received: 100,
            delivered: 90,
            dropped: BTreeMap::from([("lapped".into(), 7)]),
            pending: 3,
            from: BTreeMap::from([("10.0.0.1:8082".into(), 60), ("10.0.0.2:8082".into(), 40)]),
            lost_sources: vec![SourceLoss {
                source_id: "noisy".into(),
                dropped: 7,
                ..SourceLoss::default()
            }],
            ..Subscription::default()
        }
    }

    #[test]
    fn a_subscription_balances_only_when_every_envelope_is_accounted_for() {
        assert!(subscription().balanced());
        assert!(
            !Subscription {
                delivered: 91,
                ..subscription()
            }
            .balanced()
        );
        assert!(
            !Subscription {
                pending: 0,
                ..subscription()
            }
            .balanced()
        );
        assert!(
            !Subscription {
                dropped: BTreeMap::new(),
                ..subscription()
            }
            .balanced()
        );
    }

    #[test]
    fn what_a_nozzle_left_out_or_could_not_deliver_is_accounted_for_too() {
        let nozzle = Subscription {
            received: 110,
            filtered: BTreeMap::from([("filter".into(), 4), ("kind".into(), 3)]),
            dead_lettered: BTreeMap::from([("oversize".into(), 3)]),
            ..subscription()
        };
        assert!(nozzle.balanced());
        assert!(
            !Subscription {
                filtered: BTreeMap::new(),
                ..nozzle.clone()
            }
            .balanced()
        );
        assert!(
            !Subscription {
                dead_lettered: BTreeMap::new(),
                ..nozzle.clone()
            }
            .balanced()
        );
        let json = serde_json::to_value(subscription()).unwrap();
        assert!(json.get("filtered").is_none(), "only a nozzle has them");
        let json = serde_json::to_string(&nozzle).unwrap();
        assert_eq!(serde_json::from_str::<Subscription>(&json).unwrap(), nozzle);
    }

    #[test]
    fn balance_does_not_wrap_around() {
        let wrapped = Subscription {
            received: 1,
            delivered: u64::MAX,
            pending: 2,
            dropped: BTreeMap::new(),
            ..subscription()
        };
        assert!(!wrapped.balanced());
    }

    #[test]
    fn ingress_balances_over_rejections_only() {
        let ingress = Ingress {
            received: 10,
            accepted: 8,
            rejected: BTreeMap::from([("malformed".into(), 2)]),
            dropped: BTreeMap::from([("buffer_full".into(), 5)]),
        };
        assert!(ingress.balanced());
        assert!(
            !Ingress {
                accepted: 7,
                ..ingress
            }
            .balanced()
        );
    }

    #[test]
    fn the_last_words_are_the_sums_and_the_subscriptions_with_an_id() {
        let mut report = Report {
            component: "doppler".into(),
            instance: "127.0.0.1:8082".into(),
            ingress: Ingress {
                received: 110,
                accepted: 105,
                rejected: BTreeMap::from([("malformed".into(), 3), ("too_large".into(), 2)]),
                dropped: BTreeMap::from([("buffer_full".into(), 4)]),
            },
            subscriptions: vec![subscription(), subscription()],
            log: None,
            ..Report::default()
        };
        report.subscriptions[0].id.clear();
        let whose = "final account of doppler 127.0.0.1:8082";
        assert_eq!(
            report.last_words(),
            [
                format!(
                    "{whose}: received 110, accepted 105, rejected 5, lost 4; subscriptions 2, delivered 180, dropped 14, \
                     pending 6"
                ),
                format!(
                    "{whose}, subscription \"nozzle\": received 100, delivered 90, dropped 7, pending 3"
                ),
            ]
        );
        report.subscriptions = vec![subscription(); 100];
        assert_eq!(report.last_words().len(), 1 + MOST_LAST_WORDS);
    }

    #[test]
    fn a_report_survives_json() {
        let report = Report {
            component: "doppler".into(),
            instance: "127.0.0.1:8082".into(),
            ingress: Ingress {
                received: 100,
                accepted: 100,
                ..Ingress::default()
            },
            subscriptions: vec![subscription()],
            log: Some(LogFill {
                bytes: 1,
                limit: 2,
                frames: 3,
                envelopes: 4,
                oldest_age_ms: 5,
            }),
            ..Report::default()
        };
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }

    #[test]
    fn a_report_of_another_version_still_reads() {
        let report: Report = serde_json::from_str(
            r#"{"component":"agent","ingress":{"received":3},"new_field":[1]}"#,
        )
        .unwrap();
        assert_eq!(report.component, "agent");
        assert_eq!(report.ingress.received, 3);
        assert!(report.log.is_none());
    }
}
