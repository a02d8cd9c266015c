//! The cases whose figures are recorded, and how each is run: doppler and floor in turn, in the same minutes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::BenchError;
use crate::commands;
use crate::emit::Pace;
use crate::http2::Windows;
use crate::plan::{Plan, Readers, Target};
use crate::report::Report;
use crate::run::run;
use crate::workload::Shape;

/// What is asked of one run, apart from who serves it.
#[derive(Clone, Debug)]
pub struct Work {
    /// The envelopes.
    pub shape: Shape,
    /// When they are sent.
    pub pace: Pace,
    /// Who reads.
    pub readers: Readers,
}

impl Work {
    fn paced(rate: f64, readers: Readers) -> Self {
        Self {
            shape: Shape::default(),
            pace: Pace::Rate(rate),
            readers,
        }
    }

    fn full(readers: Readers) -> Self {
        Self {
            shape: Shape::default(),
            pace: Pace::Full,
            readers,
        }
    }
}

/// What a case finds out.
#[derive(Clone, Debug)]
pub enum Kind {
    /// CPU, latency and loss of the same work on both; the floor may get other readers when it cannot serve these.
    Side {
        /// The doppler's work.
        doppler: Work,
        /// The floor's.
        relay: Work,
    },
    /// The highest paced rate without loss, by search, beside what the floor takes when flooded.
    Highest(Readers),
    /// What is delivered when twice the flooded rate is asked for.
    Overload(usize),
    /// Memory with a full log of this many MiB.
    Memory(u64),
    /// One of four firehoses stops reading for so many seconds.
    Stall(f64),
    /// One of two firehoses reads two fifths of what ten loud sources send, and a quiet source sends among them.
    Fair,
}

/// One line, or a few, of the table.
#[derive(Clone, Debug)]
pub struct Case {
    /// Short name for the command line and the results.
    pub name: &'static str,
    /// What the table says.
    pub title: &'static str,
    /// What is run.
    pub kind: Kind,
}

