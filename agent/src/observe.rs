//! The agent's ledger and metrics, read from its counters when somebody asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use loggregator_client::{Counts, LinkReport, PoolReport};
use loggregator_net::ClientTls;
use loggregator_net::ServerTls;
use loggregator_net::grpc::ServerStats;
use loggregator_service::ledger::{Ingress, LogFill, Report, Source, Subscription};
use loggregator_service::metrics::{Samples, names};

use crate::intake::Intake;
use crate::stats::{Port, read};

/// Everything that is counted.
pub(crate) struct Observer {
    pub instance: String,
    pub intake: Arc<Intake>,
    pub buffer_bytes: usize,
    pub grpc: Arc<ServerStats>,
    pub server_tls: Arc<ServerTls>,
    pub client_tls: Arc<ClientTls>,
}

impl Source for Observer {
    fn report(&self) -> Report {
        let pool = self.intake.pool.report();
        let mut subscriptions: Vec<Subscription> = pool
            .links
            .iter()
            .chain(&pool.former)
            .map(subscription)
            .collect();
        for (id, rest) in [
            ("waiting for a doppler", &pool.homeless),
            ("earlier dopplers", &earlier(&pool)),
        ] {
            if rest.counts != Counts::default() || rest.pending > 0 {
                subscriptions.push(Subscription {
                    id: id.to_owned(),
                    ..subscription(rest)
                });
            }
        }
        Report {
            component: "agent".to_owned(),
            instance: self.instance.clone(),
            ingress: self.ingress(),
            subscriptions,
            log: Some(LogFill {
                bytes: pool.pending_bytes(),
                limit: self.buffer_bytes as u64,
                envelopes: pool.pending(),
                ..LogFill::default()
            }),
            ..Report::default()
        }
    }
}

impl Observer {
    fn ingress(&self) -> Ingress {
        let mut ingress = Ingress::default();
        for port in Port::ALL {
            let stats = self.intake.stats.port(port);
            ingress.accepted += read(&stats.accepted);
            for (reason, envelopes) in stats.rejected() {
                *ingress.rejected.entry(reason.to_owned()).or_default() += envelopes;
            }
        }
        let too_large = read(&self.grpc.messages_too_large);
        if too_large > 0 {
            *ingress.rejected.entry("too_large".to_owned()).or_default() += too_large;
        }
        ingress.received = ingress.accepted + ingress.rejected_total();
        ingress
    }

    /// Adds the samples of a scrape.
    pub(crate) fn collect(&self, samples: &mut Samples) {
        let stats = &self.intake.stats;
        for port in Port::ALL {
            let (label, of) = ([("input", port.name())], stats.port(port));
            samples.counter(&names::AGENT_INGRESS, &label, read(&of.accepted));
            samples.counter(&names::AGENT_INGRESS_BYTES, &label, read(&of.bytes));
            for (reason, envelopes) in of.rejected() {
                samples.counter(
                    &names::AGENT_REJECTED,
                    &[label[0], ("reason", reason)],
                    envelopes,
                );
            }
        }
        samples.counter(
            &names::AGENT_ORIGIN_MAPPINGS,
            &[],
            read(&stats.origin_mappings),
        );
        for (kind, counter) in [
            ("split", &stats.lines_split),
            ("truncated", &stats.lines_truncated),
            ("blank", &stats.lines_blank),
        ] {
            samples.counter(&names::AGENT_LINES, &[("kind", kind)], read(counter));
        }
        for (input, counter) in [
            (Port::Udp, &stats.udp_kernel_drops),
            (Port::SyslogUdp, &stats.syslog_udp_kernel_drops),
        ] {
            samples.counter(
                &names::AGENT_KERNEL_DROPS,
                &[("input", input.name())],
                read(counter),
            );
        }
        let (counters, evicted) = self.intake.counters();
        samples.gauge_count(&names::AGENT_COUNTER_SERIES, &[], counters as u64);
        samples.counter(&names::AGENT_COUNTER_EVICTIONS, &[], evicted);
        samples.gauge_count(&names::AGENT_FILES, &[], read(&stats.files));
        self.collect_pool(samples);
        self.collect_servers(samples);
    }

