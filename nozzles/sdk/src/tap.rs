//! Looking at what flows, at any edge, without changing it.
//!
//! Edges are `intake`, and per destination `NAME/in` (what was read), `NAME/out` (what its filter and quota let pass) and
//! `NAME/rendered` (what it sends for these). A tap sees whole events as JSON, at most so many in a time; how many more there
//! were is told. Nobody waits for a tap, and where there is none nothing is done.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use loggregator_envelope::json;
use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::event::Event;
use crate::filter::Filter;
use crate::kind::Plan;

/// Events that one tap sees per interval.
const PER_INTERVAL: u32 = 100;
const INTERVAL: Duration = Duration::from_millis(500);
/// Events that wait for a tap's reader.
const WAITING: usize = 1000;
/// Taps at a time.
pub(crate) const MOST_TAPS: usize = 16;
/// The edge at which everything comes in.
pub const INTAKE: &str = "intake";

/// A tap cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TapError {
    /// There is no such edge.
    #[error("there is no edge `{edge}`; there are {known}")]
    Edge {
        /// What was asked for.
        edge: String,
        /// What there is.
        known: String,
    },
    /// The filter is none.
    #[error("the filter, {0}")]
    Filter(#[from] crate::filter::FilterError),
    /// There are too many already.
    #[error("{MOST_TAPS} taps are open already")]
    TooMany,
}

/// An open tap; dropping it closes it.
#[derive(Debug)]
pub struct Tap {
    listener: Arc<Listener>,
    lines: mpsc::Receiver<String>,
    taps: Arc<Taps>,
}

impl Tap {
    /// The next event, one JSON object without a line end; or `{"left_out":n}`, how many were not shown since.
    pub async fn next(&mut self) -> Option<String> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`next`](Tap::next).
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<String>> {
        let line = self.lines.poll_recv(cx);
        if line.is_ready() {
            return line;
        }
        match self.listener.untold.swap(0, Ordering::Relaxed) {
            0 => Poll::Pending,
            left_out => Poll::Ready(Some(format!("{{\"left_out\":{left_out}}}"))),
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.taps.close(&self.listener);
    }
}

#[derive(Debug)]
struct Listener {
    edge: String,
    filter: Filter,
    lines: mpsc::Sender<String>,
    allowance: Mutex<(Instant, u32)>,
    untold: AtomicU64,
}

/// All taps of a nozzle.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    /// How many there are: all that is looked at where there is none.
    open: AtomicUsize,
    listeners: RwLock<Vec<Arc<Listener>>>,
    left_out: AtomicU64,
}

impl Taps {
    /// Opens one. `known` are the edges that there are.
    pub(crate) fn listen(
        self: &Arc<Self>,
        edge: &str,
        filter: &str,
        known: &[String],
    ) -> Result<Tap, TapError> {
        if !known.iter().any(|name| name == edge) {
            return Err(TapError::Edge {
                edge: edge.to_owned(),
                known: known.join(", "),
            });
        }
        let filter = match filter {
            "" => Filter::everything(),
            filter => Filter::parse(filter)?,
        };
        let (sender, lines) = mpsc::channel(WAITING);
        let listener = Arc::new(Listener {
            edge: edge.to_owned(),
            filter,
            lines: sender,
            allowance: Mutex::new((Instant::now(), PER_INTERVAL)),
            untold: AtomicU64::new(0),
        });
        let mut listeners = self.listeners.write();
        if listeners.len() >= MOST_TAPS {
            return Err(TapError::TooMany);
        }
        listeners.push(Arc::clone(&listener));
        self.open.store(listeners.len(), Ordering::Relaxed);
        Ok(Tap {
            listener,
            lines,
            taps: Arc::clone(self),
        })
    }

    fn close(&self, listener: &Arc<Listener>) {
        let mut listeners = self.listeners.write();
        listeners.retain(|other| !Arc::ptr_eq(other, listener));
        self.open.store(listeners.len(), Ordering::Relaxed);
    }

