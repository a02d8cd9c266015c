//! Streams of one envelope per message. Nothing busy reads them, so they are made of small batches
//! that are taken apart.

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use loggregator_net::grpc::{Message, MessageSource, Receipt, Status};
use smallvec::SmallVec;

use super::{Counter, stopping};
use crate::router::Subscription;

/// A batch of the smallest budget is one envelope, its several dropsonde forms, and notices.
const ONE: usize = 1;

/// What a message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One record: a `Response`, whose only field has the same number as the repeated one of a batch.
    Record,
    /// The content of one record, without its header: an `Envelope`.
    Bare,
}

/// A subscription whose messages are single envelopes.
pub(super) struct Singly {
    /// Gone when the stream has ended.
    subscription: Option<Subscription>,
    form: Form,
    counter: Counter,
    /// The rest of the batch that is being sent.
    rest: VecDeque<Bytes>,
    /// The batch's receipt, sent with its last record.
    receipt: Option<Box<dyn Receipt>>,
}

impl Singly {
    pub(super) fn new(subscription: Subscription, form: Form, counter: Counter) -> Self {
        Self {
            subscription: Some(subscription),
            form,
            counter,
            rest: VecDeque::new(),
            receipt: None,
        }
    }
}

impl MessageSource for Singly {
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Status>>> {
        loop {
            if let Some(record) = self.rest.pop_front() {
                let receipt = if self.rest.is_empty() {
                    self.receipt.take()
                } else {
                    None
                };
                return Poll::Ready(Some(Ok(self
                    .counter
                    .counted(Message::from(record), receipt))));
            }
            let Some(subscription) = &mut self.subscription else {
                return Poll::Ready(None);
            };
            let Some(batch) = ready!(subscription.poll_batch(cx, ONE)) else {
                self.subscription = None;
                return Poll::Ready(Some(Err(stopping())));
            };
            self.rest = records(batch.chunks, self.form);
            self.receipt = Some(batch.receipt);
        }
    }

    /// As [`super::Joined`].
    fn drains_itself(&self) -> bool {
        true
    }
}

impl Drop for Singly {
    /// A batch that was not sent to its end was not delivered.
    fn drop(&mut self) {
        if let Some(receipt) = self.receipt.take() {
            receipt.settle(false);
        }
    }
}

/// The records of a batch, one by one. Chunks may end anywhere.
fn records(chunks: SmallVec<[Bytes; 8]>, form: Form) -> VecDeque<Bytes> {
    let mut batch = match chunks.as_slice() {
        [one] => one.clone(),
        _ => chunks.iter().fold(BytesMut::new(), joined).freeze(),
    };
    let mut records = VecDeque::new();
    while let Some((header, length)) = header(&batch) {
        if batch.len() < header + length {
            break; // cannot be: the router sends whole records
        }
        let mut record = batch.split_to(header + length);
        if form == Form::Bare {
            record.advance(header);
        }
        records.push_back(record);
    }
    records
}

fn joined(mut all: BytesMut, chunk: &Bytes) -> BytesMut {
    all.extend_from_slice(chunk);
    all
}

/// Length of the header `0a` and varint in front of a record, and of what follows it.
fn header(batch: &[u8]) -> Option<(usize, usize)> {
    let mut rest = batch.get(1..)?;
    let length = prost::encoding::decode_varint(&mut rest).ok()?;
    Some((batch.len() - rest.len(), usize::try_from(length).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_wherever_the_chunks_are_cut() {
        let bodies: Vec<Vec<u8>> = [0usize, 1, 127, 128, 300]
            .iter()
            .map(|length| vec![0xff; *length])
            .collect();
        let whole: Vec<Vec<u8>> = bodies
            .iter()
            .map(|body| {
                let mut record = vec![0x0a];
                prost::encoding::encode_varint(body.len() as u64, &mut record);
                record.extend_from_slice(body);
                record
            })
            .collect();
        let batch = whole.concat();
        for cut in 0..=batch.len() {
            let chunks = || -> SmallVec<[Bytes; 8]> {
                [&batch[..cut], &batch[cut..]]
                    .into_iter()
                    .map(Bytes::copy_from_slice)
                    .collect()
            };
            assert_eq!(records(chunks(), Form::Record), whole, "cut at {cut}");
            assert_eq!(records(chunks(), Form::Bare), bodies, "cut at {cut}");
        }
    }
}