/// All cases, in the order of the table.
#[must_use]
pub fn cases() -> Vec<Case> {
    let same = |name, title, work: Work| Case {
        name,
        title,
        kind: Kind::Side {
            doppler: work.clone(),
            relay: work,
        },
    };
    let firehoses = Readers::Firehoses;
    let tens = Shape {
        batch: 10,
        ..Shape::default()
    };
    let quiet = |readers| Work {
        shape: Shape { streams: 1, ..tens },
        ..Work::paced(20.0, readers)
    };
    // What a path of two programs costs is told beside the floor for one firehose, as the figures of the Go programs are
    // carried over by it.
    let beside_a_firehose = |work| Kind::Side {
        doppler: work,
        relay: Work::paced(20_000.0, firehoses(1)),
    };
    vec![
        same(
            "firehose-1",
            "1 firehose, 20,000/s",
            Work::paced(20_000.0, firehoses(1)),
        ),
        same(
            "firehose-4",
            "4 firehoses, 10,000/s",
            Work::paced(10_000.0, firehoses(4)),
        ),
        same(
            "firehose-16",
            "16 firehoses, 3,000/s",
            Work::paced(3_000.0, firehoses(16)),
        ),
        Case {
            name: "tails-200",
            title: "200 tails of 1,000 sources, 20,000/s (floor: 1 firehose)",
            kind: Kind::Side {
                doppler: Work::paced(20_000.0, Readers::Tails(200)),
                relay: Work::paced(20_000.0, firehoses(1)),
            },
        },
        Case {
            name: "members-4",
            title: "one shard id, 4 members, 20,000/s (floor: 1 firehose)",
            kind: Kind::Side {
                doppler: Work::paced(20_000.0, Readers::Members(4)),
                relay: Work::paced(20_000.0, firehoses(1)),
            },
        },
        Case {
            name: "websocket-1",
            title: "doppler and traffic controller, 1 WebSocket, 10,000/s (floor: 1 firehose, 20,000/s)",
            kind: beside_a_firehose(Work::paced(10_000.0, Readers::WebSockets(1))),
        },
        Case {
            name: "websocket-4",
            title: "doppler and traffic controller, 4 WebSockets, 5,000/s (floor: 1 firehose, 20,000/s)",
            kind: beside_a_firehose(Work::paced(5_000.0, Readers::WebSockets(4))),
        },
        Case {
            name: "rlp-1",
            title: "doppler and reverse log proxy, 1 stream, 10,000/s (floor: 1 firehose, 20,000/s)",
            kind: beside_a_firehose(Work::paced(10_000.0, Readers::Proxied(1))),
        },
        Case {
            name: "rlp-4",
            title: "doppler and reverse log proxy, 4 streams, 10,000/s (floor: 4 firehoses)",
            kind: Kind::Side {
                doppler: Work::paced(10_000.0, Readers::Proxied(4)),
                relay: Work::paced(10_000.0, firehoses(4)),
            },
        },
        same(
            "tens",
            "1,000/s in batches of 10",
            Work {
                shape: tens,
                ..Work::paced(1_000.0, firehoses(1))
            },
        ),
        same("quiet", "a batch of 10 each 500 ms", quiet(firehoses(1))),
        Case {
            name: "quiet-websocket",
            title: "a batch of 10 each 500 ms, through a traffic controller (floor: 1 firehose)",
            kind: Kind::Side {
                doppler: quiet(Readers::WebSockets(1)),
                relay: quiet(firehoses(1)),
            },
        },
        Case {
            name: "quiet-rlp",
            title: "a batch of 10 each 500 ms, through a reverse log proxy (floor: 1 firehose)",
            kind: Kind::Side {
                doppler: quiet(Readers::Proxied(1)),
                relay: quiet(firehoses(1)),
            },
        },
        same(
            "bursts",
            "bursts of 10,000, 20,000/s on average",
            Work {
                pace: Pace::Bursts {
                    envelopes: 10_000,
                    every: 0.5,
                },
                ..Work::full(firehoses(1))
            },
        ),
        same(
            "full-1",
            "as fast as accepted, 1 firehose",
            Work::full(firehoses(1)),
        ),
        same(
            "full-16",
            "as fast as accepted, 16 firehoses",
            Work::full(firehoses(16)),
        ),
        Case {
            name: "highest-1",
            title: "highest paced rate without loss, 1 firehose",
            kind: Kind::Highest(firehoses(1)),
        },
        Case {
            name: "highest-16",
            title: "highest paced rate without loss, 16 firehoses",
            kind: Kind::Highest(firehoses(16)),
        },
        Case {
            name: "highest-websocket",
            title: "highest paced rate without loss, 1 WebSocket",
            kind: Kind::Highest(Readers::WebSockets(1)),
        },
        Case {
            name: "highest-rlp",
            title: "highest paced rate without loss, 1 stream of a reverse log proxy",
            kind: Kind::Highest(Readers::Proxied(1)),
        },
        Case {
            name: "overload-1",
            title: "twice the flooded rate, 1 firehose",
            kind: Kind::Overload(1),
        },
        Case {
            name: "overload-16",
            title: "twice the flooded rate, 16 firehoses",
            kind: Kind::Overload(16),
        },
        Case {
            name: "memory",
            title: "memory with a full log of 32 MiB",
            kind: Kind::Memory(32),
        },
        Case {
            name: "stall",
            title: "one of 4 firehoses stops for 30 s, 100,000/s",
            kind: Kind::Stall(30.0),
        },
        Case {
            name: "fair",
            title: "a reader of two fifths of the speed, 10 loud sources and a quiet one, 50,000/s",
            kind: Kind::Fair,
        },
    ]
}

/// How long and how often.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Runs of each side.
    pub runs: usize,
    /// Sent before measuring.
    pub warmup: Duration,
    /// Measured per run.
    pub time: Duration,
    /// Steps of a search.
    pub steps: usize,
    /// Only to see that everything works: stalls are cut short, and rates and readers reduced.
    pub quick: bool,
}

impl Effort {
    /// For figures.
    #[must_use]
    pub fn full() -> Self {
        Self {
            runs: 5,
            warmup: Duration::from_secs(1),
            time: Duration::from_secs(5),
            steps: 7,
            quick: false,
        }
    }

    /// For a check that everything runs, in seconds.
    #[must_use]
    pub fn quick() -> Self {
        let tick = Duration::from_millis(300);
        Self {
            runs: 1,
            warmup: tick,
            time: 2 * tick,
            steps: 1,
            quick: true,
        }
    }
}

