//! From a traffic controller's firehose, one v1 envelope in a message.
//!
//! What is ready is taken in one go and converted into one batch. The traffic controller can select logs or all but logs;
//! everything else that `select` leaves out is left out here, after it came.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use loggregator_client::ws::{Filter, Subject, WsConfig, WsError, WsEvent, WsStream};
use loggregator_envelope::{EnvelopeRef, Kind, v1};
use loggregator_net::{Backoff, Profile};
use loggregator_proto::v2::EgressBatchRequest;
use loggregator_service::Lifecycle;
use tokio::time::Sleep;

use super::credentials::{Credentials, Shown};
use super::monitor::{Ended, Monitor};
use super::select::Selection;
use super::watch::Source;
use super::{IntakeError, address, bytes};
use crate::config::WebSocketIntake;

const KEY: &str = "intake.websocket";
/// Bytes of a batch. A batch ends earlier when nothing more is ready.
const BATCH: usize = 256 * 1024;

/// Checks what can be checked without the network.
pub(super) fn check(
    config: &WebSocketIntake,
    request: &EgressBatchRequest,
) -> Result<(), IntakeError> {
    if !request.deterministic_name.is_empty() {
        return Err(IntakeError::Deterministic);
    }
    url(config).map(|_| ())
}

fn url(config: &WebSocketIntake) -> Result<String, IntakeError> {
    let secret = Credentials::check(config.token.as_ref(), config.oauth.as_ref(), KEY)?;
    address::check(&config.url, ("ws", "wss"), secret).map_err(|reason| IntakeError::Address {
        key: format!("{KEY}.url"),
        reason,
    })
}

enum State {
    /// Until there is something to show.
    Asking(Pin<Box<dyn Future<Output = Result<Shown, String>> + Send>>),
    Streaming(Box<WsStream>, Shown),
    Waiting(Pin<Box<Sleep>>),
}

/// A firehose subscription that is opened again when it ends, each time with the token of then.
pub(super) struct WebSocket {
    config: WsConfig,
    subject: Subject,
    selection: Option<Selection>,
    credentials: Credentials,
    state: State,
    backoff: Backoff,
    /// What came after the last batch and was not an envelope.
    next: Option<Result<WsEvent, WsError>>,
    batch: Vec<u8>,
    stopped: bool,
    monitor: Arc<Monitor>,
}

impl WebSocket {
    pub(super) fn open(
        config: &WebSocketIntake,
        request: &EgressBatchRequest,
        monitor: &Arc<Monitor>,
        lifecycle: &Lifecycle,
    ) -> Result<WebSocket, IntakeError> {
        let url = url(config)?;
        let mut ws = WsConfig::new(&url);
        ws.max_message = bytes(config.max_message);
        if url.starts_with("wss:") {
            let tls = address::tls(
                config.ca_file.as_ref(),
                config.skip_verify,
                Profile::Http,
                lifecycle,
            )
            .map_err(|source| IntakeError::Tls {
                key: format!("{KEY}.ca_file"),
                source,
            })?;
            monitor.uses(None, Some(&tls));
            ws.tls = Some(tls);
        }
        let oauth = config.oauth.as_ref();
        let credentials = Credentials::start(config.token.as_ref(), oauth, KEY, lifecycle)?;
        monitor.uses(credentials.tokens(), None);
        let selection = Selection::of(request);
        let subject = Subject::Firehose {
            id: request.shard_id.clone(),
            filter: filter(&selection),
        };
        Ok(WebSocket {
            state: asking(&credentials),
            backoff: ws.backoff.clone(),
            config: ws,
            subject,
            selection: (!selection.is_everything()).then_some(selection),
            credentials,
            next: None,
            batch: Vec::new(),
            stopped: false,
            monitor: Arc::clone(monitor),
        })
    }

