//! What came of a run.

use serde::{Deserialize, Serialize};

use crate::emit::{EmitterReport, Pace};
use crate::histogram::{Histogram, Latency};
use crate::plan::{Plan, Readers};
use crate::process::Sample;
use crate::receive::ReceiverReport;
use crate::run::Snapshot;
use crate::target::Opened;
use crate::tracker::Group;
use crate::workload::Shape;

/// What a process took.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProcessReport {
    /// Which.
    pub name: String,
    /// User and system seconds in the measured time and until all had arrived.
    pub cpu_seconds: f64,
    /// The same per million envelopes sent.
    pub cpu_per_million: f64,
    /// Resident memory before anybody connected, MiB.
    pub rss_idle_mib: f64,
    /// Most resident memory of its life, MiB.
    pub rss_peak_mib: f64,
    /// Resident memory at the end, MiB.
    pub rss_end_mib: f64,
}

/// What became of the source that sends little among those that send much.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuietReport {
    /// Its envelopes.
    pub sent: u64,
    /// Those that the first reader, which may be slow or stall, did not see.
    pub lost_by_first: u64,
    /// Those that the others did not see, added up.
    pub lost_by_others: u64,
}

/// What came of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// What was driven.
    pub target: String,
    /// The envelopes.
    pub shape: Shape,
    /// When they were sent.
    pub pace: Pace,
    /// Who read.
    pub readers: Readers,
    /// Seconds measured.
    pub seconds: f64,
    /// Envelopes handed to connections in the measured time.
    pub sent: u64,
    /// The same per second.
    pub sent_per_second: f64,
    /// Share of what the pace asked for that was not sent, of the whole run.
    pub unsent: f64,
    /// Envelopes that arrived in the measured time, per second and reader (shard id, for members), the mean.
    pub delivered_per_second: f64,
    /// The same of the slowest.
    pub delivered_per_second_min: f64,
    /// Envelopes of the whole run that readers should have seen, added up.
    pub expected: u64,
    /// Envelopes that they did not see.
    pub lost: u64,
    /// That as a share.
    pub loss: f64,
    /// Readers that did not see everything.
    pub readers_with_loss: usize,
    /// What became of the quiet source, when there was one.
    pub quiet: Option<QuietReport>,
    /// Envelopes that the server said were dropped.
    pub told_lost: u64,
    /// Notices in which it said so.
    pub notices: u64,
    /// Envelopes that came twice.
    pub duplicates: u64,
    /// Envelopes that came after a later one of their stream.
    pub reordered: u64,
    /// Envelopes that came to somebody who had not asked for them.
    pub misrouted: u64,
    /// Envelopes not of this run.
    pub foreign: u64,
    /// Records that were not envelopes.
    pub damaged: u64,
    /// From hand-over at the sender to arrival, of all readers.
    pub latency: Latency,
    /// The highest 99th percentile of a single reader, milliseconds.
    pub worst_reader_p99_ms: f64,
    /// How late batches of a paced run left.
    pub late: Latency,
    /// Smallest and largest share of a shard id's members, when there are several.
    pub member_shares: Option<(f64, f64)>,
    /// Servers, in the order of the data path.
    pub processes: Vec<ProcessReport>,
    /// CPU seconds of the generator itself per million sent.
    pub generator_cpu_per_million: f64,
    /// What the doppler's ledger says, when the target was started with an admin port.
    pub ledger: Option<serde_json::Value>,
    /// Everything that went wrong.
    pub errors: Vec<String>,
}

impl Report {
    /// CPU seconds of all servers per million envelopes sent.
    #[must_use]
    pub fn cpu_per_million(&self) -> f64 {
        self.processes.iter().map(|p| p.cpu_per_million).sum()
    }

    /// Whether nothing was lost, doubled, turned round or damaged.
    #[must_use]
    pub fn clean(&self) -> bool {
        self.lost + self.duplicates + self.reordered + self.misrouted + self.damaged == 0
            && self.errors.is_empty()
    }
}

/// All that a report is made of.
pub(crate) struct Outcome {
    pub(crate) idle: Vec<Sample>,
    pub(crate) before: Snapshot,
    pub(crate) window: Snapshot,
    pub(crate) after: Snapshot,
    pub(crate) sent: Vec<u64>,
    pub(crate) groups: Vec<Group>,
    pub(crate) emitted: Vec<EmitterReport>,
    pub(crate) received: Vec<ReceiverReport>,
    pub(crate) ledger: Option<serde_json::Value>,
}

