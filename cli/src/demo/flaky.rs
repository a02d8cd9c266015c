//! `flaky-api`: serves for half a minute, then falls over with a stack trace, and is started again by the platform.

use super::origin::Origin;
use super::{Actor, app, around};
use loggregator_proto::v2::Envelope;
use std::time::Duration;

const TRACE: [&str; 8] = [
    "Exception in thread \"http-nio-8080-exec-4\" java.lang.OutOfMemoryError: Java heap space",
    "\tat java.base/java.util.Arrays.copyOf(Arrays.java:3537)",
    "\tat java.base/java.io.ByteArrayOutputStream.grow(ByteArrayOutputStream.java:120)",
    "\tat com.example.flaky.ReportRenderer.render(ReportRenderer.java:88)",
    "\tat com.example.flaky.ReportController.download(ReportController.java:41)",
    "\tat org.springframework.web.servlet.DispatcherServlet.doDispatch(DispatcherServlet.java:1089)",
    "\tat org.apache.tomcat.util.net.SocketProcessorBase.run(SocketProcessorBase.java:52)",
    "\tat java.base/java.lang.Thread.run(Thread.java:1583)",
];

/// What it does next.
enum Mood {
    Starting,
    Serving { left: u32 },
    Crashed,
}

pub(super) struct Flaky {
    app: Origin,
    cell: Origin,
    api: Origin,
    mood: Mood,
    crashes: u32,
}

impl Flaky {
    pub(super) fn new() -> Self {
        let tagged = |source_type| app("flaky-api", "0", source_type).tag("process_type", "web");
        Self {
            app: tagged("APP/PROC/WEB"),
            cell: tagged("CELL"),
            api: tagged("API"),
            mood: Mood::Starting,
            crashes: 0,
        }
    }

    fn crash(&mut self, at: i64, out: &mut Vec<Envelope>) {
        self.crashes += 1;
        for (at, line) in (at..).zip(TRACE) {
            out.push(self.app.err(at, line));
        }
        out.push(self.app.out(at + 20, "Exit status 52"));
        out.push(
            self.cell
                .out(at + 21, "Cell 5f1c stopping instance flaky-api:0"),
        );
        let body = format!(
            "instance 0, exit status 52 (out of memory), crash count {}",
            self.crashes
        );
        out.push(self.api.out(
            at + 22,
            format!("Process has crashed with type: \"web\" ({body})"),
        ));
        out.push(self.api.event(at + 23, "app.crash", &body));
    }
}

impl Actor for Flaky {
    fn step(&mut self, at: i64, rng: &mut fastrand::Rng, out: &mut Vec<Envelope>) -> Duration {
        match &mut self.mood {
            Mood::Starting => {
                out.push(
                    self.cell
                        .out(at, "Cell 5f1c creating container for instance flaky-api:0"),
                );
                out.push(self.cell.out(
                    at + 1,
                    "Cell 5f1c successfully created container for instance flaky-api:0",
                ));
                out.push(self.app.out(
                    at + 2,
                    "Started FlakyApplication in 3.214 seconds (process running for 3.907)",
                ));
                self.mood = Mood::Serving {
                    left: rng.u32(8..20),
                };
                around(rng, Duration::from_secs(1))
            }
            Mood::Serving { left: 0 } => {
                self.crash(at, out);
                self.mood = Mood::Crashed;
                Duration::from_secs(4)
            }
            Mood::Serving { left } => {
                *left -= 1;
                let heap = 512 - 18 * (*left).min(20);
                if *left < 4 {
                    out.push(self.app.err(
                        at,
                        format!("WARN  heap at {heap} of 512 MiB, collector runs back to back"),
                    ));
                } else {
                    out.push(self.app.out(
                        at,
                        format!(
                            "INFO  rendered report {} in {}ms",
                            rng.u32(100..999),
                            rng.u32(80..2400)
                        ),
                    ));
                }
                around(rng, Duration::from_millis(1800))
            }
            Mood::Crashed => {
                out.push(self.cell.out(
                    at,
                    "Cell 5f1c destroying container for instance flaky-api:0",
                ));
                self.mood = Mood::Starting;
                Duration::from_secs(3)
            }
        }
    }
}
