//! Which notices a reader gets for what it lost.

use bytes::{Bytes, BytesMut};
use loggregator_envelope::Notice;
use loggregator_log::SourceCount;

use super::member::Member;
use super::selector::Api;

/// At most this many sources are named in one notice; what the others lost is told in one sum.
const NAMED: usize = 16;

/// The notice for what `member` lost, as records of the message it gets next.
pub(crate) fn encode(member: &Member, by_loss: &[SourceCount], unnamed: u64) -> Bytes {
    let (named, rest) = by_loss.split_at(by_loss.len().min(NAMED));
    let unnamed = unnamed + rest.iter().map(|source| source.count).sum::<u64>();
    let mut out = BytesMut::new();
    for SourceCount { source_id, count } in named {
        push(&mut out, member, Some(source_id), *count);
    }
    if unnamed > 0 {
        push(&mut out, member, None, unnamed);
    }
    out.freeze()
}

fn push(out: &mut BytesMut, member: &Member, source_id: Option<&str>, count: u64) {
    let notice = Notice {
        count,
        source_id,
        shard_id: &member.shard_id,
    };
    match member.api {
        Api::V2 => notice.put_v2(out),
        Api::V1 => notice.put_v1(out),
    }
}
