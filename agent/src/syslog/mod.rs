//! Syslog in: RFC 5424 and RFC 3164 over UDP and TCP.

mod convert;
mod frame;
mod parse;
mod tcp;

use std::sync::Arc;

use loggregator_client::message::nanos;
use loggregator_envelope::{Frame, FrameBuilder};
use time::OffsetDateTime;

use crate::config::SyslogConfig;
use crate::intake::Intake;
use crate::stats::{Port, count};
use crate::udp::Handler;

pub(crate) use tcp::Listener;

/// Turns messages into frames and hands them on.
pub(crate) struct Receiver {
    intake: Arc<Intake>,
    config: Arc<SyslogConfig>,
    port: Port,
    frame: FrameBuilder,
    scratch: Vec<u8>,
}

impl Receiver {
    pub(crate) fn new(intake: Arc<Intake>, config: Arc<SyslogConfig>, port: Port) -> Receiver {
        Receiver {
            intake,
            config,
            port,
            frame: FrameBuilder::new(),
            scratch: Vec::new(),
        }
    }

    fn message(&mut self, text: &[u8]) {
        let now = OffsetDateTime::now_utc();
        let refused = match parse::parse(text, now, self.config.utc_offset) {
            Ok(message) => {
                let fallback = &self.config.source_id;
                let received = nanos(now.into());
                convert::convert(
                    &message,
                    received,
                    fallback,
                    &mut self.scratch,
                    &mut self.frame,
                )
                .err()
                .map(convert::Refusal::reason)
            }
            Err(error) => Some(error.reason()),
        };
        if let Some(reason) = refused {
            self.intake.stats.port(self.port).reject(reason, 1);
            tracing::debug!(reason, bytes = text.len(), "a syslog message is refused");
        }
    }
}

impl Handler for Receiver {
    fn datagram(&mut self, datagram: &[u8]) {
        // Some senders put a line feed or a NUL behind the message.
        let mut text = datagram;
        while let [rest @ .., b'\n' | b'\r' | 0] = text {
            text = rest;
        }
        if text.len() > self.config.max_message {
            count(&self.intake.stats.lines_truncated, 1);
            text = &text[..self.config.max_message];
        }
        self.message(text);
    }

    fn flush(&mut self) {
        if !self.frame.is_empty() {
            let (bytes, index) = self.frame.finish();
            self.intake
                .accept(self.port, Frame::from_parts(bytes, index));
        }
    }
}
