//! What every destination must do, as tests that run against a scripted peer.
//!
//! The crate of a kind writes a [`Peer`]: the other side, which can be told how to behave, and says what it has taken.
//! [`run`] then starts whole nozzles with that kind, one per case, and checks:
//!
//! | case | what must hold |
//! | --- | --- |
//! | `healthy` | everything arrives once, in the order of each source ([`Peer::ordered`]), and is what [`Plan::render`](crate::Plan::render) said |
//! | `retries` | what failed arrives later, still in order, and the retries are counted |
//! | `away` | nothing counts as delivered while the peer is away; all of it arrives when it is back |
//! | `partial` | what was not taken of a batch arrives; nothing is given up |
//! | `acknowledged` | the cursor is never ahead of what the peer has taken |
//! | `poisoned` | the one event that is refused becomes a dead letter, its neighbours arrive |
//! | `full` | with a full buffer every event is delivered, dropped with a reason, or pending: the sum is right |
//! | `restart` | a nozzle that was stopped in the middle of a batch and started again delivers the rest |
//! | `metrics` | the metrics that an operator needs are there |
//!
//! A case that needs a behaviour that the peer cannot show ([`Peer::can`]) is left out and named in the result, so that a
//! test can say which ones it expects to be.
//!
//! ```text
//! #[tokio::test(flavor = "multi_thread")]
//! async fn complies() {
//!     let kinds = Kinds::new().with(MyKind);
//!     let left_out = compliance::run(&kinds, "my_kind", MyPeer::start).await;
//!     assert_eq!(left_out, ["partial"]);
//! }
//! ```

mod cases;
mod rig;

pub use rig::Feed;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use loggregator_proto::v2;

use crate::kind::{Kind, Kinds, Rendered};

/// How a peer behaves from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// It takes everything.
    Healthy,
    /// Nobody is there: connections are refused, files cannot be written.
    Away,
    /// It fails so many times for a passing reason and takes nothing, then is healthy.
    Fail(u32),
    /// So many times it takes the first half of what it gets, and not the rest; then it is healthy.
    Partial(u32),
    /// It takes everything, and answers after so long.
    Slow(Duration),
    /// It refuses for good whatever contains this text, and takes the rest. A peer that answers once per batch refuses the
    /// batch as a whole.
    Poison(String),
}

/// The other side of a destination, under the control of a test. Dropping it stops it.
pub trait Peer: Send + Sync + 'static {
    /// The keys of the destination's own section that lead here, as TOML.
    fn config(&self) -> String;

    /// A folder that is empty at first and lives as long as the peer.
    fn scratch(&self) -> PathBuf;

    /// Whether it can behave so.
    fn can(&self, _how: &Behaviour) -> bool {
        true
    }

    /// Whether the destination promises that what it sends arrives in the order of each source, also when something has to
    /// be sent again. One with a single batch on its way does.
    fn ordered(&self) -> bool {
        true
    }

    /// Behaves so from now on.
    fn behave(&self, how: Behaviour) -> impl Future<Output = ()> + Send;

    /// What it has taken, in the order in which it took it: one item per [`Rendered`], repetitions included. Of the fields
    /// those that it can see.
    fn received(&self) -> impl Future<Output = Vec<Rendered>> + Send;

    /// The `n`-th envelope of a test. A kind that does nothing with log lines makes another.
    fn envelope(&self, n: u64, source_id: &str) -> v2::Envelope {
        rig::line(n, source_id)
    }

    /// The number of the envelope of which this was made: the inverse of [`envelope`](Peer::envelope).
    fn number(&self, received: &Rendered) -> Option<u64> {
        rig::number(&received.body)
    }

    /// Takes out what differs from run to run, such as a time of receipt, before two are compared.
    fn comparable(&self, rendered: Rendered) -> Rendered {
        rendered
    }
}

/// Runs all cases with the kind of this name, each with a peer of its own; returns the names of those that were left out.
///
/// # Panics
/// When one fails, with its name and what was expected.
pub async fn run<P, F, Fut>(kinds: &Kinds, kind: &str, peer: F) -> Vec<&'static str>
where
    P: Peer,
    F: Fn() -> Fut,
    Fut: Future<Output = P>,
{
    let subject = match kinds.get(kind) {
        Some(kind) => Subject {
            kinds: kinds.clone(),
            kind: Arc::clone(kind),
        },
        None => panic!("`{kind}` is none of {kinds:?}"),
    };
    let mut left_out = Vec::new();
    for case in cases::Case::ALL {
        let peer = peer().await;
        if case.needs().iter().all(|how| peer.can(how)) {
            cases::run(case, &subject, peer).await;
        } else {
            left_out.push(case.name());
        }
    }
    left_out
}

/// What is tested.
struct Subject {
    kinds: Kinds,
    kind: Arc<dyn Kind>,
}