/// Runs of both sides, one after the other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pair {
    /// The doppler's.
    pub doppler: Report,
    /// The floor's, when it takes part.
    pub relay: Option<Report>,
}

/// All that was found out about a case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// The case.
    pub case: String,
    /// Its runs.
    pub pairs: Vec<Pair>,
}

/// Runs cases.
pub struct Bench {
    /// Command that starts the doppler.
    pub doppler: String,
    /// Command that starts the floor.
    pub relay: String,
    /// How long and how often.
    pub effort: Effort,
    /// Told about each run as it ends.
    pub progress: Box<dyn Fn(&str)>,
}

/// A paced run counts as without loss up to this share: that is how the Go programs were measured.
const LOSS: f64 = 0.001;
/// And when latency does not run away.
const P99_MS: f64 = 500.0;
/// A paced generator on shared cores cannot promise to send every last envelope on time.
const UNSENT: f64 = 0.005;

impl Bench {
    /// Runs one case.
    ///
    /// # Errors
    /// When a run was impossible.
    pub fn measure(&self, case: &Case) -> Result<Measured, BenchError> {
        let mut pairs = Vec::new();
        for _ in 0..self.effort.runs {
            pairs.push(match &case.kind {
                Kind::Side { doppler, relay } => Pair {
                    relay: Some(self.run_relay(case, relay)?),
                    doppler: self.run_doppler(case, doppler)?,
                },
                Kind::Highest(readers) => self.highest(case, readers)?,
                Kind::Overload(n) => self.overload(case, *n)?,
                Kind::Memory(mib) => {
                    let mut plan =
                        self.plan("doppler", &self.doppler, &Work::full(Readers::Firehoses(1)));
                    plan.log_bytes = mib << 20;
                    Pair {
                        doppler: self.say(case, run(&plan)?),
                        relay: None,
                    }
                }
                Kind::Fair => Pair {
                    doppler: self.fair(case)?,
                    relay: None,
                },
                Kind::Stall(seconds) => Pair {
                    doppler: self.stall(case, *seconds)?,
                    relay: None,
                },
            });
        }
        Ok(Measured {
            case: case.name.to_owned(),
            pairs,
        })
    }

    fn plan(&self, name: &str, command: &str, work: &Work) -> Plan {
        let Work {
            mut shape,
            mut pace,
            mut readers,
        } = work.clone();
        let mut time = self.effort.time;
        if self.effort.quick {
            if let Readers::Tails(n) = &mut readers {
                *n = 20;
                shape.sources = 100;
            }
            if let Pace::Bursts { envelopes, every } = &mut pace {
                (*envelopes, *every) = (*envelopes / 10, *every / 2.0);
            }
        } else if pace.rate().is_some_and(|rate| rate < 2_000.0) {
            // So few envelopes need longer to say anything.
            time *= 4;
        }
        // A doppler in service has a full log, so work that is about processor time is measured with one: a log that such
        // a rate fills before the measuring begins. The v1 form takes as much again.
        let fills = match readers {
            Readers::WebSockets(_) => 5_000.0..=50_000.0,
            _ => 10_000.0..=50_000.0,
        };
        let turnover = pace.rate().filter(|rate| fills.contains(rate));
        let (log_mib, warmup) = match turnover {
            Some(..10_000.0) if !self.effort.quick => (32, Duration::from_secs(8)),
            Some(_) if !self.effort.quick => (32, Duration::from_secs(5)),
            _ => (256, self.effort.warmup),
        };
        Plan {
            target: Target::Start {
                name: name.to_owned(),
                doppler: command.to_owned(),
                controller: Some(commands::controller()),
                proxy: Some(commands::rlp()),
            },
            shape,
            pace,
            readers,
            windows: Windows::default(),
            warmup,
            time,
            log_bytes: log_mib << 20,
            stall: None,
            slow: None,
            quiet: None,
            preferred_tags: true,
            token: None,
            secure_websockets: true,
        }
    }

