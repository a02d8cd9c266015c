//! The buffer on a real disk, with its threads.

use std::path::Path;

use super::numbered;
use crate::account::Account;
use crate::buffer::{Buffer, BufferError, Read, Settings};
use crate::config::{Backlog, BufferConfig, DiskBuffer, Full, Size, Time};

fn settings(path: &Path, destinations: &[&str]) -> Settings {
    Settings {
        store: BufferConfig::Disk(DiskBuffer {
            path: path.to_owned(),
            max_bytes: Size(4 << 20),
            segment_bytes: Size(64 << 10),
            sync_interval: Time(std::time::Duration::from_millis(20)),
            memory_bytes: Size(32 << 10),
        }),
        destinations: destinations
            .iter()
            .map(|name| ((*name).to_owned(), Backlog::default()))
            .collect(),
    }
}

/// The number that an event of [`numbered`] carries.
fn payload(read: &Read, at: usize) -> u64 {
    let text = read.events[at].envelope().instance_id();
    text.split(' ').next().unwrap().parse().unwrap()
}

fn delivered(n: u64) -> Account {
    Account {
        delivered: n,
        ..Account::default()
    }
}

#[tokio::test]
async fn what_was_accepted_is_there_again() {
    let folder = tempfile::tempdir().unwrap();
    let id = {
        let buffer = Buffer::open(&settings(folder.path(), &["a"])).unwrap();
        for i in 0..200 {
            let appended = buffer.append(&numbered("s", i * 10, 10, 100), 7).await;
            assert_eq!((appended.accepted, appended.refused), (10, 0));
        }
        let mut cursor = buffer.cursor("a").unwrap();
        let read = cursor.next(15, usize::MAX).await.unwrap();
        assert_eq!(read.events.len(), 15);
        cursor.checkpoint(15, &delivered(15));
        assert!(
            buffer.report().block_reads > 0,
            "the tail does not reach so far back"
        );
        buffer.identity().id().to_owned()
    };
    let buffer = Buffer::open(&settings(folder.path(), &["a"])).unwrap();
    assert_eq!(buffer.identity().id(), id);
    assert_eq!(buffer.report().next, 2000);
    let mut cursor = buffer.cursor("a").unwrap();
    assert_eq!(cursor.start(), (15, delivered(15)));
    let mut next = 15;
    while next < 2000 {
        let read = cursor.next(100, usize::MAX).await.unwrap();
        assert_eq!(read.lost, []);
        for at in 0..read.events.len() {
            assert_eq!((read.events[at].seq, payload(&read, at)), (next, next));
            assert_eq!(read.events[at].received, 7);
            next += 1;
        }
        cursor.checkpoint(next, &delivered(next));
    }
    buffer.sync().await;
    buffer.sync().await;
    let report = buffer.report();
    assert_eq!(
        report.segments, 1,
        "only the one that is written to is left"
    );
    assert_eq!(report.cursors[0].events, 0);
    assert!(report.syncs > 0);
}

#[tokio::test]
async fn two_cannot_use_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    let first = Buffer::open(&settings(folder.path(), &["a"])).unwrap();
    let second = Buffer::open(&settings(folder.path(), &["a"]));
    assert!(
        matches!(second, Err(BufferError::InUse { path }) if path == folder.path().join("buffer"))
    );
    drop(first);
    assert!(Buffer::open(&settings(folder.path(), &["a"])).is_ok());
}

#[tokio::test]
async fn a_destination_that_is_added_starts_at_the_oldest_event_and_one_that_goes_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    {
        let buffer = Buffer::open(&settings(folder.path(), &["a"])).unwrap();
        let mut cursor = buffer.cursor("a").unwrap();
        for i in 0..100 {
            buffer.append(&numbered("s", i * 10, 10, 500), 0).await;
        }
        let mut next = 0;
        while next < 500 {
            let read = cursor.next(500 - next, usize::MAX).await.unwrap();
            next += read.events.len();
        }
        cursor.checkpoint(500, &delivered(500));
        buffer.sync().await;
        buffer.sync().await;
    }
    let birth = {
        let buffer = Buffer::open(&settings(folder.path(), &["a", "b"])).unwrap();
        let mut cursor = buffer.cursor("b").unwrap();
        let birth = cursor.birth();
        assert!(birth > 0 && birth <= 500, "{birth}");
        assert_eq!(cursor.start(), (birth, Account::default()));
        let read = cursor.next(3, usize::MAX).await.unwrap();
        assert_eq!((read.events[0].seq, payload(&read, 0)), (birth, birth));
        cursor.checkpoint(birth + 3, &delivered(3));
        birth
    };
    let buffer = Buffer::open(&settings(folder.path(), &["b"])).unwrap();
    assert!(buffer.cursor("a").is_none());
    let cursor = buffer.cursor("b").unwrap();
    assert_eq!(cursor.birth(), birth);
    assert_eq!(cursor.start(), (birth + 3, delivered(3)));
}

#[tokio::test]
async fn with_no_interval_everything_is_synced_before_it_counts_as_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path(), &["a"]);
    if let BufferConfig::Disk(disk) = &mut settings.store {
        disk.sync_interval = Time::default();
    }
    let buffer = Buffer::open(&settings).unwrap();
    buffer.append(&numbered("s", 0, 1, 1), 0).await;
    for i in 1..50 {
        let before = buffer.report().syncs;
        buffer.append(&numbered("s", i, 1, 1), 0).await;
        assert!(buffer.report().syncs > before);
    }
}

#[tokio::test]
async fn whose_the_oldest_were_is_read_from_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path(), &["a"]);
    settings.destinations[0].1 = Backlog {
        max_bytes: Some(Size(512 << 10)),
        full: Full::DropOldest,
    };
    let buffer = Buffer::open(&settings).unwrap();
    let mut cursor = buffer.cursor("a").unwrap();
    // One that is on its way is not left out.
    buffer.append(&numbered("s0", 0, 1, 100), 7).await;
    assert_eq!(cursor.next(1, usize::MAX).await.unwrap().events.len(), 1);
    for i in 0..1000_u64 {
        let source = ["loud", "loud", "loud", "quiet"][usize::try_from(i % 4).unwrap()];
        buffer.append(&numbered(source, i * 10, 10, 100), 7).await;
    }
    let untold = buffer.report().cursors.remove(0);
    let named = |sources: &[(String, u64)]| sources.iter().map(|(_, n)| n).sum::<u64>();
    assert!(untold.untold > 5000, "{untold:?}");
    assert_eq!(named(&untold.untold_sources), untold.untold);
    let lost = cursor.next(1, usize::MAX).await.unwrap().lost;
    assert_eq!(lost.len(), 1);
    let range = lost[0].range.clone();
    assert_eq!(range.start, 1);
    let [(loud, n), (quiet, m)] = &lost[0].sources[..] else {
        panic!("{:?}", lost[0].sources);
    };
    assert_eq!((loud.as_str(), quiet.as_str()), ("loud", "quiet"));
    assert_eq!(n + m, range.end - range.start);
    assert!(n.abs_diff(3 * m) <= 40, "{n} of loud, {m} of quiet");
}