    fn collect_pool(&self, samples: &mut Samples) {
        let pool = self.intake.pool.report();
        let total = pool.total();
        samples.counter(&names::AGENT_EGRESS, &[], total.delivered);
        samples.counter(&names::AGENT_EGRESS_BYTES, &[], total.delivered_bytes);
        samples.counter(&names::AGENT_IN_DOUBT, &[], total.in_doubt);
        samples.counter(&names::AGENT_MOVED, &[], total.moved);
        for (reason, envelopes) in &total.dropped {
            samples.counter(
                &names::AGENT_DROPPED,
                &[("reason", reason.name())],
                *envelopes,
            );
        }
        samples.gauge_count(&names::AGENT_BUFFER_BYTES, &[], pool.pending_bytes());
        samples.gauge_count(
            &names::AGENT_BUFFER_LIMIT_BYTES,
            &[],
            self.buffer_bytes as u64,
        );
        let up = pool
            .links
            .iter()
            .filter(|link| link.lane == 0 && link.up)
            .count();
        let all = pool.links.iter().filter(|link| link.lane == 0).count();
        samples.gauge_count(&names::AGENT_DOPPLERS, &[("state", "connected")], up as u64);
        samples.gauge_count(
            &names::AGENT_DOPPLERS,
            &[("state", "away")],
            (all - up) as u64,
        );
    }

    fn collect_servers(&self, samples: &mut Samples) {
        let stats = &self.intake.stats;
        let grpc = [("listener", "grpc")];
        samples.gauge_count(&names::SERVER_CONNECTIONS, &grpc, read(&self.grpc.open));
        samples.counter(&names::SERVER_ACCEPTED, &grpc, read(&self.grpc.accepted));
        samples.counter(
            &names::SERVER_REFUSED,
            &grpc,
            read(&self.grpc.refused_over_limit),
        );
        samples.counter(
            &names::SERVER_HANDSHAKE_FAILURES,
            &grpc,
            self.grpc
                .handshake_failures()
                .map(|(_kind, count)| count)
                .sum(),
        );
        samples.counter(
            &names::SERVER_ACCEPT_ERRORS,
            &grpc,
            read(&self.grpc.accept_errors),
        );
        let syslog = [("listener", "syslog_tcp")];
        samples.gauge_count(
            &names::SERVER_CONNECTIONS,
            &syslog,
            read(&stats.syslog_open),
        );
        samples.counter(
            &names::SERVER_ACCEPTED,
            &syslog,
            read(&stats.syslog_accepted),
        );
        samples.counter(&names::SERVER_REFUSED, &syslog, read(&stats.syslog_refused));
        for (role, reloads, failures) in [
            (
                "server",
                self.server_tls.reloads(),
                self.server_tls.reload_failures(),
            ),
            (
                "client",
                self.client_tls.reloads(),
                self.client_tls.reload_failures(),
            ),
        ] {
            samples.counter(&names::TLS_RELOADS, &[("role", role)], reloads);
            samples.counter(&names::TLS_RELOAD_FAILURES, &[("role", role)], failures);
        }
    }
}

fn earlier(pool: &PoolReport) -> LinkReport {
    LinkReport {
        counts: pool.forgotten.clone(),
        ..LinkReport::default()
    }
}

fn subscription(link: &LinkReport) -> Subscription {
    let counts = &link.counts;
    let dropped: BTreeMap<String, u64> = counts
        .dropped
        .iter()
        .map(|(reason, envelopes)| (reason.name().to_owned(), *envelopes))
        .collect();
    Subscription {
        id: if link.lane == 0 {
            "doppler".to_owned()
        } else {
            format!("doppler stream {}", link.lane)
        },
        peer: link.doppler.to_string(),
        selector: "sources by rendezvous hash".to_owned(),
        api: "forward".to_owned(),
        open: link.up,
        received: counts.received,
        delivered: counts.delivered,
        dropped,
        pending: link.pending,
        ..Subscription::default()
    }
}
