//! One response of a gateway, until it ends.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderName;
use loggregator_envelope::json;
use loggregator_net::http::client::Streaming;
use tokio::time::{Instant, Sleep, sleep};

use super::events::{Event, Events};
use crate::intake::monitor::{Ended, Monitor};

/// Without a byte for so long a response is dead: there is a heartbeat after 15 s without envelopes.
const IDLE: Duration = Duration::from_secs(60);
/// A gateway says with it that its subscriptions outlive their responses.
const RESUME: HeaderName = HeaderName::from_static("loggregator-resume-grace");

/// A response that is open.
pub(super) struct Response {
    streaming: Streaming,
    events: Events,
    pub(super) since: Instant,
    /// Its subscription outlives it.
    pub(super) resumes: bool,
    /// Goes off when the time is up, and is set again if something arrived meanwhile.
    idle: Pin<Box<Sleep>>,
    heard: bool,
}

impl Response {
    pub(super) fn new(streaming: Streaming, max_event: usize) -> Response {
        Response {
            resumes: streaming.headers.contains_key(RESUME),
            streaming,
            events: Events::new(max_event),
            since: Instant::now(),
            idle: Box::pin(sleep(IDLE)),
            heard: false,
        }
    }

    /// The next batch, encoded. An error is why the response is over.
    pub(super) fn poll_batch(
        &mut self,
        cx: &mut Context<'_>,
        monitor: &Monitor,
    ) -> Poll<Result<Bytes, (Ended, String)>> {
        loop {
            while let Some(event) = self.events.next() {
                match event {
                    Event::Data(text) => {
                        // The bytes of an envelope are fewer than those of its JSON.
                        let mut batch = Vec::with_capacity(text.len() / 2);
                        match json::read_batch(&text, &mut batch) {
                            Ok(0) => {}
                            Ok(_) => return Poll::Ready(Ok(batch.into())),
                            Err(error) => {
                                monitor.malformed();
                                tracing::warn!(%error, "an event of the gateway cannot be read");
                            }
                        }
                    }
                    Event::Closing => {
                        let error = "the gateway ends the response after its time".to_owned();
                        return Poll::Ready(Err((Ended::Expired, error)));
                    }
                    Event::Heartbeat | Event::Unknown => {}
                }
            }
            let Poll::Ready(data) = self.streaming.poll_data(cx) else {
                return self.poll_idle(cx).map(Err);
            };
            self.heard = true;
            match data {
                Some(Ok(data)) => {
                    if let Err(error) = self.events.push(&data) {
                        monitor.malformed();
                        return Poll::Ready(Err((Ended::Failed, error.to_string())));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Err((Ended::Failed, error.to_string()))),
                None => {
                    let error = "the gateway ended the response".to_owned();
                    return Poll::Ready(Err((Ended::Closed, error)));
                }
            }
        }
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<(Ended, String)> {
        loop {
            ready!(self.idle.as_mut().poll(cx));
            if !std::mem::take(&mut self.heard) {
                let error = format!("not even a heartbeat for {IDLE:?}");
                return Poll::Ready((Ended::Failed, error));
            }
            self.idle.as_mut().reset(Instant::now() + IDLE);
        }
    }
}