    /// Adds an envelope to the batch, if it is one and was asked for.
    fn add(&mut self, payload: &[u8]) {
        let before = self.batch.len();
        if v1::append_v2(payload, &mut self.batch).is_err() {
            self.monitor.malformed();
            return;
        }
        if let Some(selection) = &self.selection
            && !selection.matches(record(&self.batch[before..]))
        {
            self.batch.truncate(before);
            self.monitor.not_selected(1);
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<WsEvent, WsError>> {
        if let Some(next) = self.next.take() {
            return Poll::Ready(next);
        }
        match &mut self.state {
            State::Streaming(stream, _) => stream.poll_next(cx),
            State::Asking(_) | State::Waiting(_) => Poll::Pending,
        }
    }

    /// Fills the batch with what is ready, the first of which is `payload`.
    fn fill(&mut self, payload: &[u8], cx: &mut Context<'_>) {
        self.batch.reserve(payload.len());
        self.add(payload);
        while self.batch.len() < BATCH {
            match self.poll_event(cx) {
                Poll::Ready(Ok(WsEvent::Envelope(payload))) => self.add(&payload),
                Poll::Ready(other) => {
                    self.next = Some(other);
                    return;
                }
                Poll::Pending => return,
            }
        }
    }

    fn take_batch(&mut self) -> Option<Bytes> {
        if self.batch.is_empty() {
            return None;
        }
        // About as much is ready the next time.
        let next = Vec::with_capacity(self.batch.len());
        Some(std::mem::replace(&mut self.batch, next).into())
    }

    /// What has arrived and was not read yet.
    fn next_arrived(&mut self, cx: &mut Context<'_>) -> Option<Bytes> {
        while let Poll::Ready(Ok(WsEvent::Envelope(payload))) = self.poll_event(cx) {
            self.fill(&payload, cx);
            if let Some(batch) = self.take_batch() {
                return Some(batch);
            }
        }
        None
    }

    fn lost(&mut self, error: &WsError) {
        self.monitor.standing(0);
        let why = match error {
            WsError::Closed { code, .. } => closed(*code),
            WsError::Unauthorized { .. } => Ended::Unauthorized,
            WsError::Refused { .. } | WsError::Url { .. } | WsError::Token => Ended::Refused,
            _ => Ended::Failed,
        };
        if why == Ended::Unauthorized
            && let State::Streaming(_, shown) = &self.state
        {
            self.credentials.refused(shown);
        }
        self.wait(why, error.to_string());
    }

    fn wait(&mut self, why: Ended, error: String) {
        let retry_in = self.backoff.next_delay();
        tracing::warn!(
            url = self.config.url,
            error,
            ?retry_in,
            "the intake's WebSocket ended; it is opened again"
        );
        self.monitor.ended(why, error);
        self.state = State::Waiting(Box::pin(tokio::time::sleep(retry_in)));
    }
}

impl Source for WebSocket {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if self.stopped {
                return Poll::Ready(self.next_arrived(cx));
            }
            match &mut self.state {
                State::Asking(shown) => match ready!(shown.as_mut().poll(cx)) {
                    Ok(shown) => {
                        let mut config = self.config.clone();
                        config.token = shown.authorization().map(str::to_owned);
                        let stream = WsStream::new(config, self.subject.clone());
                        self.state = State::Streaming(Box::new(stream), shown);
                    }
                    Err(error) => self.wait(Ended::Unauthorized, error),
                },
                State::Streaming(..) => match ready!(self.poll_event(cx)) {
                    Ok(WsEvent::Connected) => self.monitor.standing(1),
                    Ok(WsEvent::Envelope(payload)) => {
                        self.backoff.reset();
                        self.fill(&payload, cx);
                        if let Some(batch) = self.take_batch() {
                            return Poll::Ready(Some(batch));
                        }
                    }
                    Ok(WsEvent::Disconnected { error, .. }) | Err(error) => self.lost(&error),
                },
                State::Waiting(pause) => {
                    ready!(pause.as_mut().poll(cx));
                    self.state = asking(&self.credentials);
                }
            }
        }
    }

    fn reopen(&mut self) {
        self.monitor.standing(0);
        self.next = None;
        self.state = asking(&self.credentials);
    }

    fn stop(&mut self) {
        self.monitor.standing(0);
        self.stopped = true;
    }
}

fn asking(credentials: &Credentials) -> State {
    let credentials = credentials.clone();
    State::Asking(Box::pin(async move { credentials.show().await }))
}

/// What the traffic controller can leave out. All but logs are metrics to it.
fn filter(selection: &Selection) -> Option<Filter> {
    let has = |kind| selection.kinds().contains(kind);
    let metrics = [Kind::Counter, Kind::Gauge, Kind::Timer]
        .into_iter()
        .any(has);
    match (has(Kind::Log), metrics) {
        (true, false) => Some(Filter::Logs),
        (false, true) => Some(Filter::Metrics),
        _ => None,
    }
}

/// A Go traffic controller ends a reader that it takes for slow with 1008 when pongs do not come, and with 1000 when
/// envelopes are not taken.
fn closed(code: u16) -> Ended {
    match code {
        1000 | 1008 => Ended::SlowConsumer,
        1001 => Ended::Closed,
        _ => Ended::Failed,
    }
}

/// The envelope in a record of a batch.
fn record(record: &[u8]) -> EnvelopeRef<'_> {
    let head = record
        .iter()
        .skip(1)
        .position(|byte| *byte < 0x80)
        .unwrap_or(0)
        + 2;
    EnvelopeRef::new(record.get(head..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use loggregator_envelope::KindSet;

    use super::*;
    use crate::config::SelectConfig;

    #[test]
    fn the_halves_of_a_firehose() {
        let of = |kinds: &[Kind]| {
            let kinds: KindSet = kinds.iter().copied().collect();
            let request = crate::intake::request(&SelectConfig::default(), "n", kinds, None);
            filter(&Selection::of(&request.unwrap()))
        };
        assert_eq!(of(&[Kind::Log]), Some(Filter::Logs));
        assert_eq!(of(&[Kind::Log, Kind::Event]), Some(Filter::Logs));
        assert_eq!(of(&[Kind::Counter]), Some(Filter::Metrics));
        assert_eq!(of(&[Kind::Gauge, Kind::Timer]), Some(Filter::Metrics));
        assert_eq!(of(&[Kind::Log, Kind::Timer]), None);
        assert_eq!(of(&[Kind::Event]), None);
    }

    #[test]
    fn close_codes_say_who_is_slow() {
        let codes = [1000, 1008, 1001, 1006, 1011].map(closed);
        let (slow, broken) = (Ended::SlowConsumer, Ended::Failed);
        assert_eq!(codes, [slow, slow, Ended::Closed, broken, broken]);
    }

    #[test]
    fn an_envelope_is_found_behind_the_head_of_its_record() {
        for source in ["a", &"b".repeat(200), &"c".repeat(20_000)] {
            let body = [&[0x12][..], &prost_len(source.len()), source.as_bytes()].concat();
            let whole = [&[0x0a][..], &prost_len(body.len()), &body].concat();
            assert_eq!(record(&whole).source_id(), source);
        }
        assert_eq!(record(&[]).source_id(), "");
    }

    fn prost_len(len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        prost::encoding::encode_varint(len as u64, &mut out);
        out
    }
}
