use std::task::Waker;

use loggregator_proto::v2::envelope::Message as Kind;
use loggregator_proto::v2::{Counter, Envelope, EnvelopeBatch};
use loggregator_service::ledger::{Source, Subscription};
use parking_lot::Mutex;
use prost::Message as _;

use super::*;
use crate::accounts::{Accounts, Identity};
use crate::rlp::PROGRAM;
use crate::rlp::proxy::Gate;
use crate::upstream::Unread;

const BUDGET: usize = 1000;

/// What the dopplers have for one reader.
#[derive(Default)]
struct Upstream {
    batches: VecDeque<Bytes>,
    missed: u64,
    ended: bool,
    finishing: bool,
    /// The end does not come at once when it is asked for.
    slow_to_end: bool,
    /// The subscription does not stand yet.
    shut: bool,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Upstream>>);

impl Batches for Fake {
    fn poll_batch(&mut self, _: &mut Context<'_>) -> Poll<Option<Batch>> {
        let mut upstream = self.0.lock();
        match upstream.batches.pop_front() {
            Some(bytes) => Poll::Ready(Some(Batch {
                bytes,
                doppler: "d:1".into(),
            })),
            None if upstream.ended => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    fn poll_open(&mut self, _: &mut Context<'_>) -> Poll<()> {
        if self.0.lock().shut {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    fn finish(&mut self, _: Duration) {
        let mut upstream = self.0.lock();
        upstream.finishing = true;
        upstream.ended |= !upstream.slow_to_end;
    }

    fn take_missed(&mut self) -> u64 {
        std::mem::take(&mut self.0.lock().missed)
    }

    fn close(self: Box<Self>) -> Unread {
        let upstream = self.0.lock();
        Unread {
            envelopes: upstream.batches.len() as u64,
            missed: upstream.missed,
        }
    }
}

struct Rig {
    upstream: Fake,
    accounts: Arc<Accounts>,
    stop: CancellationToken,
}

impl Rig {
    fn new() -> (Self, Reader) {
        let rig = Self {
            upstream: Fake::default(),
            accounts: Accounts::new(PROGRAM, String::new(), 10),
            stop: CancellationToken::new(),
        };
        let identity = Identity {
            id: "s".to_owned(),
            peer: "p".to_owned(),
            selector: String::new(),
            endpoint: 0,
        };
        let wants = Wants {
            tags: Tags::Preferred,
            budget: BUDGET,
            notices_from: "rlp".into(),
            finish_within: Duration::from_secs(5),
        };
        let gate = Gate::new(2);
        let reader = Reader::new(
            Box::new(rig.upstream.clone()),
            wants,
            rig.accounts.open(identity, false),
            rig.stop.clone(),
            [gate.enter().unwrap(), gate.enter().unwrap()],
        );
        (rig, reader)
    }

    /// One batch of one envelope, of so many bytes in all.
    fn arrives(&self, name: &str, bytes: usize) {
        let mut batch = encode(name, 0);
        if bytes > batch.len() {
            batch = encode(name, bytes - batch.len() - 4);
        }
        self.upstream.0.lock().batches.push_back(batch);
    }

    fn line(&self) -> Subscription {
        let report = self.accounts.report();
        assert!(report.balanced(), "{report:?}");
        report.subscriptions[0].clone()
    }
}

fn encode(name: &str, pad: usize) -> Bytes {
    let envelope = Envelope {
        source_id: name.to_owned(),
        instance_id: "x".repeat(pad),
        ..Envelope::default()
    };
    let batch = vec![envelope];
    EnvelopeBatch { batch }.encode_to_vec().into()
}

fn poll(source: &mut impl MessageSource) -> Poll<Option<Message>> {
    let mut cx = Context::from_waker(Waker::noop());
    source
        .poll_message(&mut cx)
        .map(|next| next.map(|message| message.unwrap()))
}

/// The next message, which must be there.
fn next(source: &mut impl MessageSource) -> Message {
    match poll(source) {
        Poll::Ready(Some(message)) => message,
        Poll::Ready(None) => panic!("the stream ended"),
        Poll::Pending => panic!("nothing is ready"),
    }
}

fn envelopes(message: &Message) -> Vec<Envelope> {
    let bytes = message.chunks.concat();
    EnvelopeBatch::decode(&bytes[..]).unwrap().batch
}

fn names(message: &Message) -> Vec<String> {
    let all = envelopes(message).into_iter();
    all.map(|envelope| envelope.source_id).collect()
}

fn settle(mut message: Message, delivered: bool) {
    message.receipt.take().unwrap().settle(delivered);
}

#[test]
fn what_has_gathered_is_one_message_up_to_the_budget() {
    let (rig, reader) = Rig::new();
    let mut joined = Joined(reader);
    assert!(poll(&mut joined).is_pending());
    for name in ["a", "b", "c"] {
        rig.arrives(name, 300);
    }
    rig.arrives("d", 300);
    rig.arrives("e", 5000);
    rig.arrives("f", 10);
    let first = next(&mut joined);
    assert!(first.len() <= BUDGET, "{}", first.len());
    assert_eq!(names(&first), ["a", "b", "c"]);
    assert_eq!(names(&next(&mut joined)), ["d"]);
    let big = next(&mut joined);
    assert_eq!(names(&big), ["e"]);
    assert!(big.len() >= 5000);
    assert_eq!(names(&next(&mut joined)), ["f"]);
    assert!(poll(&mut joined).is_pending());
}

#[test]
fn short_parts_are_copied_together_and_a_lone_one_is_not() {
    let (rig, reader) = Rig::new();
    let mut joined = Joined(reader);
    rig.arrives("alone", 0);
    let sent = rig.upstream.0.lock().batches[0].clone();
    let message = next(&mut joined);
    assert_eq!(message.chunks.len(), 1);
    assert_eq!(message.chunks[0].as_ptr(), sent.as_ptr());
    for name in ["a", "b", "c", "d"] {
        rig.arrives(name, 0);
    }
    let message = next(&mut joined);
    assert_eq!(names(&message), ["a", "b", "c", "d"]);
    assert_eq!(message.chunks.len(), 2);
}

#[test]
fn delivered_is_what_the_connection_took() {
    let (rig, reader) = Rig::new();
    let mut joined = Joined(reader);
    rig.arrives("a", 600);
    rig.arrives("b", 600);
    let (first, second) = (next(&mut joined), next(&mut joined));
    settle(first, true);
    assert_eq!((rig.line().delivered, rig.line().pending), (1, 1));
    settle(second, false);
    rig.arrives("unread", 0);
    drop(joined);
    let line = rig.line();
    assert!(!line.open);
    assert_eq!((line.received, line.delivered), (3, 1));
    assert_eq!(line.dropped[end::CLIENT], 2);
}

#[test]
fn what_was_missed_is_told_before_what_came_after_it() {
    let (rig, reader) = Rig::new();
    let mut joined = Joined(reader);
    rig.upstream.0.lock().missed = 7;
    rig.arrives("after", 0);
    let message = next(&mut joined);
    let told = envelopes(&message);
    assert_eq!(names(&message), ["rlp", "after"]);
    let counter = Counter {
        name: "dropped".to_owned(),
        delta: 7,
        total: 0,
    };
    assert_eq!(told[0].message, Some(Kind::Counter(counter)));
    settle(message, true);
    let line = rig.line();
    assert_eq!((line.received, line.delivered, line.pending), (8, 1, 0));
    assert_eq!(line.dropped["shared_behind"], 7);
}

#[test]
fn a_stop_gives_what_has_arrived_and_then_ends_well() {
    let (rig, reader) = Rig::new();
    let mut joined = Joined(reader);
    rig.arrives("a", 600);
    rig.arrives("b", 600);
    rig.stop.cancel();
    let (first, second) = (next(&mut joined), next(&mut joined));
    assert_eq!(
        (names(&first), names(&second)),
        (vec!["a".into()], vec!["b".into()])
    );
    assert!(matches!(poll(&mut joined), Poll::Ready(None)));
    assert!(matches!(poll(&mut joined), Poll::Ready(None)));
    settle(first, true);
    drop((second, joined));
    assert_eq!(rig.line().dropped[end::STOPPED], 1);
}

/// The dopplers are asked for the end, and what is under way from them is waited for.
#[test]
fn a_stream_ends_behind_what_is_under_way() {
    for stopped in [true, false] {
        let (rig, reader) = Rig::new();
        let mut joined = Joined(reader);
        assert!(poll(&mut joined).is_pending());
        rig.upstream.0.lock().slow_to_end = true;
        if stopped {
            rig.stop.cancel();
        } else {
            assert!(joined.finish());
        }
        assert!(poll(&mut joined).is_pending());
        assert!(rig.upstream.0.lock().finishing);
        rig.arrives("under way", 0);
        let message = next(&mut joined);
        assert_eq!(names(&message), ["under way"]);
        settle(message, true);
        assert!(poll(&mut joined).is_pending());
        rig.upstream.0.lock().ended = true;
        assert!(matches!(poll(&mut joined), Poll::Ready(None)));
        let line = rig.line();
        assert_eq!((line.received, line.delivered), (1, 1));
        assert!(!line.open || line.dropped.is_empty());
    }
}

#[test]
fn the_end_of_the_dopplers_stream_is_the_end() {
    let (rig, reader) = Rig::new();
    let mut singly = Singly::new(reader);
    rig.arrives("last", 0);
    rig.upstream.0.lock().ended = true;
    let message = next(&mut singly);
    let bytes = message.chunks.concat();
    assert_eq!(Envelope::decode(&bytes[..]).unwrap().source_id, "last");
    assert!(matches!(poll(&mut singly), Poll::Ready(None)));
    settle(message, true);
    drop(singly);
    let line = rig.line();
    assert_eq!((line.delivered, line.dropped.len()), (1, 0));
}

#[tokio::test]
async fn what_had_arrived_for_a_client_that_leaves_while_it_subscribes_is_booked() {
    let (rig, mut reader) = Rig::new();
    rig.upstream.0.lock().shut = true;
    rig.arrives("a", 100);
    let mut opening = Box::pin(async move { reader.opened().await });
    assert!(futures_util::poll!(&mut opening).is_pending());
    drop(opening);
    let line = rig.line();
    assert_eq!((line.open, line.received), (false, 1));
    assert_eq!(line.dropped.get("disconnected"), Some(&1));
}

#[test]
fn a_batch_with_broken_framing_counts_as_the_shared_subscription_counts_it() {
    let (rig, reader) = Rig::new();
    let mut source = Joined(reader);
    let mut broken = [encode("a", 0), encode("b", 0)].concat();
    broken.extend([0x0a, 100, 1]);
    rig.upstream.0.lock().batches.push_back(broken.into());
    rig.arrives("c", 0);
    let message = next(&mut source);
    settle(message, true);
    let line = rig.line();
    assert_eq!((line.received, line.delivered), (3, 1));
    assert_eq!(line.dropped.get("malformed_envelope"), Some(&2));
    let ingress = rig.accounts.report().ingress;
    assert_eq!(ingress.accepted, 3);
    assert_eq!(ingress.rejected["malformed_batch"], 1);
}
