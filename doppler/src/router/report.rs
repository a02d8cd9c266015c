//! The router's numbers: its part of the ledger and what metrics are made of.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use loggregator_log::Fill;
use loggregator_service::ledger;

use super::Router;
use super::member::Reason;

/// Sums since the router began, and what it holds now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames accepted.
    pub frames: u64,
    /// Envelopes accepted.
    pub envelopes: u64,
    /// Bytes of accepted frames.
    pub bytes: u64,
    /// Envelopes accepted, counted in dropsonde envelopes as the Go router's `ingress` does.
    pub ingress: u64,
    /// Frames refused because their framing was broken.
    pub rejected_frames: u64,
    /// Malformed envelopes left out of frames that were accepted.
    pub rejected_envelopes: u64,
    /// Envelopes that v1 connections took.
    pub egress_v1: u64,
    /// Envelopes that v2 connections took.
    pub egress_v2: u64,
    /// Envelopes matched by a subscription and not delivered, all reasons but a missing dropsonde form.
    pub dropped: u64,
    /// The same by reason, with those that have no dropsonde form. Only grows.
    pub dropped_by_reason: BTreeMap<&'static str, u64>,
    /// Open subscriptions.
    pub subscriptions: u64,
    /// The log.
    pub log: Fill,
}

// === impl Router ===

impl Router {
    /// Its numbers now.
    pub fn stats(&self) -> Stats {
        let read = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        let members = self.members.lock();
        let mut by_reason: BTreeMap<&'static str, u64> = Reason::ALL
            .map(Reason::as_str)
            .into_iter()
            .zip(members.forgotten)
            .collect();
        for member in members.open.values().chain(&members.closed) {
            for reason in Reason::ALL {
                *by_reason.entry(reason.as_str()).or_default() += member.counts.of(reason);
            }
        }
        let formless = by_reason
            .get(Reason::NoV1Form.as_str())
            .copied()
            .unwrap_or_default();
        let dropped = by_reason.values().sum::<u64>() - formless;
        let subscriptions = members.open.len() as u64;
        drop(members);
        Stats {
            frames: read(&self.counts.frames),
            envelopes: read(&self.counts.envelopes),
            bytes: read(&self.counts.bytes),
            ingress: read(&self.counts.ingress_v1),
            rejected_frames: read(&self.counts.rejected_frames),
            rejected_envelopes: read(&self.counts.rejected_envelopes),
            egress_v1: read(&self.counts.egress_v1),
            egress_v2: read(&self.counts.egress_v2),
            dropped,
            dropped_by_reason: by_reason,
            subscriptions,
            log: self.log.fill(),
        }
    }

    /// The doppler's page of the ledger. `instance` is its address.
    pub fn report(&self, instance: &str) -> ledger::Report {
        let stats = self.stats();
        let mut rejected = BTreeMap::new();
        if stats.rejected_envelopes > 0 {
            rejected.insert("malformed_envelope".to_owned(), stats.rejected_envelopes);
        }
        if stats.rejected_frames > 0 {
            rejected.insert("malformed_frame".to_owned(), stats.rejected_frames);
        }
        let members: Vec<_> = {
            let members = self.members.lock();
            let mut all: Vec<_> = members
                .open
                .values()
                .chain(&members.closed)
                .cloned()
                .collect();
            all.sort_by_key(|member| member.id);
            all
        };
        ledger::Report {
            component: "doppler".to_owned(),
            instance: instance.to_owned(),
            ingress: ledger::Ingress {
                received: stats.envelopes + stats.rejected_envelopes + stats.rejected_frames,
                accepted: stats.envelopes,
                rejected,
                dropped: BTreeMap::new(),
            },
            subscriptions: members.iter().map(|member| member.row()).collect(),
            log: Some(ledger::LogFill {
                bytes: stats.log.bytes,
                limit: stats.log.limit,
                frames: stats.log.frames,
                envelopes: stats.log.envelopes,
                oldest_age_ms: stats.log.oldest_age_ms,
            }),
            ..ledger::Report::default()
        }
    }
}
