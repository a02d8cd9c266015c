//! Shares, losses and their accounts, on the buffer in memory.

use super::numbered;
use crate::account::Account;
use crate::buffer::{Buffer, Cursor, Lost, Settings};
use crate::config::{Backlog, BufferConfig, Full, MemoryBuffer, Size};

fn open(max_bytes: u64, destinations: &[(&str, Full)]) -> Buffer {
    let destinations = destinations.iter().map(|(name, full)| {
        let backlog = Backlog {
            max_bytes: None,
            full: *full,
        };
        ((*name).to_owned(), backlog)
    });
    let max_bytes = Size(max_bytes);
    Buffer::open(&Settings {
        store: BufferConfig::Memory(MemoryBuffer { max_bytes }),
        destinations: destinations.collect(),
    })
    .unwrap()
}

/// Reads and settles everything that is there; says which events came and what was lost.
async fn drain(cursor: &mut Cursor, account: &mut Account) -> (Vec<u64>, Vec<Lost>) {
    let (mut seqs, mut losses) = (Vec::new(), Vec::new());
    while let Ok(Some(read)) =
        tokio::time::timeout(std::time::Duration::ZERO, cursor.next(10, 10_000)).await
    {
        account.delivered += read.events.len() as u64;
        seqs.extend(read.events.iter().map(|event| event.seq));
        for lost in read.lost {
            *account.dropped.entry(lost.reason.to_owned()).or_default() +=
                lost.range.end - lost.range.start;
            losses.push(lost);
        }
        cursor.checkpoint(cursor.birth() + account.total(), account);
    }
    (seqs, losses)
}

#[tokio::test]
async fn one_that_keeps_up_gets_the_very_bytes_and_the_space_is_given_back() {
    let buffer = open(10_000, &[("a", Full::DropNewest)]);
    let mut cursor = buffer.cursor("a").unwrap();
    let frame = numbered("s", 0, 5, 10);
    assert_eq!(buffer.append(&frame, 42).await.accepted, 5);
    let read = cursor.next(3, 10_000).await.unwrap();
    assert_eq!(read.events.len(), 3);
    assert_eq!(read.events[0].received, 42);
    let body = frame.bytes().slice(frame.entries()[0].body());
    assert_eq!(read.events[0].body().as_ptr(), body.as_ptr());
    let mut account = Account {
        delivered: 3,
        ..Account::default()
    };
    cursor.checkpoint(3, &account);
    assert!(buffer.report().bytes > 0);
    assert_eq!(drain(&mut cursor, &mut account).await.0, [3, 4]);
    let report = buffer.report();
    assert_eq!((report.bytes, report.segments, report.next), (0, 0, 5));
    assert_eq!((report.cursors[0].next, report.cursors[0].events), (5, 0));
    buffer.close();
    assert!(cursor.next(1, 1).await.is_none());
}

#[tokio::test]
async fn a_dead_destination_loses_what_arrives_and_nobody_else_does() {
    let destinations = [("dead", Full::DropNewest), ("live", Full::DropNewest)];
    let buffer = open(20_000, &destinations);
    let mut live = buffer.cursor("live").unwrap();
    let mut account = Account::default();
    for i in 0..1000 {
        buffer.append(&numbered("loud", i * 10, 10, 50), 0).await;
        if i % 100 == 0 {
            buffer.append(&numbered("quiet", 0, 1, 50), 0).await;
        }
        let (_, lost) = drain(&mut live, &mut account).await;
        assert_eq!(lost, []);
        let report = buffer.report();
        assert!(report.bytes <= 20_000);
        assert!(report.cursors[0].bytes <= 10_000);
    }
    let report = buffer.report();
    assert_eq!(account.delivered, report.next);
    assert!(report.cursors[0].full);
    let mut dead = buffer.cursor("dead").unwrap();
    let mut account = Account::default();
    let (seqs, lost) = drain(&mut dead, &mut account).await;
    assert_eq!(seqs, (0..seqs.len() as u64).collect::<Vec<_>>());
    assert!(seqs.len() > 80, "{} events fit into the share", seqs.len());
    let [lost] = &lost[..] else {
        panic!("{lost:?}");
    };
    assert_eq!(lost.range, seqs.len() as u64..report.next);
    assert_eq!(lost.reason, "backlog_full");
    assert_eq!(lost.sources[0].0, "loud");
    assert_eq!(lost.sources[1], ("quiet".to_owned(), 9));
    let told: u64 = lost.sources.iter().map(|(_, n)| n).sum();
    assert_eq!(told, lost.range.end - lost.range.start);
    assert_eq!(account.total(), report.next);
    assert!(!buffer.report().cursors[0].full);
    assert_eq!(buffer.report().bytes, 0);
}

#[tokio::test]
async fn drop_oldest_stays_close_to_the_present() {
    let buffer = open(10_000, &[("a", Full::DropOldest)]);
    let mut cursor = buffer.cursor("a").unwrap();
    for i in 0..1000 {
        buffer.append(&numbered("s", i, 1, 50), 0).await;
        assert!(buffer.report().bytes <= 10_000);
    }
    let mut account = Account::default();
    let (seqs, lost) = drain(&mut cursor, &mut account).await;
    assert_eq!(seqs.last(), Some(&999));
    assert!(seqs.len() > 80, "{} events fit into the share", seqs.len());
    let first = seqs[0];
    assert_eq!(seqs, (first..1000).collect::<Vec<_>>());
    let lost: Vec<_> = lost
        .into_iter()
        .map(|lost| (lost.range, lost.sources))
        .collect();
    assert_eq!(lost, [(0..first, vec![("s".to_owned(), first)])]);
    assert_eq!(account.dropped["backlog_full"], first);
}

#[tokio::test]
async fn an_event_beyond_the_share_is_lost_and_told() {
    let buffer = open(100, &[("a", Full::DropNewest)]);
    let mut cursor = buffer.cursor("a").unwrap();
    let mut account = Account::default();
    buffer.append(&numbered("s", 0, 1, 500), 0).await;
    buffer.append(&numbered("s", 1, 1, 1), 0).await;
    let (seqs, lost) = drain(&mut cursor, &mut account).await;
    assert_eq!(seqs, [1]);
    assert_eq!(lost[0].range, 0..1);
}

#[tokio::test]
async fn a_read_that_is_given_up_loses_nothing() {
    let buffer = open(10_000, &[("a", Full::DropNewest)]);
    let mut cursor = buffer.cursor("a").unwrap();
    {
        let mut waiting = std::pin::pin!(cursor.next(10, 10_000));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        buffer.append(&numbered("s", 0, 3, 1), 0).await;
    }
    assert_eq!(cursor.next(10, 10_000).await.unwrap().events.len(), 3);
    // What was read and not settled comes again to the next user.
    let mut again = buffer.cursor("a").unwrap();
    assert_eq!(again.next(10, 10_000).await.unwrap().events[0].seq, 0);
}

#[test]
fn backlogs_that_promise_too_much_are_made_smaller_alike() {
    let ask = |max_bytes: Option<u64>| {
        let backlog = Backlog {
            max_bytes: max_bytes.map(Size),
            ..Backlog::default()
        };
        (String::new(), backlog)
    };
    let shares = |asked: &[Option<u64>]| {
        let asked: Vec<_> = asked.iter().map(|bytes| ask(*bytes)).collect();
        crate::buffer::shares(1000, &asked)
    };
    assert_eq!(shares(&[None, None]), [500, 500]);
    assert_eq!(shares(&[Some(100), None]), [100, 500]);
    assert_eq!(shares(&[Some(3000), Some(1000)]), [750, 250]);
}
