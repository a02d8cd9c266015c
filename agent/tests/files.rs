//! Following files through everything that happens to log files.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the report

mod support;

use std::fs::{File, OpenOptions, rename};
use std::io::Write as _;
use std::path::Path;

use loggregator_agent::{From, Input, InputKind, LongLines};
use support::{Agent, Certificates, FakeDoppler, PATIENCE, until};

fn input(path: &Path, from: From) -> Input {
    let mut input = Input::file(path, "dpkg");
    input.kind = InputKind::File {
        path: path.to_owned(),
        from,
    };
    input.instance_id = "0".to_owned();
    input.source_type = "FILE".to_owned();
    input.tags = [("team".to_owned(), "blue".to_owned())].into();
    input
}

fn append(path: &Path, text: &[u8]) {
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap()
        .write_all(text)
        .unwrap();
}

struct Followed {
    _certificates: Certificates,
    doppler: FakeDoppler,
    agent: Agent,
}

async fn follow(inputs: Vec<Input>, max_line: usize, long_lines: LongLines) -> Followed {
    let certificates = Certificates::new();
    let doppler = FakeDoppler::start(&certificates);
    let agent = Agent::start(&certificates, &[doppler.addr], |config| {
        config.inputs = inputs;
        config.lines.max_line = max_line;
        config.lines.long_lines = long_lines;
    })
    .await;
    Followed {
        _certificates: certificates,
        doppler,
        agent,
    }
}

#[tokio::test]
async fn from_the_start_or_from_the_end_with_all_labels() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old.log"), dir.path().join("new.log"));
    append(&old, b"one\ntwo\n");
    append(&new, b"not this\n");
    let mut end = input(&new, From::End);
    end.source_id = "new".to_owned();
    let f = follow(vec![input(&old, From::Start), end], 1000, LongLines::Split).await;
    append(&new, b"but this\n");
    until("both arrive", || f.doppler.count() == 3).await;
    assert_eq!(
        (f.doppler.lines("dpkg"), f.doppler.lines("new")),
        (vec!["one".into(), "two".into()], vec!["but this".into()])
    );
    let received = f.doppler.received.lock().clone();
    let first = received.iter().find(|e| e.source_id == "dpkg").unwrap();
    assert_eq!(
        (
            first.instance_id.as_str(),
            first.tags["source_type"].as_str()
        ),
        ("0", "FILE")
    );
    assert_eq!(first.tags["team"], "blue");
    let times: Vec<i64> = received
        .iter()
        .filter(|e| e.source_id == "dpkg")
        .map(|e| e.timestamp)
        .collect();
    assert!(times[0] < times[1], "sorting by time keeps the order");
}

#[tokio::test]
async fn a_line_is_sent_when_it_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    append(&path, b"");
    let f = follow(vec![input(&path, From::Start)], 1000, LongLines::Split).await;
    append(&path, b"first\nhalf ");
    until("the first arrives", || f.doppler.count() == 1).await;
    append(&path, b"and half\n");
    until("the second arrives", || f.doppler.count() == 2).await;
    append(&path, b"\xff\xfe not UTF-8\r\n\n\nunfinished");
    until("the third arrives", || f.doppler.count() == 3).await;
    f.agent.stop().await;
    assert_eq!(
        f.doppler.lines("dpkg"),
        [
            "first",
            "half and half",
            "\u{fffd}\u{fffd} not UTF-8",
            "unfinished"
        ]
    );
    assert_eq!(f.agent.ledger(), (4, 4, 0, 0));
}

#[tokio::test]
async fn rotation_by_rename_loses_nothing_even_from_a_slow_writer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let mut writer = File::create(&path).unwrap();
    writeln!(writer, "0").unwrap();
    let f = follow(vec![input(&path, From::Start)], 1000, LongLines::Split).await;
    for round in 0..3 {
        let from = round * 3 + 1;
        rename(&path, dir.path().join(format!("a.log.{round}"))).unwrap();
        writeln!(writer, "{from}").unwrap(); // it has not noticed yet
        until("its line arrives", || f.doppler.count() > from).await;
        write!(writer, "{}", from + 1).unwrap(); // without a line feed
        writer = File::create(&path).unwrap();
        writeln!(writer, "{}", from + 2).unwrap();
        until("the next file is read", || f.doppler.count() > from + 2).await;
    }
    assert_eq!(
        f.doppler.lines("dpkg"),
        (0..10).map(|n| n.to_string()).collect::<Vec<_>>()
    );
    f.agent.stop().await;
}

#[tokio::test]
async fn rotation_by_truncation_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    append(&path, b"a long first line\nand half a");
    let f = follow(vec![input(&path, From::Start)], 1000, LongLines::Split).await;
    until("the first arrives", || f.doppler.count() == 1).await;
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(0)
        .unwrap();
    until("the half line is given up", || f.doppler.count() == 2).await;
    append(&path, b"new\n");
    until("the new one arrives", || f.doppler.count() == 3).await;
    assert_eq!(
        f.doppler.lines("dpkg"),
        ["a long first line", "and half a", "new"]
    );
    f.agent.stop().await;
}

#[tokio::test]
async fn a_file_may_come_later_and_is_then_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("later.log");
    let f = follow(vec![input(&path, From::End)], 1000, LongLines::Split).await;
    append(&path, b"whole\n");
    until("it arrives", || f.doppler.lines("dpkg") == ["whole"]).await;
    f.agent.stop().await;
}

#[tokio::test]
async fn long_lines_are_split_or_truncated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    append(&path, b"12345678901\nshort\n");
    for (long_lines, expected) in [
        (LongLines::Split, vec!["12345", "67890", "1", "short"]),
        (LongLines::Truncate, vec!["12345", "short"]),
    ] {
        let f = follow(vec![input(&path, From::Start)], 5, long_lines).await;
        until("they arrive", || f.doppler.lines("dpkg") == expected).await;
        f.agent.stop().await;
    }
}

#[tokio::test]
async fn files_wait_for_a_doppler_instead_of_losing_lines() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("big.log");
    let text: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    append(&path, text.as_bytes());
    let certificates = Certificates::new();
    let mut doppler = FakeDoppler::start(&certificates);
    doppler.kill();
    let agent = Agent::start(&certificates, &[doppler.addr], |config| {
        config.inputs = vec![input(&path, From::Start)];
        config.buffer_bytes = 512 * 1024;
    })
    .await;
    until("the buffer is half full", || agent.ledger().3 > 1000).await;
    let back = FakeDoppler::at(doppler.addr, &certificates);
    until("all arrive", || back.count() == 20_000).await;
    assert_eq!(back.lines("dpkg"), text.lines().collect::<Vec<_>>());
    assert!(
        tokio::time::timeout(PATIENCE, agent.stop())
            .await
            .unwrap()
            .finished()
    );
    assert_eq!(agent.ledger(), (20_000, 20_000, 0, 0));
}