    /// How many are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Events that matched and were not shown.
    pub(crate) fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// Shows events at an edge. Where nobody listens it costs a look at a number.
    pub(crate) fn show<'e>(&self, edge: &str, events: impl Iterator<Item = &'e Event> + Clone) {
        self.each(edge, events, |event| vec![event_line(edge, event)]);
    }

    /// Shows what a destination sends for events.
    pub(crate) fn show_rendered<'e>(
        &self,
        edge: &str,
        plan: &dyn Plan,
        events: impl Iterator<Item = &'e Event> + Clone,
    ) {
        self.each(edge, events, |event| rendered_lines(edge, plan, event));
    }

    fn each<'e>(
        &self,
        edge: &str,
        events: impl Iterator<Item = &'e Event> + Clone,
        lines: impl Fn(&Event) -> Vec<String>,
    ) {
        if self.open() == 0 {
            return;
        }
        let listeners = self.listeners.read().clone();
        for listener in listeners.iter().filter(|listener| listener.edge == edge) {
            for event in events
                .clone()
                .filter(|event| listener.filter.matches(event))
            {
                let shown = listener.allowed()
                    && lines(event)
                        .into_iter()
                        .all(|line| listener.lines.try_send(line).is_ok());
                if !shown {
                    listener.untold.fetch_add(1, Ordering::Relaxed);
                    self.left_out.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

impl Listener {
    fn allowed(&self) -> bool {
        let mut allowance = self.allowance.lock();
        let now = Instant::now();
        if now.saturating_duration_since(allowance.0) >= INTERVAL {
            *allowance = (now, PER_INTERVAL);
        }
        let allowed = allowance.1 > 0;
        allowance.1 = allowance.1.saturating_sub(1);
        allowed
    }
}

fn event_line(edge: &str, event: &Event) -> String {
    let mut envelope = Vec::new();
    json::write_envelope(&mut envelope, event.envelope());
    let mut line = head(edge, event);
    line.push_str(",\"envelope\":");
    line.push_str(&String::from_utf8_lossy(&envelope));
    if let Some(names) = event.names() {
        let names = serde_json::json!({ "app": names.app, "space": names.space, "org": names.org });
        line.push_str(&format!(",\"names\":{names}"));
    }
    line.push('}');
    line
}

fn rendered_lines(edge: &str, plan: &dyn Plan, event: &Event) -> Vec<String> {
    let line = |rest: serde_json::Value| {
        let rest = rest.to_string();
        format!("{},{}", head(edge, event), &rest[1..])
    };
    match plan.render(event) {
        Err(why) => vec![line(
            serde_json::json!({ "rejected": why.code, "detail": why.detail }),
        )],
        Ok(rendered) => rendered
            .into_iter()
            .map(|one| {
                let fields: serde_json::Map<_, _> = one
                    .fields
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value.into()))
                    .collect();
                line(match std::str::from_utf8(&one.body) {
                    Ok(body) => serde_json::json!({ "fields": fields, "body": body }),
                    Err(_) => {
                        serde_json::json!({ "fields": fields, "body_base64": STANDARD.encode(&one.body) })
                    }
                })
            })
            .collect(),
    }
}

/// The members that all have, without the closing brace. At the intake events have no number yet.
fn head(edge: &str, event: &Event) -> String {
    let edge_json = serde_json::Value::from(edge);
    let received = event.received;
    match edge {
        INTAKE => format!("{{\"edge\":{edge_json},\"received\":{received}"),
        _ => format!(
            "{{\"edge\":{edge_json},\"seq\":{},\"received\":{received}",
            event.seq
        ),
    }
}

#[cfg(test)]
mod tests {
    use loggregator_proto::v2;
    use prost::Message as _;

    use super::*;

    fn event(seq: u64, source: &str) -> Event {
        let envelope = v2::Envelope {
            source_id: source.to_owned(),
            timestamp: 5,
            message: Some(v2::envelope::Message::Log(v2::Log {
                payload: "hello".into(),
                r#type: 0,
            })),
            ..v2::Envelope::default()
        };
        Event::new(seq, 9, envelope.encode_to_vec().into())
    }

    #[tokio::test]
    async fn a_tap_shows_what_matches_at_its_edge_and_tells_what_it_left_out() {
        let taps = Arc::new(Taps::default());
        let known = [INTAKE.to_owned(), "siem/in".to_owned()];
        let mut tap = taps
            .listen("siem/in", "source_id == \"a\"", &known)
            .unwrap();
        let events: Vec<Event> = (0..150).map(|seq| event(seq, "a")).collect();
        taps.show(INTAKE, events.iter());
        taps.show("siem/in", [event(7, "b")].iter());
        taps.show("siem/in", events.iter());
        let first = tap.next().await.unwrap();
        assert_eq!(
            first,
            "{\"edge\":\"siem/in\",\"seq\":0,\"received\":9,\"envelope\":{\"timestamp\":\"5\",\"source_id\":\"a\",\
             \"instance_id\":\"\",\"deprecated_tags\":{},\"tags\":{},\"log\":{\"payload\":\"aGVsbG8=\",\"type\":\"OUT\"}}}"
        );
        for _ in 1..PER_INTERVAL {
            assert!(tap.next().await.unwrap().contains("\"seq\""));
        }
        assert_eq!(tap.next().await.unwrap(), "{\"left_out\":50}");
        assert_eq!((taps.open(), taps.left_out()), (1, 50));
        drop(tap);
        assert_eq!(taps.open(), 0);
    }

    #[test]
    fn what_cannot_be_tapped_is_told() {
        let taps = Arc::new(Taps::default());
        let known = [INTAKE.to_owned(), "siem/in".to_owned()];
        assert_eq!(
            taps.listen("siem", "", &known).unwrap_err().to_string(),
            "there is no edge `siem`; there are intake, siem/in"
        );
        let error = taps.listen(INTAKE, "nonsense ==", &known).unwrap_err();
        assert!(
            error.to_string().starts_with("the filter, at character"),
            "{error}"
        );
        let open: Vec<Tap> = (0..MOST_TAPS)
            .map(|_| taps.listen(INTAKE, "", &known).unwrap())
            .collect();
        assert_eq!(
            taps.listen(INTAKE, "", &known).unwrap_err(),
            TapError::TooMany
        );
        drop(open);
    }
}
