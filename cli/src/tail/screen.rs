//! From frames to bytes on standard output.

use super::loss::Loss;
use crate::output;
use crate::view::{Filter, LocalTime, Palette, Stamp, Text, count};
use anyhow::Result;
use loggregator_envelope::{EnvelopeRef, Frame, json};

/// Written at the latest when so much has been collected.
const FULL: usize = 256 * 1024;

enum Form {
    Text(Text),
    Json,
}

/// Filters, renders, counts and writes.
pub struct Screen {
    filter: Filter,
    form: Form,
    /// Stop here.
    limit: u64,
    shown: u64,
    lost: u64,
    notices: Vec<String>,
    out: Vec<u8>,
}

impl Screen {
    /// A screen for these envelopes.
    pub fn new(
        filter: Filter,
        json: bool,
        shows_source: bool,
        limit: Option<u64>,
        palette: Palette,
        zone: LocalTime,
    ) -> Self {
        let form = if json {
            Form::Json
        } else {
            Form::Text(Text::new(
                Stamp::new(zone),
                palette,
                shows_source,
                output::stdout_is_terminal(),
            ))
        };
        let limit = limit.unwrap_or(u64::MAX);
        Self {
            filter,
            form,
            limit,
            shown: 0,
            lost: 0,
            notices: Vec::new(),
            out: Vec::with_capacity(FULL),
        }
    }

    /// Renders what passes the filter.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn show(&mut self, frame: &Frame, damaged: u32) -> Result<()> {
        if damaged > 0 {
            self.notices.push(format!(
                "{} could not be read and left out",
                count(damaged.into(), "damaged envelope")
            ));
        }
        for entry in frame.entries() {
            if self.is_full() {
                break;
            }
            let envelope = frame.envelope(entry);
            if let Some(loss) = Loss::of(&envelope) {
                self.lost = self.lost.saturating_add(loss.envelopes);
                self.notices.push(loss.line());
                // Programs get it as an envelope too; people have the line.
                if matches!(self.form, Form::Text(_)) {
                    continue;
                }
            }
            if self.filter.passes(&envelope) {
                self.render(&envelope);
                if self.out.len() >= FULL {
                    self.flush()?;
                }
            }
        }
        Ok(())
    }

    fn render(&mut self, envelope: &EnvelopeRef<'_>) {
        let before = self.out.len();
        match &mut self.form {
            Form::Text(text) => text.write(&mut self.out, envelope),
            Form::Json => {
                json::write_envelope(&mut self.out, *envelope);
                self.out.push(b'\n');
            }
        }
        // An envelope without a message has no line.
        self.shown += u64::from(self.out.len() > before);
    }

    /// Writes what was rendered.
    ///
    /// # Errors
    /// When nobody reads any more, or the disk is full.
    pub fn flush(&mut self) -> Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        // A pipe that is full must not stop the tasks that answer pings.
        let written = tokio::task::block_in_place(|| output::write(&self.out));
        self.out.clear();
        written
    }

    /// Whether enough is collected.
    pub fn wants_flush(&self) -> bool {
        self.out.len() >= FULL / 4
    }

    /// Whether all that was asked for is shown.
    pub fn is_full(&self) -> bool {
        self.shown >= self.limit
    }

    /// Envelopes shown.
    pub fn shown(&self) -> u64 {
        self.shown
    }

    /// What people must be told since the last time.
    pub fn notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    /// A summary, if anything was lost.
    pub fn lost_in_all(&self) -> Option<String> {
        (self.lost > 0).then(|| {
            format!(
                "{} shown, {} lost in all",
                count(self.shown, "envelope"),
                count(self.lost, "envelope")
            )
        })
    }
}