    fn say(&self, case: &Case, report: Report) -> Report {
        (self.progress)(&format!(
            "{:<12} {:<8} sent {:>9.0}/s  delivered {:>9.0}/s  lost {:.3} %  CPU/M {:>7.2}  p99 {:>7.2} ms",
            case.name,
            report.target,
            report.sent_per_second,
            report.delivered_per_second,
            report.loss * 100.0,
            report.cpu_per_million(),
            report.latency.p99_ms,
        ));
        report
    }

    fn run_doppler(&self, case: &Case, work: &Work) -> Result<Report, BenchError> {
        Ok(self.say(case, run(&self.plan("doppler", &self.doppler, work))?))
    }

    fn run_relay(&self, case: &Case, work: &Work) -> Result<Report, BenchError> {
        Ok(self.say(case, run(&self.plan("relay", &self.relay, work))?))
    }

    /// Halves the interval between a rate that was held and one that was not, on a logarithmic scale, beginning a little
    /// below what the floor takes when flooded; where another program follows the doppler, at a good third of that.
    fn highest(&self, case: &Case, readers: &Readers) -> Result<Pair, BenchError> {
        let (floor, share) = match readers {
            Readers::WebSockets(n) | Readers::Proxied(n) => (*n, 0.35),
            readers => (readers.count(), 0.85),
        };
        let relay = self.run_relay(case, &Work::full(Readers::Firehoses(floor)))?;
        let (mut held, mut missed) = (0.0, relay.delivered_per_second * 1.3);
        let mut best: Option<Report> = None;
        let mut rate = relay.delivered_per_second * share;
        for _ in 0..self.effort.steps {
            let report = self.run_doppler(case, &Work::paced(rate, readers.clone()))?;
            if report.loss < LOSS && report.latency.p99_ms < P99_MS && report.unsent <= UNSENT {
                held = rate;
                best = Some(report);
            } else {
                missed = rate;
                // Keep something to show even when no rate is held.
                best = best.or(Some(report));
            }
            rate = if held == 0.0 {
                missed * 0.7
            } else {
                (held * missed).sqrt()
            };
        }
        let doppler = best.ok_or_else(|| BenchError::new("a search of no steps"))?;
        Ok(Pair {
            doppler,
            relay: Some(relay),
        })
    }

    /// The `relay` of the pair is the doppler itself, flooded: what it delivers at best.
    fn overload(&self, case: &Case, firehoses: usize) -> Result<Pair, BenchError> {
        let readers = Readers::Firehoses(firehoses);
        let mut peak = self.run_doppler(case, &Work::full(readers.clone()))?;
        peak.target = "doppler, flooded".into();
        let doppler =
            self.run_doppler(case, &Work::paced(peak.delivered_per_second * 2.0, readers))?;
        Ok(Pair {
            doppler,
            relay: Some(peak),
        })
    }

    fn fair(&self, case: &Case) -> Result<Report, BenchError> {
        let rate = if self.effort.quick {
            10_000.0
        } else {
            50_000.0
        };
        let shape = Shape {
            sources: 10,
            ..Shape::default()
        };
        let work = Work {
            shape,
            ..Work::paced(rate, Readers::Firehoses(2))
        };
        let mut plan = self.plan("doppler", &self.doppler, &work);
        plan.slow = Some(rate * 0.4);
        plan.quiet = Some(20.0);
        plan.log_bytes = 32 << 20;
        // The log must be lapped several times before fairness is needed at all.
        plan.time *= if self.effort.quick { 1 } else { 6 };
        Ok(self.say(case, run(&plan)?))
    }

    fn stall(&self, case: &Case, seconds: f64) -> Result<Report, BenchError> {
        let (rate, seconds) = if self.effort.quick {
            (20_000.0, 0.3)
        } else {
            (100_000.0, seconds)
        };
        let mut plan = self.plan(
            "doppler",
            &self.doppler,
            &Work::paced(rate, Readers::Firehoses(4)),
        );
        plan.stall = Some(Duration::from_secs_f64(seconds));
        plan.time = plan.time.max(Duration::from_secs_f64(seconds * 1.2));
        Ok(self.say(case, run(&plan)?))
    }
}

/// Whether a report is of a rate that was held without loss.
#[must_use]
pub fn held(report: &Report) -> bool {
    report.loss < LOSS && report.latency.p99_ms < P99_MS && report.unsent <= UNSENT
}
