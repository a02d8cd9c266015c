//! Lines from files and standard input. These can be read later, so they wait for room instead of losing anything.

mod file;
mod stdin;

use std::sync::Arc;
use std::time::SystemTime;

use loggregator_client::message::nanos;
use loggregator_envelope::{Frame, FrameBuilder};

use crate::config::{Input, LineConfig};
use crate::encode::LogLine;
use crate::intake::Intake;
use crate::lines::{LineCounts, Splitter};
use crate::stats::{Port, count};

pub(crate) use file::{Follower, follow};
pub(crate) use stdin::{chunks_of_stdin, read_all};

/// Makes envelopes of one input's bytes and hands them on.
pub(crate) struct LineReader {
    intake: Arc<Intake>,
    port: Port,
    input: Input,
    splitter: Splitter,
    lines: Lines,
    counted: LineCounts,
}

struct Lines {
    frame: FrameBuilder,
    scratch: Vec<u8>,
    /// The latest timestamp given; no two lines get the same, so that their order survives sorting by time.
    last: i64,
}

impl LineReader {
    pub(crate) fn new(
        intake: Arc<Intake>,
        port: Port,
        input: Input,
        config: &LineConfig,
    ) -> LineReader {
        LineReader {
            intake,
            port,
            input,
            splitter: Splitter::new(config.max_line, config.long_lines),
            lines: Lines {
                frame: FrameBuilder::new(),
                scratch: Vec::new(),
                last: 0,
            },
            counted: LineCounts::default(),
        }
    }

    /// Takes the next bytes; waits until the lines in them were taken.
    pub(crate) async fn feed(&mut self, data: &[u8]) {
        let (input, lines) = (&self.input, &mut self.lines);
        lines.begin();
        self.splitter.feed(data, |line| lines.push(input, line));
        self.hand_on().await;
    }

    /// The source has ended: what is left is a line.
    pub(crate) async fn end(&mut self) {
        let (input, lines) = (&self.input, &mut self.lines);
        lines.begin();
        self.splitter.end(|line| lines.push(input, line));
        self.hand_on().await;
    }

    async fn hand_on(&mut self) {
        let (counts, stats) = (self.splitter.counts(), &self.intake.stats);
        count(&stats.lines_split, counts.split - self.counted.split);
        count(
            &stats.lines_truncated,
            counts.truncated - self.counted.truncated,
        );
        count(&stats.lines_blank, counts.blank - self.counted.blank);
        self.counted = counts;
        if !self.lines.frame.is_empty() {
            let (bytes, index) = self.lines.frame.finish();
            self.intake
                .accept_waiting(self.port, Frame::from_parts(bytes, index))
                .await;
        }
    }
}

impl Lines {
    fn begin(&mut self) {
        self.last = self.last.max(nanos(SystemTime::now()) - 1);
    }

    fn push(&mut self, input: &Input, payload: &[u8]) {
        self.last += 1;
        self.scratch.clear();
        let (timestamp, source_id, instance_id) = (self.last, &input.source_id, &input.instance_id);
        let line = LogLine {
            timestamp,
            source_id,
            instance_id,
            payload,
            err: false,
        };
        let source_type =
            (!input.source_type.is_empty()).then_some(("source_type", input.source_type.as_str()));
        let tags = input
            .tags
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        line.encode(source_type.into_iter().chain(tags), &mut self.scratch);
        // What we write is well-formed, and a chunk of a file is far below what a frame may have.
        let _pushed = self.frame.push_envelope(&self.scratch).is_ok();
    }
}