impl Outcome {
    /// Adds it all up.
    pub(crate) fn report(self, plan: &Plan, opened: &Opened) -> Report {
        let seconds = (self.window.when - self.before.when).as_secs_f64();
        let sent = self.sent.iter().sum::<u64>() - self.before.sent;
        let million = (sent as f64 / 1e6).max(f64::MIN_POSITIVE);
        let rates: Vec<f64> = self
            .before
            .unique
            .iter()
            .zip(&self.window.unique)
            .map(|(before, after)| (after - before) as f64 / seconds)
            .collect();
        let expected = plan.expected(&self.sent);
        let (mut latency, mut late) = (Histogram::default(), Histogram::default());
        self.received.iter().for_each(|r| latency.merge(&r.latency));
        self.emitted.iter().for_each(|r| late.merge(&r.late));
        let lost: u64 = expected
            .iter()
            .zip(&self.groups)
            .map(|(want, group)| want - group.unique.min(*want))
            .sum();
        let total: u64 = expected.iter().sum();
        let sum = |of: fn(&ReceiverReport) -> u64| self.received.iter().map(of).sum::<u64>();
        let members = matches!(plan.readers, Readers::Members(n) if n > 1);
        Report {
            target: opened.name.clone(),
            shape: plan.shape,
            pace: plan.pace,
            readers: plan.readers.clone(),
            seconds,
            sent,
            sent_per_second: (self.window.sent - self.before.sent) as f64 / seconds,
            unsent: unsent(plan, self.sent.iter().sum()),
            delivered_per_second: rates.iter().sum::<f64>() / rates.len().max(1) as f64,
            delivered_per_second_min: rates.iter().copied().reduce(f64::min).unwrap_or_default(),
            expected: total,
            lost,
            loss: lost as f64 / total.max(1) as f64,
            readers_with_loss: expected
                .iter()
                .zip(&self.groups)
                .filter(|(want, group)| group.unique < **want)
                .count(),
            quiet: plan.quiet.map(|_| self.quiet(plan.shape.streams)),
            told_lost: sum(|r| r.told_lost),
            notices: sum(|r| r.notices),
            duplicates: self.groups.iter().map(|g| g.duplicates).sum(),
            reordered: sum(|r| r.reordered),
            misrouted: self.groups.iter().map(|g| g.misrouted).sum(),
            foreign: sum(|r| r.foreign),
            damaged: sum(|r| r.damaged),
            latency: latency.summary(),
            worst_reader_p99_ms: self
                .received
                .iter()
                .map(|r| r.latency.summary().p99_ms)
                .fold(0.0, f64::max),
            late: late.summary(),
            member_shares: members.then(|| {
                let all = sum(|r| r.records).max(1) as f64;
                let shares = self.received.iter().map(|r| r.records as f64 / all);
                (
                    shares.clone().fold(1.0, f64::min),
                    shares.fold(0.0, f64::max),
                )
            }),
            processes: self.processes(opened, million),
            generator_cpu_per_million: (self.after.generator.cpu - self.before.generator.cpu)
                / million,
            ledger: self.ledger,
            errors: self
                .emitted
                .into_iter()
                .filter_map(|r| r.error)
                .chain(self.received.into_iter().filter_map(|r| r.error))
                .collect(),
        }
    }

    fn quiet(&self, stream: usize) -> QuietReport {
        let sent = self.sent[stream];
        let mut lost = self
            .groups
            .iter()
            .map(|group| sent - group.unique_by_stream[stream].min(sent));
        QuietReport {
            sent,
            lost_by_first: lost.next().unwrap_or_default(),
            lost_by_others: lost.sum(),
        }
    }

    fn processes(&self, opened: &Opened, million: f64) -> Vec<ProcessReport> {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        opened
            .pids
            .iter()
            .enumerate()
            .map(|(i, (name, _))| {
                let cpu = self.after.servers[i].cpu - self.before.servers[i].cpu;
                ProcessReport {
                    name: name.clone(),
                    cpu_seconds: cpu,
                    cpu_per_million: cpu / million,
                    rss_idle_mib: mib(self.idle[i].rss),
                    rss_peak_mib: mib(self.after.servers[i].peak),
                    rss_end_mib: mib(self.after.servers[i].rss),
                }
            })
            .collect()
    }
}

/// Share of what the pace asked for that was not sent.
fn unsent(plan: &Plan, sent: u64) -> f64 {
    let Some(rate) = plan.pace.rate() else {
        return 0.0;
    };
    let asked = (rate + plan.quiet.unwrap_or_default()) * (plan.warmup + plan.time).as_secs_f64();
    // A batch more or less at the end is not a failure to keep the pace.
    let slack = (plan.shape.batch * plan.shape.streams) as f64;
    ((asked - slack - sent as f64) / asked).max(0.0)
}
