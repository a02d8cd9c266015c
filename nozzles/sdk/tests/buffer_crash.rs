//! The buffer on disk when its process is killed, and on a real disk that is full.
//!
//! The program is its own child: with `BUFFER_CRASH_FOLDER` set it appends to the buffer there until it is killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use loggregator_envelope::{Frame, FrameBuilder};
use loggregator_nozzle::Account;
use loggregator_nozzle::buffer::{Buffer, Cursor, Settings};
use loggregator_nozzle::config::{Backlog, BufferConfig, DiskBuffer, Full, Size, Time};
use loggregator_proto::v2::Envelope;

const FOLDER: &str = "BUFFER_CRASH_FOLDER";

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    if let Some(folder) = std::env::var_os(FOLDER) {
        runtime.block_on(append_until_killed(Path::new(&folder)));
    } else {
        runtime.block_on(a_killed_process_loses_nothing());
        println!("test a_killed_process_loses_nothing ... ok");
        runtime.block_on(a_full_disk_loses_nothing_that_was_accepted());
        println!("test a_full_disk_loses_nothing_that_was_accepted ... ok");
    }
}

fn open(folder: &Path) -> Buffer {
    let backlog = Backlog {
        max_bytes: None,
        full: Full::DropNewest,
    };
    Buffer::open(&Settings {
        store: BufferConfig::Disk(DiskBuffer {
            path: folder.to_owned(),
            max_bytes: Size(256 << 20),
            segment_bytes: Size(256 << 10),
            sync_interval: Time(Duration::from_millis(50)),
            memory_bytes: Size(128 << 10),
        }),
        destinations: vec![("all".to_owned(), backlog), ("fast".to_owned(), backlog)],
    })
    .unwrap()
}

/// What the event of this number holds.
fn text(seq: u64) -> String {
    let length = usize::try_from(seq * 7919 % 700).unwrap();
    format!("{seq} {}", "#".repeat(length))
}

fn frame(seqs: std::ops::Range<u64>) -> Frame {
    let mut builder = FrameBuilder::new();
    for seq in seqs {
        let envelope = Envelope {
            source_id: "source".to_owned(),
            instance_id: text(seq),
            ..Envelope::default()
        };
        builder.push_message(&envelope).unwrap();
    }
    let (bytes, index) = builder.finish();
    Frame::from_parts(bytes, index)
}

/// Appends, and says after each append up to which number everything was accepted; delivers to one destination beside it.
async fn append_until_killed(folder: &Path) {
    let buffer = open(folder);
    let mut fast = buffer.cursor("fast").unwrap();
    let (start, mut account) = fast.start();
    println!("settled {start}");
    tokio::spawn(async move {
        while let Some(read) = fast.next(100, 100_000).await {
            assert_eq!(read.lost, []);
            account.delivered += read.events.len() as u64;
            fast.checkpoint(account.total(), &account);
        }
    });
    let mut next = buffer.report().next;
    let mut out = std::io::stdout();
    loop {
        let n = 1 + next * 31 % 50;
        let appended = buffer.append(&frame(next..next + n), 5).await;
        assert_eq!((appended.accepted, appended.refused), (n, 0));
        next += n;
        writeln!(out, "accepted {next}").unwrap();
        out.flush().unwrap();
    }
}

fn start_child(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Reads up to `end`; every event must be the right one.
async fn read_all(cursor: &mut Cursor, mut next: u64, end: u64) {
    while next < end {
        let read = cursor.next(1000, 1 << 20).await.unwrap();
        assert_eq!(read.lost, []);
        for event in read.events {
            assert_eq!(event.seq, next);
            assert_eq!(event.received, 5);
            assert_eq!(event.envelope().instance_id(), text(next));
            next += 1;
        }
    }
    assert_eq!(next, end);
}

async fn a_killed_process_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut accepted = 0;
    for round in 0..8 {
        let mut child = start_child(folder.path());
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut appends = 0;
        for line in lines {
            let line = line.unwrap();
            let (what, number) = line.split_once(' ').unwrap();
            let number: u64 = number.parse().unwrap();
            match what {
                "settled" => assert!(number <= accepted),
                _ => accepted = number,
            }
            appends += 1;
            // What the child wrote after the kill was sent is read too: the loop ends with its output.
            if appends == 50 + round * 37 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let buffer = open(folder.path());
        let end = buffer.report().next;
        // It may have written more than it had time to say.
        assert!(
            end >= accepted && end <= accepted + 50,
            "{accepted} accepted, {end} there"
        );
        assert_eq!(buffer.report().damaged, 0);
        accepted = end;
        let mut fast = buffer.cursor("fast").unwrap();
        let (start, account) = fast.start();
        assert_eq!(start, account.total());
        read_all(&mut fast, start, end).await;
        let mut all = buffer.cursor("all").unwrap();
        assert_eq!(all.start(), (0, Account::default()));
        read_all(&mut all, 0, end).await;
    }
}

/// A file system of 2 MiB, gone with the value.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Small> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
            .arg(folder.path())
            .stderr(Stdio::null())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then_some(Small(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0.path()).status();
        assert!(unmounted.unwrap().success());
    }
}

async fn a_full_disk_loses_nothing_that_was_accepted() {
    let Some(disk) = Small::mount() else {
        skip("buffer_crash full disk: a tmpfs cannot be mounted");
        return;
    };
    let folder = disk.0.path();
    let buffer = open(folder);
    let mut accepted = 0;
    let append = async |accepted: &mut u64| {
        let appended = buffer.append(&frame(*accepted..*accepted + 20), 5).await;
        *accepted += appended.accepted;
        appended
    };
    let refused = loop {
        let appended = append(&mut accepted).await;
        if appended.refused > 0 {
            break appended;
        }
    };
    assert_eq!(
        (refused.accepted, refused.refused, refused.why),
        (0, 20, "disk_full")
    );
    assert!(accepted > 1000, "{accepted} events fit");
    assert_eq!(append(&mut accepted).await.why, "disk_full");
    assert_eq!(buffer.report().refused, [("disk_full", 40)]);
    for name in ["all", "fast"] {
        let mut cursor = buffer.cursor(name).unwrap();
        read_all(&mut cursor, 0, accepted).await;
        let account = Account {
            delivered: accepted,
            ..Account::default()
        };
        cursor.checkpoint(accepted, &account);
    }
    // Both cursor files are written though the disk is full, and make room.
    buffer.sync().await;
    buffer.sync().await;
    let settled = accepted;
    for _ in 0..10 {
        assert_eq!(append(&mut accepted).await.refused, 0);
    }
    drop(buffer);
    let buffer = open(folder);
    assert_eq!(buffer.report().next, accepted);
    let mut cursor = buffer.cursor("all").unwrap();
    assert_eq!(cursor.start().0, settled);
    read_all(&mut cursor, settled, accepted).await;
}

/// Notes for CI that something could not be tested here.
fn skip(why: &str) {
    println!("skipped: {why}");
    if let Some(list) = std::env::var_os("LOGGREGATOR_TEST_SKIPS") {
        let mut file = std::fs::OpenOptions::new();
        let mut file = file.create(true).append(true).open(list).unwrap();
        writeln!(file, "{why}").unwrap();
    }
}
