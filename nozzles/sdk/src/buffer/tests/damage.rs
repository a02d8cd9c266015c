//! What becomes of damaged files, one case at a time.

use std::sync::Arc;

use bytes::Bytes;

use super::faults::Faulty;
use crate::account::Account;
use crate::buffer::core::Core;
use crate::buffer::format::{SEGMENT_HEADER, Seed, encode, segment_header};
use crate::buffer::reading::Step;
use crate::buffer::recover::{self, Failed, Layout};
use crate::buffer::segment;
use crate::config::{Backlog, DiskBuffer, Size, Time};
use crate::event::Event;

const BODY: usize = 100;
const RECORD: usize = BODY + 28;

fn try_open(fs: &Faulty) -> Result<Core, Failed> {
    open_with(fs, 10)
}

/// With segments of so many events.
fn open_with(fs: &Faulty, events: u64) -> Result<Core, Failed> {
    let disk = DiskBuffer {
        path: "unused".into(),
        max_bytes: Size(events * 10_000),
        segment_bytes: Size(events * RECORD as u64),
        sync_interval: Time::default(),
        memory_bytes: Size(0),
    };
    let destinations = [("a".to_owned(), Backlog::default())];
    recover::open(Arc::new(fs.clone()), Layout::new(&disk, 1), &destinations)
}

fn open(fs: &Faulty) -> Core {
    try_open(fs).unwrap()
}

fn body(i: u64) -> Bytes {
    Bytes::from(vec![i as u8 + 1; BODY])
}

fn append(core: &Core, seqs: std::ops::Range<u64>) {
    for seq in seqs {
        let appended = core.append(vec![Event::new(0, 1, body(seq))]);
        assert_eq!(appended.accepted, 1);
    }
}

/// Reads everything: numbers of events, and ranges of what is lost.
fn read(core: &Core) -> (Vec<u64>, Vec<(std::ops::Range<u64>, &'static str)>) {
    let (mut seqs, mut lost, mut block) = (Vec::new(), Vec::new(), None);
    loop {
        let step = { core.state.lock() }.step(0, 100, 1 << 20, &mut block);
        match step {
            Step::Ready(read) => {
                for event in read.events {
                    assert_eq!(*event.body(), body(event.seq));
                    seqs.push(event.seq);
                }
                lost.extend(read.lost.into_iter().map(|lost| (lost.range, lost.reason)));
            }
            Step::Load(load) => block = core.state.lock().loaded(&load, 0, load.run()),
            Step::Wait | Step::End => return (seqs, lost),
        }
    }
}

fn settle(core: &Core, next: u64, lost: u64) {
    let mut account = Account {
        delivered: next - lost,
        ..Account::default()
    };
    if lost > 0 {
        account.dropped.insert("damaged".to_owned(), lost);
    }
    core.settle(0, next, &account);
}

fn save(core: &Core) {
    let disk = core.disk.as_ref().unwrap();
    assert!(core.save(disk) && core.save(disk));
}

fn names(fs: &Faulty) -> Vec<String> {
    let names = fs.lengths().into_iter().map(|(name, _)| name);
    names.filter(|name| !name.starts_with("cursors")).collect()
}

#[test]
fn a_flipped_bit_costs_its_record_and_the_file_is_kept() {
    for reopened in [false, true] {
        let fs = Faulty::default();
        let mut core = open(&fs);
        append(&core, 0..30);
        assert_eq!(names(&fs).len(), 4);
        let record = SEGMENT_HEADER + 3 * RECORD;
        fs.flip(&segment::name(9), (record + 60) * 8);
        fs.flip(&segment::name(9), (record + RECORD + 2) * 8);
        if reopened {
            core = open(&fs);
        }
        let (seqs, lost) = read(&core);
        assert_eq!(lost, [(12..14, "damaged")]);
        assert_eq!(seqs, (0..12).chain(14..30).collect::<Vec<_>>());
        assert_eq!(core.state.lock().counts.damaged, 2);
        settle(&core, 30, 2);
        save(&core);
        let damaged = format!("{}.damaged", segment::name(9));
        assert_eq!(names(&fs), [damaged, segment::name(27)]);
    }
}

#[test]
fn only_a_few_damaged_files_are_kept() {
    let fs = Faulty::default();
    let core = open(&fs);
    append(&core, 0..100);
    for first in (0..90).step_by(9) {
        fs.flip(&segment::name(first), (SEGMENT_HEADER + 50) * 8);
    }
    let (_, lost) = read(&core);
    assert_eq!(lost.len(), 10);
    settle(&core, 100, 10);
    save(&core);
    let damaged = |first| format!("{}.damaged", segment::name(first));
    let kept = [
        damaged(54),
        damaged(63),
        damaged(72),
        damaged(81),
        segment::name(99),
    ];
    assert_eq!(names(&fs), kept);
}

#[test]
fn a_segment_that_is_gone_is_told_exactly() {
    let fs = Faulty::default();
    append(&open(&fs), 0..30);
    let header = fs.bytes(&segment::name(9)).unwrap().len();
    for bit in 0..header {
        // Not a single record is whole.
        fs.flip(&segment::name(9), bit * 8);
    }
    let (seqs, lost) = read(&open(&fs));
    assert_eq!(lost, [(9..18, "damaged")]);
    assert_eq!(seqs.len(), 21);
}

#[test]
fn a_segment_without_its_header_is_read_all_the_same() {
    let fs = Faulty::default();
    append(&open(&fs), 0..30);
    fs.flip(&segment::name(9), 3);
    fs.flip(&segment::name(27), 3);
    let core = open(&fs);
    assert_eq!(read(&core), ((0..30).collect(), vec![]));
    append(&core, 30..31);
    assert_eq!(read(&core), (vec![30], vec![]));
    assert_eq!(names(&fs).last(), Some(&segment::name(30)));
}

#[test]
fn a_torn_end_is_cut_at_the_last_record_wherever_it_is_torn() {
    let fs = Faulty::default();
    append(&open(&fs), 0..5);
    let whole = fs.bytes(&segment::name(0)).unwrap();
    let cursors = fs.bytes("cursors.0").unwrap();
    for cut in 0..whole.len() {
        for zeros in [false, true] {
            let fs = Faulty::default();
            let mut torn = whole[..cut].to_vec();
            if zeros {
                torn.resize(whole.len(), 0);
            }
            fs.put(&segment::name(0), &torn);
            fs.put("cursors.0", &cursors);
            let core = open(&fs);
            let records = (cut.saturating_sub(SEGMENT_HEADER) / RECORD) as u64;
            assert_eq!(core.state.lock().end.seq, records, "cut at {cut}");
            append(&core, records..7);
            assert_eq!(read(&core), ((0..7).collect(), vec![]), "cut at {cut}");
            assert_eq!(read(&open(&fs)), ((0..7).collect(), vec![]), "cut at {cut}");
        }
    }
}

#[test]
fn an_event_that_looks_like_a_record_is_none() {
    let fs = Faulty::default();
    let core = open(&fs);
    append(&core, 0..2);
    // Somebody who knows everything but the buffer's id writes a record into a log line.
    let mut forged = Vec::new();
    encode(Seed::new(core.id ^ 1, 0), 3, 1, &[0; 20], &mut forged);
    core.append(vec![Event::new(0, 1, Bytes::from(forged))]);
    append(&core, 3..4);
    fs.flip(&segment::name(0), (SEGMENT_HEADER + 2 * RECORD) * 8);
    assert_eq!(read(&open(&fs)), (vec![0, 1, 3], vec![(2..3, "damaged")]));
}

#[test]
fn either_cursor_file_may_be_damaged() {
    for name in ["cursors.0", "cursors.1"] {
        let fs = Faulty::default();
        let core = open(&fs);
        append(&core, 0..30);
        read(&core);
        settle(&core, 10, 0);
        let disk = core.disk.as_ref().unwrap();
        assert!(core.save(disk));
        settle(&core, 25, 0);
        assert!(core.save(disk));
        fs.flip(name, 500);
        let core = open(&fs);
        let start = core.state.lock().places[0].at.seq;
        assert!([10, 25].contains(&start));
        assert_eq!(read(&core), ((start..30).collect(), vec![]));
        save(&core);
        assert_eq!(open(&fs).state.lock().places[0].at.seq, start);
    }
}

#[test]
fn without_both_cursor_files_everything_that_is_held_comes_again() {
    let fs = Faulty::default();
    let core = open(&fs);
    append(&core, 0..30);
    read(&core);
    settle(&core, 20, 0);
    save(&core);
    fs.flip("cursors.0", 500);
    fs.flip("cursors.1", 500);
    let core = open(&fs);
    let place = { core.state.lock() }.places[0].birth;
    assert_eq!(place, 18);
    assert_eq!(read(&core), ((18..30).collect(), vec![]));
}

#[test]
fn a_version_of_the_future_is_not_touched() {
    let fs = Faulty::default();
    let mut header = segment_header(7, 0);
    header[8] = 2;
    let crc = crc32c::crc32c(&header[..28]);
    header[28..].copy_from_slice(&crc.to_le_bytes());
    fs.put(&segment::name(0), &header);
    let error = try_open(&fs).unwrap_err();
    assert!(
        matches!(error, Failed::Version { version: 2, .. }),
        "{error:?}"
    );
    assert_eq!(fs.bytes(&segment::name(0)).unwrap(), header);
}

#[test]
fn a_segment_that_cannot_be_opened_is_not_given_up() {
    let fs = Faulty::default();
    append(&open(&fs), 0..30);
    fs.lock(Some(segment::name(9)));
    let error = try_open(&fs).unwrap_err();
    assert!(matches!(&error, Failed::Open { name, .. } if *name == segment::name(9)));
    fs.lock(None);
    assert_eq!(read(&open(&fs)), ((0..30).collect(), vec![]));
}

#[test]
fn what_cannot_be_read_is_not_given_up() {
    let fs = Faulty::default();
    let core = open(&fs);
    append(&core, 0..30);
    read(&core);
    settle(&core, 20, 0);
    save(&core);
    save(&core);
    drop(core);
    for name in [&segment::name(18), "cursors.0", "cursors.1"] {
        let before = fs.bytes(name).unwrap();
        fs.fail_reads(Some(name));
        let error = try_open(&fs).unwrap_err();
        assert!(
            matches!(&error, Failed::Open { name: told, .. } if told == name),
            "{error:?}"
        );
        fs.fail_reads(None);
        fs.lock(Some(name.to_owned()));
        let error = try_open(&fs).unwrap_err();
        assert!(
            matches!(&error, Failed::Open { name: told, .. } if told == name),
            "{error:?}"
        );
        fs.lock(None);
        assert_eq!(fs.bytes(name).unwrap(), before);
    }
    assert_eq!(read(&open(&fs)), ((20..30).collect(), vec![]));
}

#[test]
fn cursors_of_the_future_are_not_touched() {
    let fs = Faulty::default();
    append(&open(&fs), 0..5);
    let crc = crc32c::crc32c(b"2 4\nwhat");
    let future = format!("loggregator-buffer-cursors 2 4 {crc:08x}\nwhat\n");
    fs.put("cursors.1", future.as_bytes());
    let error = try_open(&fs).unwrap_err();
    assert!(
        matches!(&error, Failed::Version { name, version: 2 } if name == "cursors.1"),
        "{error:?}"
    );
    // Whose checksum is wrong is of no future.
    fs.put("cursors.1", future.replace(" 2 4 ", " 3 4 ").as_bytes());
    assert_eq!(read(&open(&fs)), ((0..5).collect(), vec![]));
}

#[test]
fn a_segment_of_another_buffer_is_set_aside() {
    let fs = Faulty::default();
    let other = Faulty::default();
    append(&open(&other), 0..5);
    append(&open(&fs), 0..5);
    fs.put(&segment::name(9), &other.bytes(&segment::name(0)).unwrap());
    let core = open(&fs);
    assert_eq!(read(&core), ((0..5).collect(), vec![]));
    assert!(names(&fs).contains(&format!("{}.damaged", segment::name(9))));
}

#[test]
fn a_full_disk_refuses_and_takes_in_again() {
    let fs = Faulty::default();
    let core = open(&fs);
    append(&core, 0..4);
    let used: usize = fs.lengths().iter().map(|(_, length)| length).sum();
    fs.limit(Some(used + RECORD + 10));
    let events = (4..7).map(|seq| Event::new(0, 1, body(seq))).collect();
    let appended = core.append(events);
    assert_eq!(
        (appended.accepted, appended.refused, appended.why),
        (0, 3, "disk_full")
    );
    assert_eq!(core.state.lock().counts.refused(), [("disk_full", 3)]);
    assert_eq!(read(&core), ((0..4).collect(), vec![]));
    // Its cursors go on all the same.
    settle(&core, 4, 0);
    save(&core);
    fs.limit(None);
    append(&core, 4..40);
    assert_eq!(read(&core), ((4..40).collect(), vec![]));
    assert_eq!(read(&open(&fs)), ((4..40).collect(), vec![]));
}

#[test]
fn a_read_that_fails_is_done_again() {
    let fs = Faulty::default();
    let core = open(&fs);
    append(&core, 0..30);
    fs.fail_next_reads(2);
    assert_eq!(read(&core), ((0..30).collect(), vec![]));
    let state = core.state.lock();
    assert_eq!((state.counts.read_errors, state.counts.damaged), (2, 0));
}

#[test]
fn of_a_page_that_cannot_be_read_only_its_events_are_lost() {
    let fs = Faulty::default();
    let core = open_with(&fs, 1000).unwrap();
    append(&core, 0..250);
    assert_eq!(names(&fs).len(), 1);
    fs.fail_range(10_000..10_001);
    let (seqs, lost) = read(&core);
    let [(lost, "damaged")] = &lost[..] else {
        panic!("{lost:?}");
    };
    assert!(lost.contains(&((10_000 - SEGMENT_HEADER) as u64 / RECORD as u64)));
    // The page, one record at each of its ends, and what of the next page one read of the file system spans.
    assert!(lost.end - lost.start <= (2 * 4096 / RECORD + 2) as u64);
    let rest = (0..lost.start).chain(lost.end..250);
    assert_eq!(seqs, rest.collect::<Vec<_>>());
}

#[test]
fn a_segment_of_which_nothing_can_be_read_does_not_cost_the_next_one() {
    let fs = Faulty::default();
    let core = open(&fs);
    append(&core, 0..30);
    fs.fail_reads(Some(&segment::name(9)));
    let (seqs, lost) = read(&core);
    assert_eq!(lost, [(9..18, "damaged")]);
    assert_eq!(seqs, (0..9).chain(18..30).collect::<Vec<_>>());
}
